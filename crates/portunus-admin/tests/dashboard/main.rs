//! The dashboard, requested as a browser does: links are resolved against the address of the page,
//! forms are sent with the fields that the page contains.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod actions;
mod audit;
mod browser;
mod bulk;
mod chain;
mod contrast;
mod editing;
mod explain;
mod fixture;
mod fragment;
mod gauges;
mod importing;
mod issuing;
mod listing;
mod mounting;
mod names;
mod safety;
mod texts;
