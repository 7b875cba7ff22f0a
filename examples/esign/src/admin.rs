//! The management API: issue, list, look at and revoke keys, for owners and, within their workspaces, administrators.
//!
//! Identity and tenant come from the proven operator, never from the body. Another tenant's key is the 404 of an unknown
//! id. Fields that are not known are errors, so that nobody believes a restriction was taken that was not.

use std::fmt;
use std::marker::PhantomData;
use std::time::SystemTime;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, Path, RawQuery, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::request::Parts;
use axum::http::{Request, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use portunus::adapter::tower::{HttpHead, into_response};
use portunus::key::{
    Access, Environment, KeyId, KeyKind, KeyStatus, Metadata, Owner, PlanName, TenantId, UserId, WorkspaceId,
};
use portunus::limit::{Quota, Quotas};
use portunus::manage::{ManageError, ManagedKey, NewKey};
use portunus::network::AllowList;
use portunus::profile::Profile;
use portunus::respond::Responder;
use portunus::store::{Cursor, ListQuery};
use portunus::{AuthError, ErrorCode, Scope};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::directory::UserRole;
use crate::operators::{ADMINS_WORKSPACE, HIGHEST_PLAN, Operator, PLANS, Role, TENANTS_PLAN, WORKSPACES};
use crate::record;

/// No body is read beyond this: the largest fields have limits of their own, told by name.
const MOST_BODY: usize = 4 << 20;

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/keys", post(issue).get(list))
        .route("/keys/{id}", get(show))
        .route("/keys/{id}/revoke", post(revoke))
        .fallback(unknown)
}

/// There is nothing at this path.
pub(crate) async fn unknown() -> Fault {
    Fault(AuthError::new(ErrorCode::NotFound))
}

/// A refusal of the management API: always a problem document.
pub(crate) struct Fault(AuthError);

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut answer = Responder::default().answer(&self.0, &HttpHead::new(&Request::new(()), None));
        // A challenge is for credentials; what else is wrong with a request is none of its business.
        if self.0.code() == ErrorCode::InvalidRequest {
            answer.fields.retain(|(name, _)| *name != "www-authenticate");
        }
        into_response(answer, &self.0)
    }
}

impl From<ManageError> for Fault {
    fn from(error: ManageError) -> Self {
        let code = match &error {
            ManageError::NotFound(_) => return not_found(),
            ManageError::Invalid { .. } => ErrorCode::InvalidBody,
            ManageError::QuotaExceeded { .. } => ErrorCode::QuotaExceeded,
            ManageError::Contended => ErrorCode::Conflict,
            _ => return Self(AuthError::unavailable(ErrorCode::StoreUnavailable, error)),
        };
        Self(AuthError::with_detail(code, error.to_string()))
    }
}

fn invalid(field: &str, reason: impl fmt::Display) -> Fault {
    Fault(AuthError::with_detail(ErrorCode::InvalidBody, format!("{field}: {reason}")))
}

/// The same for an id that is unknown, malformed, or another tenant's.
fn not_found() -> Fault {
    Fault(AuthError::with_detail(ErrorCode::NotFound, "There is no such key"))
}

/// An operator who may manage keys.
pub(crate) struct Manager(Operator);

impl FromRequestParts<App> for Manager {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Fault> {
        let operator = app.operators.prove(&parts.headers);
        let operator = operator.map_err(|code| Fault(AuthError::with_detail(code, "An operator's token is needed")))?;
        match operator.role {
            Role::Owner | Role::Admin => Ok(Self(operator.clone())),
            Role::Member => Err(Fault(AuthError::with_detail(ErrorCode::Forbidden, "Members may not manage keys"))),
        }
    }
}

impl Operator {
    /// The workspaces whose keys the operator may see and make; all, if it is not said.
    fn workspaces(&self) -> Result<Option<Vec<WorkspaceId>>, Fault> {
        match self.role {
            Role::Owner => Ok(None),
            Role::Admin | Role::Member => {
                let own = WorkspaceId::new(ADMINS_WORKSPACE).map_err(|error| invalid("workspaces", error))?;
                Ok(Some(vec![own]))
            }
        }
    }

