//! Guides: one page for each thing that a service does with its keys.
//!
//! Each begins with a whole program, which is compiled and run with the tests of this library, and
//! goes on with what is easily done wrong.
//!
//! | guide | about |
//! |---|---|
//! | [`protect_axum`] | an axum app |
//! | [`protect_actix`] | an actix-web app |
//! | [`protect_grpc`] | a gRPC service |
//! | [`own_key_store`] | keeping keys in storage of your own |
//! | [`own_rate_limiter`] | counting requests in a place of your own |
//! | [`own_dialect`] | keys and error bodies that look like your API's |
//! | [`delegation`] | applications that act for users |
//! | [`rotation`] | a new key without downtime |
//! | [`migration`] | from keys, or from middleware, that you have already |
//! | [`slow_clients`] | what a server must bound: time, heads, uploads that are refused |
//! | [`behind_a_proxy`] | addresses and TLS behind a proxy or a CDN |
//! | [`testing_a_service`] | tests of a service that is protected |
//!
//! This module is documentation only: nothing of it is compiled into a program.

pub mod behind_a_proxy;
pub mod delegation;
pub mod migration;
pub mod own_dialect;
pub mod own_key_store;
pub mod own_rate_limiter;
#[cfg(not(doctest))] // Run where its dependencies are: crates/portunus-integration-tests.
#[doc = include_str!("protect_actix.md")]
pub mod protect_actix {}
pub mod protect_axum;
#[cfg(not(doctest))] // Run where its dependencies are: crates/portunus-integration-tests.
#[doc = include_str!("protect_grpc.md")]
pub mod protect_grpc {}
pub mod rotation;
#[cfg(not(doctest))] // Run where its dependencies are: crates/portunus-integration-tests.
#[doc = include_str!("slow_clients.md")]
pub mod slow_clients {}
pub mod testing_a_service;
