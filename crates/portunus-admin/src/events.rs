//! `GET /events`: audit events, newest first. Every request answered so far is included as long as
//! the audit sinks keep up.

use std::net::IpAddr;

use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::response::Response;
use portunus::ErrorCode;
use portunus::actor::ActorMode;
use portunus::audit::{self, AuditEvent, EventId, EventPage as Page, EventQuery, RequestId};
use portunus::key::{Environment, KeyId, TenantId, UserId, WorkspaceId};
use portunus::store::ListQuery;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use crate::body::private;
use crate::query::{Wrong, limit, parameters, read};
use crate::time::time_text;
use crate::{AuthenticatedOperator, EventView, Fault, terms};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventParameters {
    /// Only events about this key.
    #[param(value_type = Option<terms::Id>)]
    pub(crate) key_id: Option<String>,
    /// Only events whose subject or actor has this id, email address or name.
    pub(crate) actor: Option<String>,
    /// Only events with this outcome.
    #[param(value_type = Option<terms::Outcome>)]
    pub(crate) outcome: Option<String>,
    /// Only events of this action.
    #[param(value_type = Option<terms::Action>)]
    pub(crate) action: Option<String>,
    /// Maximum number of items in a page.
    #[param(minimum = 1, maximum = 500, default = 50)]
    pub(crate) limit: Option<usize>,
    /// `next_cursor` of the previous page. Only `null` marks the last page: a page may be empty.
    #[param(pattern = "^[0-9]{1,18}$")]
    pub(crate) cursor: Option<String>,
}

impl EventParameters {
    /// Returns the query for these parameters except the limit.
    pub(crate) fn query(self) -> Result<EventQuery, Wrong> {
        let mut wrong = Wrong::new();
        let mut query = EventQuery::new();
        query.key_id = read("key_id", self.key_id.as_deref(), &mut wrong, KeyId::new);
        query.outcome = read("outcome", self.outcome.as_deref(), &mut wrong, str::parse);
        query.action = read("action", self.action.as_deref(), &mut wrong, str::parse);
        query.before = read("cursor", self.cursor.as_deref(), &mut wrong, place);
        query.actor = self.actor;
        match wrong.is_empty() {
            true => Ok(query),
            false => Err(wrong),
        }
    }
}

fn place(cursor: &str) -> Result<u64, &'static str> {
    let digits = cursor.len() <= 18 && cursor.bytes().all(|byte| byte.is_ascii_digit());
    let place = digits.then(|| cursor.parse().ok()).flatten();
    place.ok_or("not a cursor of this list")
}

/// A page of events. A page may be shorter than `limit`, even empty, without being the last: at
/// most 10 000 rows are read for a page.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventPage<'e> {
    #[schema(value_type = Vec<Event<'static>>)]
    items: Vec<Item<'e>>,
    /// Cursor of the next page; `null` on the last page.
    #[schema(required, pattern = "^[0-9]+$")]
    next_cursor: Option<String>,
    /// Stored rows that cannot be read, as in a page of keys.
    #[schema(value_type = Vec<String>)]
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    corrupt: &'e [String],
}

/// An event, with or without additional members of the host.
#[derive(Serialize)]
#[serde(untagged)]
enum Item<'e> {
    Plain(Box<Event<'e>>),
    Extended(Map<String, Value>),
}

