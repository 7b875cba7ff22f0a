//! Contenders that protect the same in-process service, and the means to compare them in one run.
//!
//! Each contender is a [`Contender`] with its own keys; [`scenarios`] says which are measured
//! and what each is compared with, [`rounds`] measures them, [`table`] and [`chart`] show the
//! result. What each contender does and does not do is explained in `benches/README.md`.

#![allow(
    clippy::expect_used,
    clippy::must_use_candidate,
    clippy::missing_panics_doc,
    missing_debug_implementations,
    missing_docs,
    reason = "a benchmark may stop where it cannot go on"
)]

pub mod actix_apps;
mod awaited;
pub mod axum_apps;
pub mod bearer;
pub mod chart;
pub mod contender;
pub mod floor;
pub mod garbage;
pub mod gate;
pub mod governors;
pub mod library;
pub mod limiters;
pub mod naive;
pub mod plan;
pub mod prefixed;
pub mod rounds;
pub mod scenarios;
#[cfg(target_os = "linux")]
pub mod served;
pub mod shape;
pub mod straightforward;
pub mod table;
pub mod token;

pub use contender::{Check, Client, Contender};
pub use shape::Settings;
