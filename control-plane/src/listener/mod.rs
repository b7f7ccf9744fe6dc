//! The public listener: what the API's clients connect to, and what of theirs it does not put up with.
//!
//! What must hold: nobody holds a connection, a byte of memory or a descriptor for longer than they use
//! it. Whoever is slow with a handshake, a head, a body or with taking an answer is cut off; one address
//! has a bounded number of connections, and so have all. A WebSocket is a request whose answer is not
//! over, and stays; its connection is no longer HTTP's then.
//!
//! HTTP/1.1 alone is spoken. The HTTP/2 of `actix-http` has no bound for streams, resets and header
//! lists, so it is neither built nor offered; a proxy in front may speak it.

mod entrance;
mod exchange;
mod patience;
mod places;
mod proxy;
mod requests;
mod socket;
mod stream;
mod upgrade;
pub mod websocket;

use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::body::MessageBody;
use actix_http::error::DispatchError;
use actix_http::{HttpService, Protocol, Request};
use actix_server::{GracefulShutdownSignal, Server};
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, apply_fn_factory, boxed,
    fn_factory, fn_service, map_config,
};
use actix_web::Error;
use actix_web::dev::{AppConfig, ServiceResponse};
use futures_util::FutureExt;
use rustls::ServerConfig;
use tokio::net::TcpStream;

pub use self::socket::raise_descriptors;

use self::entrance::{Entrance, Refusal};
use self::stream::Stream;
use self::upgrade::upgrade;
use crate::config::{Config, ListenerConfig};

/// Longer than the 60 s for which load balancers keep a connection to us: whoever sends closes first,
/// or a request meets a connection that is just being closed.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long a client may take to close a connection that we have done with.
const GOODBYE: Duration = Duration::from_secs(1);

/// What TLS offers.
const HTTP_1: &[u8] = b"http/1.1";

/// Listens as configured and serves the application that `app` makes for each worker. Nothing is
/// accepted before the server is awaited.
pub(crate) fn serve<F, A, I, B>(
    config: &Config,
    tls: Option<ServerConfig>,
    app: F,
) -> io::Result<(Server, SocketAddr)>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<A, Request>,
    A: ServiceFactory<
            Request,
            Config = AppConfig,
            Response = ServiceResponse<B>,
            Error = Error,
            InitError = (),
        > + 'static,
    <A::Service as Service<Request>>::Future: 'static,
    B: MessageBody + Unpin + 'static,
{
    let http = &config.http;
    let socket = socket::listen(
        SocketAddr::new(http.host, http.port),
        config.listener.send_timeout,
    )?;
    let address = socket.local_addr()?;
    let places = socket::affordable(config.listener.max_connections);
    let entrance = Arc::new(Entrance::new(config, places, tls.map(speaks_http_1)));
    let limits = config.listener.clone();
    let server = Server::build()
        .workers(http.workers)
        // Ours is reached first, and answers by closing; this one would leave clients waiting.
        .max_concurrent_connections(usize::MAX)
        .shutdown_timeout(http.shutdown_timeout.as_secs().max(1))
        .disable_signals();
    let stopping = server.graceful_shutdown_signal();
    let server = server.listen("api", socket, move || {
        connections(
            Arc::clone(&entrance),
            limits.clone(),
            stopping.clone(),
            app().into_factory(),
        )
    })?;
    Ok((server.run(), address))
}

fn speaks_http_1(mut tls: ServerConfig) -> ServerConfig {
    tls.alpn_protocols = vec![HTTP_1.to_vec()];
    tls
}

/// One worker's service: a connection from its acceptance to its end.
fn connections<A, B>(
    entrance: Arc<Entrance>,
    limits: ListenerConfig,
    stopping: GracefulShutdownSignal,
    app: A,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = DispatchError, InitError = ()>
where
    A: ServiceFactory<
            Request,
            Config = AppConfig,
            Response = ServiceResponse<B>,
            Error = Error,
            InitError = (),
        > + 'static,
    <A::Service as Service<Request>>::Future: 'static,
    B: MessageBody + Unpin + 'static,
{
    let (body_timeout, accepting) = (limits.body_timeout, stopping.clone());
    let app = map_config(app, |()| AppConfig::default()).map_err(|error| error.error_response());
    let app = apply_fn_factory(app, move |mut request, app: &_| {
        let watch = requests::begin(&mut request, body_timeout);
        watch.until(Service::call(app, request))
    });
    let http = fn_factory(move || {
        let (app, limits, ending) = (app.new_service(()), limits.clone(), stopping.clone());
        async move {
            // One application for requests and for handshakes.
            let app = Rc::new(app.await?);
            let of_handshakes = Rc::clone(&app);
            let http = HttpService::build()
                .graceful_shutdown_signal(move || {
                    let ending = ending.clone();
                    async move { ending.notified().await }
                })
                .keep_alive(KEEP_ALIVE)
                .client_request_timeout(limits.head_timeout)
                .client_disconnect_timeout(GOODBYE)
                .on_connect_ext(|stream: &Stream, data| {
                    data.insert(Rc::clone(stream.exchange()));
                })
                .upgrade(fn_service(move |(request, connection)| {
                    let upgraded = upgrade(Rc::clone(&of_handshakes), request, connection);
                    Box::pin(upgraded.map(Ok::<_, Infallible>))
                }))
                .finish(fn_factory(move || ready(Ok::<_, ()>(Rc::clone(&app)))));
            http.new_service(()).await
        }
    });
    let entered = fn_service(move |tcp| {
        let (entrance, stopping) = (Arc::clone(&entrance), accepting.clone());
        async move {
            // Whoever is still at the entrance when the server stops is not waited for.
            let admitted = tokio::select! {
                biased;
                admitted = entrance.admit(tcp) => admitted,
                () = stopping.notified() => Err(Refusal::Stopping),
            };
            match admitted {
                Ok((stream, client)) => Ok((stream, Protocol::Http1, Some(client))),
                Err(refusal) => Err(refused(refusal)),
            }
        }
    });
    // Boxed: the worker's task would have the room for it twice.
    boxed::factory(entered.and_then(http))
}

fn refused(refusal: Refusal) -> DispatchError {
    metrics::counter!("connections_refused_total", "why" => refusal.why()).increment(1);
    tracing::debug!(%refusal, "connection refused");
    DispatchError::Io(io::Error::other(refusal))
}
