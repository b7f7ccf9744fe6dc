//! The cross-platform configuration protocol's text, as values.
//!
//! Lines of `key=value`, keys in hexadecimal, ended by an empty line.

use std::fmt::Write;

use ipnet::IpNet;
use shared::wireguard::{KEY_LEN, PresharedKey, PrivateKey, PublicKey};
use zeroize::{Zeroize, Zeroizing};

use crate::wireguard::{PeerOp, PeerSpec, PeerStatus};

/// Asks for the interface and all its peers.
pub(super) const GET: &str = "get=1\n\n";

/// A line that the protocol does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed value of `{0}`")]
pub(super) struct Malformed(&'static str);

/// Sets the key, the port or both. Peers stay.
pub(super) fn set(key: Option<&PrivateKey>, listen_port: Option<u16>) -> Zeroizing<String> {
    let mut request = Request::new(1);
    if let Some(key) = key {
        request.key("private_key", key.expose_bytes());
    }
    if let Some(port) = listen_port {
        request.line("listen_port", port);
    }
    request.finish()
}

/// The operations in order, as one request.
pub(super) fn program(operations: &[PeerOp]) -> Zeroizing<String> {
    let addresses = operations.iter().map(|operation| match operation {
        PeerOp::Add(spec) | PeerOp::Update(spec) => spec.allowed_ips.len(),
        PeerOp::Remove(_) => 0,
    });
    let mut request =
        Request::new(operations.len() * PEER_BYTES + addresses.sum::<usize>() * ADDRESS_BYTES);
    for operation in operations {
        match operation {
            PeerOp::Add(spec) => request.put(spec, false),
            PeerOp::Update(spec) => request.put(spec, true),
            PeerOp::Remove(key) => {
                request.key("public_key", key.as_bytes());
                request.line("remove", true);
            }
        }
    }
    request.finish()
}

/// At most what a peer's lines take without its addresses.
const PEER_BYTES: usize = 224;
/// At most what an address's line takes.
const ADDRESS_BYTES: usize = 64;

/// A request's text. Its room is reserved at once: growing would leave copies of keys behind.
struct Request(Zeroizing<String>);

impl Request {
    fn new(bytes: usize) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(bytes + 2 * PEER_BYTES));
        text.push_str("set=1\n");
        Self(text)
    }

    fn put(&mut self, spec: &PeerSpec, update_only: bool) {
        self.key("public_key", spec.public_key.as_bytes());
        if update_only {
            self.line("update_only", true);
        }
        // A key of zeros is how it is told that there is none.
        let none = [0; KEY_LEN];
        let preshared_key = spec.preshared_key.as_ref();
        self.key(
            "preshared_key",
            preshared_key.map_or(&none, PresharedKey::expose_bytes),
        );
        self.line("replace_allowed_ips", true);
        for network in &spec.allowed_ips {
            self.line("allowed_ip", network);
        }
    }

    fn key(&mut self, name: &str, key: &[u8; KEY_LEN]) {
        self.0.push_str(name);
        self.0.push('=');
        for byte in key {
            let digits = [byte >> 4, byte & 15];
            let digits = digits.map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0'));
            self.0.extend(digits);
        }
        self.0.push('\n');
    }

    fn line(&mut self, name: &str, value: impl std::fmt::Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{name}={value}");
    }

    fn finish(mut self) -> Zeroizing<String> {
        self.0.push('\n');
        self.0
    }
}

/// An answer, as far as it has been read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// None where no private key is set.
    pub(super) public_key: Option<PublicKey>,
    pub(super) listen_port: u16,
    pub(super) peers: Vec<PeerStatus>,
    /// Zero or an error number, once the answer is complete.
    pub(super) errno: Option<i32>,
}

impl Answer {
    /// Reads one line, without its end. Endpoints and what is not known are passed over.
    pub(super) fn read(&mut self, line: &str) -> Result<(), Malformed> {
        let Some((name, value)) = line.split_once('=') else {
            return Err(Malformed("line"));
        };
        match name {
            "private_key" => {
                let key = PrivateKey::from_bytes(*key("private_key", value)?);
                self.public_key = Some(key.public_key());
            }
            "listen_port" => self.listen_port = number("listen_port", value)?,
            "errno" => self.errno = Some(number("errno", value)?),
            "public_key" => self.peers.push(PeerStatus {
                public_key: PublicKey::from_bytes(*key("public_key", value)?),
                preshared_key: None,
                allowed_ips: Vec::new(),
                rx_bytes: 0,
                tx_bytes: 0,
                last_handshake: None,
            }),
            _ => {
                if let Some(peer) = self.peers.last_mut() {
                    read_peer(peer, name, value)?;
                }
            }
        }
        Ok(())
    }

    /// The answer is complete: allowed IPs are put in order.
    pub(super) fn finish(mut self) -> Self {
        for peer in &mut self.peers {
            peer.allowed_ips.sort_unstable();
        }
        self
    }
}

fn read_peer(peer: &mut PeerStatus, name: &str, value: &str) -> Result<(), Malformed> {
    match name {
        "preshared_key" => {
            let key = key("preshared_key", value)?;
            peer.preshared_key = (*key != [0; KEY_LEN]).then(|| PresharedKey::from_bytes(*key));
        }
        "rx_bytes" => peer.rx_bytes = number("rx_bytes", value)?,
        "tx_bytes" => peer.tx_bytes = number("tx_bytes", value)?,
        "last_handshake_time_sec" => {
            let seconds = number("last_handshake_time_sec", value)?;
            peer.last_handshake = Some(seconds).filter(|seconds| *seconds > 0);
        }
        "allowed_ip" => {
            let network: IpNet = number("allowed_ip", value)?;
            peer.allowed_ips.push(network);
        }
        _ => {}
    }
    Ok(())
}

