//! What a fuzzer feeds: each target takes any bytes, decodes them as its wire does, and panics when
//! something other than "understood" or "refused" happens, or when what was understood does not
//! survive being sent on.
//!
//! `scripts/fuzz-protocol` runs them under libFuzzer. The unit tests run the seeds and what was found
//! once: a finding's input goes to `corpus/<target>/`.

use std::fmt::Debug;

use shared::protocol::counters::CountersFrame;
use shared::protocol::{AgentMessage, DecodeError, PlaneMessage};

/// One decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    AgentMessage,
    PlaneMessage,
    CountersFrame,
    NetlinkDump,
}

impl Target {
    pub const NAMES: [&str; 4] = [
        "agent_message",
        "plane_message",
        "counters_frame",
        "netlink_dump",
    ];

    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "agent_message" => Self::AgentMessage,
            "plane_message" => Self::PlaneMessage,
            "counters_frame" => Self::CountersFrame,
            "netlink_dump" => Self::NetlinkDump,
            _ => return None,
        })
    }

    /// Decodes; whether the bytes were understood.
    #[expect(
        clippy::must_use_candidate,
        reason = "a fuzzer only waits for the panic"
    )]
    pub fn run(self, data: &[u8]) -> bool {
        match self {
            Self::AgentMessage => agent_message(data),
            Self::PlaneMessage => plane_message(data),
            Self::CountersFrame => counters_frame(data),
            Self::NetlinkDump => netlink_dump(data),
        }
    }
}

fn agent_message(data: &[u8]) -> bool {
    let Some(message) = text(data, AgentMessage::decode) else {
        return false;
    };
    let again = AgentMessage::decode(&message.encode());
    if let AgentMessage::Load(load) = &message {
        // The last digit of a fraction may change on its way.
        assert!(load.current_load.is_finite(), "{load:?}");
        assert!(matches!(again, Ok(AgentMessage::Load(_))), "{again:?}");
    } else {
        same(message, again);
    }
    true
}

fn plane_message(data: &[u8]) -> bool {
    let Some(message) = text(data, PlaneMessage::decode) else {
        return false;
    };
    // Keys and tokens are hidden in the text of a Debug form, and in it alone.
    let _ = format!("{message:?}");
    let again = PlaneMessage::decode(&message.encode());
    same(message, again);
    true
}

fn counters_frame(data: &[u8]) -> bool {
    let Ok(frame) = CountersFrame::decode(data) else {
        return false;
    };
    assert!(frame.entries.is_sorted_by(|one, next| one.0 < next.0));
    assert!(frame.consumed.is_sorted_by(|one, next| one.0 < next.0));
    let encoded = frame.encode();
    assert!(encoded.len() <= data.len(), "the shortest form is ours");
    same(frame, CountersFrame::decode(&encoded));
    true
}

/// The messages of one dump, each after its length in two bytes.
fn netlink_dump(data: &[u8]) -> bool {
    let (mut rest, mut messages) = (data, Vec::new());
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length)).min(behind.len());
        let (message, behind) = behind.split_at(length);
        messages.push(message);
        rest = behind;
    }
    let peers = node_agent::wireguard::peers_in_dump(&messages);
    // A peer is at least a key and the headers around it.
    assert!(peers.is_none_or(|peers| peers * 36 <= data.len()));
    peers.is_some()
}

fn text<T>(data: &[u8], decode: impl Fn(&str) -> Result<T, DecodeError>) -> Option<T> {
    decode(std::str::from_utf8(data).ok()?).ok()
}

fn same<T: PartialEq + Debug>(message: T, again: Result<T, DecodeError>) {
    match again {
        Ok(again) => assert_eq!(again, message, "changed by being sent"),
        Err(error) => panic!("{message:?} cannot be read again: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::{Path, PathBuf};

    fn files(folder: &str) -> Vec<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        entries.map(|entry| entry.expect("a file").path()).collect()
    }

    fn fixtures(extension: &str) -> Vec<Vec<u8>> {
        let all = ["v1", "v2"].map(|it| files(&format!("../../shared/src/protocol/fixtures/{it}")));
        let chosen = all.into_iter().flatten();
        chosen
            .filter(|path| path.extension().is_some_and(|it| it == extension))
            .map(|path| fs::read(path).expect("readable"))
            .collect()
    }

    #[test]
    fn every_fixture_is_a_seed_that_is_understood() {
        let json = fixtures("json");
        let understood = |target: Target| json.iter().filter(|it| target.run(it)).count();
        assert!(understood(Target::AgentMessage) >= 10);
        assert!(understood(Target::PlaneMessage) >= 10);
        for frame in fixtures("hex") {
            let digits: Vec<_> = frame
                .iter()
                .filter_map(|it| char::from(*it).to_digit(16))
                .collect();
            let bytes: Vec<_> = digits
                .chunks(2)
                .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("a byte"))
                .collect();
            assert!(Target::CountersFrame.run(&bytes));
        }
    }

    #[test]
    fn seeds_and_findings_do_no_harm() {
        for name in Target::NAMES {
            let target = Target::named(name).expect("it has one");
            for path in files(&format!("corpus/{name}")) {
                let understood = target.run(&fs::read(&path).expect("readable"));
                // A seed is named for what becomes of it.
                let refused = path.to_string_lossy().contains("refused");
                assert_eq!(understood, !refused, "{}", path.display());
            }
        }
    }
}
