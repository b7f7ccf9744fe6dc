//! One session, from dialling to its end.

use std::time::{Duration, Instant};

use chrono::Utc;
use futures_util::{SinkExt, StreamExt};
use shared::protocol::{
    AgentMessage, DecodeError, Hello, MAX_FRAME_BYTES, MIN_PROTOCOL_VERSION, NodeToken,
    PROTOCOL_VERSION, PlaneMessage, Refused, RefusedReason, RoundTrips, SESSION_PATH, Welcome,
    close,
};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::snapshot::{Assembler, SnapshotError};
use super::{Link, Retry, causes};
use crate::ledger::Identity;
use crate::reconcile::{Desired, NodeGone, Outgoing, Report, Standing};

/// To reach the plane, and to pass one frame to it.
const PATIENCE: Duration = Duration::from_secs(10);
/// For the last report, when the agent stops.
const FAREWELL: Duration = Duration::from_secs(2);
/// Answers that wait for the socket at most.
const OUTBOX: usize = 256;
/// Between two requests for a new token.
const RENEW_EVERY: Duration = Duration::from_secs(60);

/// Why a session ended, or did not begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the agent stops")]
    Stopped,
    #[error("the plane cannot be reached: {0}")]
    Unreachable(String),
    #[error("the plane does not accept this node's token; enrol again with `node-agent enroll`")]
    Unauthorized,
    #[error("the plane refused the session: {0}")]
    Refused(String),
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("the plane closed the session ({code}{})", reason_text(.reason))]
    Closed { code: u16, reason: String },
    #[error("the plane fell silent")]
    Silent,
    #[error("the plane sent what is not the protocol: {0}")]
    Garbage(String),
    #[error("answers could not be sent as fast as they came")]
    Overrun,
    #[error("the interface has a new key, which the next session tells")]
    KeyChanged,
}

fn reason_text(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    }
}

impl End {
    pub(super) fn retry(&self) -> Retry {
        match self {
            Self::Closed { code, .. } => match *code {
                close::RESTARTING => Retry::Restarting,
                close::UNAUTHORIZED | close::UNSUPPORTED_PROTOCOL | close::REPLACED => {
                    Retry::Refused
                }
                _ => Retry::Lost,
            },
            Self::Unauthorized | Self::Refused(_) => Retry::Refused,
            Self::KeyChanged => Retry::Restarting,
            _ => Retry::Lost,
        }
    }
}

impl From<NodeGone> for End {
    fn from(_: NodeGone) -> Self {
        Self::Stopped
    }
}

impl From<DecodeError> for End {
    fn from(error: DecodeError) -> Self {
        Self::Garbage(error.to_string())
    }
}

impl From<SnapshotError> for End {
    fn from(error: SnapshotError) -> Self {
        Self::Garbage(error.to_string())
    }
}

impl From<tungstenite::Error> for End {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Capacity(_)
            | tungstenite::Error::Utf8(_)
            | tungstenite::Error::Protocol(_) => Self::Garbage(error.to_string()),
            other => Self::Broken(causes(&other)),
        }
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

struct Session<'a> {
    link: &'a mut Link,
    socket: Socket,
    parts: Assembler,
    welcome: Option<Welcome>,
    /// When to ask for a new token.
    renew_at: Instant,
}

/// One attempt. Returns when the session is over.
pub(super) async fn run(link: &mut Link, stop: &CancellationToken) -> End {
    let socket = tokio::select! {
        () = stop.cancelled() => return End::Stopped,
        socket = dial(link) => match socket {
            Ok(socket) => socket,
            Err(end) => return end,
        },
    };
    let (outbox, answers) = mpsc::channel(OUTBOX);
    let Ok(standing) = link.node.attach(outbox).await else {
        return End::Stopped;
    };
    let mut session = Session {
        renew_at: renewal(&link.identity),
        parts: Assembler::new(usize::try_from(standing.capacity).unwrap_or(usize::MAX)),
        link,
        socket,
        welcome: None,
    };
    let end = match session.talk(standing, answers, stop).await {
        Ok(()) => End::Stopped,
        Err(end) => end,
    };
    session.close(&end).await;
    end
}

