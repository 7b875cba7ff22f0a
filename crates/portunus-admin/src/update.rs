//! `PATCH /keys/{id}`: a merge (RFC 7396), in nested objects too. What is not named stays; `null`
//! takes away what may be absent.

use axum::extract::State;
use axum::response::Response;
use portunus::audit::Action;
use portunus::key::{Access, KeyRecord, Metadata};
use portunus::manage::KeyChange;
use portunus::quota::Quotas;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::body::{Object, read, stated};
use crate::content::Content;
use crate::issue::{allow_list, metadata, plan, scopes, time, workspaces};
use crate::keys::{Id, with_etag};
use crate::limits::RateLimitBody;
use crate::{AuthenticatedOperator, Fault, Shared};

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct PatchBody {
    #[serde(default, deserialize_with = "stated")]
    name: Option<Option<String>>,
    #[serde(default, deserialize_with = "stated")]
    description: Option<Option<String>>,
    #[serde(default, deserialize_with = "stated")]
    scopes: Option<Option<Vec<String>>>,
    #[serde(default, deserialize_with = "stated")]
    access: Option<Option<Access>>,
    #[serde(default, deserialize_with = "stated")]
    workspaces: Option<Option<Vec<String>>>,
    #[serde(default, deserialize_with = "stated")]
    plan: Option<Option<String>>,
    #[serde(default, deserialize_with = "stated")]
    allowed_ips: Option<Option<Vec<String>>>,
    #[serde(default, deserialize_with = "stated")]
    rate_limit_config: Option<Option<Object<RateLimitBody>>>,
    #[serde(default, deserialize_with = "stated")]
    metadata: Option<Option<Map<String, Value>>>,
    #[serde(default, deserialize_with = "stated")]
    not_before: Option<Option<String>>,
    #[serde(default, deserialize_with = "stated")]
    expires_at: Option<Option<String>>,
    #[serde(default, deserialize_with = "stated")]
    enabled: Option<Option<bool>>,
}

impl PatchBody {
    /// The change that this is to a key which is like this now.
    fn into_change(self, before: &KeyRecord, default: &Quotas) -> Result<KeyChange, Fault> {
        let mut change = KeyChange::new();
        change.name = never_null("name", self.name)?;
        change.description = self.description;
        change.scopes = never_null("scopes", self.scopes)?
            .map(|names| scopes(&names))
            .transpose()?;
        change.access = never_null("access", self.access)?;
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
        change.enabled = never_null("enabled", self.enabled)?;
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

/// A value that is always there: `null` would say nothing.
fn never_null<T>(field: &str, stated: Option<Option<T>>) -> Result<Option<T>, Fault> {
    stated
        .map(|value| value.ok_or_else(|| Fault::invalid(field, "it cannot be null")))
        .transpose()
}

/// What a stated value means, where it is not `null`.
fn each<T, U>(
    stated: Option<Option<T>>,
    read: impl FnOnce(T) -> Result<U, Fault>,
) -> Result<Option<Option<U>>, Fault> {
    stated.map(|value| value.map(read).transpose()).transpose()
}

pub(crate) async fn update(
    State(shared): State<Shared>,
    proven: AuthenticatedOperator,
    Id(id): Id,
    body: Content,
) -> Result<Response, Fault> {
    // Whether there is such a key comes before what is wrong with the body.
    let before = proven.manager.get_for(Action::KeyUpdate, &id).await?.record;
    let noted = |fault: &Fault| {
        proven
            .manager
            .refused(Action::KeyUpdate, Some(&before), fault.error());
    };
    let asked = read::<PatchBody>(body).await.inspect_err(noted)?;
    let default = shared.authenticator.quotas();
    let change = |before: &KeyRecord| Ok(asked.clone().into_change(before, default)?);
    let changed = proven.manager.update_with(&id, change, None).await?;
    Ok(with_etag(&changed, proven.shown(&changed)))
}
