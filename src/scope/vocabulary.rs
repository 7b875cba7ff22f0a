//! The scopes that a host knows, so that no key can be issued with a misspelt one.

use super::name::Scope;
use crate::text::ParseError;

/// A declared list of scopes.
///
/// A literal is known if it is declared; a wildcard if it is declared or covers a declared name;
/// `*` always is.
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
    /// The declared names, in their order.
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
    /// The first scope that is not known.
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
