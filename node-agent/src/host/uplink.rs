//! Which interface leads to the internet: that of the default route.

use std::path::Path;

/// The interface of the default route with the lowest metric, IPv4's first.
#[must_use]
pub fn default_uplink() -> Option<String> {
    let read = |name: &str| std::fs::read_to_string(Path::new("/proc/net").join(name)).ok();
    let v4 = read("route").and_then(|table| default_route(table.lines().filter_map(route_v4)));
    v4.or_else(|| {
        read("ipv6_route").and_then(|table| default_route(table.lines().filter_map(route_v6)))
    })
}

const RTF_UP: u32 = 0x1;
const RTF_REJECT: u32 = 0x200;

struct DefaultRoute<'a> {
    interface: &'a str,
    metric: u32,
    flags: u32,
}

fn default_route<'a>(routes: impl Iterator<Item = DefaultRoute<'a>>) -> Option<String> {
    routes
        .filter(|route| route.flags & RTF_UP != 0 && route.flags & RTF_REJECT == 0)
        .min_by_key(|route| route.metric)
        .map(|route| route.interface.to_owned())
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask …`: numbers hexadecimal, metric decimal.
fn route_v4(line: &str) -> Option<DefaultRoute<'_>> {
    let fields: Vec<_> = line.split_ascii_whitespace().take(8).collect();
    let [interface, destination, _, flags, _, _, metric, mask] = fields.as_slice() else {
        return None;
    };
    if *destination != "00000000" || *mask != "00000000" {
        return None;
    }
    Some(DefaultRoute {
        interface,
        metric: metric.parse().ok()?,
        flags: u32::from_str_radix(flags, 16).ok()?,
    })
}

/// `destination length source length gateway metric references uses flags interface`: all
/// hexadecimal.
fn route_v6(line: &str) -> Option<DefaultRoute<'_>> {
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    let [_, length, _, _, _, metric, _, _, flags, interface] = fields.as_slice() else {
        return None;
    };
    if *length != "00" {
        return None;
    }
    Some(DefaultRoute {
        interface,
        metric: u32::from_str_radix(metric, 16).ok()?,
        flags: u32::from_str_radix(flags, 16).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth1\t00000000\t0101A8C0\t0003\t0\t0\t200\t00000000\t0\t0\t0
down\t00000000\t0101A8C0\t0002\t0\t0\t1\t00000000\t0\t0\t0
eth0\t00000000\t010011AC\t0003\t0\t0\t100\t00000000\t0\t0\t0
half\t00000000\t010011AC\t0003\t0\t0\t0\t00000080\t0\t0\t0
eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
";

    const ROUTE_V6: &str = "\
20010db8000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth3
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth2
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 00000001 00000001 00000000 00200201       lo
";

    #[test]
    fn takes_the_default_route_with_the_lowest_metric() {
        let found = default_route(ROUTE.lines().filter_map(route_v4));
        assert_eq!(found.as_deref(), Some("eth0"));
    }

    #[test]
    fn passes_over_rejecting_routes() {
        let found = default_route(ROUTE_V6.lines().filter_map(route_v6));
        assert_eq!(found.as_deref(), Some("eth2"));
    }

    #[test]
    fn finds_none_in_an_empty_table() {
        let header = ROUTE.lines().next().unwrap();
        assert_eq!(default_route(header.lines().filter_map(route_v4)), None);
    }
}
