//! `PATCH /keys/{id}`: a merge (RFC 7396), in nested objects too. A member that is left out stays as
//! it is; `null` removes a value that may be absent.

use axum::response::Response;
use portunus::audit::Action;
use portunus::key::{Access, KeyRecord, Metadata};
use portunus::manage::KeyChange;
use portunus::quota::Quotas;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::body::{Object, not_null, nullable, nullable_members, read};
use crate::content::Content;
use crate::issue::{allow_list, metadata, plan, scopes, time, workspaces};
use crate::keys::{Id, with_etag};
use crate::limits::{RateLimitRequest, Windows};
use crate::{AuthenticatedOperator, Fault, terms};

/// A merge (RFC 7396), in `rate_limit_config` and `metadata` too: a member that is left out stays as
/// it is. `null` removes a value that may be absent, and restores one that has a default.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeRequest {
    /// One line with a visible character.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 1000)]
    name: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, max_length = 1000)]
    description: Option<Option<String>>,
    /// At most 256 different ones.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = Vec<terms::Scope>, required = false)]
    scopes: Option<Vec<String>>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(value_type = terms::Access, required = false)]
    access: Option<Access>,
    /// `null` for the whole organization. At most 1000 different ones.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Vec<terms::WorkspaceId>>, min_items = 1)]
    workspaces: Option<Option<Vec<String>>>,
    /// The tenant's plan for `null`. Any other is refused (403), unless the service allows it.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<terms::PlanName>)]
    plan: Option<Option<String>>,
    /// `null` for any address.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Vec<terms::Network>>, min_items = 1, max_items = 1000)]
    allowed_ips: Option<Option<Vec<String>>>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<RateLimitRequest>)]
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
    /// The change of a key that is like this now.
    fn into_change(self, before: &KeyRecord, default: &Quotas) -> Result<KeyChange, Fault> {
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
                Some(config.merged_into(before.quotas.as_ref(), default)?)
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
/// the one that is there, and any other value takes its place.
fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match value {
            // Those that stay keep their order.
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
    // An unknown key comes before a body that is wrong.
    let act = Action::KeyUpdate;
    let before = operator.manager.get_for(act, &id).await?.record;
    let asked = operator.noted(act, Some(&before), read::<ChangeRequest>(body).await)?;
    let default = operator.shared.authenticator.quotas();
    let change = |before: &KeyRecord| Ok(asked.clone().into_change(before, default)?);
    let changed = operator.manager.update_with(&id, change, None).await?;
    Ok(with_etag(&changed, &operator.view(&changed)))
}
