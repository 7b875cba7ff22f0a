//! The audit page: the events of the host's log, last stored first, with the filters of `GET /events`.
//! Without a log there is no such page.

use maud::{Markup, html};
use portunus::ErrorCode;
use portunus::audit::{Action, AuditEvent, AuditOutcome, EventPage, EventQuery};
use portunus::key::UserId;
use portunus::store::ListQuery;

use super::context::{Context, Form, View};
use super::fields::{Entered, summary};
use super::issue::text_field;
use super::page::Page;
use super::problems::Problem;
use super::{chain, list, show};
use crate::events::EventParameters;
use crate::{Fault, terms};

/// The fields that a filter consists of.
const FILTERS: [&str; 4] = ["key_id", "actor", "action", "outcome"];

/// The columns of every table of events.
const COLUMNS: [&str; 4] = [
    "events.time",
    "events.action",
    "events.outcome",
    "events.actor",
];

/// The columns of the audit page in addition.
const MORE_COLUMNS: [&str; 3] = ["events.key", "events.operation", "events.detail"];

pub(super) async fn show(cx: &Context) -> Result<View, Fault> {
    let shared = &cx.operator.shared;
    let Some(log) = &shared.events else {
        return Err(Fault::new(ErrorCode::NotFound, ""));
    };
    // Whether the operator sees lists at all comes before what it asked for.
    cx.manager().narrow(ListQuery::new(cx.manager().now()))?;
    let mut asked = Form::new(cx.query.clone());
    let page = match filter(cx) {
        Ok(query) => {
            shared.events_written().await;
            cx.manager().events(log, query).await?
        }
        Err(problem) => {
            asked.problems.add(problem)?;
            EventPage::default()
        }
    };
    let next = page.next.map(|next| next.to_string());
    let empty = match (&next, is_filtered(cx)) {
        (Some(_), _) => "events.none_here",
        (None, true) => "events.none_match",
        (None, false) => "events.none",
    };
    let body = html! {
        h1 { (cx.t("events.title")) }
        @if chain::of(cx).is_some() {
            p { a class="button" href=(Page::Chain.link()) { (cx.t("chain.title")) } }
        }
        (search(cx, &asked))
        (summary(cx, &asked))
        @if page.items.is_empty() { p class="empty" { (cx.t(empty)) } }
        @else { (table(cx, &page.items, true)) }
        (list::corrupt(cx, "events.corrupt", &page.corrupt))
        (list::pages(cx, Page::Events, &FILTERS, next.as_deref()))
    };
    Ok(View::form(cx.t("events.title"), body, Some(&asked)))
}

fn is_filtered(cx: &Context) -> bool {
    FILTERS.iter().any(|name| cx.query.get(name).is_some())
}

/// Reads the filter. Each wrong value is a problem of its field.
fn filter(cx: &Context) -> Result<EventQuery, Problem> {
    let value = |name| cx.query.get(name).map(str::to_owned);
    let asked = EventParameters {
        key_id: value("key_id"),
        actor: value("actor"),
        outcome: value("outcome"),
        action: value("action"),
        limit: None,
        cursor: value("cursor"),
    };
    asked.query().map_err(|wrong| {
        let wrong = wrong.into_iter();
        Problem::Fields(wrong.map(|(name, why)| (name.to_owned(), why)).collect())
    })
}

