//! Several processes on one store: behavior that depends on storage and not on the framework.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

#[path = "../common/mod.rs"]
mod common;
mod corrupt;
mod crashes;
mod full_disk;
mod newer;
mod nodes;
mod nodes_cut;
mod pooler;
mod postgres;
mod silence;
mod sqlite;
mod squatting;
mod user_ids;
