//! The one task of a simulated node.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use futures_util::{SinkExt, StreamExt};
use shared::ids::PeerId;
use shared::protocol::counters::CountersFrame;
use shared::protocol::{
    AgentMessage, Apply, FailureReason, Hello, Load, PlaneMessage, SESSION_PATH, SnapshotPart,
};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep, sleep_until};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::{Answer, Command, Node, Reports, SessionView, State};

const REDIAL: Duration = Duration::from_millis(25);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(super) fn unix_now() -> u64 {
    u64::try_from(Utc::now().timestamp()).unwrap_or_default()
}

/// Dials until it is refused for good.
pub(super) async fn run(node: Arc<Node>, mut commands: mpsc::Receiver<Command>) {
    while node.state().redial {
        match dial(&node).await {
            Ok(socket) => {
                let mut session = Session {
                    node: &node,
                    socket,
                    late: VecDeque::new(),
                    frozen: false,
                };
                // Whatever ended it, the plane's view of the session is gone.
                let _ = session.run(&mut commands).await;
                node.state().session.online = false;
            }
            Err(Error::Http(response)) => {
                node.state().session.dial_status = Some(response.status().as_u16());
            }
            Err(_) => {}
        }
        sleep(REDIAL).await;
    }
}

async fn dial(node: &Node) -> Result<Socket, Error> {
    let url = format!("{}{SESSION_PATH}", node.plane.replacen("http", "ws", 1));
    let mut request = url.into_client_request()?;
    let token = node.token.lock().expect("no holder panics").token.clone();
    let header = format!("Bearer {token}").parse().expect("a header value");
    request.headers_mut().insert("authorization", header);
    let (socket, _) = connect_async_with_config(request, None, true).await?;
    Ok(socket)
}

struct Session<'a> {
    node: &'a Node,
    socket: Socket,
    /// Answers that wait for their time, in order.
    late: VecDeque<(Instant, AgentMessage)>,
    frozen: bool,
}

/// The session is over.
struct Over;

impl From<Error> for Over {
    fn from(_: Error) -> Self {
        Self
    }
}

