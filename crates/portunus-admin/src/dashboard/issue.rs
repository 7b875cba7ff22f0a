//! The form that issues a key, and the page with its secret.

use maud::{Markup, html};
use portunus::manage::{Accepted, ManageError};

use super::context::{Context, Form, Outcome, View};
use super::fields::{Entered, Field, buttons, form};
use super::page::Page;
use super::problems::Problem;
use super::{controls, list, new_key, secret};
use crate::Fault;

pub(super) async fn show(cx: &Context, sent: Option<&Form>) -> Result<View, Fault> {
    let offered = cx.manager().offered();
    let once = Form::once(sent)?;
    let entered = Entered(sent);
    let default = match cx.operator.operator().tenant() {
        // Only a hint: the form works without it.
        Some(tenant) => cx.manager().quotas_of_tenant(tenant).await.ok().flatten(),
        None => None,
    };
    let content = html! {
        section class="card" aria-labelledby="about" {
            h2 id="about" { (cx.t("issue.about")) }
            (text_field(cx, "name", "field.name", "hint.name").required().line(entered, "text", ""))
            (text_field(cx, "description", "field.description", "").area(entered, "", false))
            (choices(cx, &offered, entered))
            (owner(cx, entered))
        }
        (controls::sections(cx, &offered, entered, default.as_ref(), None))
        (buttons(cx.t("issue.submit"), "primary", (&Page::Keys.link(), cx.t("form.cancel"))))
    };
    let body = html! {
        h1 { (cx.t("issue.title")) }
        p class="lead" { (cx.t("issue.lead")) }
        (form(cx, Page::Issue, sent, &[("once", &once)], &content))
    };
    Ok(View::form(cx.t("issue.title"), body, sent))
}

pub(super) async fn submit(cx: &Context, sent: &mut Form) -> Result<Outcome, Problem> {
    let mut new = new_key::read(cx, &sent.fields).await?;
    new.idempotency = Some(cx.idempotency(sent, "issue")?);
    match cx.manager().issue(new).await {
        Ok(issued) => {
            let title = cx.t("issue.done");
            let more = html! {};
            let view = secret::show(cx, title, issued.key, &issued.record, &more);
            Ok(view.into())
        }
        // The page with the secret was reloaded.
        Err(ManageError::DoneBefore(done)) => {
            let fields = [("id", done.record.id.as_str()), ("done", "before")];
            Ok(Outcome::SeeOther(Page::Key.link_with(fields)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns a field whose hint is a text of the table; none for an empty name.
pub(super) fn text_field<'c>(
    cx: &'c Context,
    name: &'static str,
    label: &'static str,
    hint: &'static str,
) -> Field<'c> {
    Field {
        name,
        label: cx.t(label),
        hint: (!hint.is_empty()).then(|| html! { (cx.t(hint)) }),
        required: false,
    }
}

/// The kind and the environment, where there is a choice.
fn choices(cx: &Context, offered: &Accepted, entered: Entered<'_>) -> Markup {
    let kinds = offered.kinds.iter();
    let kinds: Vec<_> = kinds.map(|kind| list::kind_option(cx, *kind)).collect();
    let environments = offered.environments.iter();
    let environments: Vec<_> = environments
        .map(|name| (name.to_string(), name.to_string()))
        .collect();
    let kind = cx.manager().default_kind().to_string();
    html! {
        @if environments.len() > 1 {
            (text_field(cx, "environment", "field.environment", "hint.environment")
                .choice(entered, &environments, &environments[0].0))
        }
        @if kinds.len() > 1 {
            (text_field(cx, "kind", "field.kind", "hint.kind").choice(entered, &kinds, &kind))
        }
    }
}

/// The owner, unless the operator issues keys for itself only.
fn owner(cx: &Context, entered: Entered<'_>) -> Markup {
    if cx.manager().own().is_some() {
        return html! {};
    }
    let tenant = cx.operator.operator().tenant();
    html! {
        @if tenant.is_none() {
            (text_field(cx, "owner.tenant_id", "field.tenant", "").required()
                .line(entered, "text", ""))
        }
        (text_field(cx, "owner.user_id", "field.owner", "hint.owner").line(entered, "text", ""))
        (text_field(cx, "owner.user_email", "field.email", "hint.email").line(entered, "text", ""))
    }
}
