//! The authentication path and its actors, through the authenticator and through the layer.

#![cfg(all(feature = "axum", feature = "testing"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

mod actors;
mod authenticator;
mod introspection;
mod lookups;
mod own_store_and_scopes;
mod plans;
mod policies;
mod readings;
mod testing;
mod verifier;
