//! `GET /events`: what happened, the last first, with every request that was answered so far, as long
//! as the sinks keep up.

use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::response::Response;
use portunus::ErrorCode;
use portunus::audit::{Action, AuditEvent, AuditOutcome, EventPage, EventQuery};
use portunus::key::KeyId;
use portunus::store::ListQuery;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::body::private;
use crate::keys::one_page;
use crate::query::{limit, parameters};
use crate::{AuthenticatedOperator, Fault};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    key_id: Option<String>,
    actor: Option<String>,
    outcome: Option<String>,
    action: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

pub(crate) async fn list(
    proven: AuthenticatedOperator,
    RawQuery(raw): RawQuery,
) -> Result<Response, Fault> {
    let Some(log) = &proven.shared.events else {
        return Err(Fault::new(ErrorCode::NotFound, "There is nothing here"));
    };
    let asked = parameters::<Parameters>(raw.as_deref())?;
    // Whether the operator sees lists at all comes before what is wrong with the query.
    let now = proven.manager.now();
    proven.manager.narrow(ListQuery::new(now))?;
    let mut query = EventQuery::new();
    // A text that is no id is the id of no key.
    let id = asked.key_id.map(|text| KeyId::new(&text)).transpose();
    let Ok(id) = id else {
        return Ok(page(&EventPage::default(), &proven));
    };
    query.key_id = id;
    query.actor = asked.actor;
    if let Some(name) = asked.outcome {
        let outcome = name
            .parse::<AuditOutcome>()
            .map_err(|error| Fault::bad(format!("outcome: {error}")))?;
        query.outcome = Some(outcome);
    }
    if let Some(name) = asked.action {
        query.action = Some(
            name.parse::<Action>()
                .map_err(|error| Fault::bad(format!("action: {error}")))?,
        );
    }
    query.limit = limit(asked.limit, query.limit)?;
    if let Some(cursor) = asked.cursor {
        query.before = Some(
            cursor
                .parse()
                .map_err(|_| Fault::bad("cursor: not one of this list"))?,
        );
    }
    proven.shared.events_written().await;
    let found = proven.manager.events(log, query).await?;
    Ok(page(&found, &proven))
}

fn page(found: &EventPage, proven: &AuthenticatedOperator) -> Response {
    let items = found.items.iter().map(|event| shown(event, proven));
    let next = found.next.map(|next| next.to_string());
    let page = one_page(items.collect(), next, &found.corrupt);
    private(StatusCode::OK, &page)
}

fn shown(event: &AuditEvent, proven: &AuthenticatedOperator) -> Value {
    let mut shown = json!(event);
    if let (Some(view), Some(members)) = (proven.shared.event_view, shown.as_object_mut()) {
        view(event, members);
    }
    shown
}
