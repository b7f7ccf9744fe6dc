//! A plane of a few lines: accepts sessions, sends what it is told, and hands on what it hears.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use chrono::Utc;
use futures_util::{SinkExt, StreamExt};
use shared::ids::{Revision, SessionId};
use shared::protocol::counters::CountersFrame;
use shared::protocol::{
    AgentMessage, Applied, Hello, MAX_PEERS_PER_MESSAGE, PROTOCOL_VERSION, Peer, PlaneMessage,
    Resume, SnapshotPart, Timings, Welcome,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

/// Longest wait for the agent, which works under emulation too.
const PATIENCE: Duration = Duration::from_secs(120);
/// The agent takes a plane that says nothing for lost.
const PING_EVERY: Duration = Duration::from_secs(3);

/// Listens on the loopback.
#[derive(Debug)]
pub struct Plane {
    listener: TcpListener,
}

/// What the agent said, as far as it matters here.
#[derive(Debug)]
pub enum Heard {
    Applied(Applied),
    Counters(CountersFrame),
}

/// One session with the agent.
#[derive(Debug)]
pub struct Session {
    pub hello: Hello,
    say: mpsc::Sender<Message>,
    heard: mpsc::Receiver<Heard>,
}

impl Plane {
    pub async fn listen() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        Ok(Self { listener })
    }

    pub fn url(&self) -> anyhow::Result<String> {
        Ok(format!("http://{}", self.listener.local_addr()?))
    }

    /// Waits for the agent and welcomes it. A snapshot follows, or changes from where it stands. Dials
    /// of agents that ended meanwhile wait in the queue before it, and are passed over.
    pub async fn accept(&self, resume: Resume) -> anyhow::Result<Session> {
        let (mut socket, hello) = loop {
            let accepted = timeout(PATIENCE, self.listener.accept()).await;
            let (stream, _) = accepted.context("the agent did not come")??;
            stream.set_nodelay(true)?;
            if let Ok(greeted) = greet(stream).await {
                break greeted;
            }
        };
        let welcome = PlaneMessage::Welcome(Welcome {
            session: SessionId::generate(),
            protocol: PROTOCOL_VERSION,
            resume,
            revision: hello.applied_revision,
            report_interval_ms: 1000,
            server_time: Utc::now(),
        });
        socket.send(Message::text(welcome.encode())).await?;
        let (say, words) = mpsc::channel(64);
        let (hear, heard) = mpsc::channel(1024);
        tokio::spawn(talk(socket, words, hear));
        Ok(Session { hello, say, heard })
    }
}

async fn greet(stream: TcpStream) -> anyhow::Result<(WebSocketStream<TcpStream>, Hello)> {
    let mut socket = accept_async(stream).await?;
    loop {
        let frame = timeout(PATIENCE, socket.next()).await?;
        match frame.context("the agent left")?? {
            Message::Text(text) => match AgentMessage::decode(&text)? {
                AgentMessage::Hello(hello) => return Ok((socket, hello)),
                other => bail!("no hello: {other:?}"),
            },
            Message::Close(_) => bail!("the agent closed"),
            _ => {}
        }
    }
}

async fn talk(
    mut socket: WebSocketStream<TcpStream>,
    mut words: mpsc::Receiver<Message>,
    hear: mpsc::Sender<Heard>,
) -> anyhow::Result<()> {
    let mut pings = interval(PING_EVERY);
    loop {
        tokio::select! {
            word = words.recv() => socket.send(word.context("the session is over")?).await?,
            _ = pings.tick() => socket.send(Message::Ping(Vec::new().into())).await?,
            frame = socket.next() => {
                let heard = match frame.context("the agent left")?? {
                    Message::Text(text) => match AgentMessage::decode(&text)? {
                        AgentMessage::Applied(applied) => Some(Heard::Applied(applied)),
                        _ => None,
                    },
                    Message::Binary(bytes) => Some(Heard::Counters(CountersFrame::decode(&bytes)?)),
                    _ => None,
                };
                if let Some(heard) = heard {
                    hear.send(heard).await?;
                }
            }
        }
    }
}

impl Session {
    pub async fn say(&self, message: String) -> anyhow::Result<()> {
        Ok(self.say.send(Message::text(message)).await?)
    }

    /// The next acknowledgement.
    pub async fn applied(&mut self) -> anyhow::Result<Applied> {
        loop {
            let heard = timeout(PATIENCE, self.heard.recv()).await;
            match heard
                .context("no acknowledgement")?
                .context("the agent left")?
            {
                Heard::Applied(applied) => return Ok(applied),
                Heard::Counters(_) => {}
            }
        }
    }

    /// Sends a snapshot that is encoded already; from its first part to its last acknowledgement.
    pub async fn sync(
        &mut self,
        parts: &[String],
        peers: usize,
    ) -> anyhow::Result<(Duration, Timings)> {
        let began = Instant::now();
        for part in parts {
            self.say(part.clone()).await?;
        }
        let mut timings = Timings::default();
        let mut acknowledged = 0;
        while acknowledged < peers {
            let applied = self.applied().await?;
            acknowledged += applied.results.len();
            timings = applied.timings;
        }
        Ok((began.elapsed(), timings))
    }
}

/// The peers as the messages of a snapshot.
#[must_use]
pub fn snapshot(revision: u64, peers: &[Peer]) -> Vec<String> {
    let parts = peers.chunks(MAX_PEERS_PER_MESSAGE);
    let last = parts.len();
    let messages = parts
        .zip(0_u32..)
        .zip(1_usize..)
        .map(|((peers, part), nth)| {
            let part = SnapshotPart {
                revision: Revision(revision),
                part,
                last: nth == last,
                peers: peers.to_vec(),
            };
            PlaneMessage::Snapshot(part).encode()
        });
    messages.collect()
}
