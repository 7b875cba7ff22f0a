//! Changing a key: all that `PATCH /keys/{id}` changes, except whether the key is enabled.

use maud::{Markup, html};
use portunus::audit::Action;
use portunus::key::KeyRecord;
use portunus::manage::{KeyChange, ManagedKey};

use super::context::{Context, Form, Outcome, View};
use super::fields::{Entered, buttons, form};
use super::issue::text_field;
use super::page::Page;
use super::problems::Problem;
use super::{change, controls, detail, gauges, show, values};
use crate::Fault;

pub(super) async fn show(cx: &Context, sent: Option<&Form>) -> Result<View, Fault> {
    let key = cx.key(Action::KeyUpdate).await?;
    let record = &key.record;
    let is_stale = sent.is_some_and(|form| form.problems.is_stale());
    let content = content(cx, record, Entered(sent)).await;
    let version = record.version.to_string();
    let body = html! {
        h1 { (cx.fill("edit.title", &[("name", show::short(&record.name))])) }
        @if is_stale { (now(cx, &key)) }
        (form(cx, Page::Edit, sent, &[("version", &version)], &content))
    };
    Ok(View::form(cx.title("edit.title", &record.name), body, sent))
}

/// What the other operator made of the key, beside what this one entered.
fn now(cx: &Context, key: &ManagedKey) -> Markup {
    let record = &key.record;
    let description = record.description.as_deref().unwrap_or_default();
    let texts = html! {
        p { (cx.t("edit.now")) }
        dl class="facts" {
            div { dt { (cx.t("field.name")) } dd { (show::text(&record.name)) } }
            div { dt { (cx.t("field.description")) } dd { (show::lines(description)) } }
            @if let Some(start) = record.not_before {
                div { dt { (cx.t("field.not_before")) } dd { (show::time(start)) } }
            }
            div { dt { (cx.t("column.expires")) }
                dd { (show::or_text(cx, record.expires_at, "time.never", show::time)) } }
        }
    };
    html! {
        (show::notice("info", &texts))
        (detail::permissions(cx, key))
        (gauges::limits(cx, key))
    }
}

async fn content(cx: &Context, record: &KeyRecord, entered: Entered<'_>) -> Markup {
    let offered = cx.manager().offered();
    let (plan, tenant) = (record.plan.as_ref(), &record.owner.tenant_id);
    // Only a hint: the form works without it.
    let default = values::default_quotas(cx, plan, tenant)
        .await
        .ok()
        .flatten();
    let description = record.description.as_deref().unwrap_or_default();
    html! {
        section class="card" aria-labelledby="about" {
            h2 id="about" { (cx.t("issue.about")) }
            (text_field(cx, "name", "field.name", "hint.name").required()
                .line(entered, "text", &record.name))
            (text_field(cx, "description", "field.description", "")
                .area(entered, description, false))
        }
        (controls::sections(cx, &offered, entered, default.as_ref(), Some(record)))
        (buttons(cx.t("edit.submit"), "primary", (&Page::Key.of_key(&record.id), cx.t("form.cancel"))))
    }
}

pub(super) async fn submit(cx: &Context, sent: &mut Form) -> Result<Outcome, Problem> {
    let before = cx.key(Action::KeyUpdate).await?.record;
    let manager = cx.unchanged_since(sent);
    // What was entered is compared with the version that the form showed, and with no other one.
    let change = match manager.precondition_holds(Some(before.version)) {
        true => change::read(cx, &sent.fields, &before).await?,
        false => KeyChange::new(),
    };
    manager.update(&before.id, change, None).await?;
    let fields = [("id", before.id.as_str()), ("done", "saved")];
    Ok(Outcome::SeeOther(Page::Key.link_with(fields)))
}
