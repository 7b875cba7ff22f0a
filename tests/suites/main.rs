//! The conformance suites: right implementations pass, and each wrong one fails by the name of its fault.

#![cfg(feature = "testing")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

mod buses;
mod directories;
mod hanging;
mod limiters;
mod stores;
mod stores_and_limiters;
