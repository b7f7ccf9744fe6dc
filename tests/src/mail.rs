//! Mails as their readers see them, and a mail server that is not ours.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::redis::free_port;
use crate::wait_until;

/// One mail with a text and an HTML part.
#[derive(Debug, Clone)]
pub struct Mail {
    headers: BTreeMap<String, String>,
    pub text: String,
    pub html: String,
}

impl Mail {
    /// Panics with the mail when it is not what every reader can show.
    #[must_use]
    pub fn parse(raw: &str) -> Self {
        let raw = raw.replace("\r\n", "\n");
        let (headers, body) = split(&raw);
        let kind = headers.get("content-type").cloned().unwrap_or_default();
        assert!(kind.starts_with("multipart/alternative"), "{raw}");
        let boundary = kind.split("boundary=\"").nth(1).unwrap_or_default();
        let boundary = format!("--{}", boundary.trim_end_matches('"'));
        let parts: Vec<_> = body.split(&boundary).skip(1).map(part).collect();
        let of = |kind: &str| {
            let found = parts.iter().find(|(it, _)| it.starts_with(kind));
            let (_, text) = found.unwrap_or_else(|| panic!("no {kind} in {raw}"));
            text.clone()
        };
        Self {
            text: of("text/plain"),
            html: of("text/html"),
            headers,
        }
    }

    /// By its name in lower case; panics when it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.unwrap_or_else(|| panic!("no {name} in {:?}", self.headers))
    }

    /// The link of the text part, which the HTML part has too.
    #[must_use]
    pub fn link(&self) -> &str {
        let mut lines = self.text.lines();
        let link = lines.find(|line| line.starts_with("http"));
        let link = link.unwrap_or_else(|| panic!("no link in {}", self.text));
        assert!(
            self.html.contains(&format!("href=\"{link}\"")),
            "{}",
            self.html
        );
        link
    }

    /// The path and the query of the link.
    #[must_use]
    pub fn path(&self) -> &str {
        let link = self.link();
        let after_host = link.splitn(4, '/').nth(3).expect("a path");
        let start = link.len() - after_host.len() - 1;
        link.get(start..).expect("within the link")
    }

    #[must_use]
    pub fn token(&self) -> &str {
        let token = self.link().split_once("?token=");
        token.expect("a link with a token").1
    }
}

fn split(raw: &str) -> (BTreeMap<String, String>, &str) {
    let (head, body) = raw.split_once("\n\n").expect("an empty line");
    let unfolded = head.replace("\n ", " ").replace("\n\t", " ");
    let headers = unfolded.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    (headers.collect(), body)
}

/// A part's type and decoded text.
fn part(raw: &str) -> (String, String) {
    let raw = raw.strip_prefix('\n').unwrap_or(raw);
    if !raw.contains("\n\n") {
        return Default::default();
    }
    let (headers, body) = split(raw);
    let encoding = headers.get("content-transfer-encoding").map(String::as_str);
    let text = match encoding {
        None | Some("7bit") => body.to_owned(),
        Some("quoted-printable") => quoted_printable(body),
        Some(other) => panic!("encoded as {other}"),
    };
    (
        headers.get("content-type").cloned().unwrap_or_default(),
        text,
    )
}

fn quoted_printable(body: &str) -> String {
    let joined = body.replace("=\n", "");
    let mut pieces = joined.split('=');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (code, rest) = piece.split_at(2);
        bytes.push(u8::from_str_radix(code, 16).expect("two hexadecimal digits"));
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).expect("UTF-8")
}

/// The mails to this address in a folder, by the names of their files.
pub(crate) fn read(folder: &Path, address: &str) -> Vec<Mail> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| {
            !path
                .file_name()
                .is_some_and(|it| it.as_encoded_bytes().starts_with(b"."))
        })
        .collect();
    files.sort();
    let mails = files.iter().map(|path| {
        let raw = fs::read_to_string(path).expect("a mail can be read");
        Mail::parse(&raw)
    });
    mails.filter(|mail| mail.header("to") == address).collect()
}

/// aiosmtpd as a process of this test alone, killed with this value.
///
/// Whoever has an address such as `refused-550@example.org` is refused with that code.
#[derive(Debug)]
pub struct MailServer {
    process: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl MailServer {
    pub async fn start() -> Self {
        Self::start_at(free_port()).await
    }

    pub async fn start_at(port: u16) -> Self {
        let python = std::env::var("TEST_AIOSMTPD").expect(
            "TEST_AIOSMTPD must name a Python that has aiosmtpd, such as the one that \
             `scripts/setup test` makes in target/py",
        );
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/lib/mailserver.py");
        let folder = tempfile::tempdir().expect("a folder can be made");
        let process = Command::new(python)
            .arg(script)
            .arg(port.to_string())
            .arg(folder.path().join("mails"))
            .stdin(Stdio::null())
            .spawn()
            .expect("Python runs");
        let server = Self {
            process,
            port,
            folder,
        };
        wait_until(
            "the mail server answers",
            Duration::from_secs(20),
            async || TcpStream::connect(("127.0.0.1", port)).is_ok(),
        )
        .await;
        server
    }

    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What arrived for this address, in the order of arrival.
    #[must_use]
    pub fn mails_to(&self, address: &str) -> Vec<Mail> {
        let arrived: PathBuf = self.folder.path().join("mails/new");
        read(&arrived, address)
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_is_read_as_its_reader_does() {
        let raw = "To: anna@example.org\r\nSubject: a\r\n b\r\n\
            Content-Type: multipart/alternative;\r\n boundary=\"xyz\"\r\n\r\n\
            --xyz\r\nContent-Type: text/plain; charset=utf-8\r\n\
            Content-Transfer-Encoding: quoted-printable\r\n\r\n\
            Gr=C3=BC=C3=9Fe, Ann=\r\na\r\nhttps://example.org/x?token=3Dabc\r\n\
            --xyz\r\nContent-Type: text/html; charset=utf-8\r\n\
            Content-Transfer-Encoding: 7bit\r\n\r\n\
            <a href=\"https://example.org/x?token=abc\">x</a>\r\n--xyz--\r\n";
        let mail = Mail::parse(raw);
        assert_eq!(mail.header("subject"), "a b");
        assert!(mail.text.starts_with("Grüße, Anna\n"), "{}", mail.text);
        assert_eq!((mail.path(), mail.token()), ("/x?token=abc", "abc"));
    }
}
