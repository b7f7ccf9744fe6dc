//! Whether the kernel passes packets on between interfaces.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The two switches, one for each IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    V4,
    V6,
}

/// Forwarding is off and could not be switched on. Says how an operator does it.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}; as root run: sysctl -w {switch}=1", switch.path().display())]
pub struct ForwardingError {
    action: &'static str,
    switch: Forwarding,
    source: io::Error,
}

impl fmt::Display for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "net.ipv4.ip_forward",
            Self::V6 => "net.ipv6.conf.all.forwarding",
        })
    }
}

impl Forwarding {
    fn path(self) -> PathBuf {
        Path::new("/proc/sys").join(self.to_string().replace('.', "/"))
    }

    /// Whether the kernel forwards this IP version.
    pub fn is_enabled(self) -> Result<bool, ForwardingError> {
        match std::fs::read_to_string(self.path()) {
            Ok(value) => Ok(value.trim() != "0"),
            Err(source) => Err(ForwardingError {
                action: "read",
                switch: self,
                source,
            }),
        }
    }

    /// Switches forwarding on where it is off.
    pub fn enable(self) -> Result<(), ForwardingError> {
        if self.is_enabled()? {
            return Ok(());
        }
        std::fs::write(self.path(), "1\n").map_err(|source| ForwardingError {
            action: "write",
            switch: self,
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netns::in_private_netns;

    #[test]
    fn switches_forwarding_on_once() {
        in_private_netns(async || {
            for switch in [Forwarding::V4, Forwarding::V6] {
                std::fs::write(switch.path(), "0\n").unwrap();
                assert!(!switch.is_enabled().unwrap());
                switch.enable().unwrap();
                assert!(switch.is_enabled().unwrap());
                switch.enable().unwrap();
            }
        });
    }

    #[test]
    fn a_refusal_names_the_remedy() {
        let error = ForwardingError {
            action: "write",
            switch: Forwarding::V6,
            source: io::ErrorKind::PermissionDenied.into(),
        };
        assert_eq!(
            error.to_string(),
            "cannot write /proc/sys/net/ipv6/conf/all/forwarding: permission denied; \
             as root run: sysctl -w net.ipv6.conf.all.forwarding=1"
        );
    }
}
