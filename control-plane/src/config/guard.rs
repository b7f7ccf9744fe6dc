//! Protection against abuse: what may pass, whom it does not concern, what is banned for how long, who is
//! refused by country.

use std::fmt;
use std::time::Duration;

use ipnet::IpNet;

use super::country::CountryConfig;
use super::reader::{Reader, as_network, parse_duration, split};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// What may pass in a window: the limit, and on top of it a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub requests: u32,
    pub window: Duration,
    pub burst: u32,
}

impl Limit {
    #[must_use]
    pub const fn new(requests: u32, window: Duration, burst: u32) -> Self {
        Self {
            requests,
            window,
            burst,
        }
    }

    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.requests.saturating_add(self.burst)
    }

    #[must_use]
    pub fn window_ms(&self) -> u64 {
        u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX)
    }

    /// A share of it in a thousand, never nothing.
    #[must_use]
    pub fn scaled(&self, per_mille: u32) -> Self {
        let share = |number: u32| {
            let part = u64::from(number) * u64::from(per_mille) / 1000;
            u32::try_from(part).unwrap_or(number)
        };
        Self {
            requests: share(self.requests).max(1),
            burst: share(self.burst),
            ..*self
        }
    }

    /// `5/5m+2`: five in five minutes, and two more.
    fn parse(text: &str) -> Option<Self> {
        let (requests, rest) = text.split_once('/')?;
        let (window, burst) = rest.split_once('+').unwrap_or((rest, "0"));
        let window = parse_duration(window.trim())?;
        let requests = requests.trim().parse().ok().filter(|it| *it > 0)?;
        let is_window = window >= Duration::from_millis(1) && window <= 24 * HOUR;
        is_window
            .then(|| Some(Self::new(requests, window, burst.trim().parse().ok()?)))
            .flatten()
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:?}+{}", self.requests, self.window, self.burst)
    }
}

/// One limit a group of endpoints.
#[derive(Debug, Clone)]
pub struct GroupLimits {
    pub login: Limit,
    pub register: Limit,
    pub password_reset: Limit,
    pub connect: Limit,
    pub disconnect: Limit,
    pub payments: Limit,
    pub websocket: Limit,
    /// Everything else.
    pub other: Limit,
    pub node: Limit,
    pub webhook: Limit,
    pub health: Limit,
}

/// Tries of one account's password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountLimits {
    /// At one place: an address, or the /64 of an IPv6 address.
    pub place: Limit,
    /// At all places together where it never logged in.
    pub strangers: Limit,
}

/// So many within a time, and for how long who exceeds it is banned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    pub count: u32,
    pub within: Duration,
    pub ban: Duration,
}

#[derive(Debug, Clone)]
pub struct GuardConfig {
    pub limits_enabled: bool,
    pub detection_enabled: bool,
    pub groups: GroupLimits,
    /// Of all callers together who show no valid token.
    pub strangers: Limit,
    /// Of one address, over all groups.
    pub address: Limit,
    pub account: AccountLimits,
    pub flood: Threshold,
    pub suspicion: Threshold,
    /// Neither limited, banned, nor refused by country.
    pub whitelist: Vec<IpNet>,
    /// Whom to refuse by country, if anybody.
    pub country: Option<CountryConfig>,
    /// Whether limits tighten while the host is loaded.
    pub adaptive: bool,
    /// How long a request waits for Redis before this process decides by itself.
    pub redis_patience: Duration,
}

