//! What an accepted connection passes before HTTP: whose it is, whether there is a place for it, and
//! TLS. Whoever has no place costs no handshake.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use ipnet::IpNet;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use super::KEEP_ALIVE;
use super::exchange::Exchange;
use super::places::{Bounds, Full, Place, Places};
use super::proxy::{self, HeaderError};
use super::stream::{Connection, Stream};
use crate::config::{Config, ListenerConfig};
use crate::guard::Subject;

/// One process's entrance.
pub(super) struct Entrance {
    config: ListenerConfig,
    proxies: Vec<IpNet>,
    whitelist: Vec<IpNet>,
    places: Arc<Places>,
    tls: Option<TlsAcceptor>,
}

/// Why a connection ends before HTTP.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("there are too many connections")]
    NoPlace,
    #[error("its address has too many connections")]
    NoPlaceForAddress,
    #[error("it does not come from a proxy")]
    NoProxy,
    #[error(transparent)]
    Header(HeaderError),
    #[error("the handshake took too long")]
    Slow,
    #[error("the handshake failed")]
    Handshake(#[source] io::Error),
    #[error("the server stops")]
    Stopping,
    #[error("it was gone")]
    Gone(#[source] io::Error),
}

impl Entrance {
    /// `places` connections may be open at once.
    pub(super) fn new(config: &Config, places: usize, tls: Option<ServerConfig>) -> Self {
        Self {
            proxies: config.http.trusted_proxies.clone(),
            whitelist: config.guard.whitelist.clone(),
            places: Places::new(Bounds {
                all: places,
                each: config.listener.connections_per_address,
            }),
            config: config.listener.clone(),
            tls: tls.map(|config| TlsAcceptor::from(Arc::new(config))),
        }
    }

    /// The stream that HTTP is spoken over, and the client's address.
    pub(super) async fn admit(&self, mut tcp: TcpStream) -> Result<(Stream, SocketAddr), Refusal> {
        let mut place = self.places.take().map_err(|Full| Refusal::NoPlace)?;
        let peer = tcp.peer_addr().map_err(Refusal::Gone)?;
        let (client, early) = self.client(&mut tcp, peer).await?;
        if !self.may_have_many(client.ip()) {
            let claimed = place.claim(Subject::of(client.ip()));
            claimed.map_err(|Full| Refusal::NoPlaceForAddress)?;
        }
        Ok((self.stream(tcp, early, place).await?, client))
    }

    /// Who the proxy says that it is, where one has to say so; and what came already of the rest.
    async fn client(
        &self,
        tcp: &mut TcpStream,
        peer: SocketAddr,
    ) -> Result<(SocketAddr, Bytes), Refusal> {
        if !self.config.proxy_protocol {
            return Ok((peer, Bytes::new()));
        }
        if !contains(&self.proxies, peer.ip()) {
            return Err(Refusal::NoProxy);
        }
        let header = timeout(self.config.head_timeout, proxy::read(tcp)).await;
        let header = header.map_err(|_| Refusal::Slow)?;
        let (client, early) = header.map_err(Refusal::Header)?;
        Ok((client.unwrap_or(peer), early))
    }

    /// A proxy has those of its clients; the whitelist is not limited in anything.
    fn may_have_many(&self, client: IpAddr) -> bool {
        contains(&self.proxies, client) || contains(&self.whitelist, client)
    }

    async fn stream(&self, tcp: TcpStream, early: Bytes, place: Place) -> Result<Stream, Refusal> {
        let exchange = Exchange::new(self.config.head_timeout, KEEP_ALIVE, Instant::now());
        let connection = Connection::new(tcp, early, place, exchange, self.config.send_timeout);
        let Some(tls) = &self.tls else {
            return Ok(Stream::Plain(connection));
        };
        let shaken = timeout(self.config.head_timeout, tls.accept(connection)).await;
        let shaken = shaken.map_err(|_| Refusal::Slow)?;
        let stream = Stream::Tls(Box::new(shaken.map_err(Refusal::Handshake)?));
        stream.exchange().restart(Instant::now());
        Ok(stream)
    }
}

impl Refusal {
    /// The name of its series.
    pub(super) const fn why(&self) -> &'static str {
        match self {
            Self::NoPlace => "full",
            Self::NoPlaceForAddress => "address",
            Self::NoProxy => "no_proxy",
            Self::Header(_) => "proxy_header",
            Self::Slow => "slow_handshake",
            Self::Handshake(_) => "handshake",
            Self::Stopping => "stopping",
            Self::Gone(_) => "gone",
        }
    }
}

fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}
