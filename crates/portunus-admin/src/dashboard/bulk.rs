//! An operation on many keys, in two steps: what to do with which keys, which only counts them, and then
//! the confirmation by their number. The service carries it out by itself ([`operation`](super::operation)).
//!
//! The keys are those that were chosen in the list, those of a filter of the list, or all of them if
//! the request says so. Between the steps, everything is in hidden fields of the form, so that the two
//! steps cannot be about different keys.

use maud::{Markup, html};
use portunus::key::{KeyId, PlanName};
use portunus::manage::{BulkAction, BulkSelection};
use portunus::store::ListQuery;

use super::context::{Context, Form, Outcome, View};
use super::entry::Fields;
use super::fields::{Entered, Field, buttons, form, summary};
use super::issue::text_field;
use super::list::{self, FILTERS, Preset};
use super::page::Page;
use super::problems::Problem;
use super::show;
use crate::Fault;

/// Maximum number of chosen keys that are named.
const MOST_NAMED: usize = 50;

/// The actions with their texts, and what each of them means. The first is the default.
const ACTIONS: [(&str, &str, &str); 4] = [
    ("disable", "action.disable", "bulk.disable_lead"),
    ("enable", "action.enable", "bulk.enable_lead"),
    ("revoke", "action.revoke", "bulk.revoke_lead"),
    ("plan", "bulk.plan", "bulk.plan_lead"),
];

/// Returns the fields that say which keys are meant.
fn selected_by(fields: &Fields) -> Vec<(&'static str, &str)> {
    let keys = fields.all("key").map(|id| ("key", id));
    let all = fields.get("all").map(|all| ("all", all));
    let filters = FILTERS.iter();
    let filters = filters.filter_map(|name| Some((*name, fields.get(name)?)));
    keys.chain(all).chain(filters).collect()
}

fn selection(cx: &Context, fields: &Fields) -> Result<BulkSelection, Problem> {
    let wrong = |text: &'static str| {
        let why = cx.t(text).to_owned();
        Problem::Fields(vec![("filter".to_owned(), why)])
    };
    let selected = selected_by(fields);
    let has = |wanted: &str| selected.iter().any(|(name, _)| *name == wanted);
    let has_filter = selected.iter().any(|(name, _)| FILTERS.contains(name));
    match (has("key"), has("all"), has_filter) {
        (false, false, false) => Err(wrong("bulk.nothing")),
        (true, false, false) => {
            let ids: Result<Vec<_>, _> = fields.all("key").map(KeyId::new).collect();
            Ok(BulkSelection::Ids(ids.map_err(|_| wrong("bulk.unknown"))?))
        }
        (false, true, false) if fields.get("all") == Some("yes") => Ok(BulkSelection::All),
        (false, false, true) => {
            let mut query = ListQuery::new(cx.manager().now());
            list::filter(cx, fields, &mut query)?;
            let preset = Preset::of(fields).filter(Preset::is_a_filter);
            preset
                .ok_or_else(|| wrong("bulk.view"))?
                .narrow(cx, &mut query);
            Ok(BulkSelection::Matching(query))
        }
        _ => Err(wrong("bulk.mixed")),
    }
}

fn action(cx: &Context, fields: &Fields) -> Result<BulkAction, Problem> {
    let wrong = |field: &str, why: String| Problem::Fields(vec![(field.to_owned(), why)]);
    match fields.get("action") {
        Some("disable") => Ok(BulkAction::Disable),
        Some("enable") => Ok(BulkAction::Enable),
        Some("revoke") => {
            let reason = fields.get("reason").map(str::to_owned);
            Ok(BulkAction::Revoke(reason))
        }
        Some("plan") => {
            let plan = fields.get("plan").map(PlanName::new).transpose();
            let plan = plan.map_err(|error| wrong("plan", error.to_string()))?;
            Ok(BulkAction::Plan(plan))
        }
        _ => Err(wrong("action", cx.t("bulk.no_action").to_owned())),
    }
}

