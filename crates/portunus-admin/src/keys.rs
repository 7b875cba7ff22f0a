//! The calls on keys that exist: list, show, revoke, rotate, make primary, delete, usage.

use std::time::{Duration, SystemTime};

use axum::extract::{FromRequestParts, Path, RawQuery};
use axum::http::header::{CACHE_CONTROL, ETAG};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use portunus::audit::Action;
use portunus::key::{Environment, KeyId, KeyStatus, MAX_TIME};
use portunus::manage::{Idempotency, ManageError, ManagedKey};
use portunus::store::{Cursor, ListQuery};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::body::{Whole, private, read, read_whole};
use crate::content::Content;
use crate::query::{limit, parameters};
use crate::time::{parse_time, time_text};
use crate::{AuthenticatedOperator, Fault, name_of, record};

impl AuthenticatedOperator {
    /// A key as it is shown.
    pub(crate) fn shown(&self, key: &ManagedKey) -> Value {
        record::managed(key, self.shared.authenticator.quotas(), self.manager.now())
    }

    /// What makes a request recognizable when it is repeated, where the caller wants that:
    /// `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header).
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
        let text = text
            .ok_or_else(|| Fault::bad("Idempotency-Key: one value of visible ASCII characters"))?;
        let who = name_of(self.operator());
        Ok(Some(Idempotency::new(&who, call, text, body)?))
    }

    /// The answer to a request that is repeated: the same record, and never the secret again.
    pub(crate) fn done_before(&self, key: &ManagedKey) -> Response {
        private(
            StatusCode::OK,
            &json!({ "key": null, "record": self.shown(key) }),
        )
    }
}

/// The id in a path; one that is malformed is unknown.
pub(crate) struct Id(pub(crate) KeyId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        let id = text.ok().and_then(|Path(text)| KeyId::new(&text).ok());
        id.map(Self).ok_or_else(Fault::not_found)
    }
}

/// A key with its version as `ETag`.
pub(crate) fn with_etag(key: &ManagedKey, shown: Value) -> Response {
    (StatusCode::OK, version_of(key), axum::Json(shown)).into_response()
}

