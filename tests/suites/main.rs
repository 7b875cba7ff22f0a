//! Mutation tests of the conformance suites: correct implementations pass, and each incorrect one
//! fails the check that names its fault.

#![cfg(feature = "testing")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

mod buses;
mod credits;
mod directories;
mod hanging;
mod limiters;
mod stores;
mod stores_and_limiters;
