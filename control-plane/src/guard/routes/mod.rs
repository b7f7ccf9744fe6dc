//! `/admin/bans`, `/admin/rate-limits` and `/admin/security`.

mod alerts;
mod bans;
mod events;
mod limits;
mod statistics;

use std::net::IpAddr;

use ipnet::IpNet;
use utoipa_actix_web::service_config::ServiceConfig;

use super::Subject;
use crate::error::ApiError;

/// The shortest prefixes that can be banned: a slip of the finger shall not shut everybody out.
const WIDEST: (u8, u8) = (8, 16);

pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(bans::list_bans)
        .service(bans::impose_ban)
        .service(bans::lift_ban)
        .service(statistics::show_statistics)
        .service(limits::show_rate_limits)
        .service(limits::reset_rate_limits)
        .service(events::show_events)
        .service(alerts::list_alerts)
        .service(alerts::acknowledge_alert);
}

/// One address without its prefix.
fn written(network: IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}

/// An address as limits and bans know it, or a network that is not too wide.
fn network(text: &str) -> Result<IpNet, ApiError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Subject::of(address).network());
    }
    let network = text.parse::<IpNet>().ok().map(|network| network.trunc());
    let is_narrow = |network: &IpNet| match network {
        IpNet::V4(network) => network.prefix_len() >= WIDEST.0,
        IpNet::V6(network) => network.prefix_len() >= WIDEST.1,
    };
    network.filter(is_narrow).ok_or_else(|| {
        let takes = "Must be an address, or a network of at least /8 or, for IPv6, /16";
        ApiError::invalid("ip", takes)
    })
}

fn subject(text: &str) -> Result<Subject, ApiError> {
    let address = text.parse().map_err(|_| {
        ApiError::invalid(
            "ip",
            "Must be an address such as 203.0.113.9 or 2001:db8::1",
        )
    })?;
    Ok(Subject::of(address))
}
