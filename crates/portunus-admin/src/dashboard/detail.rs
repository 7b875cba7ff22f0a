//! The page of a key: what it is, what it may do, how it is used, and what happened to it.

use maud::{Markup, html};
use portunus::Scope;
use portunus::audit::{Action, EventQuery};
use portunus::key::{Delegation, KeyKind, KeyStatus, WorkspaceId};
use portunus::manage::ManagedKey;

use super::context::{Context, View};
use super::page::Page;
use super::{audit, gauges, list, show, usage};
use crate::Fault;

/// The number of recent events.
const EVENTS: usize = 10;

pub(super) async fn show(cx: &Context) -> Result<View, Fault> {
    let key = cx.key(Action::KeyRead).await?;
    let record = &key.record;
    let uses = usage::recent(cx, &key).await?;
    let body = html! {
        (done(cx, &key))
        div class="title-row" {
            div {
                h1 { (show::text(&record.name)) }
                p class="under-title" { (show::masked(record)) " " (show::badges(cx, &key)) }
            }
        }
        (actions(cx, &key))
        @if let Some(description) = &record.description {
            p class="lead" { (show::lines(description)) }
        }
        (usage::progress(cx, &key).await?)
        div class="columns" {
            (facts(cx, &key))
            (permissions(cx, &key))
        }
        (gauges::section(cx, &key).await?)
        (usage::section(cx, &key, &uses))
        (events(cx, &key).await?)
    };
    Ok(View::new(show::plain(&record.name), body))
}

/// The key that a page is about, in short.
pub(super) fn subject(cx: &Context, key: &ManagedKey) -> Markup {
    let record = &key.record;
    html! {
        section class="card subject" aria-label=(cx.t("subject.label")) {
            dl class="facts" {
                (fact(cx, "field.name", &html! { (show::key_link(record)) }))
                (fact(cx, "column.key", &show::masked(record)))
                (fact(cx, "column.status", &show::badges(cx, key)))
                (fact(cx, "column.owner", &show::owner(cx, record)))
                (fact(
                    cx,
                    "column.last_used",
                    &show::or_text(cx, key.usage.last_used_at, "time.never_used", show::time),
                ))
            }
        }
    }
}

/// What was just done, if the key is really so: the query is not proof of anything.
fn done(cx: &Context, key: &ManagedKey) -> Markup {
    let status = key.record.status(cx.manager().now());
    let (text, holds) = match cx.query.get("done") {
        Some("saved") => ("done.saved", key.record.version > 1),
        Some("primary") => ("done.primary", key.primary),
        Some("enabled") => ("done.enabled", key.record.enabled),
        Some("disabled") => ("done.disabled", !key.record.enabled),
        Some("revoked") => ("done.revoked", status == KeyStatus::Revoked),
        Some("before") => ("done.before", key.record.origin.is_some()),
        _ => ("", false),
    };
    html! { @if holds { (show::notice("good", &html! { p { (cx.t(text)) } })) } }
}

fn actions(cx: &Context, key: &ManagedKey) -> Markup {
    let (record, now) = (&key.record, cx.manager().now());
    let is_revoked = record.revoked.is_some();
    let lives = !matches!(record.status(now), KeyStatus::Revoked | KeyStatus::Expired);
    let rotates = lives && record.successor.is_none() && record.kind != KeyKind::AccessToken;
    let offered = [
        (Page::Edit, "action.edit", !is_revoked),
        (Page::Rotate, "action.rotate", rotates),
        (
            Page::Primary,
            "action.primary",
            !key.primary && record.can_be_primary(now),
        ),
        (
            Page::Enable,
            "action.enable",
            !is_revoked && !record.enabled,
        ),
        (Page::Disable, "action.disable", lives && record.enabled),
        (Page::Revoke, "action.revoke", !is_revoked),
        (Page::Delete, "action.delete", true),
    ];
    let offered = offered.into_iter().filter(|(.., shown)| *shown);
    html! {
        nav class="actions" aria-label=(cx.t("action.label")) {
            ul {
                @for (page, text, _) in offered {
                    @let class = match page {
                        Page::Revoke | Page::Delete => "button danger",
                        _ => "button",
                    };
                    li { a class=(class) href=(page.of_key(&record.id)) { (cx.t(text)) } }
                }
            }
        }
    }
}

fn fact(cx: &Context, label: &'static str, value: &Markup) -> Markup {
    html! { div { dt { (cx.t(label)) } dd { (value) } } }
}

