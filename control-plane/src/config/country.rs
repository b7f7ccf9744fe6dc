//! The country filter: the file that knows where addresses are, and which countries are refused.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use super::reader::{Reader, split};

const FILE: &str = "COUNTRY_DB_FILE";
const DENY: &str = "COUNTRY_DENY";
const ALLOW: &str = "COUNTRY_ALLOW";
const UNKNOWN: &str = "COUNTRY_UNKNOWN";

/// The codes that ISO 3166-1 assigns, and XK, which everybody uses for Kosovo. A code that is none would
/// refuse nobody, in silence.
const ASSIGNED: &str = "\
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW \
    BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI \
    FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN \
    IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME \
    MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF \
    PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV \
    SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS XK \
    YE YT ZA ZM ZW";

/// Two letters of ISO 3166-1, such as DE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CountryCode([u8; 2]);

impl CountryCode {
    /// Two letters in either case, whether or not they are assigned: files have some that are not.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let letters: [u8; 2] = text.as_bytes().try_into().ok()?;
        let is_code = letters.iter().all(u8::is_ascii_alphabetic);
        is_code.then(|| Self(letters.map(|letter| letter.to_ascii_uppercase())))
    }

    fn is_assigned(self) -> bool {
        ASSIGNED
            .split(' ')
            .any(|code| code.as_bytes() == self.0.as_slice())
    }
}

impl fmt::Display for CountryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|letter| write!(f, "{}", char::from(*letter)))
    }
}

/// Whose requests pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CountryRule {
    /// All but those from these countries.
    Deny(BTreeSet<CountryCode>),
    /// Those from these countries alone.
    Allow(BTreeSet<CountryCode>),
}

#[derive(Debug, Clone)]
pub struct CountryConfig {
    /// An MMDB file.
    pub file: PathBuf,
    pub rule: CountryRule,
    /// Whether those pass whose country the file does not know.
    pub allow_unknown: bool,
}

impl CountryConfig {
    /// None without a file.
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let file = reader.optional(FILE);
        let (deny, allow) = (codes(reader, DENY), codes(reader, ALLOW));
        let allow_unknown = reader.parse_with(
            UNKNOWN,
            true,
            "allow or deny",
            |text| match text.to_ascii_lowercase().as_str() {
                "allow" => Some(true),
                "deny" => Some(false),
                _ => None,
            },
            |allow| if *allow { "allow" } else { "deny" }.to_owned(),
        );
        if deny.is_some() && allow.is_some() {
            let message = "cannot be set with COUNTRY_DENY: that takes the countries that are refused, this one the \
                           only ones that are not";
            reader.problem(ALLOW, message);
        }
        let is_wanted = deny.is_some() || allow.is_some() || !allow_unknown;
        let rule = deny
            .map(CountryRule::Deny)
            .or(allow.map(CountryRule::Allow));
        match (file, rule) {
            (Some(file), Some(rule)) => {
                return Some(Self {
                    file: file.into(),
                    rule,
                    allow_unknown,
                });
            }
            (Some(_), None) => {
                let message =
                    "or COUNTRY_ALLOW is needed with COUNTRY_DB_FILE: codes such as DE,FR";
                reader.problem(DENY, message);
            }
            (None, _) if is_wanted => {
                let message = "is needed with COUNTRY_DENY, COUNTRY_ALLOW and COUNTRY_UNKNOWN=deny: an MMDB file \
                               that knows the countries of addresses";
                reader.problem(FILE, message);
            }
            (None, _) => {}
        }
        None
    }
}

/// The codes, if the variable is set. What is wrong is named alone: the list may be long.
fn codes(reader: &mut Reader<'_>, name: &'static str) -> Option<BTreeSet<CountryCode>> {
    let texts: Option<Vec<_>> = reader.given(name).map(|text| split(text).collect());
    let as_code = |text: &str| CountryCode::parse(text).filter(|code| code.is_assigned());
    let mut codes = BTreeSet::new();
    for text in texts.iter().flatten() {
        match as_code(text) {
            Some(code) => {
                codes.insert(code);
            }
            None => reader.problem(name, takes(text)),
        }
    }
    if texts.as_ref().is_some_and(Vec::is_empty) {
        reader.problem(name, takes(""));
    }
    let shown: Vec<_> = codes.iter().map(CountryCode::to_string).collect();
    reader.note(name, shown.join(","));
    texts.map(|_| codes)
}

