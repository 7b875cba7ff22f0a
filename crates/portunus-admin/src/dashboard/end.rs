//! Revoking and deleting a key. Both are final, so the operator types which key it means.

use maud::html;
use portunus::audit::Action;

use super::context::{Context, Form, Outcome, View};
use super::fields::{Entered, Field, buttons, form};
use super::issue::text_field;
use super::page::Page;
use super::problems::Problem;
use super::{detail, show};
use crate::Fault;

/// The last characters of a secret that are shown.
pub(super) fn last_four(masked: &str) -> &str {
    let start = masked.char_indices().rev().nth(3);
    start.map_or(masked, |(at, _)| &masked[at..])
}

pub(super) async fn show(cx: &Context, page: Page, sent: Option<&Form>) -> Result<View, Fault> {
    let (action, title, lead, submit) = match page {
        Page::Delete => (
            Action::KeyDelete,
            "delete.title",
            "delete.lead",
            "delete.submit",
        ),
        _ => (
            Action::KeyRevoke,
            "revoke.title",
            "revoke.lead",
            "revoke.submit",
        ),
    };
    let key = cx.key(action).await?;
    let record = &key.record;
    let entered = Entered(sent);
    let version = record.version.to_string();
    let cancel = Page::Key.of_key(&record.id);
    let confirm = Field {
        name: "confirm",
        label: cx.t("field.confirm"),
        hint: Some(cx.fill(
            "hint.confirm",
            &[("last", html! { code { (last_four(&record.masked)) } })],
        )),
        required: true,
    };
    let content = html! {
        @if page == Page::Revoke {
            (text_field(cx, "reason", "field.reason", "hint.reason").line(entered, "text", ""))
        }
        (confirm.line(entered, "text", ""))
        (buttons(cx.t(submit), "danger", (&cancel, cx.t("form.cancel"))))
    };
    let body = html! {
        h1 { (cx.fill(title, &[("name", show::short(&record.name))])) }
        (show::notice("warn", &html! { p { (cx.t(lead)) } }))
        (detail::subject(cx, &key))
        (form(cx, page, sent, &[("version", &version)], &content))
    };
    Ok(View::form(cx.title(title, &record.name), body, sent))
}

pub(super) async fn submit(cx: &Context, page: Page, sent: &mut Form) -> Result<Outcome, Problem> {
    let action = match page {
        Page::Delete => Action::KeyDelete,
        _ => Action::KeyRevoke,
    };
    let key = cx.key(action).await?;
    let (id, typed) = (
        &key.record.id,
        sent.fields.get("confirm").unwrap_or_default(),
    );
    if typed != last_four(&key.record.masked) && typed != key.record.name.trim() {
        let why = cx.t("confirm.wrong").to_owned();
        return Err(Problem::Fields(vec![("confirm".to_owned(), why)]));
    }
    let manager = cx.unchanged_since(sent);
    if page == Page::Delete {
        manager.delete(id).await?;
        return Ok(Outcome::SeeOther(
            Page::Keys.link_with([("done", "deleted")]),
        ));
    }
    manager.revoke(id, sent.fields.get("reason")).await?;
    let fields = [("id", id.as_str()), ("done", "revoked")];
    Ok(Outcome::SeeOther(Page::Key.link_with(fields)))
}
