//! The traits that write and read audit events, and queries of a log.

use std::error::Error;
use std::fmt;
use std::time::SystemTime;

use async_trait::async_trait;

use super::{Action, AuditEvent, AuditOutcome};
use crate::key::{KeyId, TenantId, UserId, WorkspaceId};
use crate::pointer::to_the_pointee;

/// Stores audit events. `Arc` and `Box` of a sink are sinks.
#[async_trait]
pub trait AuditSink: fmt::Debug + Send + Sync + 'static {
    /// Stores these events in order. Events may be passed again after an interrupted flush; an
    /// event whose id is already stored should not be stored twice.
    ///
    /// # Errors
    /// Returns an error if the events could not be stored; they are passed again by the next flush.
    async fn record(&self, events: &[AuditEvent]) -> Result<(), AuditError>;

    /// Deletes the events whose own time is before an instant, and returns their number. The
    /// default, for sinks that cannot delete (such as a chain of lines), deletes none.
    ///
    /// # Errors
    /// Returns an error if the log does not respond. Some events may already be deleted; the next
    /// call continues.
    async fn forget_before(&self, at: SystemTime) -> Result<u64, AuditError> {
        let _ = at;
        Ok(0)
    }
}

/// Reads stored events. `Arc` and `Box` of a reader are readers.
#[async_trait]
pub trait AuditReader: fmt::Debug + Send + Sync + 'static {
    /// Returns a page of events, last stored first. Examines at most [`EventQuery::MOST_SCANNED`]
    /// events: if a filter accepts too few of them, the page is short or even empty, and has a
    /// [`next`](EventPage::next). Unreadable rows are omitted and named in [`EventPage::corrupt`];
    /// if the query names a tenant, only rows that are known to belong to it are named.
    ///
    /// # Errors
    /// Returns an error if the log does not respond.
    async fn events(&self, query: &EventQuery) -> Result<EventPage, AuditError>;
}

/// A filter for events, and a position within the list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventQuery {
    /// Only events of this tenant; `None` for all events, including those without a tenant.
    pub tenant: Option<TenantId>,
    /// Excludes events about workspace-scoped keys that reach a workspace outside this list; `None`
    /// excludes no event.
    pub within_workspaces: Option<Vec<WorkspaceId>>,
    /// Only events about this key.
    pub key_id: Option<KeyId>,
    /// Only events about keys that belong to this user ([`AuditEvent::is_about_key_of`]).
    pub owner: Option<UserId>,
    /// Only events with a party that has this id, e-mail address or name
    /// ([`AuditEvent::involves`]).
    pub actor: Option<String>,
    /// Only events with this outcome.
    pub outcome: Option<AuditOutcome>,
    /// Only events of this action.
    pub action: Option<Action>,
    /// The maximum number of events, 1 to 500.
    pub limit: usize,
    /// Only events stored before this position: [`EventPage::next`] of the preceding page.
    pub before: Option<u64>,
}

impl EventQuery {
    /// The maximum number of events that a log examines for one page.
    pub const MOST_SCANNED: usize = 10_000;

    /// Creates a query for the first page of all events, with a limit of 50.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            tenant: None,
            within_workspaces: None,
            key_id: None,
            owner: None,
            actor: None,
            outcome: None,
            action: None,
            limit: 50,
            before: None,
        }
    }

    /// Returns whether an event matches the filter. For logs that cannot filter in their database.
    #[must_use]
    pub fn selects(&self, event: &AuditEvent) -> bool {
        self.tenant
            .as_ref()
            .is_none_or(|tenant| event.tenant_id.as_ref() == Some(tenant))
            && self.within_workspaces.as_ref().is_none_or(|own| {
                // If the event does not name all workspaces, the others may be outside the list.
                event.workspaces.as_ref().is_none_or(|reached| {
                    event.more_workspaces == 0 && reached.iter().all(|id| own.contains(id))
                })
            })
            && self
                .key_id
                .as_ref()
                .is_none_or(|id| event.key_id.as_ref() == Some(id))
            && self
                .owner
                .as_ref()
                .is_none_or(|user| event.is_about_key_of(user))
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
    /// The events, last stored first.
    pub items: Vec<AuditEvent>,
    /// The position of the next page, if there is one. A page may be shorter than the limit, or
    /// empty, and still have a next one, because a log examines only a limited number of events per
    /// page.
    pub next: Option<u64>,
    /// Names of unreadable rows that were omitted from this part of the log: table, row and column,
    /// never the content. They count towards the limit.
    pub corrupt: Vec<String>,
}

impl EventPage {
    /// Creates a page without unreadable rows.
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

/// Error returned when events could not be stored or read.
#[derive(Debug, thiserror::Error)]
#[error("the audit log is unavailable")]
pub struct AuditError(#[source] Box<dyn Error + Send + Sync>);

impl AuditError {
    /// Creates an error with its cause.
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
