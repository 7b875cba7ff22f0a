//! Framework adapters. They translate requests and responses and make no decisions.
//!
//! Everything except the translation is shared: `carrier` defines what is required of a framework's
//! types, `exchange` takes a request through the authenticator and reports its response, and
//! `inside` serves inner layers, extractors and handlers. Types in these modules that a host never
//! needs to name are `pub` but not re-exported.

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
mod limits;
#[cfg(any(feature = "actix-web", feature = "tower"))]
mod rejection;
#[cfg(any(feature = "actix-web", feature = "tower"))]
mod require;
#[cfg(any(feature = "actix-web", feature = "axum"))]
mod routes;
#[cfg(feature = "tower")]
pub mod tower;

#[cfg(any(feature = "actix-web", feature = "axum"))]
pub use caller::{Caller, Demand, Granted};
#[cfg(any(feature = "actix-web", feature = "tower"))]
pub use limits::RateLimits;
#[cfg(any(feature = "actix-web", feature = "tower"))]
pub use rejection::Rejection;
#[cfg(any(feature = "actix-web", feature = "axum"))]
pub use routes::RouteDemand;
