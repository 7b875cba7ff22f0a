//! Operations on existing keys: list, get, revoke, rotate, make primary, delete, usage.

use std::fmt::Display;
use std::time::{Duration, SystemTime};

use axum::extract::{FromRequestParts, Path, RawQuery};
use axum::http::header::{CACHE_CONTROL, ETAG};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use portunus::audit::Action;
use portunus::key::{
    Environment, KeyFamily, KeyId, KeyKind, KeyStatus, MAX_TIME, PlanName, UserId,
};
use portunus::manage::{Idempotency, ManageError, ManagedKey};
use portunus::store::{Cursor, ListQuery};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use zeroize::Zeroizing;

use crate::body::{Secret, Whole, private, read, read_whole};
use crate::content::Content;
use crate::issue::RepeatedRequest;
use crate::query::{limit, parameters};
use crate::record::{HourOfUse, KeyPage, KeyRecord, Usage};
use crate::time::{parse_time, time_text};
use crate::{AuthenticatedOperator, Fault, name_of, terms};

impl AuthenticatedOperator {
    /// Returns the response view of a key.
    pub(crate) fn view<'k>(&self, key: &'k ManagedKey) -> KeyRecord<'k> {
        KeyRecord::of(key, self.manager.now())
    }

    /// Identifies a request that may be repeated, if the caller sends an `Idempotency-Key`
    /// (draft-ietf-httpapi-idempotency-key-header).
    pub(crate) fn idempotency(
        &self,
        headers: &HeaderMap,
        call: &str,
        body: &[u8],
    ) -> Result<Option<Idempotency>, Fault> {
        let mut values = headers.get_all("idempotency-key").iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let text = value.to_str().ok().filter(|_| values.next().is_none());
        let text = text.ok_or_else(|| {
            Fault::bad("Idempotency-Key: expected one value of visible ASCII characters")
        })?;
        let who = name_of(self.operator());
        Ok(Some(Idempotency::new(&who, call, text, body)?))
    }

    /// Returns the response to a repeated request: the same record, without the secret.
    pub(crate) fn repeated(&self, key: &ManagedKey) -> Response {
        let record = self.view(key);
        private(StatusCode::OK, &RepeatedRequest { key: (), record })
    }
}

/// The key id in a path. A malformed id is treated as unknown.
pub(crate) struct Id(pub(crate) KeyId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        let id = text.ok().and_then(|Path(text)| KeyId::new(&text).ok());
        id.map(Self).ok_or_else(Fault::not_found)
    }
}

/// Responds with a key and its version as `ETag`.
pub(crate) fn with_etag(key: &ManagedKey, view: &KeyRecord<'_>) -> Response {
    (StatusCode::OK, version_of(key), axum::Json(view)).into_response()
}

fn version_of(key: &ManagedKey) -> [(HeaderName, String); 2] {
    [
        (CACHE_CONTROL, "no-store".to_owned()),
        (ETAG, format!("\"{}\"", key.record.version)),
    ]
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParameters {
    /// Only keys with this status.
    #[param(value_type = Option<terms::KeyStatus>)]
    pub(crate) status: Option<String>,
    /// Only keys of this environment.
    #[param(value_type = Option<terms::Environment>)]
    pub(crate) environment: Option<String>,
    /// Only keys that belong to this user.
    #[param(value_type = Option<terms::Id>)]
    pub(crate) owner: Option<String>,
    /// Only keys whose record names this plan.
    #[param(value_type = Option<terms::PlanName>)]
    pub(crate) plan: Option<String>,
    /// Only keys of this family: a key and its successors.
    #[param(value_type = Option<terms::Id>)]
    pub(crate) family: Option<String>,
    /// Only keys of this kind.
    #[param(value_type = Option<terms::KeyKind>)]
    pub(crate) kind: Option<String>,
    /// Only keys that expire before this time, including those that have expired already.
    #[param(value_type = Option<terms::Time>)]
    pub(crate) expires_before: Option<String>,
    /// Only keys that existed at this time and have not been used since. Uses of the last seconds, or
    /// minutes if the service writes them less often, may be missing.
    #[param(value_type = Option<terms::Time>)]
    pub(crate) unused_since: Option<String>,
    /// Only keys with this text in the name, description or masked secret. ASCII case is ignored.
    pub(crate) query: Option<String>,
    /// Maximum number of items in a page.
    #[param(minimum = 1, maximum = 500, default = 50)]
    pub(crate) limit: Option<usize>,
    /// `next_cursor` of the previous page. Only `null` marks the last page: a page may be empty.
    #[param(
        pattern = "^([0-9]{1,14}|1[0-9]{14}|2[0-4][0-9]{13}|25[0-2][0-9]{12}|253[0-3][0-9]{11})(_[0-9]{1,6})?\\.[!-~]{1,128}$"
    )]
    pub(crate) cursor: Option<String>,
}

