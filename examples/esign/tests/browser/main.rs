//! The dashboard in Chromium, with and without script: on the demo, and on a small site on which it can
//! be mounted anywhere.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

mod access;
#[path = "../common/mod.rs"]
mod common;
mod lifecycle;
mod looks;
mod mounting;
mod names;
mod pages;
mod site;
