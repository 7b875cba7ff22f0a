//! The form that issues a key, and the page with its secret.

use maud::{Markup, html};
use portunus::key::KeyKind;
use portunus::manage::{Accepted, ManageError};

use super::context::{Context, Form, Outcome, View};
use super::fields::{Entered, Field, buttons, form};
use super::page::Page;
use super::problems::Problem;
use super::{list, new_key, secret};
use crate::Fault;

/// Maximum number of workspaces that are offered as boxes.
const MOST_BOXES: usize = 200;

pub(super) async fn show(cx: &Context, sent: Option<&Form>) -> Result<View, Fault> {
    let offered = cx.manager().offered();
    let once = Form::once(sent)?;
    let entered = Entered(sent);
    let content = html! {
        section class="card" aria-labelledby="about" {
            h2 id="about" { (cx.t("issue.about")) }
            (text_field(cx, "name", "field.name", "hint.name").required().line(entered, "text", ""))
            (text_field(cx, "description", "field.description", "").area(entered, "", false))
            (choices(cx, &offered, entered))
            (owner(cx, entered))
        }
        section class="card" aria-labelledby="permissions" {
            h2 id="permissions" { (cx.t("issue.permissions")) }
            (scopes(cx, &offered, entered))
            (access(cx, entered))
            (workspaces(cx, entered))
        }
        section class="card" aria-labelledby="restrictions" {
            h2 id="restrictions" { (cx.t("issue.restrictions")) }
            @if !offered.never_expire { (expiry(cx, entered)) }
            (text_field(cx, "allowed_ips", "field.allowed_ips", "hint.allowed_ips")
                .area(entered, "", true))
            (limits(cx, &offered, entered).await)
            (plan(cx, &offered, entered))
        }
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

/// The scopes: boxes if the service declares what there is, lines otherwise.
fn scopes(cx: &Context, offered: &Accepted, entered: Entered<'_>) -> Markup {
    let has_scopes = |kind: &KeyKind| !offered.unscoped.contains(kind);
    if !offered.kinds.iter().any(has_scopes) {
        return html! { p { (cx.t("issue.unscoped")) } };
    }
    let Some(vocabulary) = &offered.vocabulary else {
        return text_field(cx, "scopes", "field.scopes", "hint.scopes_lines")
            .area(entered, "", true);
    };
    if vocabulary.names().is_empty() {
        return html! { p { (cx.t("issue.no_scopes")) } };
    }
    let names = vocabulary.names().iter();
    let names: Vec<_> = names
        .map(|name| (name.to_string(), html! { code { (name.as_str()) } }))
        .collect();
    text_field(cx, "scopes", "field.scopes", "hint.scopes").boxes(entered, &names)
}

fn access(cx: &Context, entered: Entered<'_>) -> Markup {
    use portunus::key::Access;
    if cx.operator.operator().access == Access::ReadOnly {
        return html! { input type="hidden" name="access" value="read-only"; };
    }
    let options = [
        ("full-access".to_owned(), cx.t("access.full").to_owned()),
        ("read-only".to_owned(), cx.t("access.read").to_owned()),
    ];
    text_field(cx, "access", "field.access", "").choice(entered, &options, "full-access")
}

/// The workspaces: boxes of those that the operator belongs to, or lines if that is all of them.
fn workspaces(cx: &Context, entered: Entered<'_>) -> Markup {
    match &cx.operator.operator().workspaces {
        Some(own) if own.is_empty() => html! {},
        Some(own) if own.len() <= MOST_BOXES => {
            let own = own.iter();
            let own: Vec<_> = own
                .map(|id| (id.to_string(), html! { (id.as_str()) }))
                .collect();
            text_field(cx, "workspaces", "field.workspaces", "hint.workspaces").boxes(entered, &own)
        }
        _ => text_field(
            cx,
            "workspaces",
            "field.workspaces",
            "hint.workspaces_lines",
        )
        .area(entered, "", true),
    }
}

/// The expiry: a number of days, or a day.
fn expiry(cx: &Context, entered: Entered<'_>) -> Markup {
    let mut options: Vec<_> = new_key::DAYS
        .iter()
        .map(|days| {
            let count = html! { (days) };
            let text = cx.fill("expiry.days", &[("count", count)]).into_string();
            (days.to_string(), text)
        })
        .collect();
    options.insert(0, ("never".to_owned(), cx.t("expiry.never").to_owned()));
    options.push(("date".to_owned(), cx.t("expiry.date").to_owned()));
    html! {
        div class="pair" {
            (text_field(cx, "expires_at", "field.expires", "").choice(entered, &options, "never"))
            (text_field(cx, "expires_on", "field.expires_on", "hint.expires_on")
                .line(entered, "date", ""))
        }
    }
}

/// A limit for each window that the plans have, with the default as the hint.
async fn limits(cx: &Context, offered: &Accepted, entered: Entered<'_>) -> Markup {
    let tenant = cx.operator.operator().tenant();
    let default = match tenant {
        // Only a hint: the form works without it.
        Some(tenant) => cx.manager().quotas_of_tenant(tenant).await.ok().flatten(),
        None => None,
    };
    let default = |window: &str| {
        let quotas = default.as_ref()?.as_slice().iter();
        let mut named = quotas.filter(|quota| quota.name() == window);
        named.next().map(portunus::quota::Quota::limit)
    };
    let error = entered.error("rate_limit_config");
    html! {
        fieldset class="field" id="f-rate_limit_config" tabindex="-1"
            aria-describedby=[error.map(|_| "f-rate_limit_config-error")] {
            legend { (cx.t("field.limits")) }
            p class="hint" { (cx.t("hint.limits")) }
            @if let Some(error) = error {
                p class="error" id="f-rate_limit_config-error" { (error) }
            }
            div class="pair" {
                @for window in new_key::windows(offered) {
                    @let name = new_key::limit_field(&window);
                    @let text = match &*window {
                        "minute" => cx.fill("field.per_minute", &[]),
                        "hour" => cx.fill("field.per_hour", &[]),
                        other => cx.fill("field.per_window", &[("window", html! { (other) })]),
                    };
                    div class="field" {
                        label for=(name) { (text) }
                        input id=(name) name=(name) type="text" inputmode="numeric" autocomplete="off"
                            value=(entered.value(&name, ""))
                            placeholder=[default(&window)]
                            aria-invalid=[error.map(|_| "true")];
                    }
                }
            }
        }
    }
}

fn plan(cx: &Context, offered: &Accepted, entered: Entered<'_>) -> Markup {
    match &offered.plans {
        Some(plans) if plans.is_empty() => html! {},
        Some(plans) => {
            let plans = plans
                .iter()
                .map(|plan| (plan.to_string(), plan.to_string()));
            let tenants = (String::new(), cx.t("plan.tenants").to_owned());
            let options: Vec<_> = [tenants].into_iter().chain(plans).collect();
            text_field(cx, "plan", "field.plan", "").choice(entered, &options, "")
        }
        None => html! {},
    }
}
