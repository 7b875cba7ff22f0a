//! Changing the name and the description of a key.

use maud::html;
use portunus::audit::Action;
use portunus::manage::KeyChange;

use super::context::{Context, Form, Outcome, View};
use super::fields::{Entered, buttons, form};
use super::issue::text_field;
use super::page::Page;
use super::problems::Problem;
use super::show;
use crate::Fault;

pub(super) async fn show(cx: &Context, sent: Option<&Form>) -> Result<View, Fault> {
    let key = cx.key(Action::KeyUpdate).await?;
    let record = &key.record;
    let entered = Entered(sent);
    let description = record.description.as_deref().unwrap_or_default();
    let is_stale = sent.is_some_and(|form| form.problems.is_stale());
    let content = html! {
        section class="card" {
            (text_field(cx, "name", "field.name", "hint.name").required()
                .line(entered, "text", &record.name))
            (text_field(cx, "description", "field.description", "")
                .area(entered, description, false))
        }
        (buttons(cx.t("edit.submit"), "primary", (&Page::Key.of_key(&record.id), cx.t("form.cancel"))))
    };
    let version = record.version.to_string();
    let body = html! {
        h1 { (cx.fill("edit.title", &[("name", show::short(&record.name))])) }
        @if is_stale {
            // What the other operator made of it, beside what this one entered.
            (show::notice("info", &html! {
                p { (cx.t("edit.now")) }
                dl class="facts" {
                    div { dt { (cx.t("field.name")) } dd { (show::text(&record.name)) } }
                    div { dt { (cx.t("field.description")) } dd { (show::lines(description)) } }
                }
            }))
        }
        (form(cx, Page::Edit, sent, &[("version", &version)], &content))
    };
    Ok(View::form(show::plain(&record.name), body, sent))
}

pub(super) async fn submit(cx: &Context, sent: &mut Form) -> Result<Outcome, Problem> {
    let id = cx.id()?;
    let mut change = KeyChange::new();
    change.name = Some(sent.fields.entered("name").unwrap_or_default().to_owned());
    change.description = Some(sent.fields.get("description").map(str::to_owned));
    cx.unchanged_since(sent).update(&id, change, None).await?;
    let fields = [("id", id.as_str()), ("done", "saved")];
    Ok(Outcome::SeeOther(Page::Key.link_with(fields)))
}
