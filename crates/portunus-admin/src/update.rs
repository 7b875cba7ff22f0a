//! `PATCH /keys/{id}`: what is not named stays; `null` takes away what may be absent.

use axum::extract::State;
use axum::response::Response;
use portunus::audit::Action;
use portunus::key::Access;
use portunus::manage::KeyChange;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::body::{Object, read, stated};
use crate::content::Content;
use crate::issue::{RateLimitBody, allow_list, metadata, plan, scopes, time, workspaces};
use crate::keys::{Id, with_etag};
use crate::{Fault, Proven, Shared};

#[derive(Deserialize)]
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
    fn into_change(self, shared: &Shared) -> Result<KeyChange, Fault> {
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
        let defaults = shared.authenticator.quotas();
        change.quotas = each(self.rate_limit_config, |Object(config)| {
            config.into_quotas(defaults)
        })?;
        change.metadata = self
            .metadata
            .map(|object| metadata(object.unwrap_or_default()))
            .transpose()?;
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
    proven: Proven,
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
    let mut change = read::<PatchBody>(body)
        .await?
        .into_change(&shared)
        .inspect_err(noted)?;
    let allowed = shared
        .rules
        .changing(proven.operator(), &before, &mut change)
        .await;
    allowed.map_err(Fault::from).inspect_err(noted)?;
    let changed = proven.manager.update(&id, change, None).await?;
    Ok(with_etag(&changed, proven.shown(&changed)))
}