impl ListParameters {
    /// Returns a query with these filters, without the position.
    pub(crate) fn filter(&self, now: SystemTime) -> Result<ListQuery, Fault> {
        let mut query = ListQuery::new(now);
        query.status = parsed("status", self.status.as_deref(), str::parse::<KeyStatus>)?;
        query.environment = parsed("environment", self.environment.as_deref(), Environment::new)?;
        query.owner = parsed("owner", self.owner.as_deref(), UserId::new)?;
        query.plan = parsed("plan", self.plan.as_deref(), PlanName::new)?;
        query.family = parsed("family", self.family.as_deref(), KeyFamily::new)?;
        query.kind = parsed("kind", self.kind.as_deref(), str::parse::<KeyKind>)?;
        query.expires_before =
            parsed("expires_before", self.expires_before.as_deref(), parse_time)?;
        query.unused_since = parsed("unused_since", self.unused_since.as_deref(), parse_time)?;
        query.text.clone_from(&self.query);
        Ok(query)
    }
}

pub(crate) async fn list(
    operator: AuthenticatedOperator,
    RawQuery(raw): RawQuery,
) -> Result<Response, Fault> {
    let asked = parameters::<ListParameters>(raw.as_deref())?;
    let mut query = asked.filter(operator.manager.now())?;
    query.limit = limit(asked.limit, query.limit)?;
    if let Some(cursor) = asked.cursor {
        query.after = Some(
            read_cursor(&cursor).ok_or_else(|| Fault::bad("cursor: not a cursor of this list"))?,
        );
    }
    let page = operator.manager.list(query).await;
    let page = page.map_err(|error| match error {
        ManageError::Invalid { field, reason } => Fault::bad(format!("{field}: {reason}")),
        error => error.into(),
    })?;
    let view = KeyPage {
        items: page.items.iter().map(|key| operator.view(key)).collect(),
        next_cursor: page.next.as_ref().map(write_cursor),
        corrupt: &page.corrupt,
    };
    Ok(private(StatusCode::OK, &view))
}

