//! Tokens that the library did not issue: their verifier, and a cache of its results.
//!
//! A result is reused for at most [`FRESH`], counted from the start of the call, and never past the
//! token's expiry. The entry stays in the cache for longer: a token that was valid is verified
//! again without waiting for a turn, regardless of failures of the same client. The cache is
//! bounded by number of entries and by size. It never holds tokens that are not valid.

use std::fmt;
use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::Inner;
use super::facts::Facts;
use super::path::Progress;
use super::wait::Wait;
use crate::entry::Entry;
use crate::error::{AuthError, ErrorCode};
use crate::key::{KeyDigest, KeyId};
use crate::store::StoredKey;
use crate::telemetry::{self, Step};
use crate::verifier::TokenVerifier;

/// How long a result is reused.
const FRESH: Duration = Duration::from_secs(2);

/// The approximate maximum number of cached tokens, and their maximum size in bytes.
const MOST_TOKENS: usize = 10_000;
const MOST_BYTES: u64 = 16 << 20;

pub(super) struct Tokens {
    pub(super) verifier: Arc<dyn TokenVerifier>,
    known: Cache<KeyDigest, Known, BySize>,
    /// How often a token was forgotten. A result that was asked for before is not remembered.
    forgotten: AtomicU64,
}

#[derive(Clone)]
struct Known {
    entry: Entry,
    asked_at: Duration,
}

#[derive(Clone)]
struct BySize;

impl Weighter<KeyDigest, Known> for BySize {
    fn weight(&self, _: &KeyDigest, known: &Known) -> u64 {
        // No token weighs less than its share of the bytes, which bounds their number.
        (known.entry.record.bytes() as u64 + size_of::<StoredKey>() as u64)
            .max(MOST_BYTES / MOST_TOKENS as u64)
    }
}

impl Tokens {
    pub(super) fn new(verifier: Arc<dyn TokenVerifier>) -> Self {
        Self {
            verifier,
            known: Cache::with_weighter(MOST_TOKENS, MOST_BYTES, BySize),
            forgotten: AtomicU64::new(0),
        }
    }

    /// Forgets all tokens with this id.
    fn forget(&self, id: &KeyId) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.known.retain(|_, known| known.entry.record.id != *id);
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("verifier", &self.verifier)
            .finish_non_exhaustive()
    }
}

impl Inner {
    pub(super) fn verifier(&self) -> Option<&Arc<dyn TokenVerifier>> {
        self.tokens.as_ref().map(|tokens| &tokens.verifier)
    }

    /// Forgets the results for tokens with this id, also those that the verifier still works on.
    pub(super) fn forget_tokens(&self, id: &KeyId) {
        if let Some(tokens) = &self.tokens {
            tokens.forget(id);
        }
    }

    fn known_token(&self, facts: &Facts) -> Option<Known> {
        let digest = self.hasher.digest(facts.token.as_deref()?);
        self.tokens.as_ref()?.known.get(&digest)
    }

    /// Returns the entry of a token, if a recent result of the verifier is cached.
    pub(super) fn verified(&self, facts: &Facts) -> Option<Result<Option<Entry>, AuthError>> {
        let known = self.known_token(facts)?;
        let age = self.clock.monotonic().saturating_sub(known.asked_at);
        (age < FRESH).then_some(Ok(Some(known.entry)))
    }

    /// Returns how to call the verifier. Refuses a client that has failed too often.
    pub(super) fn verification(&self, facts: &Facts, so_far: &Progress) -> Result<Wait, AuthError> {
        let known = self.known_token(facts).is_some();
        if !known && so_far.permit.is_none() {
            self.check_budget(facts)?;
        }
        Ok(Wait::Token { known })
    }

    /// Calls the verifier, and caches valid tokens.
    pub(super) async fn verify_token(&self, facts: &Facts) -> Result<Option<Entry>, AuthError> {
        let (Some(tokens), Some(token)) = (&self.tokens, &facts.token) else {
            return Ok(None);
        };
        let forgotten = tokens.forgotten.load(Ordering::SeqCst);
        let asked_at = self.clock.monotonic();
        let answer = telemetry::awaited(Step::Verifier, tokens.verifier.verify(token)).await;
        let verified = answer
            .map_err(|error| AuthError::unavailable(ErrorCode::VerifierUnavailable, error))?;
        let digest = self.hasher.digest(token);
        let Some(mut verified) = verified else {
            tokens.known.remove(&digest);
            return Ok(None);
        };
        verified.owner = self.user_ids.owner(verified.owner);
        let record = verified.into_record(self.clock.now());
        let compiled = self.compile(&record)?;
        let entry = Entry::new(StoredKey::new(digest, record), compiled);
        let known = Known {
            entry: entry.clone(),
            asked_at,
        };
        tokens.known.insert(digest, known);
        if tokens.forgotten.load(Ordering::SeqCst) != forgotten {
            tokens.known.remove(&digest);
        }
        Ok(Some(entry))
    }
}