    /// Organization-scoped keys, and workspace-scoped ones of the operator's own workspaces.
    fn may_manage(&self, key: Option<&[WorkspaceId]>) -> Result<(), Fault> {
        match (self.workspaces()?, key) {
            (Some(own), Some(reached)) if !reached.iter().all(|id| own.contains(id)) => Err(Fault(
                AuthError::with_detail(ErrorCode::Forbidden, "This key reaches workspaces that you do not belong to"),
            )),
            _ => Ok(()),
        }
    }
}

/// A body that is JSON of this shape. An absent one counts as `{}`.
async fn read<T: DeserializeOwned>(body: Body) -> Result<T, Fault> {
    let bytes = to_bytes(body, MOST_BODY).await.map_err(|_| invalid("body", "it is too large, or broke off"))?;
    let bytes: &[u8] = if bytes.trim_ascii().is_empty() { b"{}" } else { &bytes };
    let about = |error: &serde_json::Error| error.to_string().chars().take(200).collect::<String>();
    // First whether it is JSON at all: serde_json calls some values of a wrong type a syntax error.
    serde_json::from_slice::<Value>(bytes).map_err(|error| {
        Fault(AuthError::with_detail(ErrorCode::InvalidRequest, format!("The body is not JSON: {}", about(&error))))
    })?;
    let read = serde_json::from_slice::<Object<T>>(bytes).map_err(|error| invalid("body", about(&error)))?;
    Ok(read.0)
}

/// What is written as a JSON object; never as a list of its values, which serde would take too.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMap<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(OfMap(PhantomData))
    }
}

