//! `node-agent enroll`.

use std::io::Read;

use anyhow::{Context, bail};
use chrono::Utc;
use clap::Args;
use secrecy::SecretString;
use shared::ids::Revision;
use shared::protocol::Settings;
use shared::protocol::enrolment::EnrolRequest;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::ledger::{self, Identity, Ledger, LedgerError, State, Write};
use crate::link::enrol;

#[derive(Debug, Args)]
pub(super) struct Enroll {
    /// The enrolment token; `@FILE` reads it from a file, `-` from the standard input
    #[arg(long, env = "ENROLMENT_TOKEN", value_name = "ENROLMENT_TOKEN", hide_env_values = true, value_parser = secret)]
    token: SecretString,
    #[command(flatten)]
    config: Config,
}

pub(super) async fn execute(command: Enroll) -> anyhow::Result<()> {
    let config = command.config;
    let plane = config.plane.url()?;
    let pool = config.pool()?;
    let (ledger, stored) = match Ledger::open(&config.state_dir) {
        Err(LedgerError::InUse(_)) => {
            bail!("the agent is running; stop it before enrolling again (tunnels stay up)")
        }
        opened => opened?,
    };
    let request = EnrolRequest {
        hostname: config.hostname()?,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        public_key: ledger::private_key(&config.state_dir)?.public_key(),
        endpoint: config.wireguard.endpoint()?,
        subnet: config.network.vpn_subnet,
        subnet_v6: config.network.subnet_v6(),
        capacity: pool.capacity(),
    };
    let enrolled = enrol(&plane, config.plane.tls()?, &command.token, &request).await?;
    let identity = Identity {
        server_id: enrolled.server_id,
        token: enrolled.token,
        received_at: Utc::now(),
    };
    let mut writes = anew(&stored, &identity);
    writes.push(Write::Identity(identity));
    ledger.commit(&writes)?;
    println!(
        "enrolled at {plane} as server {}; start the agent with `node-agent run`",
        enrolled.server_id
    );
    Ok(())
}

/// Another server's revisions and peers mean nothing to this one. What is in the interface stays
/// there until the plane has spoken.
fn anew(stored: &State, identity: &Identity) -> Vec<Write> {
    let same = |known: &Identity| known.server_id == identity.server_id;
    if stored.identity.as_ref().is_none_or(same) {
        return Vec::new();
    }
    let peers = stored.peers.keys().copied().map(Write::NoPeer);
    let finals = stored.finals.keys().copied().map(Write::NoFinal);
    let ended = stored.ended.keys();
    peers
        .chain(finals)
        .chain(ended.map(|(peer, generation)| Write::NoEnded(*peer, *generation)))
        .chain([
            Write::Applied(Revision(0)),
            Write::Settings(Settings::default()),
            Write::NoPlannedKey,
        ])
        .collect()
}

fn secret(text: &str) -> anyhow::Result<SecretString> {
    let text = if text == "-" {
        let mut text = Zeroizing::new(String::new());
        std::io::stdin()
            .read_to_string(&mut text)
            .context("standard input")?;
        text
    } else if let Some(path) = text.strip_prefix('@') {
        Zeroizing::new(std::fs::read_to_string(path).with_context(|| path.to_owned())?)
    } else {
        Zeroizing::new(text.to_owned())
    };
    if text.trim().is_empty() {
        bail!("it takes the token that `control-plane node enrolment-token` printed");
    }
    Ok(SecretString::from(text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use shared::ids::{Generation, PeerId, ServerId};
    use shared::protocol::{NodeToken, PeerCounters};

    #[test]
    fn tokens_come_from_the_flag_or_a_file() {
        let file = tempfile::NamedTempFile::new().expect("file");
        std::fs::write(file.path(), "from-file\n").expect("written");
        let path = format!("@{}", file.path().display());
        let read = |text: &str| secret(text).map(|it| it.expose_secret().to_owned());
        assert_eq!(read(&path).expect("read"), "from-file");
        assert_eq!(read(" plain ").expect("read"), "plain");
        assert!(read("@/does/not/exist").is_err());
        assert!(read("  ").is_err());
    }

    #[test]
    fn another_servers_state_is_forgotten_and_the_own_kept() {
        let identity = |server_id| Identity {
            server_id,
            token: NodeToken {
                token: "t".into(),
                expires_at: Utc::now(),
            },
            received_at: Utc::now(),
        };
        let known = identity(ServerId::generate());
        let counters = PeerCounters {
            generation: Generation(2),
            sent: 1,
            received: 1,
            last_handshake: None,
        };
        let last = ledger::Final {
            generation: Generation(1),
            tunnel: None,
            counters: None,
            consumed: 0,
            removed_at: Utc::now(),
        };
        let stored = State {
            identity: Some(known.clone()),
            finals: [(PeerId(4), last)].into(),
            ended: [((PeerId(4), Generation(2)), counters)].into(),
            ..State::default()
        };
        assert_eq!(anew(&stored, &known), []);
        assert_eq!(
            anew(&stored, &identity(ServerId::generate())),
            [
                Write::NoFinal(PeerId(4)),
                Write::NoEnded(PeerId(4), Generation(2)),
                Write::Applied(Revision(0)),
                Write::Settings(Settings::default()),
                Write::NoPlannedKey,
            ]
        );
    }
}
