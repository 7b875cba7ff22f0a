//! The periodic jobs of a service: everything due is done, and nothing is lost, even if a part
//! hangs.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, missing_docs)]

mod calls;
mod credit_notices;
mod desk;
#[cfg(feature = "tracing")]
mod forgotten;
mod notices;
#[cfg(feature = "tokio")]
mod run;
