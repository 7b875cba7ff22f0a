//! The periodic jobs of a service: what is due is done, and nothing is lost, whatever hangs.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, missing_docs)]

mod calls;
mod desk;
#[cfg(feature = "tracing")]
mod forgotten;
#[cfg(feature = "tokio")]
mod run;
