//! Tests of the adapters with their usual surroundings: other layers, real clients, real sockets,
//! telemetry.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

mod actix_server;
mod allocations;
mod demanding;
mod diagnostics;
mod forgotten;
mod identity;
mod layer_order;
mod mapping_and_demands;
mod on_actix;
mod on_axum;
mod outside;
mod policies;
mod protected_on_actix;
mod real_clients;
mod real_wire;
mod reservations;
mod telemetry;
mod tower_layer;
mod wire;
