//! Audit events: their contents and their destinations.

#![cfg(all(feature = "axum", feature = "testing"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

mod acts;
mod chain;
mod events;
mod over_http;
mod sinks;
