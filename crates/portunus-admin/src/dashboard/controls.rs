//! The controls of what a key may do and when it works, of a new key and of an existing one.
//!
//! For an existing key they show what it has, also what the operator may not grant: that may stay.

use maud::{Markup, html};
use portunus::Scope;
use portunus::key::{Access, KeyKind, KeyRecord, Metadata, WorkspaceId};
use portunus::manage::Accepted;
use portunus::quota::Quotas;

use super::context::Context;
use super::fields::Entered;
use super::issue::text_field;
use super::values::{self, DAYS};
use crate::time::time_text;

/// Maximum number of workspaces that are offered as boxes.
const MOST_BOXES: usize = 200;

/// The option of a choice that changes nothing.
pub(super) const KEEP: &str = "keep";

/// All controls, in sections.
pub(super) fn sections(
    cx: &Context,
    offered: &Accepted,
    entered: Entered<'_>,
    default: Option<&Quotas>,
    key: Option<&KeyRecord>,
) -> Markup {
    let ends = |key: &KeyRecord| key.kind == KeyKind::AccessToken || key.expires_at.is_some();
    let may_expire = !offered.never_expire || key.is_some_and(ends);
    html! {
        section class="card" aria-labelledby="permissions" {
            h2 id="permissions" { (cx.t("issue.permissions")) }
            (scopes(cx, offered, entered, key))
            (access(cx, entered, key))
            (workspaces(cx, entered, key))
        }
        section class="card" aria-labelledby="restrictions" {
            h2 id="restrictions" { (cx.t("issue.restrictions")) }
            (start(cx, entered, key))
            @if may_expire { (expiry(cx, entered, key)) }
            (addresses(cx, entered, key))
            (limits(cx, offered, entered, default, key))
            (plan(cx, offered, entered, key))
        }
        section class="card" aria-labelledby="more" {
            h2 id="more" { (cx.t("issue.more")) }
            (metadata(cx, entered, key))
        }
    }
}

/// Says that a form has a group of boxes: a group without a tick is not sent.
fn shown(name: &str) -> Markup {
    html! { input type="hidden" name="shown" value=(name) autocomplete="off"; }
}

/// The scopes: boxes if the service declares what there is, lines otherwise.
fn scopes(
    cx: &Context,
    offered: &Accepted,
    entered: Entered<'_>,
    key: Option<&KeyRecord>,
) -> Markup {
    let own = key.map_or(&[][..], |record| &record.scopes);
    let has_scopes = |kind: &KeyKind| !offered.unscoped.contains(kind);
    let possible = match key {
        Some(record) => has_scopes(&record.kind) || !own.is_empty(),
        None => offered.kinds.iter().any(has_scopes),
    };
    if !possible {
        return html! { p { (cx.t("issue.unscoped")) } };
    }
    let Some(vocabulary) = &offered.vocabulary else {
        let lines = values::lines(own.iter().map(Scope::as_str));
        let field = text_field(cx, "scopes", "field.scopes", "hint.scopes_lines");
        return field.area(entered, &lines, true);
    };
    let names = vocabulary.names().iter();
    let others = own
        .iter()
        .filter(|scope| !vocabulary.names().contains(scope));
    let option = |scope: &Scope| {
        let text = html! { code { (scope.as_str()) } };
        (scope.to_string(), text, own.contains(scope))
    };
    let options: Vec<_> = names.chain(others).map(option).collect();
    if options.is_empty() {
        return html! { p { (cx.t("issue.no_scopes")) } };
    }
    html! {
        (shown("scopes"))
        (text_field(cx, "scopes", "field.scopes", "hint.scopes").boxes(entered, &options))
    }
}

/// The access, unless the operator can only give the lower one.
fn access(cx: &Context, entered: Entered<'_>, key: Option<&KeyRecord>) -> Markup {
    let own = key.map_or(Access::FullAccess, |record| record.access);
    let is_limited = cx.operator.operator().access == Access::ReadOnly;
    if is_limited && (key.is_none() || own == Access::ReadOnly) {
        return html! { input type="hidden" name="access" value="read-only"; };
    }
    let options = [
        ("full-access".to_owned(), cx.t("access.full").to_owned()),
        ("read-only".to_owned(), cx.t("access.read").to_owned()),
    ];
    text_field(cx, "access", "field.access", "").choice(entered, &options, own.as_str())
}

/// The workspaces: boxes of those that the operator belongs to, or lines if that is all of them.
fn workspaces(cx: &Context, entered: Entered<'_>, key: Option<&KeyRecord>) -> Markup {
    let own = key.and_then(|record| record.workspaces.as_deref());
    let own = own.unwrap_or_default();
    let name = "workspaces";
    let among = match &cx.operator.operator().workspaces {
        Some(among) if among.len() + own.len() <= MOST_BOXES => among,
        _ => {
            let lines = values::lines(own.iter().map(WorkspaceId::as_str));
            let field = text_field(cx, name, "field.workspaces", "hint.workspaces_lines");
            return field.area(entered, &lines, true);
        }
    };
    let others = own.iter().filter(|id| !among.contains(id));
    let option = |id: &WorkspaceId| (id.to_string(), html! { (id.as_str()) }, own.contains(id));
    let options: Vec<_> = among.iter().chain(others).map(option).collect();
    html! {
        @if !options.is_empty() {
            (shown(name))
            (text_field(cx, name, "field.workspaces", "hint.workspaces").boxes(entered, &options))
        }
    }
}