impl GuardConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let minute = |reader: &mut Reader<'_>, name, default| {
            Limit::new(reader.count(name, default), MINUTE, 0)
        };
        Self {
            limits_enabled: reader.flag("RATE_LIMIT_ENABLED", true),
            detection_enabled: reader.flag("DDOS_PROTECTION_ENABLED", true),
            groups: GroupLimits {
                login: limit(reader, "RATE_LIMIT_LOGIN", Limit::new(5, 5 * MINUTE, 2)),
                register: limit(reader, "RATE_LIMIT_REGISTER", Limit::new(3, HOUR, 1)),
                password_reset: limit(reader, "RATE_LIMIT_PASSWORD_RESET", Limit::new(3, HOUR, 1)),
                connect: limit(reader, "RATE_LIMIT_CONNECT", Limit::new(20, MINUTE, 5)),
                disconnect: limit(reader, "RATE_LIMIT_DISCONNECT", Limit::new(30, MINUTE, 10)),
                payments: limit(reader, "RATE_LIMIT_PAYMENTS", Limit::new(10, 5 * MINUTE, 3)),
                websocket: limit(reader, "RATE_LIMIT_WEBSOCKET", Limit::new(5, MINUTE, 2)),
                other: limit(reader, "RATE_LIMIT_DEFAULT", Limit::new(60, MINUTE, 20)),
                node: limit(reader, "RATE_LIMIT_NODE", Limit::new(120, MINUTE, 60)),
                webhook: limit(reader, "RATE_LIMIT_WEBHOOK", Limit::new(1200, MINUTE, 300)),
                health: limit(reader, "RATE_LIMIT_HEALTH", Limit::new(600, MINUTE, 100)),
            },
            strangers: minute(reader, "GLOBAL_RATE_LIMIT", 1000),
            address: minute(reader, "IP_RATE_LIMIT", 100),
            account: AccountLimits {
                place: limit(
                    reader,
                    "RATE_LIMIT_ACCOUNT_LOGIN",
                    Limit::new(10, 15 * MINUTE, 0),
                ),
                strangers: limit(
                    reader,
                    "RATE_LIMIT_ACCOUNT_STRANGERS",
                    Limit::new(50, HOUR, 0),
                ),
            },
            flood: Threshold {
                count: reader.count("DDOS_THRESHOLD", 500),
                within: MINUTE,
                ban: reader.duration("DDOS_BAN_DURATION", HOUR),
            },
            suspicion: Threshold {
                count: reader.count("SUSPICIOUS_ACTIVITY_THRESHOLD", 50),
                within: reader.duration("SUSPICIOUS_ACTIVITY_WINDOW", 5 * MINUTE),
                ban: reader.duration("SUSPICIOUS_ACTIVITY_BAN", HOUR / 2),
            },
            whitelist: networks(reader, "DDOS_WHITELIST_IPS", "127.0.0.1,::1"),
            country: CountryConfig::read(reader),
            adaptive: reader.flag("RATE_LIMIT_ADAPTIVE", true),
            redis_patience: reader
                .milliseconds("RATE_LIMIT_REDIS_TIMEOUT_MS", Duration::from_millis(50)),
        }
    }
}

fn limit(reader: &mut Reader<'_>, name: &'static str, default: Limit) -> Limit {
    let takes = "requests/window+burst such as 60/1m+20";
    reader.parse_with(name, default, takes, Limit::parse, Limit::to_string)
}

/// Separated by commas, or a JSON list as the seed's files have it.
fn networks(reader: &mut Reader<'_>, name: &'static str, default: &str) -> Vec<IpNet> {
    let parse = |text: &str| {
        let text = text.trim().trim_start_matches('[').trim_end_matches(']');
        split(text)
            .map(|it| as_network(it.trim_matches(['"', '\''])))
            .collect::<Option<Vec<_>>>()
    };
    reader.parse_with(
        name,
        parse(default).unwrap_or_default(),
        "addresses and networks such as 192.0.2.0/24, separated by commas",
        parse,
        |networks| {
            let texts: Vec<_> = networks.iter().map(IpNet::to_string).collect();
            texts.join(",")
        },
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("5/5m+2", Some(Limit::new(5, Duration::from_secs(300), 2)))]
    #[case("60/60+20", Some(Limit::new(60, MINUTE, 20)))]
    #[case("3/1h", Some(Limit::new(3, HOUR, 0)))]
    #[case("0/1m+5", None)]
    #[case("5/0s+1", None)]
    #[case("5/2d+1", None)]
    #[case("5+1", None)]
    #[case("5/1m+x", None)]
    #[case("", None)]
    fn a_limit_is_written_as_one_text(#[case] text: &str, #[case] limit: Option<Limit>) {
        assert_eq!(Limit::parse(text), limit);
        if let Some(limit) = limit {
            assert_eq!(Limit::parse(&limit.to_string()), Some(limit));
        }
    }

    #[test]
    fn a_part_of_a_limit_is_never_nothing() {
        let limit = Limit::new(3, MINUTE, 1);
        assert_eq!(limit.scaled(500), Limit::new(1, MINUTE, 0));
        assert_eq!(limit.scaled(0), Limit::new(1, MINUTE, 0));
        assert_eq!(limit.scaled(1000), limit);
    }

    #[rstest]
    #[case("10.0.0.0/8, 192.0.2.1", &["10.0.0.0/8", "192.0.2.1/32"])]
    #[case(r#"["127.0.0.1","::1"]"#, &["127.0.0.1/32", "::1/128"])]
    fn a_whitelist_is_separated_by_commas_or_json(#[case] text: &str, #[case] networks: &[&str]) {
        let variables = [("DDOS_WHITELIST_IPS".to_owned(), text.to_owned())].into();
        let config = GuardConfig::read(&mut Reader::new(&variables));
        let texts: Vec<_> = config.whitelist.iter().map(IpNet::to_string).collect();
        assert_eq!(texts, networks);
    }
}
