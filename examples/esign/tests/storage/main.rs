//! Processes on one store: what storage decides, whichever framework serves.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

#[path = "../common/mod.rs"]
mod common;
mod crashes;
mod full_disk;
mod nodes;
mod nodes_cut;
mod postgres;
mod sqlite;
mod user_ids;
