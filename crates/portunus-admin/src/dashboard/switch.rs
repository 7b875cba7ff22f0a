//! Disabling a key, and enabling it again.

use maud::html;
use portunus::audit::Action;

use super::context::{Context, Form, Outcome, View};
use super::fields::{buttons, form};
use super::page::Page;
use super::problems::Problem;
use super::{detail, show};
use crate::Fault;

pub(super) async fn show(cx: &Context, page: Page, sent: Option<&Form>) -> Result<View, Fault> {
    let (action, title, lead, submit, class) = match page {
        Page::Enable => (
            Action::KeyEnable,
            "enable.title",
            "enable.lead",
            "enable.submit",
            "primary",
        ),
        _ => (
            Action::KeyDisable,
            "disable.title",
            "disable.lead",
            "disable.submit",
            "danger",
        ),
    };
    let key = cx.key(action).await?;
    let record = &key.record;
    let version = record.version.to_string();
    let cancel = Page::Key.of_key(&record.id);
    let content = html! {
        (buttons(cx.t(submit), class, (&cancel, cx.t("form.cancel"))))
    };
    let body = html! {
        h1 { (cx.fill(title, &[("name", show::short(&record.name))])) }
        p class="lead" { (cx.t(lead)) }
        (detail::subject(cx, &key))
        (form(cx, page, sent, &[("version", &version)], &content))
    };
    Ok(View::form(cx.title(title, &record.name), body, sent))
}

pub(super) async fn submit(cx: &Context, page: Page, sent: &Form) -> Result<Outcome, Problem> {
    let (id, manager) = (cx.id()?, cx.unchanged_since(sent));
    let done = match page {
        Page::Enable => manager.enable(&id).await.map(|_| "enabled"),
        _ => manager.disable(&id).await.map(|_| "disabled"),
    };
    let fields = [("id", id.as_str()), ("done", done?)];
    Ok(Outcome::SeeOther(Page::Key.link_with(fields)))
}
