//! Where events go, and where they are read again: the traits, and what is asked of a log.

use std::error::Error;
use std::fmt;
use std::time::SystemTime;

use async_trait::async_trait;

use super::{Action, AuditEvent, AuditOutcome};
use crate::key::{KeyId, TenantId, WorkspaceId};
use crate::pointer::to_the_pointee;

/// Keeps events. `Arc` and `Box` of a sink are sinks.
#[async_trait]
pub trait AuditSink: fmt::Debug + Send + Sync + 'static {
    /// Keeps these events, in their order. They may be given again after a flush that was broken
    /// off: one that is kept already (by its id) should not be kept twice.
    ///
    /// # Errors
    /// Where they could not be kept: they are given again with the next flush.
    async fn record(&self, events: &[AuditEvent]) -> Result<(), AuditError>;

    /// Forgets the events of before an instant, by the time that they tell; returns how many. A sink
    /// that cannot, such as a chain of lines, forgets none: that is the default.
    ///
    /// # Errors
    /// Where the log gives no answer. Some may be forgotten already; the next call goes on.
    async fn forget_before(&self, at: SystemTime) -> Result<u64, AuditError> {
        let _ = at;
        Ok(0)
    }
}

/// Reads what a sink has kept. `Arc` and `Box` of a reader are readers.
#[async_trait]
pub trait AuditReader: fmt::Debug + Send + Sync + 'static {
    /// A page of events, the last kept first. The log looks at [`EventQuery::MOST_SCANNED`] events at
    /// most: where a filter lets too few of them through, the page is short, even empty, and has a
    /// [`next`](EventPage::next). A row that cannot be read is left out and named
    /// ([`EventPage::corrupt`]); with a tenant, only where it is known to be this tenant's.
    ///
    /// # Errors
    /// Where the log gives no answer.
    async fn events(&self, query: &EventQuery) -> Result<EventPage, AuditError>;
}

/// Which events, and which page of them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventQuery {
    /// Of this tenant only; of all, and of none, if absent.
    pub tenant: Option<TenantId>,
    /// Without those about workspace-scoped keys that reach any workspace but these; with all if
    /// absent.
    pub within_workspaces: Option<Vec<WorkspaceId>>,
    /// About this key only.
    pub key_id: Option<KeyId>,
    /// In which somebody of this name took part ([`AuditEvent::involves`]).
    pub actor: Option<String>,
    /// With this outcome only.
    pub outcome: Option<AuditOutcome>,
    /// Of this action only.
    pub action: Option<Action>,
    /// At most this many, 1 to 500.
    pub limit: usize,
    /// Kept before this place only: [`EventPage::next`] of the page before.
    pub before: Option<u64>,
}

impl EventQuery {
    /// The most events that a log looks at for one page.
    pub const MOST_SCANNED: usize = 10_000;

    /// The first page of all events, 50 of them.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            tenant: None,
            within_workspaces: None,
            key_id: None,
            actor: None,
            outcome: None,
            action: None,
            limit: 50,
            before: None,
        }
    }

    /// Whether an event belongs into the list. Where a log cannot ask its database, it asks this.
    #[must_use]
    pub fn selects(&self, event: &AuditEvent) -> bool {
        self.tenant
            .as_ref()
            .is_none_or(|tenant| event.tenant_id.as_ref() == Some(tenant))
            && self.within_workspaces.as_ref().is_none_or(|own| {
                // Where not all are named, nobody can tell whether they are within these.
                event.workspaces.as_ref().is_none_or(|reached| {
                    event.more_workspaces == 0 && reached.iter().all(|id| own.contains(id))
                })
            })
            && self
                .key_id
                .as_ref()
                .is_none_or(|id| event.key_id.as_ref() == Some(id))
            && self.actor.as_deref().is_none_or(|who| event.involves(who))
            && self.outcome.is_none_or(|outcome| event.outcome == outcome)
            && self.action.is_none_or(|action| event.action == action)
    }
}

impl Default for EventQuery {
    fn default() -> Self {
        Self::new()
    }
}

/// A page of events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventPage {
    /// The events, the last kept first.
    pub items: Vec<AuditEvent>,
    /// Where the next page starts, if there is one. A page may be shorter than asked for, or empty,
    /// and still have a next: a log looks through so many events at once and no more.
    pub next: Option<u64>,
    /// The rows in this part of the log that cannot be read and were left out: table, row and
    /// column, never what stands there. They count towards the limit.
    pub corrupt: Vec<String>,
}

impl EventPage {
    /// A page of events, all of which could be read.
    #[must_use]
    pub fn new(items: Vec<AuditEvent>, next: Option<u64>) -> Self {
        let corrupt = Vec::new();
        Self {
            items,
            next,
            corrupt,
        }
    }
}

/// Events could not be kept or read.
#[derive(Debug, thiserror::Error)]
#[error("the audit log gave no answer")]
pub struct AuditError(#[source] Box<dyn Error + Send + Sync>);

impl AuditError {
    /// No answer, and why.
    pub fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

to_the_pointee! {
    AuditSink {
        async fn record(&self, events: &[AuditEvent]) -> Result<(), AuditError>;
        async fn forget_before(&self, at: SystemTime) -> Result<u64, AuditError>;
    }
    AuditReader {
        async fn events(&self, query: &EventQuery) -> Result<EventPage, AuditError>;
    }
}
