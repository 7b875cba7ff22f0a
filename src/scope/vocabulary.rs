//! The scopes that a host declares, so that no key can be issued with a misspelt one.

use super::name::Scope;
use crate::text::ParseError;

/// A declared list of scopes.
///
/// A literal is known if it is declared, a wildcard if it is declared or covers a declared name.
/// `*` is always known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vocabulary {
    names: Vec<Scope>,
}

impl FromIterator<Scope> for Vocabulary {
    fn from_iter<I: IntoIterator<Item = Scope>>(names: I) -> Self {
        Self {
            names: names.into_iter().collect(),
        }
    }
}

impl Vocabulary {
    /// Returns the declared names, in order.
    #[must_use]
    pub fn names(&self) -> &[Scope] {
        &self.names
    }

    /// Whether the scope may be granted.
    #[must_use]
    pub fn knows(&self, scope: &Scope) -> bool {
        scope.as_str() == "*"
            || self
                .names
                .iter()
                .any(|name| name == scope || (scope.is_wildcard() && scope.covers(name)))
    }

    /// Checks a list of grants.
    ///
    /// # Errors
    /// Returns an error for the first unknown scope.
    pub fn check(&self, scopes: &[Scope]) -> Result<(), ParseError> {
        match scopes.iter().find(|scope| !self.knows(scope)) {
            Some(scope) => Err(ParseError::new(
                "scope",
                format!("unknown scope {:?}", scope.as_str()),
            )),
            None => Ok(()),
        }
    }
}
