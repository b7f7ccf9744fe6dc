//! A wire between a node and its plane on which a test can speak as the plane, and listen.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use shared::protocol::{AgentMessage, PlaneMessage, SESSION_PATH};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{Connector, accept_hdr_async, connect_async_tls_with_config};

use super::Plane;
use crate::wait_for;

/// Passes one node's sessions on, one at a time.
#[derive(Debug)]
pub struct Wire {
    url: String,
    words: broadcast::Sender<PlaneMessage>,
    heard: Arc<Mutex<Vec<AgentMessage>>>,
    task: JoinHandle<()>,
}

impl Wire {
    /// Listens at `address` and leads to `plane`.
    pub async fn lay(plane: &Plane, address: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((address, 0)).await.expect("binds");
        let port = listener.local_addr().expect("bound").port();
        let (words, _) = broadcast::channel(16);
        let heard = Arc::default();
        let end = End {
            session: format!("{}{SESSION_PATH}", plane.url().replacen("http", "ws", 1)),
            tls: Connector::Rustls(Arc::new(trusting(&plane.root_file()))),
            words: words.clone(),
            heard: Arc::clone(&heard),
        };
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Whatever ended it, the node dials again.
                let _ = end.carry(stream).await;
            }
        });
        Self {
            url: format!("http://{address}:{port}"),
            words,
            heard,
            task,
        }
    }

    /// What the node dials instead of the plane.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The node hears this as if the plane had said it. There must be a session.
    pub fn say(&self, message: PlaneMessage) {
        self.words.send(message).expect("a session");
    }

    /// Waits for the newest message of the node that `pick` takes.
    pub async fn hear<T>(&self, what: &str, pick: impl Fn(&AgentMessage) -> Option<T>) -> T {
        wait_for(what, Duration::from_secs(30), async || {
            let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.iter().rev().find_map(&pick)
        })
        .await
    }

    /// Forgets what was heard so far.
    pub fn forget(&self) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.clear();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct End {
    session: String,
    tls: Connector,
    words: broadcast::Sender<PlaneMessage>,
    heard: Arc<Mutex<Vec<AgentMessage>>>,
}

impl End {
    #[expect(clippy::result_large_err, reason = "the library's callback")]
    async fn carry(&self, stream: TcpStream) -> Result<(), Error> {
        let mut bearer = HeaderValue::from_static("");
        let mut node = accept_hdr_async(stream, |request: &Request, response: Response| {
            bearer.clone_from(request.headers().get(AUTHORIZATION).expect("a token"));
            Ok(response)
        })
        .await?;
        let mut request = self.session.as_str().into_client_request()?;
        request.headers_mut().insert(AUTHORIZATION, bearer);
        let dialled =
            connect_async_tls_with_config(request, None, true, Some(self.tls.clone())).await?;
        let (mut plane, mut words) = (dialled.0, self.words.subscribe());
        loop {
            tokio::select! {
                word = words.recv() => if let Ok(word) = word {
                    node.send(Message::text(word.encode())).await?;
                },
                frame = plane.next() => match frame {
                    Some(frame) => node.send(frame?).await?,
                    None => return node.close(None).await,
                },
                frame = node.next() => match frame.transpose()? {
                    None => return plane.close(None).await,
                    // The other side answers the plane's pings by itself.
                    Some(Message::Pong(_)) => {}
                    Some(frame) => {
                        self.listen(&frame);
                        plane.send(frame).await?;
                    }
                },
            }
        }
    }

    fn listen(&self, frame: &Message) {
        if let Message::Text(text) = frame {
            let message = AgentMessage::decode(text).expect("an agent's message");
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.push(message);
        }
    }
}

fn trusting(root: &Path) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(root).expect("the plane's certificate");
    roots.add(certificate).expect("a certificate");
    rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth()
}
