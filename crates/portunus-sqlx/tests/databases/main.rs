//! Stores, audit and buses on SQLite and on a PostgreSQL server that the tests start.

#![cfg(all(feature = "sqlite", feature = "postgres"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

mod addresses;
mod attach;
#[path = "../common/mod.rs"]
mod common;
mod conformance;
mod credit_model;
mod credit_nodes;
mod credit_walks;
mod credits;
mod failover;
mod importing;
mod joined;
mod lanes;
mod outbox;
mod own_table;
mod places;
mod pooler;
mod postgres;
mod postgres_bus;
mod postgres_faults;
mod roles;
mod schemas;
mod silence;
mod sqlite;
mod sqlite_changes;
mod sqlite_checkpoint;
mod sqlite_disk;
mod sqlite_faults;
mod sqlite_watch;
