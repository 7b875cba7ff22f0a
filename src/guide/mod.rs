//! Guides: one page per task.
//!
//! Each guide starts with a complete program, which is compiled and run as a test of this library,
//! and then covers common mistakes.
//!
//! | guide | topic |
//! |---|---|
//! | [`first_service`] | from nothing to a service with a database and a clean shutdown |
//! | [`protect_axum`] | an axum app |
//! | [`protect_actix`] | an actix-web app |
//! | [`protect_grpc`] | a gRPC service |
//! | [`own_key_store`] | storing keys in your own storage |
//! | [`own_rate_limiter`] | counting requests with your own rate limiter |
//! | [`own_dialect`] | keys and error bodies in your API's format |
//! | [`plans`] | limits by plan |
//! | [`classes_of_routes`] | limits of expensive routes |
//! | [`credits`] | units that requests cost |
//! | [`anonymous_callers`] | limits for requests without a key |
//! | [`delegation`] | applications that act for users |
//! | [`rotation`] | a new key without downtime |
//! | [`sessions`] | a session beside keys, on the same routes |
//! | [`keys_in_addresses`] | keys in a query or for a WebSocket, and why not |
//! | [`notices`] | keys that expire, are not used or were replaced, as signed webhooks |
//! | [`self_serve`] | users who manage their own keys |
//! | [`observability`] | the key of a request in spans and metrics |
//! | [`migration`] | migrating existing keys or from other middleware |
//! | [`importing`] | importing a table of keys with their history; keys with salted digests |
//! | [`slow_clients`] | server limits: time, request heads, refused uploads |
//! | [`behind_a_proxy`] | addresses and TLS behind a proxy or a CDN |
//! | [`at_scale`] | several nodes: how many, which Redis and PostgreSQL, what a failover loses |
//! | [`testing_a_service`] | testing a protected service |
//!
//! This module is documentation only; it adds no code to a program.

pub mod anonymous_callers;
#[cfg(not(doctest))] // Run where its dependencies are: crates/portunus-integration-tests.
#[doc = include_str!("at_scale.md")]
pub mod at_scale {}
pub mod behind_a_proxy;
pub mod classes_of_routes;
pub mod credits;
pub mod delegation;
#[cfg(not(doctest))] // Run where its dependencies are: crates/portunus-integration-tests.
#[doc = include_str!("first_service.md")]
pub mod first_service {}
#[cfg(not(doctest))] // Run where its dependencies are: crates/portunus-integration-tests.
#[doc = include_str!("importing.md")]
pub mod importing {}
#[cfg(not(doctest))] // Run where its dependencies are: crates/portunus-integration-tests.
#[doc = include_str!("keys_in_addresses.md")]
pub mod keys_in_addresses {}
pub mod migration;
#[cfg(not(doctest))] // Run where its dependencies are: crates/portunus-integration-tests.
#[doc = include_str!("notices.md")]
pub mod notices {}
#[cfg(not(doctest))] // Run where its dependencies are: crates/portunus-integration-tests.
#[doc = include_str!("observability.md")]
pub mod observability {}
pub mod own_dialect;
pub mod own_key_store;
pub mod own_rate_limiter;
pub mod plans;
#[cfg(not(doctest))] // Run where its dependencies are: crates/portunus-integration-tests.
#[doc = include_str!("protect_actix.md")]
pub mod protect_actix {}
pub mod protect_axum;
#[cfg(not(doctest))] // Run where its dependencies are: crates/portunus-integration-tests.
#[doc = include_str!("protect_grpc.md")]
pub mod protect_grpc {}
pub mod rotation;
pub mod self_serve;
#[cfg(not(doctest))] // Run where its dependencies are: crates/portunus-integration-tests.
#[doc = include_str!("sessions.md")]
pub mod sessions {}
#[cfg(not(doctest))] // Run where its dependencies are: crates/portunus-integration-tests.
#[doc = include_str!("slow_clients.md")]
pub mod slow_clients {}
pub mod testing_a_service;
