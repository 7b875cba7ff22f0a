//! Sets of granted scopes: the trait that requirements are checked against, the model that creates
//! sets from stored names, and the wildcard set.
//!
//! A set is compiled once per key and checked on every request, so `grants` is synchronous and must
//! not allocate.

use std::fmt::Debug;
use std::sync::{Arc, LazyLock};

use quick_cache::sync::Cache;

use super::name::Scope;
use crate::pointer::to_the_pointee;
use crate::text::ParseError;

/// The scopes granted to a key.
///
/// A host with its own scope model (roles, a bit set) implements this trait and [`ScopeModel`].
pub trait ScopeSet: Debug + Send + Sync + 'static {
    /// Whether the grants cover all of `required`. A required wildcard is satisfied only by a grant
    /// that covers all of it.
    fn grants(&self, required: &Scope) -> bool;

    /// Calls `see` with the name of each grant, in display order.
    fn visit(&self, see: &mut dyn FnMut(&str));

    /// Returns the names of the grants. Allocates; meant for responses and logs, not for decisions.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.visit(&mut |name| names.push(name.to_owned()));
        names
    }

    /// Returns the name of a grant that covers `required`, for explanations; `None` if none does.
    fn granted_by(&self, required: &Scope) -> Option<String> {
        if !self.grants(required) {
            return None;
        }
        let mut by = None;
        self.visit(&mut |name| {
            if by.is_none() && Scope::new(name).is_ok_and(|grant| grant.covers(required)) {
                by = Some(name.to_owned());
            }
        });
        by.or_else(|| Some(required.to_string()))
    }
}

/// Compiles the scopes of a key record into a set.
pub trait ScopeModel: Debug + Send + Sync + 'static {
    /// Returns the set that these names grant.
    ///
    /// # Errors
    /// Returns an error if the model does not know a name. The key is then refused: an unknown
    /// grant is never guessed.
    fn compile(&self, names: &[Scope]) -> Result<Arc<dyn ScopeSet>, ParseError>;
}

to_the_pointee! {
    ScopeModel {
        fn compile(&self, names: &[Scope]) -> Result<Arc<dyn ScopeSet>, ParseError>;
    }
    ScopeSet {
        fn grants(&self, required: &Scope) -> bool;
        fn visit(&self, see: &mut dyn FnMut(&str));
        fn names(&self) -> Vec<String>;
        fn granted_by(&self, required: &Scope) -> Option<String>;
    }
}

/// The default model: literals, `*`, `…:*` and `….*`. Keys with the same few scopes share a set.
#[derive(Debug, Clone, Copy, Default)]
pub struct WildcardModel;

/// The sets of short lists that were used lately. A set of few keys is found in the processor's cache
/// for all of them, and takes memory once.
static SHARED: LazyLock<Cache<Vec<Scope>, Arc<WildcardScopes>>> =
    LazyLock::new(|| Cache::new(MOST_SHARED));

/// The maximum number of shared sets, and of the scopes in one.
const MOST_SHARED: usize = 1000;
const LONGEST_SHARED: usize = 16;

impl ScopeModel for WildcardModel {
    fn compile(&self, names: &[Scope]) -> Result<Arc<dyn ScopeSet>, ParseError> {
        let compiled = || Arc::new(names.iter().cloned().collect::<WildcardScopes>());
        if names.len() > LONGEST_SHARED {
            return Ok(compiled());
        }
        let shared = SHARED.get_or_insert_with(names, || Ok::<_, ParseError>(compiled()))?;
        Ok(shared)
    }
}

/// Grants with wildcards, in their original order.
#[derive(Debug)]
struct WildcardScopes {
    grants: Box<[Scope]>,
    // Indices of the literals, sorted by text; empty if scanning all grants is faster.
    sorted_literals: Box<[u32]>,
}

/// Up to this many grants, a linear scan is faster than a binary search.
const FEW: usize = 12;

impl FromIterator<Scope> for WildcardScopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        let grants: Box<[Scope]> = scopes.into_iter().collect();
        let mut sorted = Vec::new();
        if grants.len() > FEW {
            sorted.extend(
                (0_u32..)
                    .zip(&grants)
                    .filter(|(_, grant)| !grant.is_wildcard())
                    .map(|(at, _)| at),
            );
            sorted.sort_by(|&a, &b| grants[a as usize].cmp(&grants[b as usize]));
        }
        Self {
            grants,
            sorted_literals: sorted.into(),
        }
    }
}

impl ScopeSet for WildcardScopes {
    fn grants(&self, required: &Scope) -> bool {
        if self.sorted_literals.is_empty() {
            return self.grants.iter().any(|grant| grant.covers(required));
        }
        self.sorted_literals
            .binary_search_by(|&at| self.grants[at as usize].cmp(required))
            .is_ok()
            || self
                .grants
                .iter()
                .any(|grant| grant.is_wildcard() && grant.covers(required))
    }

    fn visit(&self, see: &mut dyn FnMut(&str)) {
        for grant in &self.grants {
            see(grant.as_str());
        }
    }
}
