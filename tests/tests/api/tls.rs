//! TLS by the plane itself, with a certificate that is renewed while it runs.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use control_plane::config::Variables;
use reqwest::Method;
use rustls::{
    ClientConfig, ClientConnection, NamedGroup, RootCertStore, ServerConfig, ServerConnection,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tests::api::Client;
use tests::{TestApp, wait_until};

use crate::SOON;

/// A certificate for localhost and its key, both in PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Pair {
    fn make() -> Self {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate can be made");
        Self {
            certificate: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        }
    }

    fn write(&self, folder: &Path) {
        write(folder, "certificate.pem", &self.certificate);
        write(folder, "key.pem", &self.key);
    }

    /// One that trusts this certificate alone and has no connection yet.
    fn client(&self, app: &TestApp) -> Client {
        Client::trusting(&app.url().replace("http://", "https://"), &self.certificate)
    }

    async fn is_served(&self, app: &TestApp) -> bool {
        let request = self.client(app).request(Method::GET, "/health");
        request.send().await.is_ok()
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("the file can be written");
}

async fn start(folder: &Path) -> TestApp {
    let files = [
        ("TLS_CERT_FILE", folder.join("certificate.pem")),
        ("TLS_KEY_FILE", folder.join("key.pem")),
    ];
    TestApp::with(|variables: &mut Variables| {
        for (name, path) in &files {
            variables.insert((*name).to_owned(), path.display().to_string());
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_served_and_open_connections_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (Pair::make(), Pair::make());
    old.write(folder.path());
    let app = start(folder.path()).await;
    let open = old.client(&app);
    let reply = open.get("/health").await.expect(200);
    assert_eq!(
        reply.header("strict-transport-security"),
        Some("max-age=63072000; includeSubDomains")
    );

    new.write(folder.path());
    wait_until("the new certificate is served", SOON, async || {
        let _ = open.get("/health").await.expect(200);
        new.is_served(&app).await
    })
    .await;
    assert!(!old.is_served(&app).await, "the old one is gone");
    // It could not open another connection: this one is from before.
    let _ = open.get("/health").await.expect(200);
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_cannot_be_served_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (Pair::make(), Pair::make());
    old.write(folder.path());
    let app = start(folder.path()).await;
    let broken: [(&str, &dyn Fn()); 4] = [
        ("half a certificate", &|| {
            let (half, _) = new.certificate.split_at(new.certificate.len() / 2);
            write(folder.path(), "certificate.pem", half);
        }),
        ("an empty certificate", &|| {
            write(folder.path(), "certificate.pem", "");
        }),
        ("another certificate's key", &|| {
            write(folder.path(), "certificate.pem", &new.certificate);
        }),
        ("no key", &|| {
            fs::remove_file(folder.path().join("key.pem")).expect("removed");
        }),
    ];
    for (what, make) in broken {
        let before = refusals(&app).await;
        make();
        wait_until(&format!("{what} was refused"), SOON, async || {
            refusals(&app).await > before
        })
        .await;
        assert!(old.is_served(&app).await, "{what}");
    }
    write(folder.path(), "key.pem", &new.key);
    wait_until("the whole pair is served", SOON, async || {
        new.is_served(&app).await
    })
    .await;
    app.finish(&[]).await;
}

/// The key exchange of a client with this configuration and the plane.
async fn key_exchange(app: &TestApp, config: ClientConfig) -> Option<NamedGroup> {
    let address = app.url().replace("http://", "");
    let handshake = move || {
        let name = "localhost".try_into().expect("a name");
        let mut tls = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut tcp = TcpStream::connect(address).expect("the plane listens");
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp).expect("they shake hands");
        }
        tls.negotiated_key_exchange_group()
            .map(|group| group.name())
    };
    tokio::task::spawn_blocking(handshake).await.expect("ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_exchange_is_post_quantum() {
    let folder = tempfile::tempdir().expect("a folder");
    let pair = Pair::make();
    pair.write(folder.path());
    let app = start(folder.path()).await;

    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes());
    roots
        .add(certificate.expect("a certificate"))
        .expect("a root");
    let client = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    assert_eq!(
        key_exchange(&app, client).await,
        Some(NamedGroup::X25519MLKEM768)
    );

    let agent = node_agent::link::tls(Some(&folder.path().join("certificate.pem")));
    let agent = agent.expect("the agent's configuration");
    assert_eq!(
        key_exchange(&app, agent).await,
        Some(NamedGroup::X25519MLKEM768)
    );
    app.finish(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_clients_prefer_it_as_well() {
    tests::init();
    let pair = Pair::make();
    let certificate = CertificateDer::from_pem_slice(pair.certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes());
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.expect("a certificate")],
            key.expect("a key"),
        )
        .expect("a server");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let accepted = tokio::task::spawn_blocking(move || {
        let (mut tcp, _) = listener.accept().expect("a client");
        let mut tls = ServerConnection::new(Arc::new(config)).expect("a server");
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp).expect("they shake hands");
        }
        tls.negotiated_key_exchange_group()
            .map(|group| group.name())
    });
    let client = Client::trusting(
        &format!("https://localhost:{}", address.port()),
        &pair.certificate,
    );
    let asked = client.request(Method::GET, "/").send();
    let (group, _answer) = tokio::join!(accepted, asked);
    assert_eq!(group.expect("ends"), Some(NamedGroup::X25519MLKEM768));
}

/// How often a pair was refused, as the metrics tell it.
async fn refusals(app: &TestApp) -> u64 {
    let metrics = Client::new(&app.metrics_url()).get("/metrics").await;
    let text = metrics.expect(200).text();
    let line = "tls_certificates_total{result=\"refused\"} ";
    text.lines()
        .find_map(|it| it.strip_prefix(line)?.parse().ok())
        .unwrap_or(0)
}
