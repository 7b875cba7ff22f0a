//! The in-memory store, and the cache in front of a store that must be awaited.

#![cfg(feature = "testing")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

mod cache;
mod contract;
mod nodes;
mod races;
mod secrets;
