//! Paged lists of keys.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Usage;
use crate::key::{
    Environment, KeyFamily, KeyId, KeyKind, KeyRecord, KeyStatus, PlanName, TenantId, UserId,
    WorkspaceId,
};

/// A filter for records, and a position within the list.
///
/// `serde` writes and reads all fields, for a [`BulkOperation`](super::BulkOperation). A filter that
/// is not known is an error: it must not be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ListQuery {
    /// Only keys of this tenant; `None` for all tenants.
    pub tenant: Option<TenantId>,
    /// Excludes workspace-scoped keys that reach a workspace outside this list; `None` excludes no
    /// key.
    pub within_workspaces: Option<Vec<WorkspaceId>>,
    /// Only keys with this status at `now`.
    pub status: Option<KeyStatus>,
    /// The instant at which statuses are determined.
    pub now: SystemTime,
    /// Only keys of this environment.
    pub environment: Option<Environment>,
    /// Only keys that belong to this user.
    pub owner: Option<UserId>,
    /// Only keys whose record names this plan. Keys that follow their tenant's plan name none.
    pub plan: Option<PlanName>,
    /// Only keys of this family: a key and its successors.
    pub family: Option<KeyFamily>,
    /// Only keys of this kind.
    pub kind: Option<KeyKind>,
    /// Only keys that expire before this instant, including those that have expired already.
    pub expires_before: Option<SystemTime>,
    /// Only keys that existed at this instant and have not been used since. Uses that no node has
    /// stored yet do not count: see
    /// [`count_uses_every`](crate::PortunusBuilder::count_uses_every).
    pub unused_since: Option<SystemTime>,
    /// Only keys whose name, description or masked secret contains this string, ignoring ASCII
    /// case.
    pub text: Option<String>,
    /// The maximum number of records, 1 to 500. The store clamps other values.
    pub limit: usize,
    /// Only records after this position.
    pub after: Option<Cursor>,
    /// The number of records after which the page ends early, for readers who do not wait long; at most
    /// and by default [`MOST_SCANNED`](Self::MOST_SCANNED). A store may examine up to 3000 nevertheless.
    #[serde(skip)]
    pub scanned: Option<usize>,
}

impl ListQuery {
    /// The maximum number of records that a store examines for one page.
    pub const MOST_SCANNED: usize = 10_000;

    /// The maximum number of records on one page.
    const LONGEST: usize = 500;

    /// Creates a query for the first page of all records, with a limit of 50.
    #[must_use]
    pub fn new(now: SystemTime) -> Self {
        Self {
            tenant: None,
            within_workspaces: None,
            status: None,
            now,
            environment: None,
            owner: None,
            plan: None,
            family: None,
            kind: None,
            expires_before: None,
            unused_since: None,
            text: None,
            limit: 50,
            after: None,
            scanned: None,
        }
    }

    /// Returns the maximum number of records that a store examines for the page.
    #[must_use]
    pub fn most_scanned(&self) -> usize {
        let most = self.scanned.unwrap_or(Self::MOST_SCANNED);
        most.clamp(1, Self::MOST_SCANNED)
    }

    /// Returns whether no filter is set, so that the query selects every key.
    #[must_use]
    pub(crate) fn is_unfiltered(&self) -> bool {
        let plain = Self {
            now: self.now,
            limit: self.limit,
            after: self.after.clone(),
            scanned: self.scanned,
            text: self.text.clone().filter(String::is_empty),
            ..Self::new(self.now)
        };
        *self == plain
    }

