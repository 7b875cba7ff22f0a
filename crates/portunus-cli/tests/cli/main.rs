//! The program itself, on SQLite, on PostgreSQL and over HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
mod doctor;
mod events;
mod failures;
mod lifecycle;
mod prompts;
mod secrets;
mod terminal;
mod transfer;
