//! Allocation tests. A separate binary, because counting replaces the allocator of the whole
//! program.

#![cfg(feature = "testing")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

mod cached_key;
mod hot_path;
#[cfg(feature = "tower")]
mod layer;
mod limiter_memory;
