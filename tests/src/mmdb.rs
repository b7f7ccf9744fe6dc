//! Files that know where addresses are, made for a test.
//!
//! The plane's unit tests include this file as well: it names nothing of this crate.

use std::net::IpAddr;

use ipnet::IpNet;
use maxminddb_writer::Database;
use maxminddb_writer::metadata::IpVersion;
use maxminddb_writer::paths::IpAddrWithMask;
use serde_json::{Value, json};

/// A file of this type with these records; the wider of two networks comes first. IPv4 networks are where every
/// vendor has them, in the first 2^32 addresses of IPv6.
#[must_use]
pub fn mmdb(kind: &str, records: &[(&str, Value)]) -> Vec<u8> {
    let within_ipv6 = |network: IpNet| match network {
        IpNet::V4(it) => IpAddrWithMask::new(
            IpAddr::V6(u128::from(it.addr().to_bits()).into()),
            96 + it.prefix_len(),
        ),
        IpNet::V6(it) => IpAddrWithMask::new(it.addr().into(), it.prefix_len()),
    };
    write(IpVersion::V6, kind, records, within_ipv6)
}

/// One that knows IPv4 alone, and has no description, as some do without.
#[must_use]
pub fn mmdb_of_ipv4(kind: &str, records: &[(&str, Value)]) -> Vec<u8> {
    let as_it_is = |network: IpNet| IpAddrWithMask::new(network.addr(), network.prefix_len());
    write(IpVersion::V4, kind, records, as_it_is)
}

/// One like MaxMind's, with codes of countries by network.
#[must_use]
pub fn geolite(countries: &[(&str, &str)]) -> Vec<u8> {
    let record =
        |code: &str| json!({ "country": { "iso_code": code, "names": { "en": "Somewhere" } } });
    let records: Vec<_> = countries
        .iter()
        .map(|(network, code)| (*network, record(code)))
        .collect();
    mmdb("GeoLite2-Country", &records)
}

fn write(
    version: IpVersion,
    kind: &str,
    records: &[(&str, Value)],
    place: impl Fn(IpNet) -> IpAddrWithMask,
) -> Vec<u8> {
    let mut database = Database::default();
    let metadata = &mut database.metadata;
    metadata.ip_version = version;
    metadata.binary_format_major_version = 2;
    kind.clone_into(&mut metadata.database_type);
    if matches!(version, IpVersion::V6) {
        let description = "Made by a test".to_owned();
        metadata.description.insert("en".to_owned(), description);
    }
    for (network, record) in records {
        let data = database.insert_value(record).expect("it can be written");
        database.insert_node(place(network.parse().expect("a network")), data);
    }
    database.write_to(Vec::new()).expect("memory takes it")
}
