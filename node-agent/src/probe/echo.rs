//! The bytes of an echo, as datagram sockets take and give them. Pure.

use std::net::IpAddr;

const REQUEST_V4: u8 = 8;
const REPLY_V4: u8 = 0;
const REQUEST_V6: u8 = 128;
const REPLY_V6: u8 = 129;

/// Type, code, checksum, identifier, sequence number, and the token.
pub(super) const ECHO_BYTES: usize = 16;

/// What tells one echo from another. The token is random, so that no answer can be made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) sequence: u16,
    pub(super) token: u64,
}

/// A request; the kernel fills in checksum and identifier.
pub(super) fn request(to: IpAddr, mark: Mark) -> [u8; ECHO_BYTES] {
    let kind = match to {
        IpAddr::V4(_) => REQUEST_V4,
        IpAddr::V6(_) => REQUEST_V6,
    };
    let [s0, s1] = mark.sequence.to_be_bytes();
    let [t0, t1, t2, t3, t4, t5, t6, t7] = mark.token.to_be_bytes();
    [kind, 0, 0, 0, 0, 0, s0, s1, t0, t1, t2, t3, t4, t5, t6, t7]
}

/// The mark of a reply; none for anything else.
pub(super) fn reply(from: IpAddr, message: &[u8]) -> Option<Mark> {
    let kind = match from {
        IpAddr::V4(_) => REPLY_V4,
        IpAddr::V6(_) => REPLY_V6,
    };
    let (head, rest) = message.split_first_chunk::<8>()?;
    let [is, code, _, _, _, _, s0, s1] = *head;
    let token = <[u8; 8]>::try_from(rest).ok()?;
    (is == kind && code == 0).then_some(Mark {
        sequence: u16::from_be_bytes([s0, s1]),
        token: u64::from_be_bytes(token),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    const MARK: Mark = Mark {
        sequence: 0x1234,
        token: 0x0102_0304_0506_0708,
    };

    #[rstest]
    #[case::v4("10.8.0.2", 8, 0)]
    #[case::v6("fd00::2", 128, 129)]
    fn a_reply_carries_what_the_request_had(
        #[case] address: &str,
        #[case] asks: u8,
        #[case] answers: u8,
    ) {
        let address: IpAddr = address.parse().expect("an address");
        let mut message = request(address, MARK);
        assert_eq!(message[0], asks);
        assert_eq!(reply(address, &message), None, "a request is no reply");
        message[0] = answers;
        assert_eq!(reply(address, &message), Some(MARK));
        assert_eq!(reply(address, &message[..15]), None);
        assert_eq!(reply(address, &[&message[..], &[0]].concat()), None);
        message[1] = 1;
        assert_eq!(reply(address, &message), None);
    }

    proptest! {
        #[test]
        fn anything_may_come_in(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = reply("10.8.0.2".parse().expect("an address"), &bytes);
            let _ = reply("fd00::2".parse().expect("an address"), &bytes);
        }
    }
}