fn version_of(key: &ManagedKey) -> [(HeaderName, String); 2] {
    [
        (CACHE_CONTROL, "no-store".to_owned()),
        (ETAG, format!("\"{}\"", key.record.version)),
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParameters {
    status: Option<String>,
    environment: Option<String>,
    query: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

pub(crate) async fn list(
    proven: AuthenticatedOperator,
    RawQuery(raw): RawQuery,
) -> Result<Response, Fault> {
    let asked = parameters::<ListParameters>(raw.as_deref())?;
    let mut query = ListQuery::new(proven.manager.now());
    if let Some(name) = asked.status {
        let named = name
            .parse::<KeyStatus>()
            .map_err(|error| Fault::bad(format!("status: {error}")))?;
        query.status = Some(named);
    }
    if let Some(name) = asked.environment {
        query.environment =
            Some(Environment::new(&name).map_err(|error| Fault::bad(error.to_string()))?);
    }
    query.text = asked.query;
    query.limit = limit(asked.limit, query.limit)?;
    if let Some(cursor) = asked.cursor {
        query.after =
            Some(read_cursor(&cursor).ok_or_else(|| Fault::bad("cursor: not one of this list"))?);
    }
    let page = proven.manager.list(query).await?;
    let items: Vec<_> = page.items.iter().map(|key| proven.shown(key)).collect();
    let next = page.next.as_ref().map(write_cursor);
    Ok(private(
        StatusCode::OK,
        &one_page(items, next, &page.corrupt),
    ))
}

/// A page of a list; what could not be read is named only where there is any.
pub(crate) fn one_page(items: Vec<Value>, next: Option<String>, corrupt: &[String]) -> Value {
    let members = [("items", Value::from(items)), ("next_cursor", next.into())];
    with_corrupt(members.into_iter().collect(), corrupt)
}

fn with_corrupt(mut answer: Value, corrupt: &[String]) -> Value {
    if !corrupt.is_empty() {
        answer["corrupt"] = json!(corrupt);
    }
    answer
}

/// Milliseconds and, where the time is no whole one, the nanoseconds beyond; then the id.
fn write_cursor(cursor: &Cursor) -> String {
    let since = cursor.created_at.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or_default();
    let (millis, id) = (since.as_millis(), &cursor.id);
    match since.subsec_nanos() % NANOS_PER_MILLI {
        0 => format!("{millis}.{id}"),
        nanos => format!("{millis}_{nanos}.{id}"),
    }
}

const NANOS_PER_MILLI: u32 = 1_000_000;

fn read_cursor(text: &str) -> Option<Cursor> {
    let (time, id) = text.split_once('.')?;
    let (millis, nanos) = time.split_once('_').unwrap_or((time, "0"));
    let nanos = nanos
        .parse::<u32>()
        .ok()
        .filter(|nanos| *nanos < NANOS_PER_MILLI)?;
    let since = Duration::from_millis(millis.parse().ok()?);
    let since = since.checked_add(Duration::from_nanos(nanos.into()))?;
    let at = (since <= MAX_TIME).then(|| SystemTime::UNIX_EPOCH + since)?;
    Some(Cursor::new(at, KeyId::new(id).ok()?))
}

pub(crate) async fn show(proven: AuthenticatedOperator, Id(id): Id) -> Result<Response, Fault> {
    let key = proven.manager.get_for(Action::KeyRead, &id).await?;
    let version = Some(key.record.version);
    if !proven.conditions.matches(version) {
        return Err(ManageError::PreconditionFailed.into());
    }
    if proven.conditions.is_known(version) {
        return Ok((StatusCode::NOT_MODIFIED, version_of(&key)).into_response());
    }
    Ok(with_etag(&key, proven.shown(&key)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokeBody {
    reason: Option<String>,
}

pub(crate) async fn revoke(
    proven: AuthenticatedOperator,
    Id(id): Id,
    body: Content,
) -> Result<Response, Fault> {
    // Whether there is such a key comes before what is wrong with the body.
    let act = Action::KeyRevoke;
    let before = proven.manager.get_for(act, &id).await?.record;
    let asked = proven.noted(act, Some(&before), read::<RevokeBody>(body).await)?;
    let revoked = proven.manager.revoke(&id, asked.reason.as_deref()).await?;
    Ok(with_etag(&revoked, proven.shown(&revoked)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RotateBody {
    grace_seconds: Option<Whole>,
}

pub(crate) async fn rotate(
    proven: AuthenticatedOperator,
    Id(id): Id,
    headers: HeaderMap,
    body: Content,
) -> Result<Response, Fault> {
    let act = Action::KeyRotate;
    let before = proven.manager.get_for(act, &id).await?.record;
    let read = read_whole::<RotateBody>(body).await;
    let (asked, bytes) = proven.noted(act, Some(&before), read)?;
    let request = proven.idempotency(&headers, &format!("rotate {id}"), &bytes);
    let request = proven.noted(act, Some(&before), request)?;
    let grace = asked
        .grace_seconds
        .map(|Whole(seconds)| Duration::from_secs(seconds));
    let rotated = match proven.manager.rotate_once(&id, grace, request).await {
        Err(ManageError::DoneBefore(done)) => return Ok(proven.done_before(&done)),
        rotated => rotated?,
    };
    let shown = proven.shown(&proven.manager.overview_of_rotated(&rotated));
    let works_until = rotated.old_works_until().map(time_text);
    let answer = json!({
        "key": rotated.key.reveal(),
        "record": shown,
        "rotated": { "id": rotated.old.id, "works_until": works_until },
    });
    Ok(private(StatusCode::CREATED, &answer))
}

pub(crate) async fn make_primary(
    proven: AuthenticatedOperator,
    Id(id): Id,
    body: Content,
) -> Result<Response, Fault> {
    let act = Action::KeyMakePrimary;
    let before = proven.manager.get_for(act, &id).await?.record;
    proven.noted(act, Some(&before), body.ignored().await)?;
    let primary = proven.manager.make_primary(&id).await?;
    Ok(with_etag(&primary, proven.shown(&primary)))
}

pub(crate) async fn delete(
    proven: AuthenticatedOperator,
    Id(id): Id,
    body: Content,
) -> Result<Response, Fault> {
    let act = Action::KeyDelete;
    let before = proven.manager.get_for(act, &id).await?.record;
    proven.noted(act, Some(&before), body.ignored().await)?;
    proven.manager.delete(&id).await?;
    Ok((StatusCode::NO_CONTENT, [(CACHE_CONTROL, "no-store")]).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UsageParameters {
    from: Option<String>,
    to: Option<String>,
}

/// The longest that usage is shown for at once.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// How far back usage is shown unless it is said.
const USUAL: Duration = Duration::from_secs(7 * 24 * 60 * 60);

pub(crate) async fn usage(
    proven: AuthenticatedOperator,
    Id(id): Id,
    RawQuery(raw): RawQuery,
) -> Result<Response, Fault> {
    let asked = parameters::<UsageParameters>(raw.as_deref())?;
    let time = |name: &str, text: Option<String>| {
        text.map(|text| parse_time(&text).map_err(|error| Fault::bad(format!("{name}: {error}"))))
            .transpose()
    };
    let now = proven.manager.now();
    let to = time("to", asked.to)?.unwrap_or(now + Duration::from_secs(1));
    let from = time("from", asked.from)?
        .unwrap_or_else(|| to.checked_sub(USUAL).unwrap_or(SystemTime::UNIX_EPOCH));
    if to.duration_since(from).is_ok_and(|span| span > LONGEST) {
        return Err(Fault::bad("from, to: at most 366 days at once"));
    }
    let key = proven.manager.get_for(Action::KeyRead, &id).await?;
    let used = proven
        .manager
        .usage_by_hour(&key.record.id, from, to)
        .await?;
    let hours: Vec<_> = used
        .hours
        .iter()
        .map(|hour| json!({ "start": time_text(hour.start), "count": hour.count }))
        .collect();
    let answer = json!({
        "id": key.record.id,
        "request_count": key.usage.count,
        "last_used_at": key.usage.last_used_at.map(time_text),
        "last_ip": key.usage.last_ip,
        "hours": hours,
    });
    Ok(private(
        StatusCode::OK,
        &with_corrupt(answer, &used.corrupt),
    ))
}
