//! `POST /keys`: issues a key.

use std::time::SystemTime;

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use portunus::audit::Action;
use portunus::key::{
    Access, Environment, KeyKind, Metadata, Owner, PlanName, TenantId, UserId, WorkspaceId,
};
use portunus::manage::{KeyManager, ManageError, NewKey, Operator};
use portunus::network::AllowList;
use portunus::{ErrorCode, Scope};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::{Object as NullSchema, Type};
use zeroize::Zeroizing;

use crate::body::{Object, Secret, members, private, read_whole};
use crate::content::Content;
use crate::limits::{RateLimitRequest, Windows};
use crate::record::KeyRecord;
use crate::time::parse_time;
use crate::{AuthenticatedOperator, Fault, terms};

/// The owner of a new key.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnerRequest {
    /// A user of the tenant; required for kinds `user` and `access_token`. Any other user is
    /// refused (403). For operators who manage only their own keys: the operator, which is then the
    /// default.
    #[schema(value_type = Option<terms::Id>)]
    user_id: Option<String>,
    #[schema(value_type = Option<terms::Line>)]
    user_email: Option<String>,
    /// The operator's own tenant, which is the default. Required if the operator has no tenant.
    #[schema(value_type = Option<terms::Id>)]
    tenant_id: Option<String>,
}

/// A new key. A `null` member counts as absent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IssueRequest {
    #[schema(value_type = terms::Name)]
    name: String,
    #[schema(value_type = Option<terms::Text>)]
    description: Option<String>,
    /// `app` by default; for operators who manage only their own keys, `user` or what the service
    /// lets them issue. The service may support only some kinds.
    #[schema(value_type = Option<terms::KeyKind>)]
    kind: Option<String>,
    #[schema(value_type = Option<terms::Environment>)]
    environment: Option<String>,
    #[schema(value_type = Option<OwnerRequest>)]
    owner: Option<Object<OwnerRequest>>,
    /// At most 256 distinct scopes.
    #[schema(value_type = Option<Vec<terms::Scope>>)]
    scopes: Option<Vec<String>>,
    #[schema(value_type = Option<terms::Access>)]
    access: Option<Access>,
    /// `null` for the whole organization. At most 1000 distinct workspaces.
    #[schema(value_type = Option<Vec<terms::WorkspaceId>>, min_items = 1)]
    workspaces: Option<Vec<String>>,
    /// `null` for any address.
    #[schema(value_type = Option<Vec<terms::Network>>, min_items = 1, max_items = 1000)]
    allowed_ips: Option<Vec<String>>,
    #[schema(value_type = Option<RateLimitRequest>)]
    rate_limit_config: Option<Object<Windows>>,
    #[schema(value_type = Option<terms::Time>)]
    not_before: Option<String>,
    #[schema(value_type = Option<terms::Time>)]
    expires_at: Option<String>,
    /// The tenant's plan by default. Another plan is refused (403) unless the service allows it.
    #[schema(value_type = Option<terms::PlanName>)]
    plan: Option<String>,
    /// At most 16 KiB.
    #[serde(default, deserialize_with = "members")]
    metadata: Option<Map<String, Value>>,
}

/// A key with its secret.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IssuedKey<'k> {
    /// The secret. It is shown only once.
    #[schema(value_type = String, min_length = 1, max_length = 256)]
    key: Secret,
    record: KeyRecord<'k>,
}

/// The result of a repeated request. The secret was shown in the first response.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RepeatedRequest<'k> {
    #[schema(schema_with = null)]
    pub(crate) key: (),
    pub(crate) record: KeyRecord<'k>,
}

/// The schema of `null`.
pub(crate) fn null() -> NullSchema {
    NullSchema::with_type(Type::Null)
}

