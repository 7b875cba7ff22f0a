//! Step 4: the lookup of the key by its digests, and the accounting of failed lookups.

use std::net::IpAddr;
use std::sync::Arc;

use super::Inner;
use super::facts::{Facts, Purpose};
use super::wait::Wait;
use crate::error::{AuthError, ErrorCode};
use crate::store::{StoreError, StoredKey};
use crate::telemetry::{self, Step};

impl Inner {
    /// Queries the store, if it can answer without waiting.
    pub(super) fn find_now(
        &self,
        facts: &Facts,
    ) -> Option<Result<Option<Arc<StoredKey>>, StoreError>> {
        telemetry::timed(Step::Store, || self.store.find_now(facts.digests()))
    }

    /// Returns how to query a store that must be awaited: at once for a key that is known on this
    /// node, otherwise after waiting for a turn. Refuses a client that has failed too often.
    pub(super) fn lookup(&self, facts: &Facts) -> Result<Wait, AuthError> {
        let known = self.store.knows(facts.digests());
        if !known {
            self.check_budget(facts)?;
        }
        Ok(Wait::Lookup { known })
    }

    /// Refuses a client that has failed too often for another lookup.
    pub(super) fn check_budget(&self, facts: &Facts) -> Result<(), AuthError> {
        match self.budget.refusal(self.counted(facts)) {
            Some(wait) => Err(AuthError::too_many_failures(wait)),
            None => Ok(()),
        }
    }

    /// Returns the address whose failures are counted; `None` if an operator verifies a key.
    pub(super) fn counted(&self, facts: &Facts) -> Option<IpAddr> {
        match facts.purpose {
            Purpose::Request if facts.client_ip.is_none() => self.budget.no_address(),
            Purpose::Request => facts.client_ip,
            Purpose::Verification => None,
        }
    }

    /// Returns the key that was found, after a constant-time comparison, which is also done for a
    /// miss.
    pub(super) fn matching(
        &self,
        found: Result<Option<Arc<StoredKey>>, StoreError>,
        facts: &Facts,
    ) -> Result<Option<Arc<StoredKey>>, AuthError> {
        let found =
            found.map_err(|error| AuthError::unavailable(ErrorCode::StoreUnavailable, error))?;
        let digests = facts.digests();
        let stored = found
            .as_ref()
            .map(|stored| stored.digest())
            .or(digests.first());
        let matches = digests
            .iter()
            .fold(false, |any, digest| any | (Some(digest) == stored));
        Ok(found.filter(|_| matches))
    }

    /// Counts a well-formed key that does not exist, against the client and never against a key.
    pub(super) fn unknown(&self, facts: &Facts) -> AuthError {
        match self.budget.failed(self.counted(facts)) {
            Some(wait) => AuthError::too_many_failures(wait),
            None => AuthError::new(ErrorCode::InvalidKey),
        }
    }
}