/// JSON that no cache keeps.
fn private(status: StatusCode, value: &Value) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], Json(value)).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnerBody {
    user_id: Option<String>,
    user_email: Option<String>,
    tenant_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateLimitBody {
    requests_per_minute: Option<u64>,
    requests_per_hour: Option<u64>,
}

impl RateLimitBody {
    /// The quotas; what is not said is as by default.
    fn into_quotas(self) -> Result<Quotas, Fault> {
        let minute = Quota::per_minute(self.requests_per_minute.unwrap_or(record::PER_MINUTE));
        let hour = Quota::per_hour(self.requests_per_hour.unwrap_or(record::PER_HOUR));
        minute.and_then(|minute| Quotas::new([minute, hour?])).map_err(|error| invalid("rate_limit_config", error))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IssueBody {
    name: String,
    description: Option<String>,
    kind: Option<String>,
    environment: Option<String>,
    owner: Option<Object<OwnerBody>>,
    scopes: Option<Vec<String>>,
    access: Option<Access>,
    workspaces: Option<Vec<String>>,
    plan: Option<String>,
    allowed_ips: Option<Vec<String>>,
    rate_limit_config: Option<Object<RateLimitBody>>,
    not_before: Option<String>,
    expires_at: Option<String>,
    metadata: Option<Map<String, Value>>,
}

impl IssueBody {
    /// The key that is asked for, in the operator's tenant.
    fn into_new_key(self, app: &App, operator: &Operator) -> Result<NewKey, Fault> {
        let mut new = NewKey::new(self.name, owner(self.owner.map(|Object(owner)| owner), app, operator)?);
        new.description = self.description;
        if let Some(kind) = self.kind {
            new.kind = kind.parse::<KeyKind>().map_err(|error| invalid("kind", error))?;
        }
        if let Some(environment) = self.environment {
            new.environment = Some(Environment::new(&environment).map_err(|error| invalid("environment", error))?);
        }
        for scope in self.scopes.unwrap_or_default() {
            new.scopes.push(Scope::new(&scope).map_err(|error| invalid("scopes", error))?);
        }
        new.access = self.access.unwrap_or_default();
        if let Some(names) = self.workspaces {
            new.workspaces = Some(workspaces(&names)?);
        }
        operator.may_manage(new.workspaces.as_deref())?;
        new.plan = Some(plan(self.plan.as_deref(), app, operator)?);
        if self.allowed_ips.is_some()
            && app.profile == Profile::IuSign
            && new.plan.as_ref().is_none_or(|plan| plan.as_str() != HIGHEST_PLAN)
        {
            let detail = format!("allowed_ips: this API restricts addresses on plan {HIGHEST_PLAN} only");
            return Err(Fault(AuthError::with_detail(ErrorCode::PlanRequired, detail)));
        }
        if let Some(entries) = self.allowed_ips {
            new.allowed_ips = Some(AllowList::parse(entries).map_err(|error| invalid("allowed_ips", error))?);
        }
        new.quotas = self.rate_limit_config.map(|Object(config)| config.into_quotas()).transpose()?;
        new.not_before = time("not_before", self.not_before)?;
        new.expires_at = time("expires_at", self.expires_at)?;
        if let Some(metadata) = self.metadata {
            new.metadata = Metadata::try_from(metadata).map_err(|error| invalid("metadata", error))?;
        }
        Ok(new)
    }
}

/// Workspaces that there are; an empty list is no list, rather than one that reaches nothing or everything.
fn workspaces(names: &[String]) -> Result<Vec<WorkspaceId>, Fault> {
    if names.is_empty() {
        let detail = "workspaces: name at least one, or leave it out for the whole organization";
        return Err(Fault(AuthError::with_detail(ErrorCode::InvalidRequest, detail)));
    }
    let known = |name: &String| match WorkspaceId::new(name) {
        Ok(id) if WORKSPACES.contains(&id.as_str()) => Ok(id),
        Ok(id) => Err(invalid("workspaces", format!("there is no workspace {id}"))),
        Err(error) => Err(invalid("workspaces", error)),
    };
    names.iter().map(known).collect()
}

/// The plan that the owner sets, or the tenant's.
fn plan(asked: Option<&str>, app: &App, operator: &Operator) -> Result<PlanName, Fault> {
    if asked.is_some() && operator.role != Role::Owner {
        return Err(Fault(AuthError::with_detail(ErrorCode::Forbidden, "Only the owner may set a plan")));
    }
    match PlanName::new(asked.unwrap_or(TENANTS_PLAN)) {
        Ok(plan) if app.plans.knows(&plan) => Ok(plan),
        _ => Err(invalid("plan", format!("it is none of {}", PLANS.join(", ")))),
    }
}

fn owner(asked: Option<OwnerBody>, app: &App, operator: &Operator) -> Result<Owner, Fault> {
    let asked = asked.unwrap_or(OwnerBody { user_id: None, user_email: None, tenant_id: None });
    if asked.tenant_id.is_some_and(|tenant| tenant != operator.tenant.as_str()) {
        return Err(Fault(AuthError::with_detail(ErrorCode::Forbidden, "Keys can be issued in one's own tenant only")));
    }
    let tenant: TenantId = operator.tenant.clone();
    let owner = match asked.user_id {
        Some(user) => {
            let user = UserId::new(&user).map_err(|error| invalid("owner.user_id", error))?;
            if app.directory.is_foreign(&tenant, &user) {
                let detail = "Keys can be issued for users of one's own tenant only";
                return Err(Fault(AuthError::with_detail(ErrorCode::Forbidden, detail)));
            }
            Owner::user(tenant, user)
        }
        None => Owner::tenant(tenant),
    };
    Ok(match asked.user_email {
        Some(email) => owner.with_email(email),
        None => owner,
    })
}

fn time(field: &'static str, text: Option<String>) -> Result<Option<SystemTime>, Fault> {
    text.map(|text| record::parse_time(&text).map_err(|error| invalid(field, error))).transpose()
}

async fn issue(State(app): State<App>, Manager(operator): Manager, body: Body) -> Result<Response, Fault> {
    let new = read::<IssueBody>(body).await?.into_new_key(&app, &operator)?;
    let issued = app.manager.issue(new).await?;
    let record = record::fresh(&issued, app.manager.now());
    Ok(private(StatusCode::CREATED, &json!({ "key": issued.key.reveal(), "record": record })))
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

async fn list(State(app): State<App>, Manager(operator): Manager, RawQuery(raw): RawQuery) -> Result<Response, Fault> {
    let bad = |reason: String| Fault(AuthError::with_detail(ErrorCode::InvalidRequest, reason));
    let uri = Uri::builder().path_and_query(format!("/?{}", raw.unwrap_or_default())).build();
    let uri = uri.map_err(|error| bad(error.to_string()))?;
    let parameters = axum::extract::Query::<ListParameters>::try_from_uri(&uri);
    let parameters = parameters.map_err(|error| bad(error.body_text()))?.0;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());

    let mut query = ListQuery::new(app.manager.now());
    query.within_workspaces = operator.workspaces()?;
    query.tenant = Some(operator.tenant);
    if let Some(status) = given(parameters.status) {
        query.status = Some(status_named(&status).ok_or_else(|| bad(format!("status {status:?} is not known")))?);
    }
    if let Some(environment) = given(parameters.environment) {
        query.environment = Some(Environment::new(&environment).map_err(|error| bad(error.to_string()))?);
    }
    query.text = given(parameters.query);
    if let Some(limit) = parameters.limit {
        query.limit =
            Some(limit).filter(|limit| (1..=500).contains(limit)).ok_or_else(|| bad("limit: 1 to 500".into()))?;
    }
    if let Some(cursor) = given(parameters.cursor) {
        query.after = Some(read_cursor(&cursor).ok_or_else(|| bad("cursor: not one of this list".into()))?);
    }
    app.flush().await;
    let now = query.now;
    let page = app.manager.list(query).await?;
    let items: Vec<_> = page.items.iter().map(|item| record::listed(item, now)).collect();
    Ok(private(StatusCode::OK, &json!({ "items": items, "next_cursor": page.next.as_ref().map(write_cursor) })))
}

fn status_named(name: &str) -> Option<KeyStatus> {
    use KeyStatus::{Active, Disabled, Expired, NotYetValid, Revoked};
    [Active, NotYetValid, Expired, Disabled, Revoked].into_iter().find(|status| status.as_str() == name)
}

fn write_cursor(cursor: &Cursor) -> String {
    let millis = cursor.created_at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    format!("{millis}.{}", cursor.id)
}

fn read_cursor(text: &str) -> Option<Cursor> {
    let (millis, id) = text.split_once('.')?;
    let at = SystemTime::UNIX_EPOCH.checked_add(std::time::Duration::from_millis(millis.parse().ok()?))?;
    Some(Cursor::new(at, KeyId::new(id).ok()?))
}

/// A key of the operator's tenant.
async fn own(app: &App, operator: &Operator, id: &str) -> Result<ManagedKey, Fault> {
    let id = KeyId::new(id).map_err(|_| not_found())?;
    let listed = app.manager.get(&id).await?;
    if listed.record.owner.tenant_id != operator.tenant {
        return Err(not_found());
    }
    operator.may_manage(listed.record.workspaces.as_deref())?;
    Ok(listed)
}

async fn show(State(app): State<App>, Manager(operator): Manager, Path(id): Path<String>) -> Result<Response, Fault> {
    app.flush().await;
    let listed = own(&app, &operator, &id).await?;
    Ok(private(StatusCode::OK, &record::listed(&listed, app.manager.now())))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokeBody {
    reason: Option<String>,
}

async fn revoke(
    State(app): State<App>,
    Manager(operator): Manager,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Fault> {
    let listed = own(&app, &operator, &id).await?;
    let asked = read::<RevokeBody>(body).await?;
    let revoked = app.manager.revoke(&listed.record.id, asked.reason.as_deref()).await?;
    Ok(private(StatusCode::OK, &record::listed(&revoked, app.manager.now())))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserBody {
    role: Option<UserRole>,
    suspended: Option<bool>,
}

/// `PUT /demo/users/{id}`: a user's standing, and so the keys that depend on it.
pub(crate) async fn change_user(
    State(app): State<App>,
    Manager(operator): Manager,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Fault> {
    if operator.role != Role::Owner {
        return Err(Fault(AuthError::with_detail(ErrorCode::Forbidden, "Only the owner may change users")));
    }
    let asked = read::<UserBody>(body).await?;
    let changed = app.directory.change(&operator.tenant, &id, asked.role, asked.suspended);
    let user = changed.ok_or_else(|| Fault(AuthError::with_detail(ErrorCode::NotFound, "There is no such user")))?;
    Ok(private(StatusCode::OK, &json!(user)))
}
