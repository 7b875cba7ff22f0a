//! Limits on real servers: alone, with Sentinels, in a cluster.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

mod common;
mod conformance;
mod limits;
mod outages;