    /// Returns whether a record with this usage matches the filter. For stores that cannot filter
    /// in their database. A store that does not count uses passes the default usage.
    #[must_use]
    pub fn selects(&self, record: &KeyRecord, usage: &Usage) -> bool {
        fn is<T: PartialEq>(asked: Option<&T>, value: Option<&T>) -> bool {
            asked.is_none() || asked == value
        }
        let has = |text: &str, part: &str| {
            text.to_ascii_lowercase()
                .contains(&part.to_ascii_lowercase())
        };
        is(self.tenant.as_ref(), Some(&record.owner.tenant_id))
            && self.within_workspaces.as_ref().is_none_or(|own| {
                record
                    .workspaces
                    .as_ref()
                    .is_none_or(|reached| reached.iter().all(|id| own.contains(id)))
            })
            && self
                .status
                .is_none_or(|status| record.status(self.now) == status)
            && is(self.environment.as_ref(), Some(&record.environment))
            && is(self.owner.as_ref(), record.owner.user_id.as_ref())
            && is(self.plan.as_ref(), record.plan.as_ref())
            && is(self.family.as_ref(), Some(&record.family))
            && is(self.kind.as_ref(), Some(&record.kind))
            && self
                .expires_before
                .is_none_or(|before| record.expires_at.is_some_and(|end| end < before))
            && self.unused_since.is_none_or(|since| {
                record.created_at < since && usage.last_used_at.is_none_or(|last| last < since)
            })
            && self.text.as_deref().is_none_or(|part| {
                has(&record.name, part)
                    || has(&record.masked, part)
                    || record
                        .description
                        .as_deref()
                        .is_some_and(|text| has(text, part))
            })
    }
}

impl ListQuery {
    /// Returns the page of these records, each with its usage, which must be in list order
    /// ([`Cursor`]) and may start anywhere. For stores that cannot page in their database.
    pub fn page(&self, records: impl IntoIterator<Item = (Arc<KeyRecord>, Usage)>) -> Page {
        let limit = self.limit.clamp(1, Self::LONGEST);
        let is_before = |(record, _): &(Arc<KeyRecord>, Usage)| {
            self.after
                .as_ref()
                .is_some_and(|after| Cursor::of(record) <= *after)
        };
        let (mut items, mut scanned, mut last) = (Vec::new(), 0, None);
        let most = self.most_scanned();
        for (record, usage) in records.into_iter().skip_while(is_before) {
            let is_selected = self.selects(&record, &usage);
            if scanned == most || (is_selected && items.len() == limit) {
                return Page::new(items, last);
            }
            scanned += 1;
            if is_selected || scanned == most {
                last = Some(Cursor::of(&record));
            }
            if is_selected {
                items.push(record);
            }
        }
        Page::new(items, None)
    }
}

/// A position in a list. Lists are ordered from newest to oldest and then by id; cursors compare in
/// the same order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Cursor {
    /// The creation time of the last record on the page.
    pub created_at: SystemTime,
    /// The id of the last record on the page.
    pub id: KeyId,
}

impl Cursor {
    /// Creates a cursor.
    #[must_use]
    pub fn new(created_at: SystemTime, id: KeyId) -> Self {
        Self { created_at, id }
    }

    /// Returns the position of a record.
    #[must_use]
    pub fn of(record: &KeyRecord) -> Self {
        Self::new(record.created_at, record.id.clone())
    }
}

impl Ord for Cursor {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_age = other.created_at.cmp(&self.created_at);
        by_age.then_with(|| self.id.cmp(&other.id))
    }
}

impl PartialOrd for Cursor {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A page of records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// The records, newest first.
    pub items: Vec<Arc<KeyRecord>>,
    /// The position of the next page, if there is one. A page may be shorter than the limit, or
    /// empty, and still have a next one.
    pub next: Option<Cursor>,
    /// Names of unreadable rows that were omitted from this part of the list, in the form of
    /// [`StoreError::corrupt`](super::StoreError::corrupt): row and column, never the content. They
    /// count towards the limit. If the query names a tenant, only rows that are known to belong to
    /// it are named.
    pub corrupt: Vec<String>,
}

impl Page {
    /// Creates a page without unreadable rows.
    #[must_use]
    pub fn new(items: Vec<Arc<KeyRecord>>, next: Option<Cursor>) -> Self {
        let corrupt = Vec::new();
        Self {
            items,
            next,
            corrupt,
        }
    }
}
