//! Step 4: the key that is stored under one of the digests, and what it counts for where there is
//! none.

use std::net::IpAddr;
use std::sync::Arc;

use super::Inner;
use super::facts::{Facts, Purpose};
use super::wait::Wait;
use crate::error::{AuthError, ErrorCode};
use crate::store::{StoreError, StoredKey};
use crate::telemetry::{self, Step};

impl Inner {
    /// What the store can answer at once.
    pub(super) fn find_now(
        &self,
        facts: &Facts,
    ) -> Option<Result<Option<Arc<StoredKey>>, StoreError>> {
        telemetry::timed(Step::Store, || self.store.find_now(facts.digests()))
    }

    /// How a store that must be awaited is asked: at once for a key that is known here, else in its
    /// turn; not at all for a client that has failed too often.
    pub(super) fn lookup(&self, facts: &Facts) -> Result<Wait, AuthError> {
        let known = self.store.knows(facts.digests());
        if !known {
            self.check_budget(facts)?;
        }
        Ok(Wait::Lookup { known })
    }

    /// Refuses a client that has failed too often for one more look-up.
    pub(super) fn check_budget(&self, facts: &Facts) -> Result<(), AuthError> {
        match self.budget.refusal(self.counted(facts)) {
            Some(wait) => Err(AuthError::too_many_failures(wait)),
            None => Ok(()),
        }
    }

    /// Whose failures are counted: nobody's, where an operator only asks about a key.
    pub(super) fn counted(&self, facts: &Facts) -> Option<IpAddr> {
        match facts.purpose {
            Purpose::Request if facts.client_ip.is_none() => self.budget.nobodys(),
            Purpose::Request => facts.client_ip,
            Purpose::Verification => None,
        }
    }

    /// The key that was found, after the constant-time comparison that also a miss goes through.
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

    /// A well-formed key that no store knows: counted against the client, never against any key.
    pub(super) fn unknown(&self, facts: &Facts) -> AuthError {
        match self.budget.failed(self.counted(facts)) {
            Some(wait) => AuthError::too_many_failures(wait),
            None => AuthError::new(ErrorCode::InvalidKey),
        }
    }
}
