//! What a key may do: scopes, sets of them, and what is required of a set.
//!
//! Two separators are in use in the field, `document:read` and `documents.read`; both work, and
//! never for each other. A grant is `*`, a literal, or a literal prefix ending in `:*` or `.*`,
//! which covers every deeper name with that separator: not the bare prefix, not the other
//! separator.
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
pub use set::{ScopeModel, ScopeSet, WildcardModel, WildcardScopes};
pub use vocabulary::Vocabulary;
