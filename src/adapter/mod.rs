//! Portunus in the frameworks: adapters translate requests and answers, and decide nothing.

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "tower")]
pub mod tower;
