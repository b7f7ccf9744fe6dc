//! One node: a socket, a table of counters, and a clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, bail, ensure};
use chrono::Utc;
use futures_util::{SinkExt, StreamExt};
use shared::ids::{PeerId, Revision, ServerId};
use shared::protocol::{
    AgentMessage, Applied, Apply, Change, Load, Outcome, Peer, PeerCounters, PeerResult,
    PlaneMessage, SESSION_PATH, StateHash, Timings,
};
use shared::wireguard::PublicKey;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::population::addresses;
use super::traffic::Traffic;
use super::{SECOND, Schedule};
use crate::SimNode;
use crate::bench::Samples;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What all nodes are told.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// Apply what the plane says, and say nothing.
    Listen,
    /// Report as well, as long as the schedule goes.
    Report(Schedule),
    /// Hang up.
    End,
}

/// A node whose session is open.
#[derive(Debug)]
pub struct FleetNode {
    number: u32,
    server: ServerId,
    socket: Socket,
    traffic: Traffic,
    keys: HashMap<PeerId, PublicKey>,
    hash: StateHash,
    revision: Revision,
    /// Seconds that were reported, and of those what the plane did not answer yet.
    reported: u32,
    unanswered: u32,
    pace: Pace,
}

/// What a node saw of the plane's pace in the seconds that are measured.
#[derive(Debug, Default)]
pub struct Pace {
    /// From when a frame was due until the plane had it: the answer to a ping that follows the frame on the same
    /// socket, which the plane gives after what it counted can be read.
    pub lags: Samples,
    /// Frames that were with the plane before the next was due.
    pub in_time: usize,
}

impl Pace {
    pub fn extend(&mut self, other: Self) {
        self.lags.extend(other.lags);
        self.in_time += other.in_time;
    }
}

/// What is left of a node.
#[derive(Debug)]
pub struct NodeReport {
    pub server: ServerId,
    pub totals: Vec<(PeerId, PeerCounters)>,
    pub pace: Pace,
}

impl FleetNode {
    /// Opens the session of a node that has its identity. It holds no peer yet.
    pub async fn dial(plane: &str, number: u32, node: &SimNode) -> anyhow::Result<Self> {
        let url = format!("{}{SESSION_PATH}", plane.replacen("http", "ws", 1));
        let mut request = url.into_client_request()?;
        let header = format!("Bearer {}", node.token().token).parse()?;
        request.headers_mut().insert("authorization", header);
        let (mut socket, _) = connect_async_with_config(request, None, true).await?;
        let hello = node.hello().encode();
        socket.send(Message::text(hello)).await?;
        Ok(Self {
            number,
            server: node.server(),
            socket,
            traffic: Traffic::default(),
            keys: HashMap::new(),
            hash: StateHash::default(),
            revision: Revision(0),
            reported: 0,
            unanswered: 0,
            pace: Pace::default(),
        })
    }

