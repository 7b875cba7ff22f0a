//! What a key may do: scopes, sets of them, and what routes require.
//!
//! Two separators are in use in the field, `document:read` and `documents.read`; both work, and never for each other.
//! A grant is `*`, a literal, or a literal prefix ending in `:*` or `.*`, which covers every deeper name with that
//! separator: not the bare prefix, not the other separator.
//!
//! ```
//! use portunus::scope;
//! use portunus::scope::{Requirement, ScopeModel, ScopeSet, WildcardModel};
//!
//! let granted = WildcardModel.compile(&[scope!("document:*"), scope!("signature:read")])?;
//! assert!(granted.grants(&scope!("document:read")));
//! assert!(!granted.grants(&scope!("document")));
//! assert!(!granted.grants(&scope!("document.read")));
//!
//! let needed = Requirement::any_of([scope!("signature:write"), scope!("signature:*")]);
//! assert!(!needed.is_met_by(&*granted));
//! assert_eq!(needed.explain(&*granted).to_string(), "missing any of signature:write, signature:*");
//! # Ok::<(), portunus::scope::ScopeError>(())
//! ```

mod bits;
mod name;
mod requirement;
mod set;
mod vocabulary;

pub use bits::{BitModel, BitModelError, BitScopes};
pub use name::{MAX_SCOPE_LENGTH, Scope, ScopeError};
pub use requirement::{Explanation, Requirement};
pub use set::{ScopeModel, ScopeSet, WildcardModel, WildcardScopes};
pub use vocabulary::{UnknownScope, Vocabulary};
