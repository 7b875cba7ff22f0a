//! Portunus.

pub mod actor;
pub mod adapter;
mod authenticator;
mod clock;
mod credential;
mod error;
pub mod key;
pub mod manage;
mod principal;
#[cfg(feature = "profiles")]
pub mod profile;
pub mod request;
pub mod respond;
pub mod scope;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod usage;

pub use actor::{Actor, ActorMode};
pub use authenticator::{Attempt, Authenticator, AuthenticatorBuilder, BuildError, Outcome, PendingAttempt};
pub use clock::{Clock, SystemClock};
pub use credential::MAX_CREDENTIAL_LENGTH;
pub use error::{AuthError, ErrorCode, MissingScope};
pub use principal::{KeyPrincipal, Principal};
pub use request::RequestHead;
pub use scope::{Requirement, Scope, ScopeSet};
pub use store::KeyStore;
pub use usage::UsageRecorder;
