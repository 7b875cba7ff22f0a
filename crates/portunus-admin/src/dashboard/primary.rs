//! Making a key its owner's primary key.

use maud::html;
use portunus::audit::Action;

use super::context::{Context, Form, Outcome, View};
use super::fields::{buttons, form};
use super::page::Page;
use super::problems::Problem;
use super::{detail, show};
use crate::Fault;

pub(super) async fn show(cx: &Context, sent: Option<&Form>) -> Result<View, Fault> {
    let key = cx.key(Action::KeyMakePrimary).await?;
    let record = &key.record;
    let version = record.version.to_string();
    let cancel = Page::Key.of_key(&record.id);
    let content = html! {
        (buttons(cx.t("primary.submit"), "danger", (&cancel, cx.t("form.cancel"))))
    };
    let body = html! {
        h1 { (cx.fill("primary.title", &[("name", show::short(&record.name))])) }
        // The host says what its primary key does, such as signing events.
        (show::notice("warn", &html! { p { (cx.t("primary.warning")) } }))
        (detail::subject(cx, &key))
        (form(cx, Page::Primary, sent, &[("version", &version)], &content))
    };
    Ok(View::form(
        cx.title("primary.title", &record.name),
        body,
        sent,
    ))
}

pub(super) async fn submit(cx: &Context, sent: &Form) -> Result<Outcome, Problem> {
    let id = cx.id()?;
    cx.unchanged_since(sent).make_primary(&id).await?;
    let fields = [("id", id.as_str()), ("done", "primary")];
    Ok(Outcome::SeeOther(Page::Key.link_with(fields)))
}
