//! How far an operation on many keys is. The service carries it out by itself, so the page is only a view.

use maud::{Markup, html};
use portunus::key::KeyId;
use portunus::store::BulkOperation;

use super::context::{Context, View};
use super::page::Page;
use super::show;
use crate::Fault;

pub(super) async fn show(cx: &Context) -> Result<View, Fault> {
    let operation = cx.manager().bulk_operation(&cx.id()?).await?;
    let here = Page::Operation.of_key(&operation.id);
    let body = html! {
        h1 { (cx.t("operation.title")) }
        (progress(cx, &operation))
        (failures(cx, &operation))
        div class="buttons" {
            // A page that reloads itself disturbs those who read it with a screen reader.
            @if operation.ended_at.is_none() {
                a class="button primary" href=(here) { (cx.t("operation.refresh")) }
            }
            a class="button" href=(Page::Keys.link()) { (cx.t("refused.back")) }
        }
    };
    Ok(View::new(cx.t("operation.title"), body))
}

fn progress(cx: &Context, operation: &BulkOperation) -> Markup {
    let passed = operation.done.saturating_add(operation.failed);
    let all = operation
        .left
        .map(|left| passed.saturating_add(left).max(1));
    let text = match (operation.ended_at, operation.left) {
        (Some(_), _) => "operation.ended",
        (None, Some(_)) => "operation.runs",
        (None, None) => "operation.counts",
    };
    let fact = |label: &'static str, value: Markup| {
        html! { div { dt { (cx.t(label)) } dd { (value) } } }
    };
    html! {
        section class="card subject progress" aria-label=(cx.t("operation.progress")) {
            p role="status" { strong { (cx.t(text)) } }
            @match all {
                Some(all) => progress aria-label=(cx.t("operation.progress")) value=(passed) max=(all) {},
                None => progress aria-label=(cx.t("operation.progress")) {},
            }
            dl class="facts" {
                (fact("operation.done", html! { (operation.done) }))
                @if let Some(left) = operation.left {
                    (fact("operation.left", html! { (left) }))
                }
                (fact("operation.failed", html! { (operation.failed) }))
                (fact("operation.started_at", show::time(operation.started_at)))
                @if let Some(end) = operation.ended_at {
                    (fact("operation.ended_at", show::time(end)))
                }
                (fact("field.id", html! { code { (operation.id.as_str()) } }))
            }
        }
    }
}

/// The keys that were refused, each with its reason.
fn failures(cx: &Context, operation: &BulkOperation) -> Markup {
    html! {
        @if !operation.failures.is_empty() {
            section class="card" aria-labelledby="failures" {
                h2 id="failures" { (cx.t("operation.failures")) }
                table {
                    caption class="visually-hidden" { (cx.t("operation.failures")) }
                    thead {
                        tr {
                            th scope="col" { (cx.t("column.key")) }
                            th scope="col" { (cx.t("field.reason")) }
                        }
                    }
                    tbody {
                        @for (key, reason) in &operation.failures {
                            tr { td { (named(key)) } td { (show::text(reason)) } }
                        }
                    }
                }
            }
        }
    }
}

/// The key, or what else is named in its place.
fn named(key: &str) -> Markup {
    match KeyId::new(key) {
        Ok(id) => html! { a href=(Page::Key.of_key(&id)) { code { (id.as_str()) } } },
        Err(_) => html! { code { (show::text(key)) } },
    }
}
