//! The groups of settings that describe a service, for [`Portunus::builder`](crate::Portunus::builder).
//!
//! | group | states |
//! |---|---|
//! | [`Credentials`] | which keys are accepted and where, and in which format they are issued |
//! | [`Limits`] | how many requests a key, a tenant or a group of requests may make |
//! | [`Actors`] | users, and how the owners of keys stand |
//! | [`Policy`] | where keys work: environment, transport, client addresses, scope model |
//! | [`Responses`] | the format of refusals and the fields of responses |
//!
//! What keys may be like and what operators may do with them is
//! [`Management`](crate::manage::Management); the audit is [`Audit`](crate::audit::Audit); the cache
//! is [`Cache`](crate::store::Cache).

mod actors;
mod credentials;
mod limits;
mod policy;
mod responses;

pub use actors::Actors;
pub use credentials::Credentials;
pub use limits::Limits;
pub(crate) use limits::{BucketOf, CostOf};
pub use policy::Policy;
pub use responses::Responses;

use crate::key::FormatError;
use crate::text::ParseError;

/// Why a description does not build. Each message says what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no way to present a key.
    #[error(
        "no credentials are accepted: give Credentials formats for bearer(), basic() or header()"
    )]
    NoFormat,
    /// A header cannot carry a key.
    #[error("{0:?} cannot carry a key: it is no field name, or it has another meaning")]
    Header(String),
    /// There is no place where keys are kept.
    #[error("there is no store: call store(), for example with MemoryStore::new(), or lookup()")]
    NoStore,
    /// A format cannot write an environment that keys can be issued for.
    #[error("keys cannot be issued: {0}")]
    Format(#[from] FormatError),
    /// No key can be issued for the environment that is served.
    #[error("serve_only() accepts keys of {0:?}, which is not one of Management::environments()")]
    Environment(String),
    /// A quota is not valid.
    #[error("the limits are not valid: {0}")]
    Quota(#[from] ParseError),
    /// Limits are set although nothing is limited.
    #[error(
        "Limits::none() limits nothing, so its other settings do nothing: use Limits::per_key()"
    )]
    UnusedLimits,
}
