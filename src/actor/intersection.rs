//! The authority of a key that acts for a user: the intersection of several scope sets.

use std::sync::Arc;

use crate::scope::{Scope, ScopeSet};

/// The scopes that all of the sets grant.
#[derive(Debug)]
pub(crate) struct Intersection(Vec<Arc<dyn ScopeSet>>);

impl Intersection {
    pub(crate) fn of(sets: Vec<Arc<dyn ScopeSet>>) -> Self {
        Self(sets)
    }
}

impl ScopeSet for Intersection {
    fn grants(&self, required: &Scope) -> bool {
        self.0.iter().all(|set| set.grants(required))
    }

    /// Visits the names of each set that all sets grant: for `document:*` and `*`, `document:*`.
    fn visit(&self, see: &mut dyn FnMut(&str)) {
        let mut seen: Vec<String> = Vec::new();
        for set in &self.0 {
            set.visit(&mut |name| {
                let granted = Scope::new(name).is_ok_and(|scope| self.grants(&scope));
                if granted && !seen.iter().any(|known| known == name) {
                    seen.push(name.to_owned());
                }
            });
        }
        seen.iter().for_each(|name| see(name));
    }
}
