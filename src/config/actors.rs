//! Actors of a service: its users, and the standing of key owners.

use std::sync::Arc;
use std::time::Duration;

use crate::actor::{Directory, OwnerStanding, UserIds};

/// The actors that keys can act for. By default a key acts for its owner only.
#[derive(Debug, Clone)]
#[must_use = "actors do nothing until they are given to a builder"]
pub struct Actors {
    pub(crate) directory: Option<Arc<dyn Directory>>,
    pub(crate) standing: Option<Arc<dyn OwnerStanding>>,
    pub(crate) user_ids: UserIds,
    pub(crate) plan_bound: Duration,
}

impl Default for Actors {
    fn default() -> Self {
        Self {
            directory: None,
            standing: None,
            user_ids: UserIds::default(),
            plan_bound: Duration::from_secs(30),
        }
    }
}

impl Actors {
    /// Returns the default: keys act for their owners only.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets keys with the delegation permission act for users of this directory. Without a
    /// directory, requests that name a user are refused. Operators of a tenant can issue keys only
    /// to users that the directory knows.
    pub fn directory(mut self, directory: impl Directory) -> Self {
        self.directory = Some(Arc::new(directory));
        self
    }

    /// Sets how long the plan of a tenant is used after the directory was asked for it, unless
    /// [`Portunus::tenant_changed`](crate::Portunus::tenant_changed) is called: 30 seconds by
    /// default, and at most 10 minutes. Concurrent requests of a tenant share one call. While the
    /// directory does not answer, requests of the tenant's keys are refused with 503
    /// `DIRECTORY_UNAVAILABLE` after that time.
    pub fn plan_bound(mut self, bound: Duration) -> Self {
        self.plan_bound = bound.min(Duration::from_secs(600));
        self
    }

    /// Checks on every request whether the key's owner is in good standing.
    pub fn standing(mut self, owners: impl OwnerStanding) -> Self {
        self.standing = Some(Arc::new(owners));
        self
    }

    /// Sets the format of user ids in requests, in records, and in the answers of directories and
    /// token verifiers. The default is any string, compared byte for byte.
    pub fn user_ids(mut self, ids: UserIds) -> Self {
        self.user_ids = ids;
        self
    }
}
