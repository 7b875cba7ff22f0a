//! Reads the form that issues a key. Every wrong value is a problem of its field; all are reported
//! together.

use std::fmt::Display;
use std::time::{Duration, SystemTime};

use portunus::Scope;
use portunus::key::{Environment, KeyKind, Owner, PlanName, TenantId, UserId, WorkspaceId};
use portunus::manage::{Accepted, ManageError, NewKey};
use portunus::network::AllowList;
use portunus::quota::Quotas;

use super::context::Context;
use super::entry::Fields;
use super::problems::Problem;
use crate::limits::Windows;
use crate::time::parse_time;

/// The lifetimes that the form offers, in days.
pub(super) const DAYS: [u64; 5] = [7, 30, 60, 90, 365];

/// The wrong values of a form.
struct Wrong(Vec<(String, String)>);

impl Wrong {
    fn note(&mut self, field: &str, why: impl Display) {
        self.0.push((field.to_owned(), why.to_string()));
    }

    /// Returns a value; notes the error if there is none.
    fn read<T, E: Display>(&mut self, field: &str, value: Result<T, E>) -> Option<T> {
        value.map_err(|error| self.note(field, error)).ok()
    }
}

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
    for error in new.invalid_texts() {
        if let ManageError::Invalid { field, reason } = error {
            wrong.note(field, reason);
        }
    }
    new.kind = match fields.get("kind").map(str::parse::<KeyKind>) {
        None => cx.manager().default_kind(),
        Some(kind) => wrong.read("kind", kind).unwrap_or(KeyKind::App),
    };
    let environment = fields.get("environment").map(Environment::new);
    new.environment = environment.and_then(|name| wrong.read("environment", name));
    new.scopes = scopes(cx, fields, &mut wrong);
    let access = fields.get("access").map(str::parse);
    let access = access.and_then(|access| wrong.read("access", access));
    new.access = access.unwrap_or_default();
    new.workspaces = workspaces(fields, &mut wrong);
    let plan = fields.get("plan").map(PlanName::new);
    new.plan = plan.and_then(|plan| wrong.read("plan", plan));
    let addresses = fields.entries("allowed_ips");
    if !addresses.is_empty() {
        new.allowed_ips = wrong.read("allowed_ips", AllowList::parse(addresses));
    }
    new.expires_at = expiry(cx, fields, &mut wrong);
    new.quotas = quotas(cx, fields, &new, &mut wrong).await?;
    match wrong.0.is_empty() {
        true => Ok(new),
        false => Err(Problem::Fields(wrong.0)),
    }
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

fn scopes(cx: &Context, fields: &Fields, wrong: &mut Wrong) -> Vec<Scope> {
    let mut scopes = Vec::new();
    for name in fields.entries("scopes") {
        match Scope::new(&name) {
            Ok(scope) => scopes.push(scope),
            Err(error) => {
                wrong.note("scopes", error);
                return Vec::new();
            }
        }
    }
    if let Some(vocabulary) = cx.manager().accepted().vocabulary {
        wrong.read("scopes", vocabulary.check(&scopes));
    }
    scopes
}

/// Returns the workspaces; no entry means the whole organization.
fn workspaces(fields: &Fields, wrong: &mut Wrong) -> Option<Vec<WorkspaceId>> {
    let names = fields.entries("workspaces");
    if names.is_empty() {
        return None;
    }
    let ids: Result<Vec<_>, _> = names.iter().map(|name| WorkspaceId::new(name)).collect();
    wrong.read("workspaces", ids)
}

/// Returns the end of the key's life: after a number of days, or at the end of a day in UTC.
fn expiry(cx: &Context, fields: &Fields, wrong: &mut Wrong) -> Option<SystemTime> {
    let day = fields.get("expires_on");
    match (fields.get("expires_at").unwrap_or("never"), day) {
        // A day that was entered counts, even if its option was not chosen.
        (_, Some(day)) => {
            let end = parse_time(&format!("{day}T23:59:59.999Z"));
            let end = end.map_err(|_| cx.t("expiry.not_a_day"));
            let end = wrong.read("expires_on", end)?;
            if end < cx.manager().now() {
                wrong.note("expires_on", cx.t("expiry.past"));
            }
            Some(end)
        }
        ("never", None) => None,
        ("date", None) => {
            wrong.note("expires_on", cx.t("expiry.no_day"));
            None
        }
        (days, None) => {
            let known = days.parse().ok().filter(|days| DAYS.contains(days));
            let Some(days) = known else {
                wrong.note("expires_at", cx.t("expiry.unknown"));
                return None;
            };
            Some(cx.manager().now() + Duration::from_secs(days * 86_400))
        }
    }
}

/// Returns the windows that keys can have.
pub(super) fn windows(offered: &Accepted) -> Vec<String> {
    let mut windows = vec!["minute".to_owned(), "hour".to_owned()];
    let more = offered.windows.iter();
    let more: Vec<_> = more
        .filter(|name| !windows.contains(name))
        .cloned()
        .collect();
    windows.extend(more);
    windows
}

/// Returns the name of the field of a window's limit.
pub(super) fn limit_field(window: &str) -> String {
    format!("requests_per_{window}")
}

/// Returns the key's own quotas, if the form has any.
async fn quotas(
    cx: &Context,
    fields: &Fields,
    new: &NewKey,
    wrong: &mut Wrong,
) -> Result<Option<Quotas>, Problem> {
    const FIELD: &str = "rate_limit_config";
    let mut limits = Vec::new();
    for window in windows(&cx.manager().accepted()) {
        let Some(text) = fields.get(&limit_field(&window)) else {
            continue;
        };
        let Ok(limit) = text.parse::<u64>() else {
            wrong.note(FIELD, cx.t("limits.not_a_number"));
            return Ok(None);
        };
        limits.push((window, Some(limit)));
    }
    if limits.is_empty() {
        return Ok(None);
    }
    let default = match &new.plan {
        Some(plan) => cx.manager().quotas_of_plan(plan),
        None => cx.manager().quotas_of_tenant(&new.owner.tenant_id).await?,
    };
    match Windows::of(limits).merged_into(None, default.as_ref()) {
        Ok(quotas) => Ok(quotas),
        Err(fault) => {
            let why = fault.error().detail();
            let why = why.split_once(": ").map_or(why, |(_, why)| why);
            wrong.note(FIELD, why);
            Ok(None)
        }
    }
}