/// An audit event.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Event<'e> {
    #[schema(value_type = String, pattern = "^[0-9a-f]{32}$")]
    id: &'e EventId,
    #[schema(value_type = terms::Timestamp)]
    at: String,
    #[schema(value_type = terms::Action)]
    action: &'static str,
    #[schema(value_type = terms::Outcome)]
    outcome: &'static str,
    #[schema(minimum = 100, maximum = 599, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[schema(value_type = terms::Id, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant_id: Option<&'e TenantId>,
    #[schema(value_type = terms::KeyId, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<&'e KeyId>,
    /// The user that the managed key belongs to.
    #[schema(value_type = terms::Id, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    key_owner: Option<&'e UserId>,
    #[schema(value_type = terms::Environment, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<&'e Environment>,
    #[schema(value_type = Vec<terms::WorkspaceId>, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    workspaces: Option<&'e [WorkspaceId]>,
    /// Number of workspaces that are not listed.
    #[schema(value_type = u64, minimum = 1, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    more_workspaces: Option<u64>,
    #[schema(value_type = terms::ActorMode, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<ActorMode>,
    /// The user that the key acted for, or its owner.
    #[schema(value_type = Party, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'e audit::Party>,
    /// The user or operator who acted.
    #[schema(value_type = Party, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<&'e audit::Party>,
    #[schema(value_type = Vec<terms::Scope>, required = false)]
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    scopes: &'e [String],
    /// Number of scopes that are not listed.
    #[schema(value_type = u64, minimum = 1, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    more_scopes: Option<u64>,
    #[schema(value_type = terms::IpAddress, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    client_ip: Option<IpAddr>,
    #[schema(value_type = String, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'e str>,
    #[schema(value_type = String, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'e str>,
    #[schema(value_type = terms::Id, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'e RequestId>,
    /// The bulk operation of which the action was a part, or which was started.
    #[schema(value_type = terms::KeyId, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<&'e KeyId>,
    #[schema(value_type = String, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'e str>,
    /// Number of events that this one represents.
    #[schema(value_type = u64, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
}

/// A user, or the service itself.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "describes what the library serializes")]
struct Party {
    #[schema(value_type = terms::Id, required = false)]
    user_id: String,
    #[schema(required = false)]
    user_email: String,
    /// `host`: the service itself.
    #[schema(required = false)]
    name: String,
}

impl<'e> Event<'e> {
    fn of(event: &'e AuditEvent) -> Self {
        let some = |count: u64| (count > 0).then_some(count);
        Self {
            id: &event.id,
            at: time_text(event.at),
            action: event.action.as_str(),
            outcome: event.outcome.as_str(),
            status: event.status,
            tenant_id: event.tenant_id.as_ref(),
            key_id: event.key_id.as_ref(),
            key_owner: event.key_owner.as_ref(),
            environment: event.environment.as_ref(),
            workspaces: event.workspaces.as_deref(),
            more_workspaces: some(event.more_workspaces),
            mode: event.mode,
            subject: event.subject.as_ref(),
            actor: event.actor.as_ref(),
            scopes: &event.scopes,
            more_scopes: some(event.more_scopes),
            client_ip: event.client_ip,
            method: event.method.as_deref(),
            route: event.route.as_deref(),
            request_id: event.request_id.as_ref(),
            operation: event.operation.as_ref(),
            detail: event.detail.as_deref(),
            count: event.count,
        }
    }
}

pub(crate) async fn list(
    operator: AuthenticatedOperator,
    RawQuery(raw): RawQuery,
) -> Result<Response, Fault> {
    let Some(log) = &operator.shared.events else {
        return Err(Fault::new(ErrorCode::NotFound, "Not found"));
    };
    let asked = parameters::<EventParameters>(raw.as_deref())?;
    // Checks whether the operator can see lists before it validates the query.
    let now = operator.manager.now();
    operator.manager.narrow(ListQuery::new(now))?;
    let limit = limit(asked.limit, EventQuery::new().limit)?;
    let mut query = asked.query().map_err(|wrong| {
        let each = wrong.iter().map(|(name, why)| format!("{name}: {why}"));
        Fault::bad(each.collect::<Vec<_>>().join("; "))
    })?;
    query.limit = limit;
    operator.shared.events_written().await;
    let found = operator.manager.events(log, query).await?;
    Ok(page(&found, &operator))
}

fn page(found: &Page, operator: &AuthenticatedOperator) -> Response {
    let view = operator.shared.event_view;
    let page = EventPage {
        items: found.items.iter().map(|event| item(event, view)).collect(),
        next_cursor: found.next.map(|next| next.to_string()),
        corrupt: &found.corrupt,
    };
    private(StatusCode::OK, &page)
}

fn item(event: &AuditEvent, view: Option<EventView>) -> Item<'_> {
    let plain = Box::new(Event::of(event));
    let Some(view) = view else {
        return Item::Plain(plain);
    };
    match serde_json::to_value(&plain) {
        Ok(Value::Object(mut members)) => {
            view(event, &mut members);
            Item::Extended(members)
        }
        _ => Item::Plain(plain),
    }
}