impl IssueRequest {
    /// Converts the request into a new key in the operator's tenant.
    pub(crate) async fn into_new_key(self, manager: &KeyManager) -> Result<NewKey, Fault> {
        let owner = owner(self.owner, manager.operator())?;
        let mut new = NewKey::new(self.name, owner);
        // Before the host's rules are evaluated.
        let ids = manager.user_ids();
        new.owner.user_id = new.owner.user_id.map(|id| ids.canonical(id));
        new.description = self.description;
        new.kind = match self.kind {
            None => manager.default_kind(),
            Some(kind) => kind
                .parse::<KeyKind>()
                .map_err(|error| Fault::invalid("kind", error))?,
        };
        if let Some(name) = self.environment {
            new.environment = Some(
                Environment::new(&name).map_err(|error| Fault::invalid("environment", error))?,
            );
        }
        new.scopes = scopes(&self.scopes.unwrap_or_default())?;
        new.access = self.access.unwrap_or_default();
        new.workspaces = self
            .workspaces
            .map(|names| workspaces(&names))
            .transpose()?;
        new.plan = self.plan.map(|name| plan(&name)).transpose()?;
        new.allowed_ips = self.allowed_ips.map(allow_list).transpose()?;
        if let Some(Object(config)) = self.rate_limit_config {
            let tenant = &new.owner.tenant_id;
            let default = match &new.plan {
                Some(plan) => manager.quotas_of_plan(plan),
                None => manager.quotas_of_tenant(tenant).await?,
            };
            new.quotas = config.merged_into(None, default.as_ref())?;
        }
        new.not_before = time("not_before", self.not_before)?;
        new.expires_at = time("expires_at", self.expires_at)?;
        if let Some(object) = self.metadata {
            new.metadata = metadata(object)?;
        }
        Ok(new)
    }
}

/// Returns the owner: in the operator's tenant, or in any tenant if the operator has none.
fn owner(asked: Option<Object<OwnerRequest>>, operator: &Operator) -> Result<Owner, Fault> {
    let asked = asked.map(|Object(owner)| owner).unwrap_or_default();
    let tenant = match (operator.tenant(), asked.tenant_id) {
        (Some(own), Some(named)) if own.as_str() != named => {
            return Err(Fault::new(
                ErrorCode::Forbidden,
                "Keys can only be issued in the operator's own tenant",
            ));
        }
        (Some(own), _) => own.clone(),
        (None, Some(named)) => {
            TenantId::new(&named).map_err(|error| Fault::invalid("owner.tenant_id", error))?
        }
        (None, None) => return Err(Fault::invalid("owner.tenant_id", "required")),
    };
    let owner = match asked.user_id {
        Some(user) => {
            let user =
                UserId::new(&user).map_err(|error| Fault::invalid("owner.user_id", error))?;
            Owner::user(tenant, user)
        }
        None => Owner::tenant(tenant),
    };
    Ok(match asked.user_email {
        Some(email) => owner.with_email(email),
        None => owner,
    })
}

pub(crate) fn scopes(names: &[String]) -> Result<Vec<Scope>, Fault> {
    names
        .iter()
        .map(|name| Scope::new(name).map_err(|error| Fault::invalid("scopes", error)))
        .collect()
}

/// An empty list is refused because it is ambiguous: no workspace, or all of them.
pub(crate) fn workspaces(names: &[String]) -> Result<Vec<WorkspaceId>, Fault> {
    if names.is_empty() {
        return Err(Fault::bad(
            "workspaces: expected at least one; omit the member for the whole organization",
        ));
    }
    names
        .iter()
        .map(|name| WorkspaceId::new(name).map_err(|error| Fault::invalid("workspaces", error)))
        .collect()
}

pub(crate) fn plan(name: &str) -> Result<PlanName, Fault> {
    PlanName::new(name).map_err(|error| Fault::invalid("plan", error))
}

pub(crate) fn allow_list(entries: Vec<String>) -> Result<AllowList, Fault> {
    AllowList::parse(entries).map_err(|error| Fault::invalid("allowed_ips", error))
}

pub(crate) fn metadata(object: Map<String, Value>) -> Result<Metadata, Fault> {
    Metadata::try_from(object).map_err(|error| Fault::invalid("metadata", error))
}

pub(crate) fn time(field: &'static str, text: Option<String>) -> Result<Option<SystemTime>, Fault> {
    text.map(|text| parse_time(&text).map_err(|error| Fault::invalid(field, error)))
        .transpose()
}

pub(crate) async fn issue(
    operator: AuthenticatedOperator,
    headers: HeaderMap,
    body: Content,
) -> Result<Response, Fault> {
    let (asked, bytes) = read_whole::<IssueRequest>(body).await?;
    let new = asked.into_new_key(&operator.manager).await;
    let mut new = operator.audited(Action::KeyIssue, None, new)?;
    new.idempotency = operator.idempotency(&headers, "issue", &bytes)?;
    drop(bytes);
    let issued = match operator.manager.issue(new).await {
        Err(ManageError::DoneBefore(done)) => return Ok(operator.repeated(&done)),
        issued => issued?,
    };
    let overview = operator.manager.overview(&issued).await;
    let answer = IssuedKey {
        key: Secret(Zeroizing::new(issued.key.reveal())),
        record: operator.view(&overview),
    };
    Ok(private(StatusCode::CREATED, &answer))
}
