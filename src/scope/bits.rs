//! Scopes as bit sets, for hosts with a fixed vocabulary.
//!
//! Each declared name, each wildcard above a declared name, and `*` has one bit; a grant sets the
//! bits of everything that it covers. A decision is a binary search for the bit's index and a test
//! of one word. The results agree with the wildcard set for everything in the vocabulary; anything
//! outside it is granted by `*` only.

use std::fmt;
use std::sync::Arc;

use super::name::Scope;
use super::set::{ScopeModel, ScopeSet};
use super::vocabulary::Vocabulary;
use crate::text::ParseError;

const WORDS: usize = 4;
const BITS: usize = WORDS * 64;

/// The bit indices: every name and wildcard of the vocabulary, sorted.
#[derive(Debug)]
struct Numbering(Box<[Scope]>);

impl Numbering {
    fn of(&self, scope: &Scope) -> Option<usize> {
        self.0.binary_search(scope).ok()
    }
}

/// Compiles scopes into bit sets.
#[derive(Debug, Clone)]
pub struct BitModel {
    numbering: Arc<Numbering>,
}

impl BitModel {
    /// Creates a model of this vocabulary and all wildcards above its names.
    ///
    /// # Errors
    /// Returns an error if names and wildcards together are more than 256.
    pub fn new(vocabulary: &Vocabulary) -> Result<Self, ParseError> {
        let mut all = vec![const { Scope::from_static("*") }];
        for name in vocabulary.names() {
            all.push(name.clone());
            all.extend(std::iter::successors(
                name.parent_wildcard(),
                Scope::parent_wildcard,
            ));
        }
        all.sort();
        all.dedup();
        if all.len() > BITS {
            let why = format!(
                "a vocabulary can have at most {BITS} names and wildcards; this one has {}",
                all.len()
            );
            return Err(ParseError::new("vocabulary", why));
        }
        Ok(Self {
            numbering: Arc::new(Numbering(all.into())),
        })
    }
}

impl ScopeModel for BitModel {
    fn compile(&self, names: &[Scope]) -> Result<Arc<dyn ScopeSet>, ParseError> {
        let mut bits = [0_u64; WORDS];
        for (number, scope) in self.numbering.0.iter().enumerate() {
            if names.iter().any(|grant| grant.covers(scope)) {
                bits[number / 64] |= 1 << (number % 64);
            }
        }
        let everything = names.iter().any(|grant| grant.as_str() == "*");
        Ok(Arc::new(BitScopes {
            bits,
            everything,
            names: names.into(),
            numbering: Arc::clone(&self.numbering),
        }))
    }
}

/// Grants as bits of a fixed vocabulary.
#[derive(Clone)]
struct BitScopes {
    bits: [u64; WORDS],
    everything: bool,
    names: Box<[Scope]>,
    numbering: Arc<Numbering>,
}

impl ScopeSet for BitScopes {
    fn grants(&self, required: &Scope) -> bool {
        self.everything
            || self
                .numbering
                .of(required)
                .is_some_and(|number| self.bits[number / 64] >> (number % 64) & 1 == 1)
    }

    fn visit(&self, see: &mut dyn FnMut(&str)) {
        for name in &self.names {
            see(name.as_str());
        }
    }
}

impl fmt::Debug for BitScopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BitScopes").field(&self.names).finish()
    }
}
