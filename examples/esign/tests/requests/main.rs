//! The demo's responses over HTTP. Also run with `ESIGN_TEST_ADAPTER=actix`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

mod actors;
mod admin;
mod changing;
mod chunks;
#[path = "../common/mod.rs"]
mod common;
mod conditional;
mod credits;
mod cross_site;
mod dashboard;
mod delegation;
mod events;
mod events_written;
mod failing;
mod framing;
mod heads;
mod importing;
mod issuing;
mod iusign;
mod limits;
mod listing;
mod me;
mod networks;
mod primaries;
mod process;
mod quotas;
mod readme_walk;
mod revoking;
mod rotating;
mod routes;
mod secrets;
mod seeds;
mod standing;
mod tls;
mod verifying;
mod wire;
mod yousign;
