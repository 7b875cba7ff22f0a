//! API keys: format, secret, digest, identifiers and the stored record.
//!
//! Everything here is data and pure functions, independent of requests, stores and frameworks.

mod alphabet;
mod checksum;
mod digest;
mod format;
mod id;
mod kind;
mod newer;
mod record;
mod secret;
mod settings;
mod sha256;
mod signing;
mod text;

pub use alphabet::Alphabet;
pub(crate) use alphabet::{are_token68, is_token68};
pub use checksum::Checksum;
pub(crate) use checksum::LONGEST_CHECKSUM;
pub(crate) use digest::Candidates;
pub use digest::{DigestScheme, KeyDigest, KeyHasher, Pepper};
pub use format::{
    FormatError, FormatMismatch, GenerateError, KeyFormat, KeyFormatBuilder, MAX_KEY_LENGTH,
    ParsedKey,
};
pub use id::{KeyFamily, KeyId, PlanName, TenantId, UserId, WorkspaceId};
pub use kind::{Environment, KeyKind};
pub use record::{Access, Delegation, KeyRecord, KeyStatus, MAX_TIME, Metadata, Owner, Revocation};
pub use secret::PlaintextKey;
pub use settings::KeySettings;
pub use signing::SigningState;
pub use text::Text;
