//! Portunus in the frameworks: adapters translate requests and answers, and decide nothing.

#[cfg(feature = "actix-web")]
pub mod actix;
#[cfg(feature = "axum")]
pub mod axum;
#[cfg(any(feature = "actix-web", feature = "axum"))]
mod caller;
#[cfg(any(feature = "actix-web", feature = "tower"))]
mod nobody;
#[cfg(feature = "tower")]
pub mod tower;
