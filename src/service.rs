//! The periodic jobs of a service that uses keys.

mod jobs;
mod maintenance;

#[allow(unused_imports, reason = "what builds it comes next")]
pub(crate) use jobs::{Jobs, Parts, Rehashes, Retention};
pub use maintenance::Maintenance;
