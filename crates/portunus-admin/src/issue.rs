//! `POST /keys`, and how a key that shall be made is described.

use std::time::SystemTime;

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use portunus::audit::Action;
use portunus::key::{
    Access, Environment, KeyKind, Metadata, Owner, PlanName, TenantId, UserId, WorkspaceId,
};
use portunus::manage::{ManageError, NewKey, Operator};
use portunus::network::AllowList;
use portunus::{ErrorCode, Scope};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::body::{Object, private, read_whole};
use crate::content::Content;
use crate::limits::RateLimitBody;
use crate::time::parse_time;
use crate::{AuthenticatedOperator, Fault};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnerBody {
    user_id: Option<String>,
    user_email: Option<String>,
    tenant_id: Option<String>,
}

/// A key that shall be made.
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
    allowed_ips: Option<Vec<String>>,
    rate_limit_config: Option<Object<RateLimitBody>>,
    not_before: Option<String>,
    expires_at: Option<String>,
    plan: Option<String>,
    metadata: Option<Map<String, Value>>,
}

/// The same as it stands in another body.
pub(crate) struct KeyBody(IssueBody);

impl<'de> Deserialize<'de> for KeyBody {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IssueBody::deserialize(deserializer).map(Self)
    }
}

impl KeyBody {
    /// The key that is asked for, in the operator's tenant.
    pub(crate) fn into_new_key(self, proven: &AuthenticatedOperator) -> Result<NewKey, Fault> {
        let body = self.0;
        let mut new = NewKey::new(
            body.name,
            owner(body.owner.map(|Object(owner)| owner), proven.operator())?,
        );
        // Before the host's rules look at it.
        let ids = proven.manager.user_ids();
        new.owner.user_id = new.owner.user_id.map(|id| ids.canonical(id));
        new.description = body.description;
        if let Some(kind) = body.kind {
            new.kind = kind
                .parse::<KeyKind>()
                .map_err(|error| Fault::invalid("kind", error))?;
        }
        if let Some(name) = body.environment {
            new.environment = Some(
                Environment::new(&name).map_err(|error| Fault::invalid("environment", error))?,
            );
        }
        new.scopes = scopes(&body.scopes.unwrap_or_default())?;
        new.access = body.access.unwrap_or_default();
        new.workspaces = body
            .workspaces
            .map(|names| workspaces(&names))
            .transpose()?;
        new.plan = body.plan.map(|name| plan(&name)).transpose()?;
        new.allowed_ips = body.allowed_ips.map(allow_list).transpose()?;
        let defaults = proven.shared.authenticator.quotas();
        if let Some(Object(config)) = body.rate_limit_config {
            new.quotas = config.merged_into(None, defaults)?;
        }
        new.not_before = time("not_before", body.not_before)?;
        new.expires_at = time("expires_at", body.expires_at)?;
        if let Some(object) = body.metadata {
            new.metadata = metadata(object)?;
        }
        Ok(new)
    }
}

/// The owner: in the operator's own tenant, and in any only where it is confined to none.
fn owner(asked: Option<OwnerBody>, operator: &Operator) -> Result<Owner, Fault> {
    let asked = asked.unwrap_or(OwnerBody {
        user_id: None,
        user_email: None,
        tenant_id: None,
    });
    let tenant = match (operator.tenant(), asked.tenant_id) {
        (Some(own), Some(named)) if own.as_str() != named => {
            return Err(Fault::new(
                ErrorCode::Forbidden,
                "Keys can be issued in one's own tenant only",
            ));
        }
        (Some(own), _) => own.clone(),
        (None, Some(named)) => {
            TenantId::new(&named).map_err(|error| Fault::invalid("owner.tenant_id", error))?
        }
        (None, None) => return Err(Fault::invalid("owner.tenant_id", "say for which tenant")),
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

/// An empty list is no list, rather than one that reaches nothing or everything.
pub(crate) fn workspaces(names: &[String]) -> Result<Vec<WorkspaceId>, Fault> {
    if names.is_empty() {
        return Err(Fault::bad(
            "workspaces: name at least one, or leave it out for the whole organization",
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
    proven: AuthenticatedOperator,
    headers: HeaderMap,
    body: Content,
) -> Result<Response, Fault> {
    let (asked, bytes) = read_whole::<KeyBody>(body).await?;
    let mut new = proven.noted(Action::KeyIssue, None, asked.into_new_key(&proven))?;
    new.idempotency = proven.idempotency(&headers, "issue", &bytes)?;
    let issued = match proven.manager.issue(new).await {
        Err(ManageError::DoneBefore(done)) => return Ok(proven.done_before(&done)),
        issued => issued?,
    };
    let shown = proven.shown(&proven.manager.overview(&issued));
    Ok(private(
        StatusCode::CREATED,
        &json!({ "key": issued.key.reveal(), "record": shown }),
    ))
}
