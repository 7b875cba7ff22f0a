//! Entries without an authenticator, for tests.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Charge, Charger, Common, CompiledSettings, Entry, KeyEntry, KeyFacts, StoredKey};
use crate::error::AuthError;
use crate::key::{KeyHasher, KeyRecord};
use crate::limit::Decision;
use crate::respond::Responder;
use crate::scope::ScopeSet;

/// Counts nothing: no request was made.
struct Uncounted;

#[async_trait]
impl Charger for Uncounted {
    async fn charge(&self, _: Charge<'_>) -> Result<Decision, Result<Decision, AuthError>> {
        Ok(Decision::admitted())
    }
}

impl Entry {
    /// Creates an entry without limits.
    pub(crate) fn bare(
        record: KeyRecord,
        scopes: Arc<dyn ScopeSet>,
        responder: Arc<Responder>,
    ) -> Self {
        let record = Arc::new(record);
        let settings = CompiledSettings {
            facts: KeyFacts::new(&record, None),
            scopes,
            delegated: None,
            plan: None,
            common: Arc::new(Common {
                responder,
                charger: Arc::new(Uncounted),
            }),
        };
        let compiled = KeyEntry::new(&record, Arc::new(settings), None, 0);
        let digest = KeyHasher::sha256().digest("no key was presented");
        Self::new(StoredKey::new(digest, record), compiled)
    }
}