pub(super) async fn show(cx: &Context, sent: Option<&Form>) -> Result<View, Fault> {
    if let Some(form) = sent {
        // What is hidden in the second step can be corrected in the first one only.
        let is_entered = |(name, _): &(String, String)| name == "confirm";
        let can_confirm = form.problems.fields().iter().all(is_entered);
        let count = match form.fields.get("counted") {
            Some(_) if can_confirm => count(cx, &form.fields).await.ok(),
            _ => None,
        };
        return Ok(page(cx, form, count).await);
    }
    let mut asked = Form::new(cx.query.clone());
    // Without any choice, the page only says how to make one.
    if !selected_by(&cx.query).is_empty()
        && let Err(problem) = selection(cx, &cx.query)
    {
        asked.problems.add(problem)?;
    }
    Ok(page(cx, &asked, None).await)
}

pub(super) async fn submit(cx: &Context, sent: &Form) -> Result<Outcome, Problem> {
    let (keys, action) = (selection(cx, &sent.fields)?, action(cx, &sent.fields)?);
    let Some(counted) = sent.fields.get("counted") else {
        let count = cx.manager().bulk_count(keys).await?;
        return Ok(page(cx, sent, Some(count)).await.into());
    };
    let request = cx.idempotency(sent, "bulk")?;
    let started = |id: &KeyId| {
        let fields = [("id", id.as_str())];
        Ok(Outcome::SeeOther(Page::Operation.link_with(fields)))
    };
    // The form was sent again. The number of keys may have changed because of the operation itself.
    if let Some(before) = cx.manager().bulk_started_by(&request).await? {
        return started(&before.id);
    }
    let count = cx.manager().bulk_count(keys.clone()).await?.to_string();
    let wrong = |text: &'static str| {
        let why = cx.t(text).to_owned();
        Err(Problem::Fields(vec![("confirm".to_owned(), why)]))
    };
    if counted != count {
        return wrong("bulk.changed");
    }
    if sent.fields.get("confirm") != Some(count.as_str()) {
        return wrong("bulk.wrong_number");
    }
    let operation = cx.manager().bulk(keys, action, Some(request)).await?;
    started(&operation.id)
}

async fn count(cx: &Context, fields: &Fields) -> Result<u64, Problem> {
    Ok(cx.manager().bulk_count(selection(cx, fields)?).await?)
}

/// The first step, or the second one with the number of keys.
async fn page(cx: &Context, asked: &Form, count: Option<u64>) -> View {
    let fields = &asked.fields;
    let content = match count {
        None if selection(cx, fields).is_err() => html! {
            (summary(cx, asked))
            @if asked.problems.fault().is_none() { p { (cx.t("bulk.nothing")) "." } }
            p { a class="button" href=(Page::Keys.link()) { (cx.t("refused.back")) } }
        },
        None => first_step(cx, asked),
        Some(count) => match second_step(cx, asked, count) {
            Ok(content) => content,
            Err(_) => first_step(cx, asked),
        },
    };
    let body = html! {
        h1 { (cx.t("bulk.title")) }
        (selected(cx, fields).await)
        (content)
    };
    View::form(cx.t("bulk.title"), body, Some(asked))
}

/// The keys, as they were chosen.
async fn selected(cx: &Context, fields: &Fields) -> Markup {
    let mut keys = Vec::new();
    for id in fields.all("key").take(MOST_NAMED) {
        // An unknown key counts as failed in the operation.
        if let Ok(id) = KeyId::new(id)
            && let Ok(key) = cx.manager().get(&id).await
        {
            keys.push(key);
        }
    }
    let filters = FILTERS.iter();
    let filters: Vec<_> = filters
        .filter_map(|name| Some((*name, fields.get(name)?)))
        .collect();
    html! {
        section class="card subject" id="f-filter" tabindex="-1" aria-labelledby="selected" {
            h2 id="selected" { (cx.t("bulk.selected")) }
            @if fields.get("all").is_some() { p { (cx.t("bulk.all")) } }
            @if !keys.is_empty() {
                ul class="plain" {
                    @for key in &keys {
                        li {
                            (show::key_link(&key.record)) " " (show::masked(&key.record)) " "
                            (show::badges(cx, key))
                        }
                    }
                }
            }
            @if !filters.is_empty() {
                dl class="facts" {
                    @for (name, value) in filters {
                        div { dt { (list::filter_label(cx, name)) } dd { (filter_value(cx, name, value)) } }
                    }
                }
            }
        }
    }
}

