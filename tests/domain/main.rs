//! Keys, scopes, quotas, addresses and names, without a store or a server.

#![cfg(all(feature = "testing", feature = "tower"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

mod explanations;
mod keys;
mod layers;
mod limits;
mod names;
mod network;
mod newer_records;
mod profiles;
mod proxy_addr;
mod readings;
mod readme;
mod scopes;
