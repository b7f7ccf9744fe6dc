//! Another client of the same node, in a namespace of its own.

use std::path::Path;

use super::process::{run, try_run};
use super::{Backend, WgClient, World};

/// The other client's namespace, wired to the node. Removed with this value.
#[derive(Debug)]
pub struct Neighbour {
    namespace: String,
    interface: String,
}

impl Neighbour {
    #[must_use]
    pub fn new(world: &World) -> Self {
        let neighbour = Self {
            namespace: format!("{}2", world.client()),
            interface: world.interface("d"),
        };
        let (node, namespace) = (world.node(), neighbour.namespace.as_str());
        let ip = |line: &str| {
            let words: Vec<_> = line.split_ascii_whitespace().collect();
            run("ip", &words);
        };
        ip(&format!("netns add {namespace}"));
        ip(&format!("-n {namespace} link set lo up"));
        ip(&format!(
            "-n {node} link add client2 type veth peer name node netns {namespace}"
        ));
        for (place, device, address) in [
            (node.as_str(), "client2", "192.0.2.1/30"),
            (namespace, "node", "192.0.2.2/30"),
        ] {
            ip(&format!("-n {place} address add {address} dev {device}"));
            ip(&format!("-n {place} link set {device} up"));
        }
        ip(&format!(
            "-n {namespace} route add {} via 192.0.2.1",
            World::NODE
        ));
        neighbour
    }

    /// Its interface, not configured yet.
    pub async fn client(&self, folder: &Path, backend: Backend) -> WgClient {
        let (namespace, interface) = (self.namespace.clone(), self.interface.clone());
        WgClient::within(namespace, interface, folder, backend).await
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let inside = try_run("ip", &["netns", "pids", &self.namespace]);
        for process in String::from_utf8_lossy(&inside.stdout).split_whitespace() {
            try_run("kill", &["-9", process]);
        }
        try_run("ip", &["netns", "del", &self.namespace]);
        let _ = std::fs::remove_file(format!("/run/wireguard/{}.sock", self.interface));
    }
}