fn filter_value(cx: &Context, name: &str, value: &str) -> Markup {
    let text = match name {
        "view" => list::view_text(value),
        "status" => value.parse().ok().map(|status| show::status_text(status).0),
        _ => None,
    };
    match text {
        Some(text) => html! { (cx.t(text)) },
        None => show::short(value),
    }
}

/// What to do. Nothing is done yet.
fn first_step(cx: &Context, asked: &Form) -> Markup {
    let entered = Entered(Some(asked));
    let plans = cx.manager().offered().plans.unwrap_or_default();
    let actions = ACTIONS.iter();
    let actions: Vec<_> = actions
        .filter(|(name, ..)| *name != "plan" || !plans.is_empty())
        .map(|(name, text, _)| ((*name).to_owned(), cx.t(text).to_owned()))
        .collect();
    let plans = plans.iter().map(ToString::to_string);
    let plans = plans.map(|plan| (plan.clone(), plan));
    let tenants = (String::new(), cx.t("plan.tenants").to_owned());
    let plans: Vec<_> = [tenants].into_iter().chain(plans).collect();
    let content = html! {
        (text_field(cx, "action", "bulk.action", "").choice(entered, &actions, ""))
        @if plans.len() > 1 {
            (text_field(cx, "plan", "field.plan", "bulk.plan_hint").choice(entered, &plans, ""))
        }
        (text_field(cx, "reason", "field.reason", "bulk.reason_hint").line(entered, "text", ""))
        (buttons(cx.t("bulk.count"), "primary", (&Page::Keys.link(), cx.t("form.cancel"))))
    };
    html! {
        p class="lead" { (cx.t("bulk.lead")) }
        (form(cx, Page::Bulk, Some(asked), &selected_by(&asked.fields), &content))
    }
}

/// How many keys it concerns, and the confirmation by this number.
fn second_step(cx: &Context, asked: &Form, count: u64) -> Result<Markup, Fault> {
    let fields = &asked.fields;
    let back = Page::Bulk.link_with(selected_by(fields));
    let known = ACTIONS.iter();
    let mut known = known.filter(|(name, ..)| fields.get("action") == Some(name));
    let Some((name, text, lead)) = known.next() else {
        return Err(Fault::not_found());
    };
    let number = count.to_string();
    let once = Form::once(Some(asked))?;
    let mut hidden = selected_by(fields);
    hidden.extend([("action", *name), ("counted", &*number), ("once", &*once)]);
    let given = ["plan", "reason"].into_iter();
    hidden.extend(given.filter_map(|name| Some((name, fields.get(name)?))));
    let confirm = Field {
        name: "confirm",
        label: cx.t("field.confirm"),
        hint: Some(cx.fill(
            "bulk.confirm_hint",
            &[("count", html! { code { (count) } })],
        )),
        required: true,
    };
    let class = match *name {
        "enable" => "primary",
        _ => "danger",
    };
    let content = html! {
        (confirm.line(Entered(Some(asked)), "text", ""))
        (buttons(cx.t("bulk.start"), class, (&back, cx.t("bulk.back"))))
    };
    Ok(html! {
        div class="notice warn" role="status" {
            p { strong { (cx.fill("bulk.counted", &[("count", html! { (count) })])) } }
            p { (cx.t(lead)) }
        }
        dl class="facts subject" {
            div { dt { (cx.t("bulk.action")) } dd { (cx.t(text)) } }
            @if *name == "plan" {
                @let plan = fields.get("plan").unwrap_or_else(|| cx.t("plan.tenants"));
                div { dt { (cx.t("field.plan")) } dd { (plan) } }
            }
            @if let (Some(reason), "revoke") = (fields.get("reason"), *name) {
                div { dt { (cx.t("field.reason")) } dd { (show::lines(reason)) } }
            }
        }
        @if count == 0 {
            p { a class="button" href=(back) { (cx.t("bulk.back")) } }
        } @else {
            (form(cx, Page::Bulk, Some(asked), &hidden, &content))
        }
    })
}
