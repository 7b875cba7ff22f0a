//! gRPC over HTTP/2: calls through tonic, and refusals on the wire.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

mod answers;
mod calls;
