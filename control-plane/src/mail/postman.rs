//! The job handler that sends letters.

use std::fmt;
use std::time::SystemTime;

use async_trait::async_trait;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, MultiPart};
use lettre::transport::smtp;
use uuid::Uuid;

use super::letter::{KIND, Posted};
use super::render::{Sender, render};
use super::transport::Transport;
use crate::config::Config;
use crate::jobs::{Failure, Handler};

#[derive(Debug, thiserror::Error)]
pub enum MailError {
    #[error("MAIL_FROM is no address")]
    From(#[from] lettre::address::AddressError),
    #[error("SMTP_HOST cannot be used")]
    Smtp(#[from] smtp::Error),
}

/// Sends what was posted, over one transport.
pub struct Postman {
    from: Mailbox,
    sender: Sender,
    transport: Transport,
}

impl Postman {
    /// Needs a runtime: the transport keeps its connections in order by itself.
    pub fn new(config: &Config) -> Result<Self, MailError> {
        Ok(Self {
            from: config.mail.from.parse()?,
            sender: Sender {
                name: config.app.name.clone(),
                public_url: config.http.public_url.clone(),
            },
            transport: Transport::new(&config.mail.transport)?,
        })
    }

    /// The same job gives the same `Message-ID`, so that a mail that left twice is known as one.
    fn compose(&self, job: Uuid, posted: &Posted) -> Result<Message, Failure> {
        // The errors repeat what was not understood, which may be an address.
        let to = posted
            .to
            .parse()
            .map_err(|_| Failure::lasting("the address cannot be written to"))?;
        let letter = render(&posted.letter, &self.sender)
            .map_err(|error| Failure::lasting(error.to_string()))?;
        Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(letter.subject)
            .date(SystemTime::now())
            .message_id(Some(format!("<{job}@{}>", self.from.email.domain())))
            .raw_header(HeaderValue::new(
                HeaderName::new_from_ascii_str("Auto-Submitted"),
                "auto-generated".to_owned(),
            ))
            .multipart(MultiPart::alternative_plain_html(letter.text, letter.html))
            .map_err(|_| Failure::lasting("the mail cannot be composed"))
    }
}

#[async_trait]
impl Handler for Postman {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn run(&self, job: Uuid, payload: &[u8]) -> Result<(), Failure> {
        let posted = serde_json::from_slice(payload)
            .map_err(|_| Failure::lasting("the letter cannot be read"))?;
        let mail = self.compose(job, &posted)?;
        self.transport.send(job, &mail).await
    }
}

impl fmt::Debug for Postman {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postman").finish_non_exhaustive()
    }
}
