//! Scopes as bits, for hosts whose vocabulary is fixed.
//!
//! Each declared name, each wildcard above a declared name, and `*` is one bit; a grant sets the
//! bits of all it covers. A decision is then a search for the bit's number and one test of a word.
//! Answers agree with the wildcard set for everything in the vocabulary; what is outside of it is
//! granted by nothing but `*`.

use std::fmt;
use std::sync::Arc;

use super::name::Scope;
use super::set::{ScopeModel, ScopeSet};
use super::vocabulary::Vocabulary;
use crate::text::ParseError;

const WORDS: usize = 4;
const BITS: usize = WORDS * 64;

/// The numbering: every name and wildcard in the vocabulary, sorted.
#[derive(Debug)]
struct Numbering(Box<[Scope]>);

impl Numbering {
    fn of(&self, scope: &Scope) -> Option<usize> {
        self.0.binary_search(scope).ok()
    }
}

/// Compiles scopes into sets of bits.
#[derive(Debug, Clone)]
pub struct BitModel {
    numbering: Arc<Numbering>,
}

impl BitModel {
    /// A model of this vocabulary, with all wildcards above its names.
    ///
    /// # Errors
    /// Where names and wildcards together are more than 256.
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
            let why = format!("{} names and wildcards do not fit {BITS} bits", all.len());
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