/// The form of the filters. It is sent with GET, so that a filter is a link.
fn search(cx: &Context, asked: &Form) -> Markup {
    let options = |names: &mut dyn Iterator<Item = &'static str>| {
        let any = (String::new(), cx.t("filter.any").to_owned());
        let names = names.map(|name| (name.to_owned(), name.to_owned()));
        [any].into_iter().chain(names).collect::<Vec<_>>()
    };
    let actions = options(&mut Action::ALL.iter().map(|action| action.as_str()));
    let outcomes = options(&mut terms::outcomes());
    let entered = Entered(Some(asked));
    html! {
        form method="get" class="filters" role="search" aria-label=(cx.t("events.filter")) {
            input type="hidden" name="page" value=(Page::Events.name());
            div class="filter-row" {
                (text_field(cx, "key_id", "events.key_id", "").line(entered, "text", ""))
                (text_field(cx, "actor", "events.party", "").line(entered, "text", ""))
                (text_field(cx, "action", "events.action", "").choice(entered, &actions, ""))
                (text_field(cx, "outcome", "events.outcome", "").choice(entered, &outcomes, ""))
                button type="submit" { (cx.t("filter.apply")) }
                @if is_filtered(cx) {
                    a class="button quiet" href=(Page::Events.link()) { (cx.t("filter.clear")) }
                }
            }
        }
    }
}

/// A table of events; the whole one also has the key, the operation and the detail of each.
pub(super) fn table(cx: &Context, events: &[AuditEvent], is_whole: bool) -> Markup {
    let more = MORE_COLUMNS.iter().filter(|_| is_whole);
    // The class decides at which width the rows become cards.
    let class = if is_whole { "keys" } else { "events" };
    html! {
        table class=(class) role="table" {
            caption class="visually-hidden" { (cx.t("events.caption")) }
            thead role="rowgroup" {
                tr role="row" {
                    @for text in COLUMNS.iter().chain(more) {
                        th scope="col" role="columnheader" { (cx.t(text)) }
                    }
                }
            }
            tbody role="rowgroup" { @for event in events { (row(cx, event, is_whole)) } }
        }
    }
}

fn row(cx: &Context, event: &AuditEvent, is_whole: bool) -> Markup {
    let cell = |label: &'static str, content: &Markup| {
        html! { td role="cell" data-label=(cx.t(label)) { (content) } }
    };
    let actor = event.actor.as_ref().and_then(|party| {
        let email = party.user_email.as_deref();
        let id = party.user_id.as_ref().map(UserId::as_str);
        email.or(id).or(party.name.as_deref())
    });
    let key = event.key_id.as_ref().map(|id| {
        html! { a href=(Page::Key.of_key(id)) { code { (id.as_str()) } } }
    });
    let operation = event.operation.as_ref();
    let operation = operation.map(|id| html! { code { (id.as_str()) } });
    html! {
        tr role="row" {
            (cell("events.time", &show::time(event.at)))
            (cell("events.action", &html! {
                code { (event.action.as_str()) }
                @if let Some(route) = &event.route { " " span class="faint" { (show::text(route)) } }
            }))
            (cell("events.outcome", &outcome(cx, event.outcome)))
            (cell("events.actor", &or_dash(actor.map(show::short))))
            @if is_whole {
                (cell("events.key", &or_dash(key)))
                (cell("events.operation", &or_dash(operation)))
                (cell("events.detail", &or_dash(detail(cx, event))))
            }
        }
    }
}

fn or_dash(content: Option<Markup>) -> Markup {
    content.unwrap_or_else(|| html! { span class="faint" { "–" } })
}

fn outcome(cx: &Context, outcome: AuditOutcome) -> Markup {
    let (text, class) = match outcome {
        AuditOutcome::Ok => ("outcome.ok", "badge good"),
        AuditOutcome::Abandoned => ("outcome.abandoned", "badge warn"),
        _ => ("outcome.refused", "badge bad"),
    };
    html! {
        span class=(class) { (cx.t(text)) }
        @if outcome != AuditOutcome::Ok { " " code { (outcome.as_str()) } }
    }
}

/// What the event says in words, and how many it stands for.
fn detail(cx: &Context, event: &AuditEvent) -> Option<Markup> {
    let detail = event.detail.as_deref();
    if detail.is_none() && event.count.is_none() {
        return None;
    }
    Some(html! {
        @if let Some(detail) = detail { span class="detail" { (show::lines(detail)) } }
        @if let Some(count) = event.count {
            " " span class="faint" { (cx.fill("events.count", &[("count", html! { (count) })])) }
        }
    })
}
