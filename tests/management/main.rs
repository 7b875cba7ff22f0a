//! The lifecycle of a key, through the manager.

#![cfg(all(feature = "events", feature = "testing"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

mod bulk;
mod bulk_fairness;
mod changes;
mod events;
mod host_rules;
mod idempotency;
mod importing;
mod importing_many;
mod life;
mod lists;
mod managing;
mod operators;
mod own_bulk;
mod own_keys;
mod preconditions;
mod primary;
mod quotas;
mod races;
mod reading;
mod rotation;
mod settings;
mod texts;
mod user_ids;
