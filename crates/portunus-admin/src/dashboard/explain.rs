//! The check of a key: what a request with it would get, and why, as `POST /verify` explains it.
//!
//! The secret is in the form only: in no URL, and in no page, not even when the form is shown again.

use maud::{Markup, html};
use portunus::authenticator::Verdict;
use portunus::manage::ManagedKey;

use super::context::{Context, Form, Outcome, View};
use super::fields::{Entered, buttons, form};
use super::issue::text_field;
use super::page::Page;
use super::problems::Problem;
use super::{detail, show};
use crate::query::Wrong;
use crate::verify::{Asked, judge};

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

pub(super) fn show(cx: &Context, sent: Option<&Form>) -> View {
    page(cx, sent, &html! {})
}

pub(super) async fn submit(cx: &Context, sent: &Form) -> Result<Outcome, Problem> {
    let value = |name| sent.fields.get(name).map(str::to_owned);
    let scopes = sent.fields.entries("require");
    let asked = Asked {
        require: (!scopes.is_empty()).then_some(scopes),
        ip: value("ip"),
        method: value("method"),
        workspace: value("workspace"),
    };
    let key = sent.fields.get("key");
    let missing = ("key", cx.t("explain.key_missing").to_owned());
    let missing: Wrong = key.is_none().then_some(missing).into_iter().collect();
    match (key, asked.into_introspection()) {
        (Some(key), Ok(asked)) => {
            let found = judge(&cx.operator, key, &asked).await?;
            Ok(page(cx, Some(sent), &answer(cx, found.as_ref())).into())
        }
        (_, asked) => {
            let wrong = missing.into_iter().chain(asked.err().into_iter().flatten());
            let wrong = wrong.map(|(name, why)| (name.to_owned(), why));
            Err(Problem::Fields(wrong.collect()))
        }
    }
}

fn page(cx: &Context, sent: Option<&Form>, answer: &Markup) -> View {
    let entered = Entered(sent);
    let any = (String::new(), cx.t("explain.any_method").to_owned());
    let methods = METHODS.map(|name| (name.to_owned(), name.to_owned()));
    let methods: Vec<_> = [any].into_iter().chain(methods).collect();
    let content = html! {
        section class="card" aria-labelledby="request" {
            h2 id="request" { (cx.t("explain.request")) }
            (text_field(cx, "key", "explain.key", "explain.key_hint").required().secret(entered))
            (text_field(cx, "require", "explain.require", "explain.require_hint")
                .area(entered, "", true))
            (text_field(cx, "method", "explain.method", "").choice(entered, &methods, ""))
            (text_field(cx, "ip", "explain.ip", "explain.ip_hint").line(entered, "text", ""))
            (text_field(cx, "workspace", "explain.workspace", "explain.workspace_hint")
                .line(entered, "text", ""))
        }
        (buttons(cx.t("explain.submit"), "primary", (&Page::Keys.link(), cx.t("form.cancel"))))
    };
    let body = html! {
        h1 { (cx.t("explain.title")) }
        p class="lead" { (cx.t("explain.lead")) }
        (answer)
        (form(cx, Page::Explain, sent, &[], &content))
    };
    View::form(cx.t("explain.title"), body, sent)
}

/// What the request would get. Of a key that is not active, the reason is not disclosed.
fn answer(cx: &Context, found: Option<&(ManagedKey, Verdict)>) -> Markup {
    let Some((key, verdict)) = found else {
        return show::notice(
            "bad",
            &html! { p { strong { (cx.t("explain.inactive")) } } },
        );
    };
    let (class, text) = match verdict.is_allowed() {
        true => ("good", "explain.allowed"),
        false => ("bad", "explain.refused"),
    };
    let notice = html! {
        p { strong { (cx.t(text)) } }
        @if !verdict.explanation().is_empty() { p { (show::text(verdict.explanation())) } }
        @if let Some(error) = verdict.refusal() {
            p class="code" { (cx.t("refused.code")) " " code { (error.code().as_str()) } }
        }
    };
    html! {
        (show::notice(class, &notice))
        (detail::subject(cx, key))
    }
}
