//! How a mail leaves: as a file, or over SMTP.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::{self, PoolConfig};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use secrecy::ExposeSecret;
use tokio::fs::{self, DirBuilder, OpenOptions};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use crate::config::{MailTransport, SmtpConfig, SmtpSecurity};
use crate::jobs::Failure;

/// For each answer of the mail server.
const PATIENCE: Duration = Duration::from_secs(15);
/// Connections kept to the mail server.
const CONNECTIONS: u32 = 4;

#[derive(Debug)]
pub(super) enum Transport {
    Files(PathBuf),
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
}

impl Transport {
    pub(super) fn new(config: &MailTransport) -> Result<Self, smtp::Error> {
        match config {
            MailTransport::Files { directory } => Ok(Self::Files(directory.clone())),
            MailTransport::Smtp(config) => connect(config).map(Self::Smtp),
        }
    }

    /// `id` names the mail, however often it is sent.
    pub(super) async fn send(&self, id: Uuid, mail: &Message) -> Result<(), Failure> {
        match self {
            Self::Files(directory) => write(directory, id, &mail.formatted())
                .await
                .map_err(|error| Failure::temporary(format!("MAIL_DIR: {error}"))),
            Self::Smtp(transport) => match transport.send(mail.clone()).await {
                Ok(_) => Ok(()),
                Err(error) => Err(refusal(&error)),
            },
        }
    }
}

fn connect(config: &SmtpConfig) -> Result<AsyncSmtpTransport<Tokio1Executor>, smtp::Error> {
    let tls = || {
        TlsParameters::builder(config.host.clone())
            .certificate_store(CertificateStore::WebpkiRoots)
            .build_rustls()
    };
    let tls = match config.security {
        SmtpSecurity::Tls => Tls::Wrapper(tls()?),
        SmtpSecurity::StartTls => Tls::Required(tls()?),
        SmtpSecurity::None => Tls::None,
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.host)
        .port(config.port)
        .tls(tls)
        .timeout(Some(PATIENCE))
        .pool_config(PoolConfig::new().max_size(CONNECTIONS));
    if let Some((user, password)) = &config.login {
        let password = password.expose_secret().to_owned();
        builder = builder.credentials(Credentials::new(user.clone(), password));
    }
    Ok(builder.build())
}

/// Under another name first: whoever watches the directory sees whole mails only.
async fn write(directory: &Path, id: Uuid, mail: &[u8]) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .await?;
    let unfinished = directory.join(format!(".{id}"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)
        .await?;
    file.write_all(mail).await?;
    file.flush().await?;
    fs::rename(&unfinished, directory.join(format!("{id}.eml"))).await
}

/// The status code alone: what a server says beside it repeats the address.
fn refusal(error: &smtp::Error) -> Failure {
    match error.status().map(u16::from) {
        Some(code) if error.is_permanent() && !is_about_us(code) => {
            Failure::lasting(format!("the mail server refused it: {code}"))
        }
        Some(code) => Failure::temporary(format!("the mail server answered {code}")),
        None => Failure::temporary(trouble(error)),
    }
}

/// Refusals that mean our login, and end when it is put right.
const fn is_about_us(code: u16) -> bool {
    matches!(code, 530 | 534 | 535 | 538)
}

fn trouble(error: &smtp::Error) -> String {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(error) = inner.downcast_ref::<io::Error>() {
            return format!("the mail server is not reached: {}", error.kind());
        }
        cause = inner.source();
    }
    let what = if error.is_tls() {
        "TLS with the mail server failed"
    } else if error.is_client() {
        "the mail server lacks what SMTP_SECURITY or the mail needs"
    } else if error.is_response() {
        "the mail server's answer cannot be read"
    } else {
        "the mail server is not reached"
    };
    what.to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_file_is_whole_and_private() {
        let directory = std::env::temp_dir().join(format!("mail-{}", Uuid::now_v7()));
        let (id, nested) = (Uuid::now_v7(), directory.join("a/b"));
        for text in [b"first".as_slice(), b"2nd"] {
            write(&nested, id, text).await.unwrap();
        }
        let names: Vec<_> = std::fs::read_dir(&nested)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(names, [nested.join(format!("{id}.eml"))]);
        assert_eq!(std::fs::read(&names[0]).unwrap(), b"2nd");
        let mode = std::fs::metadata(&names[0]).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_is_said() {
        let error = write(Path::new("/dev/null/mail"), Uuid::nil(), b"").await;
        assert!(error.is_err());
    }
}
