//! Limits on real servers: alone, with Sentinels, in a cluster.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

mod bus;
mod cluster;
mod common;
mod conformance;
mod limits;
mod network;
mod outages;
mod readings;
mod sentinel;
mod start;
#[cfg(feature = "tls")]
mod tls;
mod together;
