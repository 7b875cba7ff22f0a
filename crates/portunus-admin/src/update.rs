//! `PATCH /keys/{id}`: a merge patch (RFC 7396), including nested objects. An omitted member is
//! left unchanged; `null` removes an optional value.

use axum::response::Response;
use portunus::audit::Action;
use portunus::key::{Access, KeyRecord, Metadata, PlanName};
use portunus::manage::KeyChange;
use portunus::quota::Quotas;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::body::{Object, not_null, nullable, nullable_members, read};
use crate::content::Content;
use crate::issue::{allow_list, metadata, plan, scopes, time, workspaces};
use crate::keys::{Id, with_etag};
use crate::limits::{RateLimitChange, Windows};
use crate::{AuthenticatedOperator, Fault, terms};

/// A merge patch (RFC 7396), also within `rate_limit_config` and `metadata`: an omitted member is
/// left unchanged. `null` removes an optional value, or restores its default if it has one.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeRequest {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = terms::Name, required = false)]
    name: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<terms::Text>)]
    description: Option<Option<String>>,
    /// At most 256 distinct scopes.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = Vec<terms::Scope>, required = false)]
    scopes: Option<Vec<String>>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = terms::Access, required = false)]
    access: Option<Access>,
    /// `null` for the whole organization. At most 1000 distinct workspaces.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Vec<terms::WorkspaceId>>, min_items = 1)]
    workspaces: Option<Option<Vec<String>>>,
    /// `null` for the tenant's plan. Another plan is refused (403) unless the service allows it.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<terms::PlanName>)]
    plan: Option<Option<String>>,
    /// `null` for any address.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Vec<terms::Network>>, min_items = 1, max_items = 1000)]
    allowed_ips: Option<Option<Vec<String>>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<RateLimitChange>)]
    rate_limit_config: Option<Option<Object<Windows>>>,
    /// At most 16 KiB after the merge.
    #[serde(default, deserialize_with = "nullable_members")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Option<Map<String, Value>>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<terms::Time>)]
    not_before: Option<Option<String>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<terms::Time>)]
    expires_at: Option<Option<String>>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = bool, required = false)]
    enabled: Option<bool>,
}

impl ChangeRequest {
    /// Converts the request into a change of the current record.
    /// `default` returns the quotas of keys with a plan, or without a plan of their own.
    fn into_change(
        self,
        before: &KeyRecord,
        default: impl Fn(Option<&PlanName>) -> Option<Quotas>,
    ) -> Result<KeyChange, Fault> {
        let mut change = KeyChange::new();
        change.name = self.name;
        change.description = self.description;
        change.scopes = self.scopes.map(|names| scopes(&names)).transpose()?;
        change.access = self.access;
        change.workspaces = each(self.workspaces, |names| workspaces(&names))?;
        change.plan = each(self.plan, |name| plan(&name))?;
        change.allowed_ips = each(self.allowed_ips, allow_list)?;
        change.quotas = match self.rate_limit_config {
            None => None,
            Some(None) => Some(None),
            Some(Some(Object(config))) => {
                let plan = change.plan.as_ref().unwrap_or(&before.plan);
                let default = default(plan.as_ref());
                Some(config.merged_into(before.quotas.as_ref(), default.as_ref())?)
            }
        };
        change.metadata = match self.metadata {
            None => None,
            Some(None) => Some(Metadata::default()),
            Some(Some(patch)) => {
                let mut merged = before.metadata.clone().into();
                merge(&mut merged, patch);
                Some(metadata(merged)?)
            }
        };
        change.not_before = self
            .not_before
            .map(|text| time("not_before", text))
            .transpose()?;
        change.expires_at = self
            .expires_at
            .map(|text| time("expires_at", text))
            .transpose()?;
        change.enabled = self.enabled;
        Ok(change)
    }
}

/// Merges a patch into an object (RFC 7396 §2): `null` removes a member, an object is merged into
/// the existing one, and any other value replaces it.
fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match value {
            // The remaining members keep their order.
            Value::Null => drop(target.shift_remove(&name)),
            Value::Object(patch) => {
                let inner = target.entry(name).or_insert(Value::Null);
                if !inner.is_object() {
                    *inner = Value::Object(Map::new());
                }
                if let Value::Object(inner) = inner {
                    merge(inner, patch);
                }
            }
            value => drop(target.insert(name, value)),
        }
    }
}

/// Reads the value of a member that is present and not `null`.
fn each<T, U>(
    member: Option<Option<T>>,
    read: impl FnOnce(T) -> Result<U, Fault>,
) -> Result<Option<Option<U>>, Fault> {
    member.map(|value| value.map(read).transpose()).transpose()
}

pub(crate) async fn update(
    operator: AuthenticatedOperator,
    Id(id): Id,
    body: Content,
) -> Result<Response, Fault> {
    // An unknown key is reported before an invalid body.
    let act = Action::KeyUpdate;
    let before = operator.manager.get_for(act, &id).await?.record;
    let asked = operator.audited(act, Some(&before), read::<ChangeRequest>(body).await)?;
    // The tenant of a key never changes, and so the quotas of its plan are asked for once.
    let tenants = match asked.rate_limit_config {
        Some(Some(_)) => {
            let quotas = operator.manager.quotas_of_tenant(&before.owner.tenant_id);
            operator.audited(act, Some(&before), quotas.await.map_err(Fault::from))?
        }
        _ => None,
    };
    let default = |plan: Option<&PlanName>| match plan {
        Some(plan) => operator.manager.quotas_of_plan(plan),
        None => tenants.clone(),
    };
    let change = |before: &KeyRecord| Ok(asked.clone().into_change(before, default)?);
    let changed = operator.manager.update_with(&id, change, None).await?;
    Ok(with_etag(&changed, &operator.view(&changed)))
}
