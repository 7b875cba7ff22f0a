//! Credits: periods, the ledger, nodes and refusals.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod accounts;
mod ledger;
mod nodes;
mod operators;
mod periods;
mod retention;
