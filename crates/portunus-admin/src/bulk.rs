//! `POST /keys/bulk`: an operation on many keys, which the service continues by itself, and
//! `GET /keys/bulk/{id}`: how far it is.

use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use portunus::audit::Action;
use portunus::key::{KeyId, PlanName};
use portunus::manage::{BulkAction, BulkSelection};
use portunus::store::{BulkOperation, ListQuery};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::{Object, nullable, private, read_whole};
use crate::content::Content;
use crate::import::DigestRequest;
use crate::issue::plan;
use crate::keys::{Id, ListParameters};
use crate::time::time_text;
use crate::{AuthenticatedOperator, Fault, terms};

/// What to do to the selected keys.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BulkActionName {
    Revoke,
    Disable,
    Enable,
    /// Changes the plan to `plan`.
    Plan,
}

/// An operation on many keys.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BulkRequest {
    #[schema(value_type = BulkFilter)]
    filter: Object<BulkFilter>,
    action: BulkActionName,
    /// For `plan` only, and required there: the plan, or `null` for the tenant's plan.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<terms::PlanName>)]
    plan: Option<Option<String>>,
    /// For `revoke` only.
    #[schema(value_type = Option<terms::Text>)]
    reason: Option<String>,
    /// Only counts the keys.
    #[serde(default)]
    dry_run: bool,
}

/// The keys: those that all of these members select, as in a list; or those with `digests`; or
/// `all`. An empty filter is refused.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BulkFilter {
    #[schema(value_type = Option<terms::KeyStatus>)]
    status: Option<String>,
    #[schema(value_type = Option<terms::Environment>)]
    environment: Option<String>,
    #[schema(value_type = Option<terms::Id>)]
    owner: Option<String>,
    #[schema(value_type = Option<terms::PlanName>)]
    plan: Option<String>,
    #[schema(value_type = Option<terms::Id>)]
    family: Option<String>,
    #[schema(value_type = Option<terms::KeyKind>)]
    kind: Option<String>,
    #[schema(value_type = Option<terms::Time>)]
    expires_before: Option<String>,
    #[schema(value_type = Option<terms::Time>)]
    unused_since: Option<String>,
    query: Option<String>,
    /// The keys with these digests. A key that is stored under another scheme is not found.
    #[schema(value_type = Option<Vec<DigestRequest>>, min_items = 1, max_items = 1000)]
    digests: Option<Vec<Object<DigestRequest>>>,
    /// `true` for every key that the operator can list.
    all: Option<bool>,
}

/// The number of keys that an operation would concern.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BulkCount {
    count: u64,
}

/// An operation on many keys.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BulkView<'o> {
    #[schema(value_type = terms::KeyId)]
    id: &'o KeyId,
    #[schema(value_type = terms::Timestamp)]
    started_at: String,
    /// `null` while the operation continues.
    #[schema(required, value_type = Option<terms::Timestamp>)]
    ended_at: Option<String>,
    /// Number of keys that are done.
    done: u64,
    /// Number of keys that are left; `null` while they are being counted.
    #[schema(required)]
    left: Option<u64>,
    /// Number of keys for which the operation was refused.
    failed: u64,
    /// The first of them.
    #[schema(max_items = 500)]
    failures: Vec<BulkFailure<'o>>,
}

/// A key for which an operation was refused.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BulkFailure<'o> {
    /// The id of the key, `digest` and its place in the request (from 1), or the name of a stored
    /// row that cannot be read.
    key: &'o str,
    reason: &'o str,
}

impl<'o> BulkView<'o> {
    fn of(operation: &'o BulkOperation) -> Self {
        let failures = operation.failures.iter();
        let failures = failures.map(|(key, reason)| BulkFailure { key, reason });
        Self {
            id: &operation.id,
            started_at: time_text(operation.started_at),
            ended_at: operation.ended_at.map(time_text),
            done: operation.done,
            left: operation.left,
            failed: operation.failed,
            failures: failures.collect(),
        }
    }
}

impl BulkFilter {
    fn into_selection(self, operator: &AuthenticatedOperator) -> Result<BulkSelection, Fault> {
        let now = operator.manager.now();
        let parameters = ListParameters {
            status: self.status,
            environment: self.environment,
            owner: self.owner,
            plan: self.plan,
            family: self.family,
            kind: self.kind,
            expires_before: self.expires_before,
            unused_since: self.unused_since,
            query: self.query,
            limit: None,
            cursor: None,
        };
        let query = parameters.filter(now);
        let query = query.map_err(|fault| Fault::invalid("filter", fault.error().detail()))?;
        let has_filters = query != ListQuery::new(now);
        match (self.digests, self.all.unwrap_or_default(), has_filters) {
            (None, false, _) => Ok(BulkSelection::Matching(query)),
            (None, true, false) => Ok(BulkSelection::All),
            (Some(digests), false, false) => {
                let digests = digests.into_iter();
                let digests = digests.map(|Object(digest)| digest.into_digest());
                Ok(BulkSelection::Digests(digests.collect::<Result<_, _>>()?))
            }
            _ => Err(Fault::invalid(
                "filter",
                "`all`, `digests` and other members exclude each other",
            )),
        }
    }
}

impl BulkRequest {
    fn action(&mut self) -> Result<BulkAction, Fault> {
        if self.plan.is_some() != (self.action == BulkActionName::Plan) {
            let why = "belongs to the action `plan`, which needs it";
            return Err(Fault::invalid("plan", why));
        }
        if self.reason.is_some() && self.action != BulkActionName::Revoke {
            return Err(Fault::invalid("reason", "belongs to the action `revoke`"));
        }
        Ok(match self.action {
            BulkActionName::Revoke => BulkAction::Revoke(self.reason.take()),
            BulkActionName::Disable => BulkAction::Disable,
            BulkActionName::Enable => BulkAction::Enable,
            BulkActionName::Plan => {
                let name = self.plan.take().flatten();
                let plan: Option<PlanName> = name.map(|name| plan(&name)).transpose()?;
                BulkAction::Plan(plan)
            }
        })
    }
}

pub(crate) async fn start(
    operator: AuthenticatedOperator,
    headers: HeaderMap,
    body: Content,
) -> Result<Response, Fault> {
    let (mut asked, bytes) = read_whole::<BulkRequest>(body).await?;
    let request = operator.idempotency(&headers, "bulk", &bytes)?;
    drop(bytes);
    let action = operator.audited(Action::KeyBulk, None, asked.action())?;
    let keys = asked.filter.0.into_selection(&operator);
    let keys = operator.audited(Action::KeyBulk, None, keys)?;
    if asked.dry_run {
        let count = operator.manager.bulk_count(keys).await?;
        return Ok(private(StatusCode::OK, &BulkCount { count }));
    }
    let operation = operator.manager.bulk(keys, action, request).await?;
    // Relative to the request's own path, wherever the API is nested.
    let place = HeaderValue::from_str(&format!("bulk/{}", operation.id)).map_err(Fault::store)?;
    let answer = private(StatusCode::ACCEPTED, &BulkView::of(&operation));
    Ok(([(LOCATION, place)], answer).into_response())
}

pub(crate) async fn show(operator: AuthenticatedOperator, Id(id): Id) -> Result<Response, Fault> {
    let operation = operator.manager.bulk_operation(&id).await?;
    Ok(private(StatusCode::OK, &BulkView::of(&operation)))
}
