//! The PROXY protocol, versions 1 and 2: a proxy that passes connections on says first whose they are.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use proxy_header::{Error, ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// A header is at most 232 bytes without extensions; what proxies add is small.
const LONGEST: usize = 2048;

#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("the PROXY header is broken")]
    Broken,
    #[error("the PROXY header did not come")]
    Io(#[from] io::Error),
}

/// Reads the header off the stream. Gives the client that it names, none where the proxy speaks for
/// itself, and what came after it already.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<(Option<SocketAddr>, Bytes), HeaderError> {
    let mut seen = Vec::with_capacity(LONGEST);
    loop {
        let room = LONGEST.saturating_sub(seen.len());
        let room = u64::try_from(room).unwrap_or(0);
        // Without room nothing is read, as at the end of the stream.
        if (&mut *stream).take(room).read_buf(&mut seen).await? == 0 {
            return Err(HeaderError::Broken);
        }
        if let Some((client, length)) = parse(&seen)? {
            return Ok((client, Bytes::from(seen).slice(length..)));
        }
    }
}

/// The client and the header's length, none while it is not all there.
fn parse(seen: &[u8]) -> Result<Option<(Option<SocketAddr>, usize)>, HeaderError> {
    match ProxyHeader::parse(seen, ParseConfig::default()) {
        Ok((header, length)) => match header.proxied_address() {
            None => Ok(Some((None, length))),
            Some(named) if named.protocol == Protocol::Stream => {
                let client = SocketAddr::new(named.source.ip().to_canonical(), named.source.port());
                Ok(Some((Some(client), length)))
            }
            Some(_) => Err(HeaderError::Broken),
        },
        Err(Error::BufferTooShort) => Ok(None),
        Err(_) => Err(HeaderError::Broken),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use proptest::prelude::*;
    use rstest::rstest;
    use tokio::io::ReadBuf;

    use super::*;

    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

    fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, addresses].concat()
    }

    fn ipv4() -> Vec<u8> {
        let addresses = [203, 0, 113, 9, 10, 0, 0, 1, 0x30, 0x39, 0x01, 0xbb];
        version_2(0x21, 0x11, &addresses)
    }

    fn client(header: &[u8]) -> Result<Option<String>, ()> {
        match parse(header) {
            Ok(Some((client, length))) if length == header.len() => {
                Ok(client.map(|it| it.to_string()))
            }
            _ => Err(()),
        }
    }

    #[rstest]
    #[case(
        b"PROXY TCP4 203.0.113.9 10.0.0.1 12345 443\r\n",
        Ok(Some("203.0.113.9:12345"))
    )]
    #[case(
        b"PROXY TCP6 2001:db8::9 2001:db8::1 12345 443\r\n",
        Ok(Some("[2001:db8::9]:12345"))
    )]
    #[case(
        b"PROXY TCP6 ::ffff:203.0.113.9 ::1 12345 443\r\n",
        Ok(Some("203.0.113.9:12345"))
    )]
    #[case(b"PROXY UNKNOWN\r\n", Ok(None))]
    #[case(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Ok(None))]
    #[case(b"PROXY TCP4 203.0.113.9 10.0.0.1 12345 99999\r\n", Err(()))]
    #[case(b"PROXY TCP4 2001:db8::9 10.0.0.1 12345 443\r\n", Err(()))]
    #[case(b"PROXY UDP4 203.0.113.9 10.0.0.1 12345 443\r\n", Err(()))]
    #[case(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", Err(()))]
    fn the_text_form_is_read(#[case] header: &[u8], #[case] expected: Result<Option<&str>, ()>) {
        assert_eq!(client(header), expected.map(|it| it.map(str::to_owned)));
    }

    #[test]
    fn the_binary_form_is_read() {
        assert_eq!(client(&ipv4()), Ok(Some("203.0.113.9:12345".to_owned())));
        let mut mapped = vec![0; 36];
        mapped[10..16].copy_from_slice(&[0xff, 0xff, 203, 0, 113, 9]);
        mapped[32..34].copy_from_slice(&[0x30, 0x39]);
        let mapped = client(&version_2(0x21, 0x21, &mapped));
        assert_eq!(mapped, Ok(Some("203.0.113.9:12345".to_owned())));
        let local = version_2(0x20, 0x00, &[]);
        assert_eq!(client(&local), Ok(None));
        let unspecified = version_2(0x21, 0x00, &[]);
        assert_eq!(client(&unspecified), Ok(None));
        let with_extension = [&ipv4()[16..], &[0x04, 0, 2, 0, 0]].concat();
        let with_extension = client(&version_2(0x21, 0x11, &with_extension));
        assert_eq!(with_extension, Ok(Some("203.0.113.9:12345".to_owned())));
    }

    #[rstest]
    #[case::datagrams(version_2(0x21, 0x12, &[0; 12]))]
    #[case::other_version(version_2(0x11, 0x11, &[0; 12]))]
    #[case::other_command(version_2(0x22, 0x11, &[0; 12]))]
    #[case::other_family(version_2(0x21, 0x41, &[0; 12]))]
    fn other_binary_forms_are_refused(#[case] header: Vec<u8>) {
        assert!(parse(&header).is_err());
    }

    /// A stream whose bytes come in these pieces, and then its end.
    struct Pieces(VecDeque<Vec<u8>>);

    async fn through(pieces: &[&[u8]]) -> Result<(Option<SocketAddr>, Bytes), HeaderError> {
        let pieces = pieces.iter().map(|piece| piece.to_vec()).collect();
        read(&mut Pieces(pieces)).await
    }

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if let Some(mut piece) = self.0.pop_front() {
                let rest = piece.split_off(piece.len().min(buffer.remaining()));
                buffer.put_slice(&piece);
                if !rest.is_empty() {
                    self.0.push_front(rest);
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_follows_the_header_is_kept() {
        let header = ipv4();
        let whole = [&header, &b"GET /"[..]].concat();
        let (named, early) = through(&[&whole]).await.unwrap();
        assert_eq!(named.unwrap().to_string(), "203.0.113.9:12345");
        assert_eq!(early, "GET /");
        let bytes: Vec<_> = header.chunks(1).collect();
        let (named, early) = through(&bytes).await.unwrap();
        assert!(named.is_some() && early.is_empty());
    }

    #[tokio::test]
    async fn a_header_has_an_end_and_a_bound() {
        assert!(through(&[&ipv4()[..20]]).await.is_err());
        let long = version_2(0x21, 0x11, &[0; LONGEST]);
        assert!(through(&[&long]).await.is_err());
        let endless = [&b"PROXY TCP4 "[..], &[b'1'; 4096]].concat();
        assert!(through(&[&endless]).await.is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(tail in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = parse(&tail);
            let _ = parse(&[SIGNATURE, &tail].concat());
            let _ = parse(&[b"PROXY ", &tail[..]].concat());
        }
    }
}
