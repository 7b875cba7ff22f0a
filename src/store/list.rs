//! Lists of keys, page by page.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::SystemTime;

use crate::key::{Environment, KeyId, KeyRecord, KeyStatus, TenantId, WorkspaceId};

/// Which records, and which page of them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListQuery {
    /// Of this tenant only; of all if absent.
    pub tenant: Option<TenantId>,
    /// Without the workspace-scoped keys that reach any workspace but these; with all if absent.
    pub within_workspaces: Option<Vec<WorkspaceId>>,
    /// In this state at `now` only.
    pub status: Option<KeyStatus>,
    /// The instant at which states are told.
    pub now: SystemTime,
    /// Of this environment only.
    pub environment: Option<Environment>,
    /// With this in the name, description or masked secret, whatever the case (ASCII).
    pub text: Option<String>,
    /// At most this many, 1 to 500: a store takes 0 for 1, and more for 500.
    pub limit: usize,
    /// After this place in the order.
    pub after: Option<Cursor>,
}

impl ListQuery {
    /// The most records that a store looks at for one page.
    pub const MOST_SCANNED: usize = 10_000;

    /// The most keys of one page.
    const LONGEST: usize = 500;

    /// The first page of all records, 50 of them.
    #[must_use]
    pub fn new(now: SystemTime) -> Self {
        Self {
            tenant: None,
            within_workspaces: None,
            status: None,
            now,
            environment: None,
            text: None,
            limit: 50,
            after: None,
        }
    }

    /// Whether a record belongs into the list. Where a store cannot ask its database, it asks this.
    #[must_use]
    pub fn selects(&self, record: &KeyRecord) -> bool {
        let has = |text: &str, part: &str| {
            text.to_ascii_lowercase()
                .contains(&part.to_ascii_lowercase())
        };
        self.tenant
            .as_ref()
            .is_none_or(|tenant| record.owner.tenant_id == *tenant)
            && self.within_workspaces.as_ref().is_none_or(|own| {
                record
                    .workspaces
                    .as_ref()
                    .is_none_or(|reached| reached.iter().all(|id| own.contains(id)))
            })
            && self
                .status
                .is_none_or(|status| record.status(self.now) == status)
            && self
                .environment
                .as_ref()
                .is_none_or(|environment| record.environment == *environment)
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
    /// The page of these records, which come in the order of lists ([`Cursor`]) and may begin
    /// anywhere: for a store that has them at hand, and cannot ask its database.
    pub fn page(&self, records: impl IntoIterator<Item = Arc<KeyRecord>>) -> Page {
        let limit = self.limit.clamp(1, Self::LONGEST);
        let is_before = |record: &Arc<KeyRecord>| {
            self.after
                .as_ref()
                .is_some_and(|after| Cursor::of(record) <= *after)
        };
        let (mut items, mut scanned, mut last) = (Vec::new(), 0, None);
        for record in records.into_iter().skip_while(is_before) {
            let is_selected = self.selects(&record);
            if scanned == Self::MOST_SCANNED || (is_selected && items.len() == limit) {
                return Page::new(items, last);
            }
            scanned += 1;
            if is_selected || scanned == Self::MOST_SCANNED {
                last = Some(Cursor::of(&record));
            }
            if is_selected {
                items.push(record);
            }
        }
        Page::new(items, None)
    }
}

/// A place in the order of a list: newest first, then by id. Places are ordered as lists are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cursor {
    /// When the last record of the page was made.
    pub created_at: SystemTime,
    /// Its id.
    pub id: KeyId,
}

impl Cursor {
    /// The place of this key.
    #[must_use]
    pub fn new(created_at: SystemTime, id: KeyId) -> Self {
        Self { created_at, id }
    }

    /// Where a record stands.
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
    /// Where the next page starts, if there is one. A page may be shorter than asked for, or empty,
    /// and still have a next.
    pub next: Option<Cursor>,
    /// The rows in this part of the list that cannot be read and were left out, as
    /// [`StoreError::corrupt`](super::StoreError::corrupt) names them: row and column, never what
    /// stands there. They count towards the limit. In the list of a tenant, only rows that are
    /// known to be its own.
    pub corrupt: Vec<String>,
}

impl Page {
    /// A page of records, all of which could be read.
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