    /// Obeys until the end. `peers` is the number of peers on all nodes.
    pub async fn run(
        mut self,
        mut orders: watch::Receiver<Order>,
        peers: Arc<AtomicUsize>,
    ) -> anyhow::Result<NodeReport> {
        loop {
            let order = *orders.borrow_and_update();
            let due = match order {
                Order::Listen => None,
                Order::Report(schedule) => (self.reported < schedule.seconds())
                    .then(|| schedule.due(self.number, self.reported)),
                Order::End => break,
            };
            tokio::select! {
                frame = self.socket.next() => {
                    let frame = frame.context("the plane hung up")??;
                    let before = self.traffic.len();
                    self.hear(frame, order).await?;
                    peers.fetch_add(self.traffic.len(), Ordering::Relaxed);
                    peers.fetch_sub(before, Ordering::Relaxed);
                }
                changed = orders.changed() => changed?,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.report().await?;
                }
            }
        }
        ensure!(
            self.unanswered == 0,
            "{} frames were not answered",
            self.unanswered
        );
        Ok(NodeReport {
            server: self.server,
            totals: self.traffic.into_totals(),
            pace: self.pace,
        })
    }

    /// Counters, a ping behind them, and the load.
    async fn report(&mut self) -> anyhow::Result<()> {
        let now = u64::try_from(Utc::now().timestamp())?;
        let second = self.reported;
        self.reported += 1;
        self.unanswered += 1;
        let counters = self.traffic.tick(now);
        self.socket.feed(Message::binary(counters)).await?;
        let mark = second.to_be_bytes().to_vec();
        self.socket.send(Message::Ping(mark.into())).await?;
        self.say(&AgentMessage::Load(self.load(second))).await
    }

    /// Moves, so that clients are sent to one node now and to another then.
    fn load(&self, second: u32) -> Load {
        let peers = u32::try_from(self.traffic.len()).unwrap_or(u32::MAX);
        let load = f64::from((self.number * 37 + second * 101) % 997) / 10.0;
        Load {
            current_load: load,
            cpu: load / 100.0,
            peers,
            pool_used: peers,
            capacity: 60_000,
            ..Load::default()
        }
    }

    async fn hear(&mut self, frame: Message, order: Order) -> anyhow::Result<()> {
        match frame {
            Message::Text(text) => match PlaneMessage::decode(&text)? {
                PlaneMessage::Snapshot(_) => bail!("a snapshot, where changes lead from nothing"),
                PlaneMessage::Apply(apply) => self.apply(apply).await,
                PlaneMessage::Refused(refused) => bail!("refused: {}", refused.message),
                _ => Ok(()),
            },
            Message::Pong(mark) => self.answered(&mark, order),
            Message::Close(close) => bail!("the plane closed the session: {close:?}"),
            _ => Ok(()),
        }
    }

    fn answered(&mut self, mark: &[u8], order: Order) -> anyhow::Result<()> {
        let second = u32::from_be_bytes(mark.try_into()?);
        self.unanswered -= 1;
        let Order::Report(schedule) = order else {
            bail!("an answer without a question");
        };
        if is_measured(order, second) {
            let lag = schedule.due(self.number, second).elapsed();
            self.pace.in_time += usize::from(lag < SECOND);
            self.pace.lags.push(lag);
        }
        Ok(())
    }

    async fn apply(&mut self, apply: Apply) -> anyhow::Result<()> {
        ensure!(
            apply.from == self.revision,
            "changes from {} at {}",
            apply.from,
            self.revision
        );
        let mut results = Vec::with_capacity(apply.changes.len());
        for change in &apply.changes {
            match change {
                Change::Upsert(peer) => results.push(self.upsert(peer)?),
                Change::Remove { peer } => results.push(self.remove(*peer)),
                Change::Unknown => {}
            }
        }
        self.revision = apply.to;
        self.acknowledge(results).await
    }

    async fn acknowledge(&mut self, results: Vec<PeerResult>) -> anyhow::Result<()> {
        let applied = Applied {
            revision: self.revision,
            state_hash: self.hash,
            results,
            timings: Timings::default(),
        };
        self.say(&AgentMessage::Applied(applied)).await
    }

    fn upsert(&mut self, peer: &Peer) -> anyhow::Result<PeerResult> {
        if self.keys.insert(peer.peer, peer.public_key).is_none() {
            self.hash.add(peer.peer, &peer.public_key);
        }
        ensure!(self.traffic.add(peer.peer), "more peers than a frame holds");
        let addresses = peer.addresses.unwrap_or_else(|| addresses(peer.peer));
        Ok(PeerResult {
            peer: peer.peer,
            outcome: Outcome::Active { addresses },
        })
    }

    fn remove(&mut self, peer: PeerId) -> PeerResult {
        if let Some(key) = self.keys.remove(&peer) {
            self.hash.remove(peer, &key);
        }
        let counters = self.traffic.remove(peer);
        PeerResult {
            peer,
            outcome: Outcome::Removed { counters },
        }
    }

    async fn say(&mut self, message: &AgentMessage) -> anyhow::Result<()> {
        Ok(self.socket.send(Message::text(message.encode())).await?)
    }
}

fn is_measured(order: Order, second: u32) -> bool {
    matches!(order, Order::Report(schedule) if second >= schedule.warm_up)
}
