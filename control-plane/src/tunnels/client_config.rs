//! The configuration that a stock WireGuard client imports. Pure.

use std::fmt::Write;
use std::net::IpAddr;

use shared::protocol::Addresses;
use shared::wireguard::{PresharedKey, PrivateKey, PublicKey};
use zeroize::Zeroizing;

/// Keeps the mapping in the client's router alive; shorter than any router forgets.
const KEEPALIVE_SECONDS: u16 = 25;

/// What goes into a client's configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientConfig<'a> {
    /// None where only the client has it.
    pub(super) private_key: Option<&'a PrivateKey>,
    pub(super) public_key: &'a PublicKey,
    pub(super) addresses: Addresses,
    pub(super) dns: &'a [IpAddr],
    pub(super) server_key: &'a PublicKey,
    pub(super) preshared_key: Option<&'a PresharedKey>,
    /// `host:port`
    pub(super) endpoint: &'a str,
}

impl ClientConfig<'_> {
    /// In the format of `wg-quick`. All traffic of both families goes into the tunnel, also where
    /// the client has no IPv6 address inside: otherwise its IPv6 traffic would go around it.
    pub(super) fn render(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(512));
        text.push_str("[Interface]\n");
        match self.private_key {
            Some(key) => {
                text.push_str("PrivateKey = ");
                text.push_str(&key.expose_base64());
            }
            None => {
                text.push_str("# PrivateKey = the private key of ");
                text.push_str(&self.public_key.to_base64());
            }
        }
        // Writing to a string cannot fail.
        let _ = write!(text, "\nAddress = {}/32", self.addresses.v4);
        if let Some(v6) = self.addresses.v6 {
            let _ = write!(text, ", {v6}/128");
        }
        for (index, resolver) in self.dns.iter().enumerate() {
            text.push_str(if index == 0 { "\nDNS = " } else { ", " });
            let _ = write!(text, "{resolver}");
        }
        let _ = write!(text, "\n\n[Peer]\nPublicKey = {}", self.server_key);
        if let Some(key) = self.preshared_key {
            text.push_str("\nPresharedKey = ");
            text.push_str(&key.expose_base64());
        }
        let _ = write!(
            text,
            "\nEndpoint = {}\nAllowedIPs = 0.0.0.0/0, ::/0\n\
             PersistentKeepalive = {KEEPALIVE_SECONDS}\n",
            self.endpoint
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER_KEY: PublicKey = PublicKey::from_bytes([7; 32]);

    fn config<'a>(
        private_key: Option<&'a PrivateKey>,
        public_key: &'a PublicKey,
    ) -> ClientConfig<'a> {
        ClientConfig {
            private_key,
            public_key,
            addresses: Addresses {
                v4: [10, 8, 0, 2].into(),
                v6: Some("fd42::2".parse().expect("an address")),
            },
            dns: &[],
            server_key: &SERVER_KEY,
            preshared_key: None,
            endpoint: "vpn.example.net:51820",
        }
    }

    #[test]
    fn a_key_that_we_made_is_inside() {
        let private = PrivateKey::from_bytes([8; 32]);
        let dns = ["1.1.1.1", "2606:4700:4700::1111"].map(|it| it.parse().expect("an address"));
        let config = ClientConfig {
            dns: &dns,
            ..config(Some(&private), &SERVER_KEY)
        };
        assert_eq!(
            *config.render(),
            "[Interface]\n\
             PrivateKey = CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=\n\
             Address = 10.8.0.2/32, fd42::2/128\n\
             DNS = 1.1.1.1, 2606:4700:4700::1111\n\
             \n\
             [Peer]\n\
             PublicKey = BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n\
             Endpoint = vpn.example.net:51820\n\
             AllowedIPs = 0.0.0.0/0, ::/0\n\
             PersistentKeepalive = 25\n"
        );
    }

    #[test]
    fn a_preshared_key_is_the_peers() {
        let preshared = PresharedKey::from_bytes([6; 32]);
        let mut config = config(None, &SERVER_KEY);
        config.preshared_key = Some(&preshared);
        assert!(config.render().contains(
            "\nPublicKey = BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n\
             PresharedKey = BgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgY=\nEndpoint"
        ));
    }

    #[test]
    fn a_key_of_the_client_is_left_to_the_client() {
        let public = PublicKey::from_bytes([9; 32]);
        let text = config(None, &public).render();
        assert!(text.contains(&format!("\n# PrivateKey = the private key of {public}\n")));
        assert!(!text.contains("\nPrivateKey"));
        assert!(!text.contains("DNS"));
    }

    #[test]
    fn without_ipv6_inside_ipv6_still_stays_inside() {
        let mut config = config(None, &SERVER_KEY);
        config.addresses.v6 = None;
        let text = config.render();
        assert!(text.contains("\nAddress = 10.8.0.2/32\n"));
        assert!(text.contains("\nAllowedIPs = 0.0.0.0/0, ::/0\n"));
    }
}