/// Parses a parameter; the error names it.
fn parsed<T, E: Display>(
    name: &str,
    given: Option<&str>,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, Fault> {
    let parsed = given.map(parse).transpose();
    parsed.map_err(|error| Fault::bad(format!("{name}: {error}")))
}

/// Formats a cursor: milliseconds, the remaining nanoseconds if any, then the id.
pub(crate) fn write_cursor(cursor: &Cursor) -> String {
    let since = cursor.created_at.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or_default();
    let (millis, id) = (since.as_millis(), &cursor.id);
    match since.subsec_nanos() % NANOS_PER_MILLI {
        0 => format!("{millis}.{id}"),
        nanos => format!("{millis}_{nanos}.{id}"),
    }
}

const NANOS_PER_MILLI: u32 = 1_000_000;

pub(crate) fn read_cursor(text: &str) -> Option<Cursor> {
    let (time, id) = text.split_once('.')?;
    let (millis, nanos) = time.split_once('_').unwrap_or((time, "0"));
    // Digits only, and no more than a valid time has.
    let is_number = |text: &str, most| {
        (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    (is_number(millis, 15) && is_number(nanos, 6)).then_some(())?;
    let nanos = nanos
        .parse::<u32>()
        .ok()
        .filter(|nanos| *nanos < NANOS_PER_MILLI)?;
    let since = Duration::from_millis(millis.parse().ok()?);
    let since = since.checked_add(Duration::from_nanos(nanos.into()))?;
    let at = (since <= MAX_TIME).then(|| SystemTime::UNIX_EPOCH + since)?;
    Some(Cursor::new(at, KeyId::new(id).ok()?))
}

pub(crate) async fn show(operator: AuthenticatedOperator, Id(id): Id) -> Result<Response, Fault> {
    let key = operator.manager.get_for(Action::KeyRead, &id).await?;
    let version = Some(key.record.version);
    if !operator.conditions.matches(version) {
        return Err(ManageError::PreconditionFailed.into());
    }
    if operator.conditions.is_known(version) {
        return Ok((StatusCode::NOT_MODIFIED, version_of(&key)).into_response());
    }
    Ok(with_etag(&key, &operator.view(&key)))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RevokeRequest {
    #[schema(value_type = Option<terms::Text>)]
    reason: Option<String>,
}

pub(crate) async fn revoke(
    operator: AuthenticatedOperator,
    Id(id): Id,
    body: Content,
) -> Result<Response, Fault> {
    // An unknown key is reported before an invalid body.
    let act = Action::KeyRevoke;
    let before = operator.manager.get_for(act, &id).await?.record;
    let asked = operator.audited(act, Some(&before), read::<RevokeRequest>(body).await)?;
    let revoked = operator
        .manager
        .revoke(&id, asked.reason.as_deref())
        .await?;
    Ok(with_etag(&revoked, &operator.view(&revoked)))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotateRequest {
    /// Seconds for which the old key still works. If absent or 0, it is revoked immediately.
    /// Refused if the service keeps rotated keys active.
    #[schema(value_type = Option<u64>, maximum = 3_155_760_000_u64)]
    grace_seconds: Option<Whole>,
}

/// The successor of a key, with its secret.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotatedKey<'k> {
    /// The secret. It is shown only once.
    #[schema(value_type = String, min_length = 1, max_length = 256)]
    key: Secret,
    record: KeyRecord<'k>,
    rotated: OldKey<'k>,
}

/// The key that was rotated.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OldKey<'k> {
    #[schema(value_type = terms::KeyId)]
    id: &'k KeyId,
    /// End of the grace period; `null` if the key works until it is deleted.
    #[schema(required, value_type = Option<terms::Timestamp>)]
    works_until: Option<String>,
}

pub(crate) async fn rotate(
    operator: AuthenticatedOperator,
    Id(id): Id,
    headers: HeaderMap,
    body: Content,
) -> Result<Response, Fault> {
    let act = Action::KeyRotate;
    let before = operator.manager.get_for(act, &id).await?.record;
    let read = read_whole::<RotateRequest>(body).await;
    let (asked, bytes) = operator.audited(act, Some(&before), read)?;
    let request = operator.idempotency(&headers, &format!("rotate {id}"), &bytes);
    let request = operator.audited(act, Some(&before), request)?;
    let grace = operator.audited(act, Some(&before), grace(asked.grace_seconds))?;
    let rotated = match operator.manager.rotate_once(&id, grace, request).await {
        Err(ManageError::DoneBefore(done)) => return Ok(operator.repeated(&done)),
        rotated => rotated?,
    };
    let overview = operator.manager.overview_of_rotated(&rotated).await;
    let works_until = rotated.old_works_until().map(time_text);
    let answer = RotatedKey {
        record: operator.view(&overview),
        rotated: OldKey {
            id: &rotated.old.id,
            works_until,
        },
        key: Secret(Zeroizing::new(rotated.key.reveal())),
    };
    Ok(private(StatusCode::CREATED, &answer))
}

/// The longest grace period: a hundred years.
const LONGEST_GRACE: u64 = 3_155_760_000;

fn grace(seconds: Option<Whole>) -> Result<Option<Duration>, Fault> {
    match seconds {
        Some(Whole(seconds)) if seconds > LONGEST_GRACE => Err(Fault::invalid(
            "grace_seconds",
            format!("at most {LONGEST_GRACE} (100 years)"),
        )),
        seconds => Ok(seconds.map(|Whole(seconds)| Duration::from_secs(seconds))),
    }
}

pub(crate) async fn make_primary(
    operator: AuthenticatedOperator,
    Id(id): Id,
    body: Content,
) -> Result<Response, Fault> {
    let act = Action::KeyMakePrimary;
    let before = operator.manager.get_for(act, &id).await?.record;
    operator.audited(act, Some(&before), body.ignored().await)?;
    let primary = operator.manager.make_primary(&id).await?;
    Ok(with_etag(&primary, &operator.view(&primary)))
}

pub(crate) async fn delete(
    operator: AuthenticatedOperator,
    Id(id): Id,
    body: Content,
) -> Result<Response, Fault> {
    let act = Action::KeyDelete;
    let before = operator.manager.get_for(act, &id).await?.record;
    operator.audited(act, Some(&before), body.ignored().await)?;
    operator.manager.delete(&id).await?;
    Ok((StatusCode::NO_CONTENT, [(CACHE_CONTROL, "no-store")]).into_response())
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct UsageParameters {
    /// Start of the period: the first hour is the one that contains this time.
    #[param(value_type = Option<terms::Time>)]
    from: Option<String>,
    /// End of the period: only hours that begin before this time are included.
    #[param(value_type = Option<terms::Time>)]
    to: Option<String>,
}

/// Longest period of one usage query.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Default period of a usage query.
const USUAL: Duration = Duration::from_secs(7 * 24 * 60 * 60);

pub(crate) async fn usage(
    operator: AuthenticatedOperator,
    Id(id): Id,
    RawQuery(raw): RawQuery,
) -> Result<Response, Fault> {
    let asked = parameters::<UsageParameters>(raw.as_deref())?;
    let now = operator.manager.now();
    let to = parsed("to", asked.to.as_deref(), parse_time)?.unwrap_or(now + Duration::from_secs(1));
    let from = parsed("from", asked.from.as_deref(), parse_time)?
        .unwrap_or_else(|| to.checked_sub(USUAL).unwrap_or(SystemTime::UNIX_EPOCH));
    if to.duration_since(from).is_ok_and(|span| span > LONGEST) {
        return Err(Fault::bad("from, to: the period must not exceed 366 days"));
    }
    let key = operator.manager.get_for(Action::KeyRead, &id).await?;
    let used = operator
        .manager
        .usage_by_hour(&key.record.id, from, to)
        .await?;
    let hours = used.hours.iter().map(|hour| HourOfUse {
        start: time_text(hour.start),
        count: hour.count,
    });
    let view = Usage {
        id: &key.record.id,
        request_count: key.usage.count,
        last_used_at: key.usage.last_used_at.map(time_text),
        last_ip: key.usage.last_ip,
        hours: hours.collect(),
        corrupt: &used.corrupt,
    };
    Ok(private(StatusCode::OK, &view))
}
