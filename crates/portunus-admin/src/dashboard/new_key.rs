//! Reads the form that issues a key.

use portunus::key::{Environment, KeyKind, Owner, PlanName, TenantId, UserId};
use portunus::manage::NewKey;
use portunus::network::AllowList;

use super::context::Context;
use super::entry::Fields;
use super::problems::Problem;
use super::values::{self, Wrong};

/// Returns the key that a form describes.
pub(super) async fn read(cx: &Context, fields: &Fields) -> Result<NewKey, Problem> {
    let mut wrong = Wrong(Vec::new());
    let owner = owner(cx, fields, &mut wrong);
    // A placeholder is never issued: its field is wrong then.
    let nobody = TenantId::new("-").map(Owner::tenant);
    let Some(owner) = owner.or_else(|| nobody.ok()) else {
        return Err(Problem::Fields(wrong.0));
    };
    let mut new = NewKey::new(fields.entered("name").unwrap_or_default(), owner);
    let ids = cx.manager().user_ids();
    new.owner.user_id = new.owner.user_id.map(|id| ids.canonical(id));
    new.description = fields.get("description").map(str::to_owned);
    wrong.texts(&new);
    new.kind = match fields.get("kind").map(str::parse::<KeyKind>) {
        None => cx.manager().default_kind(),
        Some(kind) => wrong.read("kind", kind).unwrap_or(KeyKind::App),
    };
    let environment = fields.get("environment").map(Environment::new);
    new.environment = environment.and_then(|name| wrong.read("environment", name));
    new.scopes = values::scopes(cx, fields, &mut wrong).unwrap_or_default();
    let access = fields.get("access").map(str::parse);
    let access = access.and_then(|access| wrong.read("access", access));
    new.access = access.unwrap_or_default();
    new.workspaces = values::workspaces(fields, &mut wrong).flatten();
    let plan = fields.get("plan").map(PlanName::new);
    new.plan = plan.and_then(|plan| wrong.read("plan", plan));
    let addresses = fields.entries("allowed_ips");
    if !addresses.is_empty() {
        new.allowed_ips = wrong.read("allowed_ips", AllowList::parse(addresses));
    }
    new.not_before = values::start(cx, fields, &mut wrong).flatten();
    new.expires_at = values::expiry(cx, fields, &mut wrong).flatten();
    new.metadata = values::metadata(fields, &mut wrong).unwrap_or_default();
    let limits = values::limits(cx, fields, None, &mut wrong);
    if !limits.is_empty() {
        let tenant = &new.owner.tenant_id;
        let default = values::default_quotas(cx, new.plan.as_ref(), tenant).await?;
        let quotas = values::quotas(limits, None, default.as_ref(), &mut wrong);
        new.quotas = quotas.flatten();
    }
    wrong.into_result(new)
}

/// Returns the owner: the operator itself, or whom the form names in the operator's tenant.
fn owner(cx: &Context, fields: &Fields, wrong: &mut Wrong) -> Option<Owner> {
    if let Some(own) = cx.manager().own() {
        return Some(own);
    }
    let tenant = match cx.operator.operator().tenant() {
        Some(own) => Some(own.clone()),
        None => {
            let asked = fields.get("owner.tenant_id").unwrap_or_default();
            wrong.read("owner.tenant_id", TenantId::new(asked))
        }
    };
    let user = fields.get("owner.user_id").map(UserId::new);
    let user = user.and_then(|user| wrong.read("owner.user_id", user));
    let owner = match user {
        Some(user) => Owner::user(tenant?, user),
        None => Owner::tenant(tenant?),
    };
    Some(match fields.get("owner.user_email") {
        Some(email) => owner.with_email(email),
        None => owner,
    })
}
