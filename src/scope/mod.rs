//! Authorization by scope: scopes, sets of granted scopes, and requirements on a set.
//!
//! Two separators are in common use, `document:read` and `documents.read`. Both are supported, and
//! they are never equivalent. A grant is `*`, a literal, or a literal prefix ending in `:*` or
//! `.*`. Such a prefix covers every deeper name with that separator, but not the bare prefix and
//! not names with the other separator.
//!
//! ```
//! use portunus::scope;
//! use portunus::scope::{ScopeModel, ScopeSet, WildcardModel};
//!
//! let granted = WildcardModel.compile(&[scope!("document:*"), scope!("signature:read")])?;
//! assert!(granted.grants(&scope!("document:read")));
//! assert!(!granted.grants(&scope!("document")));
//! assert!(!granted.grants(&scope!("document.read")));
//! # Ok::<(), portunus::error::ParseError>(())
//! ```

mod bits;
mod explain;
mod name;
mod requirement;
mod set;
mod vocabulary;

pub use bits::BitModel;
pub use explain::ScopeExplanation;
pub use name::{MAX_SCOPE_LENGTH, Scope};
pub use requirement::ScopeRequirement;
pub(crate) use requirement::{write_all, write_any};
pub use set::{ScopeModel, ScopeSet, WildcardModel};
pub use vocabulary::Vocabulary;
