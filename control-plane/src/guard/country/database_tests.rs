use rstest::rstest;
use serde_json::{Value, json};

use self::mmdb::{geolite, mmdb, mmdb_of_ipv4};
use super::*;

#[expect(unreachable_pub, reason = "it is a module of the tests' harness")]
#[path = "../../../../tests/src/mmdb.rs"]
mod mmdb;

fn country(database: &Database, address: &str) -> Option<String> {
    let found = database.country_of(address.parse().unwrap());
    found.map(|code| code.to_string())
}

#[rstest]
#[case("203.0.113.9", Some("KP"))]
#[case("203.0.113.129", Some("DE"))]
#[case("198.51.100.1", None)]
#[case("127.0.0.1", None)]
#[case("::ffff:203.0.113.9", Some("KP"))]
#[case("::ffff:198.51.100.1", None)]
#[case("2001:db8:1::1", Some("FR"))]
#[case("2001:db8:1:ffff:ffff:ffff:ffff:ffff", Some("FR"))]
#[case("2001:db8:2::1", None)]
#[case("::1", None)]
fn an_address_is_in_the_country_of_its_nearest_network(
    #[case] address: &str,
    #[case] expected: Option<&str>,
) {
    let file = geolite(&[
        ("203.0.113.0/24", "KP"),
        ("203.0.113.128/25", "DE"),
        ("2001:db8:1::/48", "FR"),
    ]);
    let database = Database::new(file).unwrap();
    assert_eq!(country(&database, address).as_deref(), expected);
}

#[rstest]
#[case::maxmind(
    json!({
        "continent": { "code": "EU" },
        "country": { "geoname_id": 2921044, "is_in_european_union": true, "iso_code": "DE", "names": { "en": "Germany" } },
        "registered_country": { "iso_code": "US" },
        "subdivisions": [{ "iso_code": "BE" }],
    }),
    Some("DE")
)]
#[case::registered(json!({ "registered_country": { "iso_code": "US" } }), Some("US"))]
#[case::without_a_code(json!({ "country": {}, "registered_country": { "iso_code": "US" } }), Some("US"))]
#[case::continent_alone(json!({ "continent": { "code": "EU" } }), None)]
#[case::ipinfo_lite(json!({ "asn": "AS64500", "country": "Germany", "country_code": "DE" }), Some("DE"))]
#[case::ipinfo_country(json!({ "continent": "EU", "country": "DE", "country_name": "Germany" }), Some("DE"))]
#[case::small(json!({ "country_code": "de" }), Some("DE"))]
#[case::a_name(json!({ "country": "Germany" }), None)]
#[case::nothing(json!({}), None)]
fn every_vendor_is_understood(#[case] record: Value, #[case] expected: Option<&str>) {
    // Another network makes it a file that knows countries.
    let known = json!({ "country": { "iso_code": "FR" } });
    let records = [("192.0.2.0/24", known), ("203.0.113.0/24", record)];
    let database = Database::new(mmdb("any", &records)).unwrap();
    assert_eq!(country(&database, "203.0.113.9").as_deref(), expected);
}

#[test]
fn a_file_of_ipv4_without_a_description_does_not_know_ipv6() {
    let records = [("203.0.113.0/24", json!({ "country_code": "KP" }))];
    let database = Database::new(mmdb_of_ipv4("any", &records)).unwrap();
    assert_eq!(country(&database, "203.0.113.9").as_deref(), Some("KP"));
    assert_eq!(
        country(&database, "::ffff:203.0.113.9").as_deref(),
        Some("KP")
    );
    assert_eq!(country(&database, "2001:db8::1"), None);
}

#[test]
fn a_file_without_countries_is_refused_by_its_type() {
    let network = json!({ "autonomous_system_number": 64500 });
    let file = mmdb("GeoLite2-ASN", &[("203.0.113.0/24", network)]);
    let error = Database::new(file).unwrap_err().to_string();
    assert!(
        error.contains("COUNTRY_DB_FILE") && error.contains("GeoLite2-ASN"),
        "{error}"
    );
}

#[rstest]
#[case::a_number(json!({ "country": 49 }))]
#[case::a_text(json!("DE"))]
fn records_of_another_kind_are_refused(#[case] record: Value) {
    let known = json!({ "country": { "iso_code": "FR" } });
    let records = [("192.0.2.0/24", known), ("203.0.113.0/24", record)];
    let error = Database::new(mmdb("any", &records)).unwrap_err();
    assert!(matches!(error, CountryError::Damaged(_)), "{error}");
}

/// One that `verify` looks at, and one that has no description.
fn files() -> [Vec<u8>; 2] {
    let records = [("203.0.113.0/24", json!({ "country_code": "KP" }))];
    let geolite = geolite(&[("203.0.113.0/24", "KP"), ("2001:db8::/32", "DE")]);
    [geolite, mmdb_of_ipv4("any", &records)]
}

#[rstest]
fn no_part_of_a_file_is_a_file(#[values(0, 1)] which: usize) {
    let file = &files()[which];
    for length in 0..file.len() {
        let error = Database::new(file[..length].to_vec()).unwrap_err();
        assert!(
            matches!(error, CountryError::Damaged(_)),
            "{length}: {error}"
        );
    }
}

/// Whatever happens to one byte, the file is refused or read; nothing panics.
#[rstest]
fn damage_is_refused_or_harmless(#[values(0, 1)] which: usize) {
    let file = &files()[which];
    let addresses = ["203.0.113.9", "198.51.100.1", "2001:db8::1"].map(|it| it.parse().unwrap());
    for place in 0..file.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut damaged = file.clone();
            damaged[place] = value;
            if let Ok(database) = Database::new(damaged) {
                let _found = addresses.map(|address| database.country_of(address));
            }
        }
    }
}