impl Session<'_> {
    async fn run(&mut self, commands: &mut mpsc::Receiver<Command>) -> Result<(), Over> {
        let hello = AgentMessage::Hello(hello(self.node));
        self.say(hello).await?;
        let mut reports = interval(Duration::from_secs(1));
        reports.reset();
        loop {
            let due = self.late.front().map(|(at, _)| *at);
            tokio::select! {
                frame = self.socket.next(), if !self.frozen => match frame {
                    Some(frame) => self.hear(frame?, &mut reports).await?,
                    None => return Ok(()),
                },
                command = commands.recv() => match command {
                    Some(command) => self.obey(command).await?,
                    None => return Ok(()),
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() && !self.frozen => {
                    if let Some((_, answer)) = self.late.pop_front() {
                        self.say(answer).await?;
                    }
                }
                _ = reports.tick(), if !self.frozen => self.report().await?,
            }
        }
    }

    async fn hear(
        &mut self,
        frame: Message,
        reports: &mut tokio::time::Interval,
    ) -> Result<(), Over> {
        match frame {
            Message::Text(text) => {
                let message = PlaneMessage::decode(&text).expect("the plane speaks the protocol");
                self.understand(message, reports).await
            }
            Message::Ping(_) => {
                // The pong leaves with the next read.
                let latency = self.node.state().latency;
                sleep(latency).await;
                Ok(())
            }
            Message::Close(close) => {
                self.node.state().session.close_code = close.map(|close| close.code.into());
                // Says goodbye in turn.
                self.socket.flush().await?;
                Err(Over)
            }
            _ => Ok(()),
        }
    }

    async fn understand(
        &mut self,
        message: PlaneMessage,
        reports: &mut tokio::time::Interval,
    ) -> Result<(), Over> {
        match message {
            PlaneMessage::Welcome(welcome) => {
                let every = Duration::from_millis(welcome.report_interval_ms.max(10).into());
                *reports = interval(every);
                let mut state = self.node.state();
                state.peers.report_all_again();
                state.session = SessionView {
                    welcomed: state.session.welcomed + 1,
                    online: true,
                    welcome: Some(welcome),
                    ..SessionView::default()
                };
            }
            PlaneMessage::Refused(refused) => {
                let mut state = self.node.state();
                state.session.refused = Some(refused);
                state.redial = false;
            }
            PlaneMessage::Apply(apply) => self.apply(apply).await?,
            PlaneMessage::Snapshot(part) => self.snapshot(part).await?,
            PlaneMessage::Token(token) => {
                *self.node.token.lock().expect("no holder panics") = token;
            }
            PlaneMessage::Settings(settings) => {
                self.node.state().session.settings = Some(settings);
            }
            PlaneMessage::Watch(watch) => self.node.state().session.watched = watch.peers,
            PlaneMessage::Unknown => {}
        }
        Ok(())
    }

    async fn apply(&mut self, apply: Apply) -> Result<(), Over> {
        let began = Instant::now();
        let (mut applied, answer) = {
            let mut state = self.node.state();
            state.session.changes_received += count(apply.changes.len());
            let answer = state.answer;
            (state.peers.apply(apply, failure(answer)), answer)
        };
        if let Some(applied) = &mut applied {
            let spent = began.elapsed().as_micros();
            applied.timings.total_us = u64::try_from(spent).unwrap_or(u64::MAX);
        }
        self.report_ahead().await?;
        let message = applied.map_or(AgentMessage::Resync, AgentMessage::Applied);
        self.answer(message, answer).await
    }

    async fn snapshot(&mut self, part: SnapshotPart) -> Result<(), Over> {
        let (applied, answer) = {
            let mut state = self.node.state();
            state.session.changes_received += count(part.peers.len());
            let answer = state.answer;
            (state.peers.snapshot(part, failure(answer)), answer)
        };
        self.report_ahead().await?;
        match applied {
            Some(applied) => self.answer(AgentMessage::Applied(applied), answer).await,
            None => Ok(()),
        }
    }

    async fn answer(&mut self, message: AgentMessage, answer: Answer) -> Result<(), Over> {
        match answer {
            Answer::Promptly | Answer::Fail(_) => self.say(message).await,
            Answer::Never => Ok(()),
            Answer::After(delay) => {
                self.late.push_back((Instant::now() + delay, message));
                Ok(())
            }
            Answer::HangUpOnce => {
                self.node.state().answer = Answer::Promptly;
                Err(Over)
            }
        }
    }

    async fn obey(&mut self, command: Command) -> Result<(), Over> {
        match command {
            Command::Send(frame) => self.socket.send(frame).await?,
            Command::HangUp => return Err(Over),
            Command::Report(done) => {
                self.report().await?;
                // Whoever asked may have gone.
                let _ = done.send(());
            }
            Command::Freeze => self.frozen = true,
        }
        Ok(())
    }

    /// What has to be said before any change is acknowledged: generations that ended, because a removal's
    /// counters would shut them out, and what was used of quotas, because a lowered allowance gives back
    /// only what was not used.
    async fn report_ahead(&mut self) -> Result<(), Over> {
        let frames = {
            let mut state = self.node.state();
            let now = unix_now();
            let mut frames = state.peers.take_ended(now);
            if state.peers.has_consumed() {
                frames.extend(state.peers.take_counters(now));
            }
            frames
        };
        for frame in frames {
            self.socket.send(Message::binary(frame.encode())).await?;
        }
        Ok(())
    }

    /// Counters first: a frame that is lost comes back with the next, a load does not matter.
    async fn report(&mut self) -> Result<(), Over> {
        let (counters, load) = {
            let mut state = self.node.state();
            if !state.session.online {
                return Ok(());
            }
            let load = Load {
                peers: u32::try_from(state.peers.all().count()).unwrap_or(u32::MAX),
                pool_used: state.peers.pool_used(),
                capacity: self.node.config.capacity,
                draining: state.load.draining || self.node.config.draining,
                ..state.load.clone()
            };
            (frames(&mut state), load)
        };
        for frame in counters {
            self.socket.send(Message::binary(frame)).await?;
        }
        self.say(AgentMessage::Load(load)).await
    }

    async fn say(&mut self, message: AgentMessage) -> Result<(), Over> {
        self.socket.send(Message::text(message.encode())).await?;
        Ok(())
    }
}

/// The counters to be sent now.
fn frames(state: &mut State) -> Vec<Vec<u8>> {
    if state.reports == Reports::Held {
        return Vec::new();
    }
    let now = unix_now();
    let ended = state.peers.take_ended(now);
    let mut frames: Vec<_> = ended.iter().map(CountersFrame::encode).collect();
    if let Some(frame) = state.peers.take_counters(now) {
        let frame = frame.encode();
        let before = state.last_frame.replace(frame.clone());
        frames.push(frame);
        frames.extend(before.filter(|_| state.reports == Reports::Repeated));
    }
    frames
}

pub(super) fn hello(node: &Node) -> Hello {
    let config = &node.config;
    let mut state = node.state();
    let mut state_hash = state.peers.hash();
    if std::mem::take(&mut state.forged_hash) {
        state_hash.add(PeerId(u64::MAX), &config.public_key);
    }
    Hello {
        protocol: config.protocol,
        min_protocol: config.min_protocol,
        agent_version: "0.0.0-sim".to_owned(),
        boot_id: node.boot,
        interface_epoch: node.boot,
        applied_revision: state.peers.revision(),
        state_hash,
        public_key: config.public_key,
        endpoint: config.endpoint.clone(),
        subnet: config.subnet,
        subnet_v6: config.subnet_v6,
        capacity: config.capacity,
        backend: "simulated".to_owned(),
        draining: config.draining,
        next_key: state.next_key,
    }
}

fn failure(answer: Answer) -> Option<FailureReason> {
    match answer {
        Answer::Fail(reason) => Some(reason),
        _ => None,
    }
}

fn count(changes: usize) -> u64 {
    u64::try_from(changes).unwrap_or(u64::MAX)
}
