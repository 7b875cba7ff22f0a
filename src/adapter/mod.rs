//! Portunus in the frameworks: adapters translate requests and answers, and decide nothing.
//!
//! What is no translation is written once: `carrier` says what is asked of a framework's types,
//! `exchange` takes a request through the authenticator and reports its answer, and `inside` is
//! what layers, extractors and handlers further in ask. Types that no host must name are public in
//! there and exported from nowhere.

#[cfg(feature = "actix-web")]
pub mod actix;
#[cfg(feature = "axum")]
pub mod axum;
#[cfg(any(feature = "actix-web", feature = "axum"))]
mod caller;
#[cfg(any(feature = "actix-web", feature = "tower"))]
mod carrier;
#[cfg(any(feature = "actix-web", feature = "tower"))]
mod exchange;
#[cfg(any(feature = "actix-web", feature = "tower"))]
mod inside;
#[cfg(any(feature = "actix-web", feature = "tower"))]
mod require;
#[cfg(any(feature = "actix-web", feature = "axum"))]
mod routes;
#[cfg(feature = "tower")]
pub mod tower;
