//! A party of an audit event.

use serde::{Deserialize, Serialize};

use super::shortened;
use crate::key::UserId;

/// The maximum length of a party's e-mail address or name, in bytes.
const LONGEST_PARTY: usize = 320;

/// A party of an event: a user, or the service itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Party {
    /// The user id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// The e-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_email: Option<String>,
    /// The name of an operator that is no user: the service itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Party {
    /// Creates a user, or returns `None` if neither argument is present. An e-mail address longer
    /// than 320 bytes is truncated.
    #[must_use]
    pub fn user(id: Option<&UserId>, email: Option<&str>) -> Option<Self> {
        let party = Self {
            user_id: id.cloned(),
            user_email: email.map(|email| shortened(email, LONGEST_PARTY)),
            name: None,
        };
        (party.user_id.is_some() || party.user_email.is_some()).then_some(party)
    }

    /// Creates an operator that is no user. A name longer than 320 bytes is truncated.
    #[must_use]
    pub fn operator(name: impl Into<String>) -> Self {
        Self {
            name: Some(shortened(&name.into(), LONGEST_PARTY)),
            ..Self::default()
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let id = self.user_id.as_ref().map_or(0, |id| id.as_str().len());
        let texts = [&self.user_email, &self.name];
        id + texts.into_iter().flatten().map(String::len).sum::<usize>()
    }

    /// Returns whether the party has this user id, e-mail address or name.
    #[must_use]
    pub fn is(&self, who: &str) -> bool {
        self.user_id
            .as_ref()
            .is_some_and(|id| id.as_str().eq_ignore_ascii_case(who))
            || self
                .user_email
                .as_deref()
                .is_some_and(|email| email.eq_ignore_ascii_case(who))
            || self.name.as_deref() == Some(who)
    }
}