fn number<T: std::str::FromStr>(name: &'static str, value: &str) -> Result<T, Malformed> {
    value.parse().map_err(|_| Malformed(name))
}

fn key(name: &'static str, value: &str) -> Result<Zeroizing<[u8; KEY_LEN]>, Malformed> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    let mut digits = value.chars().map(|digit| digit.to_digit(16));
    for byte in key.iter_mut() {
        let mut digit = || digits.next().flatten().and_then(|it| u8::try_from(it).ok());
        let (high, low) = digit().zip(digit()).ok_or(Malformed(name))?;
        *byte = high << 4 | low;
    }
    match digits.next() {
        None => Ok(key),
        Some(_) => {
            key.zeroize();
            Err(Malformed(name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn spec(preshared_key: Option<u8>) -> PeerSpec {
        PeerSpec {
            public_key: PublicKey::from_bytes([0x0a; KEY_LEN]),
            preshared_key: preshared_key.map(|byte| PresharedKey::from_bytes([byte; KEY_LEN])),
            allowed_ips: vec![
                "10.8.0.2/32".parse().unwrap(),
                "fd00::2/128".parse().unwrap(),
            ],
        }
    }

    fn hex(byte: u8) -> String {
        format!("{byte:02x}").repeat(KEY_LEN)
    }

    #[test]
    fn operations_become_lines() {
        let operations = [
            PeerOp::Add(spec(Some(0xbc))),
            PeerOp::Update(spec(None)),
            PeerOp::Remove(spec(None).public_key),
        ];
        let (key, psk, none) = (hex(0x0a), hex(0xbc), hex(0));
        let expected = format!(
            "set=1\n\
             public_key={key}\npreshared_key={psk}\nreplace_allowed_ips=true\n\
             allowed_ip=10.8.0.2/32\nallowed_ip=fd00::2/128\n\
             public_key={key}\nupdate_only=true\npreshared_key={none}\nreplace_allowed_ips=true\n\
             allowed_ip=10.8.0.2/32\nallowed_ip=fd00::2/128\n\
             public_key={key}\nremove=true\n\n"
        );
        assert_eq!(*program(&operations), expected);
    }

    #[test]
    fn only_what_differs_is_set() {
        let key = PrivateKey::from_bytes([0xef; KEY_LEN]);
        let line = format!("private_key={}\n", hex(0xef));
        assert_eq!(*set(Some(&key), None), format!("set=1\n{line}\n"));
        assert_eq!(*set(None, Some(7)), "set=1\nlisten_port=7\n\n");
    }

    #[test]
    fn room_for_keys_is_reserved_at_once() {
        let longest = PeerSpec {
            allowed_ips: vec![
                "1111:1111:1111:1111:1111:1111:1111:1111/128"
                    .parse()
                    .unwrap();
                3
            ],
            ..spec(Some(1))
        };
        let operations = vec![PeerOp::Update(longest); 50];
        let reserved = Request::new(50 * PEER_BYTES + 150 * ADDRESS_BYTES)
            .0
            .capacity();
        assert_eq!(program(&operations).capacity(), reserved);
    }

    fn answer(text: &str) -> Result<Answer, Malformed> {
        let mut answer = Answer::default();
        text.lines().try_for_each(|line| answer.read(line))?;
        Ok(answer.finish())
    }

    #[test]
    fn reads_an_interface_with_its_peers() {
        let private_key = PrivateKey::generate();
        let private: String = private_key
            .expose_bytes()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let (first, second, psk, none) = (hex(1), hex(2), hex(3), hex(0));
        let answer = answer(&format!(
            "private_key={private}\nlisten_port=51820\nfwmark=1\n\
             public_key={first}\npreshared_key={psk}\nprotocol_version=1\nendpoint=192.0.2.1:9\n\
             last_handshake_time_sec=1700000000\nlast_handshake_time_nsec=5\n\
             tx_bytes=20\nrx_bytes=10\npersistent_keepalive_interval=0\n\
             allowed_ip=fd00::2/128\nallowed_ip=10.8.0.2/32\n\
             public_key={second}\npreshared_key={none}\nlast_handshake_time_sec=0\n\
             tx_bytes=0\nrx_bytes=0\nerrno=0"
        ))
        .unwrap();
        assert_eq!(answer.public_key, Some(private_key.public_key()));
        assert_eq!((answer.listen_port, answer.errno), (51820, Some(0)));
        let [one, two] = answer.peers.as_slice() else {
            panic!("two peers: {answer:?}");
        };
        assert_eq!((one.rx_bytes, one.tx_bytes), (10, 20));
        assert_eq!(one.last_handshake, Some(1_700_000_000));
        assert_eq!(
            one.preshared_key,
            Some(PresharedKey::from_bytes([3; KEY_LEN]))
        );
        assert_eq!(one.allowed_ips, spec(None).allowed_ips);
        assert_eq!(
            (two.last_handshake, two.preshared_key.as_ref()),
            (None, None)
        );
    }

    #[rstest]
    #[case("listen_port")]
    #[case("listen_port=65536")]
    #[case("errno=x")]
    #[case("public_key=0a")]
    #[case("private_key=0")]
    #[case("public_key=zz0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a")]
    #[case("public_key=0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a")]
    fn refuses_malformed_lines(#[case] line: &str) {
        assert!(answer(line).is_err());
    }
}
