//! The actors of a service: its users, and how the owners of keys stand.

use std::sync::Arc;

use crate::actor::{Directory, OwnerStanding, UserIds};

/// Who may act with a key. By default a key acts for its owner only.
#[derive(Debug, Clone, Default)]
#[must_use = "actors do nothing until they are given to a builder"]
pub struct Actors {
    pub(crate) directory: Option<Arc<dyn Directory>>,
    pub(crate) standing: Option<Arc<dyn OwnerStanding>>,
    pub(crate) user_ids: UserIds,
}

impl Actors {
    /// Keys that act for their owners.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets keys with the permission to delegate act for users of this directory. Without one,
    /// requests that name a user are refused. Operators of a tenant may issue keys only to users
    /// that the directory knows.
    pub fn directory(mut self, directory: impl Directory) -> Self {
        self.directory = Some(Arc::new(directory));
        self
    }

    /// Checks on every request whether the key's owner is in good standing.
    pub fn standing(mut self, owners: impl OwnerStanding) -> Self {
        self.standing = Some(Arc::new(owners));
        self
    }

    /// Sets what user ids look like, in requests, in records and in what directories and verifiers
    /// answer. The default is any text, compared byte for byte.
    pub fn user_ids(mut self, ids: UserIds) -> Self {
        self.user_ids = ids;
        self
    }
}
