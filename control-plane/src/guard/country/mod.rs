//! Whom the service refuses by the country that their address is in.
//!
//! An MMDB file says where addresses are. It is held in memory whole, and a request costs one look into it, which
//! allocates nothing. What must hold: nobody learns from us where a request came from. Neither its address nor its
//! country is logged, counted or kept; that somebody was refused is.

mod database;
mod record;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use self::database::CountryError;
use self::database::Database;
use super::group::Group;
use crate::config::{CountryCode, CountryConfig, CountryRule};
use crate::files::{Content, Followed, Source, Words};

/// What is refused by country: nothing without a file.
#[derive(Debug, Default)]
pub(super) struct Countries(Option<Filter>);

#[derive(Debug)]
struct Filter {
    config: CountryConfig,
    file: Arc<Followed<File, 1>>,
}

impl Countries {
    pub(super) fn load(config: Option<&CountryConfig>) -> Result<Self, CountryError> {
        let load = |config: &CountryConfig| {
            Ok(Filter {
                config: config.clone(),
                file: Followed::load(File(config.file.clone()))?,
            })
        };
        config.map(load).transpose().map(Self)
    }

    /// Whether an address may not ask for this. Machines that come for a reason may from anywhere.
    pub(super) fn refuse(&self, group: Group, address: IpAddr) -> bool {
        self.0.as_ref().is_some_and(|filter| {
            !group.stands_alone()
                && !admits(&filter.config, filter.file.current().country_of(address))
        })
    }

    /// Goes by what the file says, whenever it is replaced, until `shutdown`.
    pub(super) async fn run(&self, shutdown: &CancellationToken) {
        if let Some(filter) = &self.0 {
            Arc::clone(&filter.file).follow(shutdown.clone()).await;
        }
    }
}

/// Whether the configured file can be used.
pub(crate) fn check(config: &CountryConfig) -> Result<(), CountryError> {
    File(config.file.clone()).read().map(drop)
}

/// The rule: whether somebody passes who is in this country, or in one that the file does not know.
fn admits(config: &CountryConfig, country: Option<CountryCode>) -> bool {
    let Some(country) = country else {
        return config.allow_unknown;
    };
    match &config.rule {
        CountryRule::Deny(countries) => !countries.contains(&country),
        CountryRule::Allow(countries) => countries.contains(&country),
    }
}

#[derive(Debug)]
struct File(PathBuf);

impl Source<1> for File {
    type Made = Database;
    type Error = CountryError;
    const WORDS: Words = Words {
        counter: "guard_country_files_total",
        taken: "taken",
        news: "guard.country_file_replaced",
        stays: "guard.country_file_refused: the earlier one stays in force",
    };

    fn paths(&self) -> [&Path; 1] {
        [&self.0]
    }

    fn make(files: std::io::Result<[Content; 1]>) -> Result<Database, CountryError> {
        let [mut file] = files.map_err(CountryError::Unreadable)?;
        Database::new(std::mem::take(&mut *file))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rstest::rstest;

    use super::*;

    fn set(codes: &[&str]) -> BTreeSet<CountryCode> {
        codes
            .iter()
            .filter_map(|code| CountryCode::parse(code))
            .collect()
    }

    #[rstest]
    #[case::denied(CountryRule::Deny(set(&["KP", "IR"])), Some("KP"), false)]
    #[case::not_denied(CountryRule::Deny(set(&["KP", "IR"])), Some("DE"), true)]
    #[case::allowed(CountryRule::Allow(set(&["DE", "FR"])), Some("FR"), true)]
    #[case::not_allowed(CountryRule::Allow(set(&["DE", "FR"])), Some("KP"), false)]
    fn a_known_country_passes_by_the_list(
        #[case] rule: CountryRule,
        #[case] country: Option<&str>,
        #[case] passes: bool,
        #[values(true, false)] allow_unknown: bool,
    ) {
        let config = CountryConfig {
            file: PathBuf::new(),
            rule,
            allow_unknown,
        };
        assert_eq!(
            admits(&config, country.and_then(CountryCode::parse)),
            passes
        );
    }

    #[rstest]
    fn an_unknown_one_passes_by_the_setting(
        #[values(CountryRule::Deny(set(&["KP"])), CountryRule::Allow(set(&["DE"])))]
        rule: CountryRule,
        #[values(true, false)] allow_unknown: bool,
    ) {
        let config = CountryConfig {
            file: PathBuf::new(),
            rule,
            allow_unknown,
        };
        assert_eq!(admits(&config, None), allow_unknown);
    }

    #[test]
    fn without_a_file_nobody_is_refused() {
        let countries = Countries::load(None).unwrap();
        assert!(!countries.refuse(Group::Login, [203, 0, 113, 9].into()));
    }
}