fn facts(cx: &Context, key: &ManagedKey) -> Markup {
    let record = &key.record;
    let (_, kind) = list::kind_option(cx, record.kind);
    html! {
        section class="card" aria-labelledby="facts" {
            h2 id="facts" { (cx.t("detail.facts")) }
            dl class="facts" {
                (fact(cx, "field.id", &html! { code { (record.id.as_str()) } }))
                (fact(cx, "field.kind", &html! { (kind) }))
                (fact(cx, "field.environment", &html! { (record.environment.as_str()) }))
                (fact(cx, "column.owner", &show::owner(cx, record)))
                (fact(cx, "column.created", &show::time(record.created_at)))
                @if let Some(start) = record.not_before {
                    (fact(cx, "field.not_before", &show::time(start)))
                }
                (fact(
                    cx,
                    "column.expires",
                    &show::or_text(cx, record.expires_at, "time.never", show::time),
                ))
                @if let Some(due) = key.rotation_due {
                    (fact(cx, "field.rotation_due", &show::day(due)))
                }
                @if let Some(revoked) = &record.revoked {
                    (fact(cx, "field.revoked", &show::time(revoked.at)))
                    @if let Some(reason) = &revoked.reason {
                        (fact(cx, "field.reason", &show::lines(reason)))
                    }
                }
            }
        }
    }
}

pub(super) fn permissions(cx: &Context, key: &ManagedKey) -> Markup {
    let record = &key.record;
    let names = |names: &[&str]| {
        html! { ul class="tags" { @for name in names { li { code { (name) } } } } }
    };
    let scopes: Vec<_> = record.scopes.iter().map(Scope::as_str).collect();
    let workspaces = record.workspaces.as_deref().map(|ids| {
        let ids: Vec<_> = ids.iter().map(WorkspaceId::as_str).collect();
        names(&ids)
    });
    let networks = record.allowed_ips.as_ref().map(|list| {
        let entries: Vec<_> = list.entries().iter().map(ToString::to_string).collect();
        let entries: Vec<_> = entries.iter().map(String::as_str).collect();
        names(&entries)
    });
    let unscoped = cx.manager().accepted().unscoped.contains(&record.kind);
    html! {
        section class="card" aria-labelledby="grants" {
            h2 id="grants" { (cx.t("detail.permissions")) }
            dl class="facts" {
                @match (unscoped, scopes.is_empty()) {
                    (true, _) => (fact(cx, "field.scopes", &html! { (cx.t("scopes.everything")) })),
                    (false, true) => (fact(cx, "field.scopes", &html! { (cx.t("scopes.none")) })),
                    (false, false) => (fact(cx, "field.scopes", &names(&scopes))),
                }
                (fact(cx, "field.access", &html! { (cx.t(access_text(record.access))) }))
                (fact(
                    cx,
                    "field.workspaces",
                    &workspaces.unwrap_or_else(|| html! { (cx.t("workspaces.all")) }),
                ))
                (fact(
                    cx,
                    "field.allowed_ips",
                    &networks.unwrap_or_else(|| html! { (cx.t("allowed_ips.any")) }),
                ))
                @if record.delegation != Delegation::Off {
                    (fact(cx, "field.delegation", &html! { (cx.t("delegation.on")) }))
                }
                @if let Some(plan) = &key.plan {
                    (fact(cx, "field.plan", &html! { (plan.as_str()) }))
                }
            }
        }
    }
}

const fn access_text(access: portunus::key::Access) -> &'static str {
    match access {
        portunus::key::Access::ReadOnly => "access.read",
        _ => "access.full",
    }
}

/// The last events of the key, if there is a log.
async fn events(cx: &Context, key: &ManagedKey) -> Result<Markup, Fault> {
    let shared = &cx.operator.shared;
    let Some(log) = &shared.events else {
        return Ok(html! {});
    };
    let mut query = EventQuery::new();
    query.key_id = Some(key.record.id.clone());
    query.limit = EVENTS;
    shared.events_written().await;
    let page = cx.manager().events(log, query).await?;
    Ok(html! {
        section class="card" aria-labelledby="events" {
            h2 id="events" { (cx.t("detail.events")) }
            @if page.items.is_empty() { p class="empty" { (cx.t("events.none")) } }
            @else {
                (audit::table(cx, &page.items, false))
                p {
                    a href=(Page::Events.link_with([("key_id", key.record.id.as_str())])) {
                        (cx.t("events.of_key"))
                    }
                }
            }
        }
    })
}
