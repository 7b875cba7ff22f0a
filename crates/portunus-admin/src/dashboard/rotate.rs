//! Rotating a key: the form with the grace period, and the page with the successor's secret.

use std::time::Duration;

use maud::html;
use portunus::audit::Action;
use portunus::manage::ManageError;

use super::context::{Context, Form, Outcome, View};
use super::fields::{Entered, buttons, form};
use super::issue::text_field;
use super::page::Page;
use super::problems::Problem;
use super::{detail, secret, show};
use crate::Fault;

/// The grace periods that the form offers, in seconds.
const GRACES: [(&str, &str); 5] = [
    ("0", "grace.none"),
    ("3600", "grace.hour"),
    ("86400", "grace.day"),
    ("604800", "grace.week"),
    ("2592000", "grace.month"),
];

pub(super) async fn show(cx: &Context, sent: Option<&Form>) -> Result<View, Fault> {
    let key = cx.key(Action::KeyRotate).await?;
    let record = &key.record;
    let (once, version) = (Form::once(sent)?, record.version.to_string());
    let stay = cx.manager().accepted().rotated_keys_stay;
    let options = GRACES.map(|(seconds, text)| (seconds.to_owned(), cx.t(text).to_owned()));
    let cancel = Page::Key.of_key(&record.id);
    let content = html! {
        @if stay {
            p { (cx.t("rotate.stays")) }
        } @else {
            (text_field(cx, "grace_seconds", "field.grace", "hint.grace")
                .choice(Entered(sent), &options, "86400"))
        }
        (buttons(cx.t("rotate.submit"), "primary", (&cancel, cx.t("form.cancel"))))
    };
    let body = html! {
        h1 { (cx.fill("rotate.title", &[("name", show::short(&record.name))])) }
        p class="lead" { (cx.t("rotate.lead")) }
        (detail::subject(cx, &key))
        (form(cx, Page::Rotate, sent, &[("once", &once), ("version", &version)], &content))
    };
    Ok(View::form(
        cx.title("rotate.title", &record.name),
        body,
        sent,
    ))
}

pub(super) async fn submit(cx: &Context, sent: &Form) -> Result<Outcome, Problem> {
    let id = cx.id()?;
    let grace = match sent.fields.get("grace_seconds") {
        None | Some("0") => None,
        Some(text) => {
            let known = GRACES.iter().any(|(seconds, _)| *seconds == text);
            let seconds = text.parse().ok().filter(|_| known);
            let unknown = || {
                let why = cx.t("grace.unknown").to_owned();
                Problem::Fields(vec![("grace_seconds".to_owned(), why)])
            };
            Some(Duration::from_secs(seconds.ok_or_else(unknown)?))
        }
    };
    let request = cx.idempotency(sent, &format!("rotate {id}"))?;
    let manager = cx.unchanged_since(sent);
    let rotated = match manager.rotate_once(&id, grace, Some(request)).await {
        Ok(rotated) => rotated,
        // The page with the secret was reloaded.
        Err(ManageError::DoneBefore(done)) => {
            let fields = [("id", done.record.id.as_str()), ("done", "before")];
            return Ok(Outcome::SeeOther(Page::Key.link_with(fields)));
        }
        Err(error) => return Err(error.into()),
    };
    let more = html! {
        p {
            @match (grace, rotated.old_works_until()) {
                (Some(_), Some(end)) => (cx.fill("rotate.until", &[("time", show::time(end))])),
                (None, Some(_)) => (cx.t("rotate.ended")),
                (_, None) => (cx.t("rotate.stays")),
            }
            " "
            a href=(Page::Key.of_key(&rotated.old.id)) { (cx.t("rotate.old")) }
        }
    };
    let view = secret::show(cx, cx.t("rotate.done"), rotated.key, &rotated.record, &more);
    Ok(view.into())
}