fn takes(text: &str) -> String {
    format!("takes codes of ISO 3166-1 such as DE,FR, separated by commas, not {text:?}")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::config::Variables;

    const SOME: (&str, &str) = (FILE, "/var/lib/GeoIP/GeoLite2-Country.mmdb");

    fn read(variables: &[(&str, &str)]) -> Result<Option<CountryConfig>, String> {
        let variables: Variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let mut reader = Reader::new(&variables);
        let config = CountryConfig::read(&mut reader);
        let problems = reader.finish().map_err(|error| error.to_string());
        problems.map(|_| config)
    }

    fn set(codes: &[&str]) -> BTreeSet<CountryCode> {
        let code = |text: &&str| CountryCode::parse(text).unwrap();
        codes.iter().map(code).collect()
    }

    #[rstest]
    #[case(DENY, "kp, IR,kp", CountryRule::Deny(set(&["IR", "KP"])))]
    #[case(ALLOW, r#"["de","XK"]"#, CountryRule::Allow(set(&["DE", "XK"])))]
    fn a_list_of_codes_is_a_rule(
        #[case] name: &str,
        #[case] text: &str,
        #[case] rule: CountryRule,
    ) {
        let config = read(&[SOME, (name, text)]).unwrap().unwrap();
        assert_eq!(config.rule, rule);
        assert!(config.allow_unknown);
        let config = read(&[SOME, (name, text), (UNKNOWN, "Deny")]).unwrap();
        assert!(!config.unwrap().allow_unknown);
    }

    #[test]
    fn without_a_file_there_is_no_filter() {
        assert!(read(&[]).unwrap().is_none());
        assert!(read(&[(UNKNOWN, "allow")]).unwrap().is_none());
    }

    #[rstest]
    #[case::both(&[SOME, (DENY, "DE"), (ALLOW, "FR")], &[ALLOW, DENY, "refused"])]
    #[case::no_file(&[(DENY, "DE")], &[FILE, "MMDB"])]
    #[case::no_file_either(&[(ALLOW, "DE")], &[FILE, "MMDB"])]
    #[case::no_file_for_strangers(&[(UNKNOWN, "deny")], &[FILE, "MMDB"])]
    #[case::no_list(&[SOME], &[DENY, ALLOW, "such as"])]
    #[case::not_assigned(&[SOME, (DENY, "DE,UK,FR")], &[DENY, "\"UK\""])]
    #[case::a_name(&[SOME, (ALLOW, "Germany")], &[ALLOW, "\"Germany\""])]
    #[case::three_letters(&[SOME, (ALLOW, "DEU")], &[ALLOW, "\"DEU\""])]
    #[case::no_letters(&[SOME, (ALLOW, "ß")], &[ALLOW, "\"ß\""])]
    #[case::nothing(&[SOME, (ALLOW, ",")], &[ALLOW, "\"\""])]
    #[case::unknown(&[SOME, (DENY, "DE"), (UNKNOWN, "refuse")], &[UNKNOWN, "allow or deny"])]
    fn what_cannot_be_meant_is_named(#[case] given: &[(&str, &str)], #[case] words: &[&str]) {
        let message = read(given).unwrap_err();
        assert_eq!(message.lines().count(), 2, "one problem: {message}");
        for word in words {
            assert!(message.contains(word), "{word}: {message}");
        }
    }

    #[test]
    fn every_code_has_two_letters_and_its_place() {
        let codes: Vec<_> = ASSIGNED.split(' ').collect();
        assert_eq!(codes.len(), 250);
        assert!(codes.is_sorted());
        let is_code = |code: &&str| CountryCode::parse(code).is_some_and(CountryCode::is_assigned);
        assert!(codes.iter().all(is_code));
    }
}