async fn dial(link: &Link) -> Result<Socket, End> {
    let url = link.config.plane.websocket(SESSION_PATH);
    let unreachable = |error: tungstenite::Error| End::Unreachable(causes(&error));
    let mut request = url.into_client_request().map_err(unreachable)?;
    let mut bearer = HeaderValue::from_str(&format!("Bearer {}", link.identity.token.token))
        .map_err(|_| End::Unauthorized)?;
    bearer.set_sensitive(true);
    request.headers_mut().insert(AUTHORIZATION, bearer);
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MAX_FRAME_BYTES))
        .max_frame_size(Some(MAX_FRAME_BYTES));
    let connector = Connector::Rustls(link.config.tls.clone());
    let connecting = connect_async_tls_with_config(request, Some(limits), true, Some(connector));
    match timeout(PATIENCE, Box::pin(connecting)).await {
        Err(_) => Err(End::Unreachable("no answer in time".to_owned())),
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(tungstenite::Error::Http(answer)))
            if matches!(
                answer.status(),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
            ) =>
        {
            Err(End::Unauthorized)
        }
        Ok(Err(error)) => Err(unreachable(error)),
    }
}

impl Session<'_> {
    async fn talk(
        &mut self,
        standing: Standing,
        mut answers: mpsc::Receiver<Outgoing>,
        stop: &CancellationToken,
    ) -> Result<(), End> {
        let hello = self.hello(standing);
        self.send(Message::text(AgentMessage::Hello(hello).encode()))
            .await?;
        let mut heard = Instant::now();
        let mut reports = interval(Duration::from_secs(1));
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let silence = self.link.config.silence.saturating_sub(heard.elapsed());
            tokio::select! {
                () = stop.cancelled() => return self.farewell(&mut answers).await,
                frame = self.socket.next() => {
                    let frame = frame.ok_or(End::Broken("end of stream".to_owned()))??;
                    heard = Instant::now();
                    let begins = self.welcome.is_none();
                    self.take(frame, heard).await?;
                    if let Some(welcome) = self.welcome.as_ref().filter(|_| begins) {
                        reports = interval(report_interval(welcome));
                        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    }
                }
                answer = answers.recv() => {
                    self.pass(answer.ok_or(End::Overrun)?).await?;
                }
                _ = reports.tick(), if self.welcome.is_some() => self.link.node.report().await?,
                () = sleep_until(self.renew_at.into()), if self.welcome.is_some() => {
                    self.renew_at = Instant::now() + RENEW_EVERY;
                    self.send(Message::text(AgentMessage::RenewToken.encode())).await?;
                }
                () = sleep(silence) => return Err(End::Silent),
            }
        }
    }

    fn hello(&self, standing: Standing) -> Hello {
        let config = &self.link.config;
        Hello {
            protocol: PROTOCOL_VERSION,
            min_protocol: MIN_PROTOCOL_VERSION,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: config.boot_id,
            interface_epoch: standing.interface_epoch,
            applied_revision: standing.applied,
            state_hash: standing.state_hash,
            public_key: standing.public_key,
            endpoint: config.endpoint.clone(),
            subnet: config.subnet,
            subnet_v6: config.subnet_v6,
            capacity: standing.capacity,
            backend: standing.backend.to_owned(),
            draining: standing.draining,
            next_key: standing.next_key,
        }
    }

    async fn take(&mut self, frame: Message, received: Instant) -> Result<(), End> {
        let text = match frame {
            Message::Text(text) => text,
            Message::Close(frame) => {
                let frame = frame.ok_or(End::Broken("closed without a reason".to_owned()))?;
                return Err(End::Closed {
                    code: frame.code.into(),
                    reason: frame.reason.to_string(),
                });
            }
            // Pings are answered by the library; binary frames belong to a later version.
            _ => return Ok(()),
        };
        match PlaneMessage::decode(&text)? {
            PlaneMessage::Welcome(welcome) => self.begin(welcome),
            PlaneMessage::Refused(refused) => Err(refusal(refused)),
            PlaneMessage::Unknown => Ok(()),
            _ if self.welcome.is_none() => Err(End::Garbage("no welcome came first".to_owned())),
            PlaneMessage::Snapshot(part) => {
                if let Some((revision, peers)) = self.parts.push(part)? {
                    self.link.desires(revision);
                    let snapshot = Desired::Snapshot { revision, peers };
                    self.link.node.desired(snapshot, received).await?;
                }
                Ok(())
            }
            PlaneMessage::Apply(apply) => {
                self.link.desires(apply.to);
                let apply = Desired::Apply(apply);
                self.link.node.desired(apply, received).await?;
                // The node first: a client waits for what it does, and nobody for what is next here.
                yield_now().await;
                Ok(())
            }
            PlaneMessage::Token(token) => self.keep(token).await,
            PlaneMessage::Settings(settings) => Ok(self.link.node.settings(settings).await?),
            PlaneMessage::Watch(watch) => Ok(self.link.node.watch(watch.peers).await?),
        }
    }

    fn begin(&mut self, welcome: Welcome) -> Result<(), End> {
        if !(MIN_PROTOCOL_VERSION..=PROTOCOL_VERSION).contains(&welcome.protocol) {
            return Err(End::Refused(format!(
                "it wants protocol {}, this agent speaks {MIN_PROTOCOL_VERSION} to {PROTOCOL_VERSION}",
                welcome.protocol
            )));
        }
        self.link.connected(welcome.session, welcome.revision);
        self.welcome = Some(welcome);
        Ok(())
    }

    /// On disk before it is used: a token that only memory knows is lost with the next restart.
    async fn keep(&mut self, token: NodeToken) -> Result<(), End> {
        let identity = Identity {
            token,
            received_at: Utc::now(),
            ..self.link.identity.clone()
        };
        let expires_at = identity.token.expires_at;
        self.link.node.keep_identity(identity.clone()).await?;
        self.renew_at = renewal(&identity);
        self.link.identity = identity;
        self.link
            .status
            .send_modify(|it| it.token_expires_at = expires_at);
        info!(event = "token_renewed", %expires_at);
        Ok(())
    }

    async fn pass(&mut self, answer: Outgoing) -> Result<(), End> {
        match answer {
            Outgoing::Message(message) => self.send(Message::text(message.encode())).await,
            Outgoing::Report(Report {
                counters,
                occupancy,
                watched,
            }) => {
                for frame in counters {
                    self.send(Message::binary(frame.encode())).await?;
                }
                let load = self.link.sampler.sample(Instant::now(), occupancy);
                self.send(Message::text(AgentMessage::Load(load).encode()))
                    .await?;
                let is_watching = watched.is_some();
                let peers = self.link.round(watched.unwrap_or_default());
                if !is_watching {
                    return Ok(());
                }
                let trips = AgentMessage::RoundTrips(RoundTrips { peers });
                self.send(Message::text(trips.encode())).await
            }
            Outgoing::KeyChanged => Err(End::KeyChanged),
        }
    }

    /// The last counters go out before the agent does.
    async fn farewell(&mut self, answers: &mut mpsc::Receiver<Outgoing>) -> Result<(), End> {
        if self.welcome.is_none() {
            return Ok(());
        }
        self.link.node.report().await?;
        let last = async {
            while let Some(answer) = answers.recv().await {
                let is_report = matches!(answer, Outgoing::Report(_));
                self.pass(answer).await?;
                if is_report {
                    break;
                }
            }
            Ok(())
        };
        timeout(FAREWELL, last).await.unwrap_or(Ok(()))
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        timeout(PATIENCE, self.socket.send(message))
            .await
            .map_err(|_| End::Silent)?
            .map_err(End::from)
    }

    /// Says why, if the other side still listens.
    async fn close(&mut self, end: &End) {
        let code = match end {
            End::Stopped => 1001,
            End::KeyChanged => 1000,
            End::Garbage(_) => close::BAD_FRAME,
            End::Silent | End::Overrun => close::TIMED_OUT,
            _ => return,
        };
        let frame = CloseFrame {
            code: code.into(),
            reason: "".into(),
        };
        let closing = self.socket.close(Some(frame));
        if !matches!(timeout(Duration::from_secs(1), closing).await, Ok(Ok(()))) {
            debug!(event = "close_not_sent");
        }
    }
}

/// Two thirds of the token's life after it was received.
fn renewal(identity: &Identity) -> Instant {
    let life = identity.token.expires_at - identity.received_at;
    let due = identity.received_at + life * 2 / 3;
    Instant::now() + (due - Utc::now()).to_std().unwrap_or_default()
}

fn refusal(refused: Refused) -> End {
    match refused.reason {
        RefusedReason::Unauthorized => End::Unauthorized,
        _ => End::Refused(refused.message),
    }
}

fn report_interval(welcome: &Welcome) -> Duration {
    Duration::from_millis(u64::from(welcome.report_interval_ms.clamp(50, 60_000)))
}
