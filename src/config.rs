//! Settings groups for [`Portunus::builder`](crate::Portunus::builder).
//!
//! | group | sets |
//! |---|---|
//! | [`Credentials`] | which keys are accepted and where, and in which format they are issued |
//! | [`Limits`] | how many requests keys, users, tenants and addresses may make, by plan and class |
//! | [`Actors`] | the user directory, and the standing of owners |
//! | [`Policy`] | where keys work: environment, transport, client addresses, scope model |
//! | [`Responses`] | the format of refusals and the fields of responses |
//!
//! [`Management`](crate::manage::Management) sets which keys can be issued and what operators can
//! do with them, [`AuditTrail`](crate::audit::AuditTrail) the audit, and
//! [`Cache`](crate::store::Cache) the cache.

mod actors;
mod credentials;
mod limits;
mod policy;
mod responses;

pub use actors::Actors;
pub use credentials::Credentials;
pub(crate) use limits::CostOf;
pub use limits::Limits;
pub use policy::Policy;
pub use responses::Responses;

use crate::key::FormatError;
use crate::text::ParseError;

/// Error returned by [`PortunusBuilder::build`](crate::PortunusBuilder::build). Each message says
/// what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No credential format is configured.
    #[error("no credentials are accepted: call bearer(), basic() or header() on Credentials")]
    NoFormat,
    /// This header cannot carry a key.
    #[error("{0:?} cannot carry a key: it is not a valid header name, or it has another meaning")]
    Header(String),
    /// Neither a store nor a lookup is set.
    #[error("no store is set: call store(), for example with MemoryStore::new(), or lookup()")]
    NoStore,
    /// A key format cannot represent an environment that keys can be issued for.
    #[error("keys cannot be issued: {0}")]
    Format(#[from] FormatError),
    /// The only environment that is served is not one that keys can be issued for.
    #[error("serve_only() accepts keys of {0:?}, which is not one of Management::environments()")]
    Environment(String),
    /// A quota is invalid, or a combination of policies, classes and plans.
    #[error("invalid limits: {0}")]
    Quota(#[from] ParseError),
    /// Keys are configured to sign events, but the store does not keep signing states.
    #[error("IssueRules::sign_events needs a store that keeps signing states: KeyStore::signing()")]
    NoSigning,
    /// Limits are configured together with [`Limits::none`].
    #[error(
        "Limits::none() limits nothing, so its other settings do nothing: use Limits::per_key()"
    )]
    UnusedLimits,
    /// There is nothing to limit.
    #[error("no policy limits anything: add one to Limits, or say Limits::none()")]
    NoLimits,
}
