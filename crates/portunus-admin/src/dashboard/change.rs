//! Reads the form that changes a key: only what differs from the record becomes part of the change, so
//! that an operator who may not set a value can change the others.

use portunus::Scope;
use portunus::key::{KeyRecord, PlanName, WorkspaceId};
use portunus::manage::{KeyChange, NewKey};
use portunus::network::AllowList;

use super::context::Context;
use super::controls::KEEP;
use super::entry::Fields;
use super::problems::Problem;
use super::values::{self, Wrong};

/// Returns the change that a form describes. Fields that were not sent change nothing.
pub(super) async fn read(
    cx: &Context,
    fields: &Fields,
    before: &KeyRecord,
) -> Result<KeyChange, Problem> {
    let (mut change, mut wrong) = (KeyChange::new(), Wrong(Vec::new()));
    texts(fields, before, &mut change, &mut wrong);
    permissions(cx, fields, before, &mut change, &mut wrong);
    if let Some(name) = fields.entered("plan") {
        let plan = match name.trim() {
            "" => Some(None),
            name => wrong.read("plan", PlanName::new(name)).map(Some),
        };
        change.plan = plan.filter(|plan| *plan != before.plan);
    }
    if let Some(shown) = fields.entered("allowed_ips")
        && fields.entries("allowed_ips").join("\n") != values::addresses_text(before)
    {
        change.allowed_ips = match shown.trim() {
            "" => Some(None),
            _ => {
                let list = AllowList::parse(fields.entries("allowed_ips"));
                wrong.read("allowed_ips", list).map(Some)
            }
        };
    }
    times(cx, fields, before, &mut change, &mut wrong);
    let own = before.quotas.as_ref();
    let limits = values::limits(cx, fields, own, &mut wrong);
    if !limits.is_empty() {
        let plan = change.plan.as_ref().unwrap_or(&before.plan).as_ref();
        let tenant = &before.owner.tenant_id;
        let default = values::default_quotas(cx, plan, tenant).await?;
        change.quotas = values::quotas(limits, own, default.as_ref(), &mut wrong);
    }
    wrong.into_result(change)
}

/// Reads the name, the description and the metadata.
fn texts(fields: &Fields, before: &KeyRecord, change: &mut KeyChange, wrong: &mut Wrong) {
    let differs = |name: &str, stored: &str, sent: &dyn Fn(&str) -> String| {
        let entered = fields.entered(name)?;
        (sent(entered).trim() != sent(stored).trim()).then_some(entered.trim())
    };
    let name = differs("name", &before.name, &line_sent);
    change.name = name.map(str::to_owned);
    let stored = before.description.as_deref().unwrap_or_default();
    let description = differs("description", stored, &area_sent);
    change.description =
        description.map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()));
    // Stored texts may be of before the rules on texts, and may stay.
    let mut asked = NewKey::new(name.unwrap_or("-"), before.owner.clone());
    asked.owner.user_email = None;
    asked.description = change.description.clone().flatten();
    wrong.texts(&asked);
    let stored = values::metadata_text(&before.metadata);
    if differs("metadata", &stored, &area_sent).is_some() {
        let metadata = values::metadata(fields, wrong);
        change.metadata = metadata.filter(|metadata| *metadata != before.metadata);
    }
}

/// Returns a text as browsers send it back from an `input` (HTML §4.10.5.1.2).
fn line_sent(stored: &str) -> String {
    stored.replace(['\r', '\n'], "").replace('\0', "\u{fffd}")
}

/// Returns a text as browsers send it back from a `textarea`, with line breaks as they are read here.
fn area_sent(stored: &str) -> String {
    let stored = stored.replace("\r\n", "\n").replace('\r', "\n");
    stored.replace('\0', "\u{fffd}")
}

/// Reads the scopes, the access and the workspaces.
fn permissions(
    cx: &Context,
    fields: &Fields,
    before: &KeyRecord,
    change: &mut KeyChange,
    wrong: &mut Wrong,
) {
    // A group of boxes without a tick is not sent.
    let sent = |name: &str| {
        fields.entered(name).is_some() || fields.all("shown").any(|shown| shown == name)
    };
    let same = |names: &[String], stored: &mut dyn Iterator<Item = &str>| {
        let mut stored: Vec<_> = stored.collect();
        let mut names: Vec<_> = names.iter().map(String::as_str).collect();
        for list in [&mut stored, &mut names] {
            list.sort_unstable();
            list.dedup();
        }
        stored == names
    };
    let names = fields.entries("scopes");
    if sent("scopes") && !same(&names, &mut before.scopes.iter().map(Scope::as_str)) {
        change.scopes = values::scopes(cx, fields, wrong);
    }
    if let Some(access) = fields.get("access").map(str::parse) {
        let access = wrong.read("access", access);
        change.access = access.filter(|access| *access != before.access);
    }
    let stored = before.workspaces.as_deref().unwrap_or_default();
    let names = fields.entries("workspaces");
    if sent("workspaces") && !same(&names, &mut stored.iter().map(WorkspaceId::as_str)) {
        change.workspaces = values::workspaces(fields, wrong);
    }
}

/// Reads when the key works.
fn times(
    cx: &Context,
    fields: &Fields,
    before: &KeyRecord,
    change: &mut KeyChange,
    wrong: &mut Wrong,
) {
    let shown = before.not_before.map(values::minute_text);
    let start = fields.entered("not_before").map(str::trim);
    if start.is_some_and(|start| start != shown.unwrap_or_default()) {
        change.not_before = values::start(cx, fields, wrong);
    }
    let kept = fields.get("expires_at").is_none_or(|choice| choice == KEEP);
    if !kept || fields.get("expires_on").is_some() {
        let end = values::expiry(cx, fields, wrong);
        change.expires_at = end.filter(|end| *end != before.expires_at);
    }
}