fn addresses(cx: &Context, entered: Entered<'_>, key: Option<&KeyRecord>) -> Markup {
    let own = key.map(values::addresses_text).unwrap_or_default();
    text_field(cx, "allowed_ips", "field.allowed_ips", "hint.allowed_ips").area(entered, &own, true)
}

/// When the key starts to work.
fn start(cx: &Context, entered: Entered<'_>, key: Option<&KeyRecord>) -> Markup {
    let own = key.and_then(|record| record.not_before);
    let own = own.map(values::minute_text).unwrap_or_default();
    text_field(cx, "not_before", "field.not_before", "hint.not_before").line(
        entered,
        "datetime-local",
        &own,
    )
}

/// The expiry: a number of days, or a day.
fn expiry(cx: &Context, entered: Entered<'_>, key: Option<&KeyRecord>) -> Markup {
    let option = |value: &str, text: &'static str| (value.to_owned(), cx.t(text).to_owned());
    let mut options = Vec::new();
    if let Some(record) = key {
        let end = match record.expires_at {
            Some(end) => format!("{} UTC", time_text(end)[..16].replace('T', " ")),
            None => cx.t("expiry.never").to_owned(),
        };
        let text = cx.t("expiry.keep").replace("{time}", &end);
        options.push((KEEP.to_owned(), text));
    }
    if key.is_none_or(|record| record.kind != KeyKind::AccessToken && record.expires_at.is_some()) {
        options.push(option("never", "expiry.never"));
    }
    options.extend(DAYS.iter().map(|days| {
        let text = cx.t("expiry.days").replace("{count}", &days.to_string());
        (days.to_string(), text)
    }));
    options.push(option("date", "expiry.date"));
    let new = if key.is_some() { KEEP } else { "never" };
    html! {
        div class="pair" {
            (text_field(cx, "expires_at", "field.expires", "").choice(entered, &options, new))
            (text_field(cx, "expires_on", "field.expires_on", "hint.expires_on")
                .line(entered, "date", ""))
        }
    }
}

/// A limit for each window that the plans or the key have, with the default as the hint.
fn limits(
    cx: &Context,
    offered: &Accepted,
    entered: Entered<'_>,
    default: Option<&Quotas>,
    key: Option<&KeyRecord>,
) -> Markup {
    let own = key.and_then(|record| record.quotas.as_ref());
    let error = entered.error("rate_limit_config");
    let described = match error {
        Some(_) => "f-rate_limit_config-error f-rate_limit_config-hint",
        None => "f-rate_limit_config-hint",
    };
    html! {
        fieldset class="field" id="f-rate_limit_config" tabindex="-1" aria-describedby=(described) {
            legend { (cx.t("field.limits")) }
            p class="hint" id="f-rate_limit_config-hint" { (cx.t("hint.limits")) }
            @if let Some(error) = error {
                p class="error" id="f-rate_limit_config-error" { (error) }
            }
            div class="pair" {
                @for window in values::windows(offered, own) {
                    @let name = values::limit_field(&window);
                    @let text = match &*window {
                        "minute" => cx.fill("field.per_minute", &[]),
                        "hour" => cx.fill("field.per_hour", &[]),
                        other => cx.fill("field.per_window", &[("window", html! { (other) })]),
                    };
                    @let new = values::limit_of(own, &window);
                    @let new = new.map(|limit| limit.to_string()).unwrap_or_default();
                    div class="field" {
                        label for=(name) { (text) }
                        input id=(name) name=(name) type="text" inputmode="numeric" autocomplete="off"
                            value=(entered.value(&name, &new))
                            placeholder=[values::limit_of(default, &window)]
                            aria-invalid=[error.map(|_| "true")];
                    }
                }
            }
        }
    }
}

/// The plan, if there is a choice: an operator who may set none may return a key to its tenant's.
fn plan(cx: &Context, offered: &Accepted, entered: Entered<'_>, key: Option<&KeyRecord>) -> Markup {
    let own = key.and_then(|record| record.plan.as_ref());
    let offered = offered.plans.as_deref().unwrap_or_default();
    let mut plans: Vec<_> = offered.iter().collect();
    plans.extend(own.filter(|own| !offered.contains(own)));
    if plans.is_empty() {
        return html! {};
    }
    let tenants = (String::new(), cx.t("plan.tenants").to_owned());
    let plans = plans
        .iter()
        .map(|plan| (plan.to_string(), plan.to_string()));
    let options: Vec<_> = [tenants].into_iter().chain(plans).collect();
    let own = own.map(ToString::to_string).unwrap_or_default();
    text_field(cx, "plan", "field.plan", "").choice(entered, &options, &own)
}

fn metadata(cx: &Context, entered: Entered<'_>, key: Option<&KeyRecord>) -> Markup {
    let own = key.map(|record| &record.metadata);
    let own = own.filter(|own| **own != Metadata::default());
    let own = own.map(values::metadata_text).unwrap_or_default();
    text_field(cx, "metadata", "field.metadata", "hint.metadata").area(entered, &own, true)
}
