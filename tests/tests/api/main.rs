//! The public API and the node protocol, against the real plane in this process and simulated nodes.
#![expect(
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "helpers of tests fail by panicking"
)]

mod accounts;
mod admin_jobs;
mod admin_servers;
mod alerts;
mod analytics;
mod billing;
mod books;
mod buying;
mod client_config;
mod connect;
mod country;
mod devices;
mod directions;
mod disconnect;
mod enrolment;
mod enrolment_tokens;
mod envelope;
mod events;
mod exposition;
mod failures;
mod guard;
mod health;
mod http;
mod key_change;
mod ledger;
mod limits;
mod listener;
mod login_timing;
mod mail;
mod metrics;
mod mfa;
mod node_commands;
mod oauth;
mod offers;
mod openapi;
mod operators;
mod overview;
mod pages;
mod passwords;
mod people;
mod preshared;
mod profile;
mod quota;
mod recovery;
mod replicas;
mod revocation;
mod rotation;
mod round_trips;
mod schema;
mod selection;
mod servers;
mod session;
mod sessions;
mod start;
mod statistics;
mod status;
mod stripe;
mod stripe_server;
mod throttle;
mod tickets;
mod tls;
mod walk;
mod webhook;

use std::time::Duration;

/// For what takes one or two round trips in a plane that is busy with other tests.
const SOON: Duration = Duration::from_secs(10);
