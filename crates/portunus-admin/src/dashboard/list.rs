//! The list of keys: filters, views, pages in the order of the store.
//!
//! A view is a preset filter. What the store cannot filter is filtered here. A page is read in parts
//! until it is full or some time has passed: it may then be short, and still have a next one.

use std::time::{Duration, Instant, SystemTime};

use maud::{Markup, html};
use portunus::key::{Environment, KeyId, KeyKind, KeyStatus, PlanName, UserId};
use portunus::manage::{KeyPage, ManagedKey};
use portunus::store::{Cursor, ListQuery};

use super::context::{Context, Form, View};
use super::entry::Fields;
use super::fields::{Entered, Field, summary};
use super::page::Page;
use super::problems::Problem;
use super::show;
use crate::Fault;
use crate::keys::{read_cursor, write_cursor};

/// The number of keys on a page.
const LENGTH: usize = 50;

/// The number of keys that the store examines for a part of a page.
const EXAMINED: usize = 3_000;

/// After this time, no further part of a page is read, so that the first byte takes 50 ms at most.
const READING: Duration = Duration::from_millis(20);

/// Longer than any grace period.
const CENTURY: Duration = Duration::from_secs(100 * 366 * 86_400);

/// After this time without a use, a key counts as unused.
const UNUSED: Duration = Duration::from_secs(90 * 86_400);

/// The fields that a filter consists of, in links to other pages of the list.
pub(super) const FILTERS: [&str; 7] = [
    "view",
    "query",
    "status",
    "environment",
    "owner",
    "plan",
    "kind",
];

/// A preset filter.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Preset {
    All,
    Expiring,
    Unused,
    RotationDue,
    RotatedInUse,
}

const PRESETS: [(Preset, &str, &str); 5] = [
    (Preset::All, "", "view.all"),
    (Preset::Expiring, "expiring", "view.expiring"),
    (Preset::Unused, "unused", "view.unused"),
    (Preset::RotationDue, "rotation-due", "view.rotation_due"),
    (
        Preset::RotatedInUse,
        "rotated-in-use",
        "view.rotated_in_use",
    ),
];

impl Preset {
    /// Returns the view that is asked for; `None` if there is no such view.
    pub(super) fn of(fields: &Fields) -> Option<Self> {
        let name = fields.get("view").unwrap_or_default();
        let found = PRESETS.iter().find(|(_, known, _)| *known == name);
        found.map(|(preset, ..)| *preset)
    }

    /// Returns whether the store filters by it, so that it selects exactly the keys of the view.
    pub(super) fn is_a_filter(&self) -> bool {
        matches!(self, Self::All | Self::Expiring | Self::Unused)
    }

    /// Adds the preset to a query. Returns false if it selects nothing at all.
    pub(super) fn narrow(self, cx: &Context, query: &mut ListQuery) -> bool {
        let now = query.now;
        if self != Self::All && query.status.is_none() {
            query.status = Some(KeyStatus::Active);
        }
        match self {
            Self::All => {}
            Self::Expiring => query.expires_before = Some(now + show::SOON),
            Self::Unused => query.unused_since = now.checked_sub(UNUSED),
            // Lists are ordered by age: the keys that are old enough are the rest of the list.
            Self::RotationDue => {
                let every = cx.manager().accepted().rotate_every;
                let before = every.and_then(|every| now.checked_sub(every));
                let (Some(before), Ok(first)) = (before, KeyId::new("!")) else {
                    return false;
                };
                let start = Cursor::new(before, first);
                query.after = query.after.take().max(Some(start));
            }
            Self::RotatedInUse => {
                // A rotated key expires with its grace period, and few other keys expire at all.
                if !cx.manager().accepted().rotated_keys_stay {
                    query.expires_before = now.checked_add(CENTURY);
                }
            }
        }
        true
    }

    /// Returns whether a key that the store selected belongs to the view.
    fn selects(self, key: &ManagedKey, now: SystemTime) -> bool {
        match self {
            Self::RotationDue => key.rotation_due.is_some_and(|due| due <= now),
            Self::RotatedInUse => key.record.successor.is_some(),
            _ => true,
        }
    }
}

pub(super) async fn show(cx: &Context) -> Result<View, Fault> {
    let mut asked = Form::new(cx.query.clone());
    let preset = Preset::of(&cx.query).unwrap_or(Preset::All);
    let mut query = ListQuery::new(cx.manager().now());
    query.limit = LENGTH;
    if let Err(problem) = filter(cx, &cx.query, &mut query) {
        asked.problems.add(problem)?;
    }
    let is_valid = asked.problems.fields().is_empty();
    let page = match is_valid && preset.narrow(cx, &mut query) {
        true => page(cx, query, preset, &mut asked).await?,
        false => KeyPage::default(),
    };
    let body = html! {
        div class="title-row" {
            h1 { (cx.t("list.title")) }
            div class="buttons" {
                a class="button primary" href=(Page::Issue.link()) { (cx.t("list.issue")) }
                a class="button" href=(Page::Import.link()) { (cx.t("list.import")) }
            }
        }
        @if cx.query.get("done") == Some("deleted") {
            (show::notice("good", &html! { p { (cx.t("done.deleted")) } }))
        }
        (views(cx, preset))
        (search(cx, preset, &asked))
        (summary(cx, &asked))
        (table(cx, preset, &page))
    };
    Ok(View::form(cx.t("list.title"), body, Some(&asked)))
}

/// Reads a page of the list, and keeps what the view selects.
async fn page(
    cx: &Context,
    mut query: ListQuery,
    preset: Preset,
    asked: &mut Form,
) -> Result<KeyPage, Fault> {
    let (now, start) = (query.now, Instant::now());
    query.scanned = Some(EXAMINED);
    let mut page = KeyPage::default();
    loop {
        let part = match cx.manager().list(query.clone()).await {
            Ok(part) => part,
            Err(error) => {
                asked.problems.add(error.into())?;
                return Ok(KeyPage::default());
            }
        };
        page.corrupt.extend(part.corrupt);
        page.next = part.next;
        let listed = Instant::now();
        for key in part
            .items
            .into_iter()
            .filter(|key| preset.selects(key, now))
        {
            if page.items.len() == LENGTH {
                page.next = page.items.last().map(|key| Cursor::of(&key.record));
                return Ok(page);
            }
            let place = Cursor::of(&key.record);
            if preset != Preset::RotatedInUse {
                page.items.push(key);
                continue;
            }
            // Their successors are read one by one.
            if is_used_since_rotation(cx, &key).await {
                page.items.push(key);
            }
            if listed.elapsed() > READING {
                page.next = Some(place);
                return Ok(page);
            }
        }
        query.after.clone_from(&page.next);
        let is_full = page.items.len() == LENGTH;
        if is_full || page.next.is_none() || start.elapsed() > READING {
            return Ok(page);
        }
    }
}

/// Returns whether a key was used after its successor was created.
async fn is_used_since_rotation(cx: &Context, key: &ManagedKey) -> bool {
    let (Some(used), Some(id)) = (key.usage.last_used_at, &key.record.successor) else {
        return false;
    };
    // A successor that was deleted since does not make the use less surprising.
    let successor = cx.manager().get(id).await;
    successor.map_or(true, |successor| used >= successor.record.created_at)
}

/// Reads the filter. Each wrong value is a problem of its field.
pub(super) fn filter(cx: &Context, fields: &Fields, query: &mut ListQuery) -> Result<(), Problem> {
    let mut wrong = Vec::new();
    let mut note = |name: &str, why: String| wrong.push((name.to_owned(), why));
    macro_rules! read {
        ($member:ident, $name:literal, $parse:expr) => {
            match fields.get($name).map($parse).transpose() {
                Ok(value) => query.$member = value,
                Err(error) => note($name, error.to_string()),
            }
        };
    }
    read!(status, "status", str::parse::<KeyStatus>);
    read!(environment, "environment", Environment::new);
    read!(owner, "owner", UserId::new);
    read!(plan, "plan", PlanName::new);
    read!(kind, "kind", str::parse::<KeyKind>);
    query.text = fields.get("query").map(str::to_owned);
    if let Some(cursor) = fields.get("cursor") {
        query.after = read_cursor(cursor);
        if query.after.is_none() {
            note("cursor", cx.t("list.wrong_cursor").to_owned());
        }
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Problem::Fields(wrong)),
    }
}

/// The links to the preset filters.
fn views(cx: &Context, here: Preset) -> Markup {
    let rotates = cx.manager().accepted().rotate_every.is_some();
    let shown = |preset: Preset| preset != Preset::RotationDue || rotates;
    html! {
        nav class="views" aria-label=(cx.t("view.label")) {
            ul {
                @for (preset, name, text) in PRESETS.into_iter().filter(|(one, ..)| shown(*one)) {
                    @let current = (preset == here).then_some("page");
                    @let reference = match name {
                        "" => Page::Keys.link(),
                        name => Page::Keys.link_with([("view", name)]),
                    };
                    li { a href=(reference) aria-current=[current] { (cx.t(text)) } }
                }
            }
        }
    }
}

/// The form of the filters. It is sent with GET, so that a filter is a link.
fn search(cx: &Context, preset: Preset, asked: &Form) -> Markup {
    let accepted = cx.manager().accepted();
    let any = || (String::new(), cx.t("filter.any").to_owned());
    let named = |name: &str| (name.to_owned(), name.to_owned());
    let statuses = ["active", "not_yet_valid", "expired", "disabled", "revoked"];
    let statuses = statuses.into_iter().filter_map(|name| {
        let (text, _) = show::status_text(name.parse().ok()?);
        Some((name.to_owned(), cx.t(text).to_owned()))
    });
    let statuses: Vec<_> = [any()].into_iter().chain(statuses).collect();
    let environments = accepted.environments.iter().map(|one| named(one.as_str()));
    let environments: Vec<_> = [any()].into_iter().chain(environments).collect();
    let kinds = accepted.kinds.iter().map(|kind| kind_option(cx, *kind));
    let kinds: Vec<_> = [any()].into_iter().chain(kinds).collect();
    let plans = accepted.plans.iter().flatten();
    let plans = plans.map(|plan| named(plan.as_str()));
    let plans: Vec<_> = [any()].into_iter().chain(plans).collect();
    let field = |name: &'static str, label: &'static str| Field {
        name,
        label: cx.t(label),
        hint: None,
        required: false,
    };
    let entered = Entered(Some(asked));
    let more = ["environment", "owner", "plan", "kind"];
    let is_open = more.iter().any(|name| cx.query.get(name).is_some());
    let view = cx.query.get("view").filter(|_| preset != Preset::All);
    html! {
        form method="get" class="filters" role="search" aria-label=(cx.t("filter.label")) {
            input type="hidden" name="page" value="keys";
            @if let Some(view) = view { input type="hidden" name="view" value=(view); }
            div class="filter-row" {
                (field("query", "filter.query").line(entered, "search", ""))
                (field("status", "filter.status").choice(entered, &statuses, ""))
                button type="submit" { (cx.t("filter.apply")) }
                @if FILTERS.iter().any(|name| cx.query.get(name).is_some()) {
                    a class="button quiet" href=(Page::Keys.link()) { (cx.t("filter.clear")) }
                }
            }
            details open[is_open] {
                summary { (cx.t("filter.more")) }
                div class="filter-row" {
                    @if environments.len() > 2 {
                        (field("environment", "field.environment").choice(entered, &environments, ""))
                    }
                    @if cx.manager().own().is_none() {
                        (field("owner", "field.owner").line(entered, "text", ""))
                    }
                    @if plans.len() > 1 {
                        (field("plan", "field.plan").choice(entered, &plans, ""))
                    }
                    @if kinds.len() > 2 {
                        (field("kind", "field.kind").choice(entered, &kinds, ""))
                    }
                }
            }
        }
    }
}

/// A kind of key as an option.
pub(super) fn kind_option(cx: &Context, kind: KeyKind) -> (String, String) {
    let text = match kind {
        KeyKind::App => "kind.app",
        KeyKind::User => "kind.user",
        _ => "kind.access_token",
    };
    (kind.to_string(), cx.t(text).to_owned())
}

fn table(cx: &Context, preset: Preset, page: &KeyPage) -> Markup {
    let columns = [
        "column.name",
        "column.status",
        "column.owner",
        "column.created",
        "column.expires",
        "column.last_used",
    ];
    let several = cx.manager().accepted().environments.len() > 1;
    let is_filtered = FILTERS.iter().any(|name| cx.query.get(name).is_some());
    html! {
        @if page.items.is_empty() {
            @let text = match (page.next.is_some(), preset, is_filtered) {
                (true, ..) => "list.none_here",
                (false, Preset::All, false) => "list.none",
                (false, ..) => "list.none_match",
            };
            p class="empty" { (cx.t(text)) }
        } @else {
            form method="get" class="choose" {
                input type="hidden" name="page" value=(Page::Bulk.name());
                // The roles remain where the stylesheet shows rows as cards.
                table class="keys" role="table" {
                    caption class="visually-hidden" { (cx.t("list.caption")) }
                    thead role="rowgroup" {
                        tr role="row" {
                            th scope="col" role="columnheader" id="choose" {
                                span class="visually-hidden" { (cx.t("list.choose")) }
                            }
                            @for text in columns {
                                th scope="col" role="columnheader" { (cx.t(text)) }
                            }
                        }
                    }
                    tbody role="rowgroup" { @for key in &page.items { (row(cx, key, several)) } }
                }
                (many(cx, preset, is_filtered))
            }
        }
        (corrupt(cx, "list.corrupt", &page.corrupt))
        (pages(cx, Page::Keys, &FILTERS, page.next.as_ref().map(write_cursor).as_deref()))
    }
}

/// The buttons for an operation on the chosen keys, or on all that the filter selects.
fn many(cx: &Context, preset: Preset, is_filtered: bool) -> Markup {
    let filters = FILTERS.into_iter();
    let filters = filters.filter_map(|name| Some((name, cx.query.get(name)?)));
    let (all, text) = match is_filtered {
        true => (Page::Bulk.link_with(filters), "list.change_matching"),
        false => (Page::Bulk.link_with([("all", "yes")]), "list.change_all"),
    };
    html! {
        div class="buttons" {
            button type="submit" { (cx.t("list.change_chosen")) }
            @if preset.is_a_filter() { a class="button quiet" href=(all) { (cx.t(text)) } }
        }
    }
}

/// The name of a filter.
pub(super) fn filter_label<'c>(cx: &'c Context, name: &str) -> &'c str {
    cx.t(match name {
        "view" => "view.label",
        "query" => "filter.query",
        "status" => "filter.status",
        "environment" => "field.environment",
        "owner" => "field.owner",
        "plan" => "field.plan",
        _ => "field.kind",
    })
}

/// The name of a view.
pub(super) fn view_text(view: &str) -> Option<&'static str> {
    let found = PRESETS.iter().find(|(_, known, _)| *known == view);
    found.map(|(.., text)| *text)
}

fn row(cx: &Context, key: &ManagedKey, shows_environment: bool) -> Markup {
    let record = &key.record;
    let id = record.id.as_str();
    let cell = |label: &'static str, content: Markup| {
        html! { td role="cell" data-label=(cx.t(label)) { (content) } }
    };
    html! {
        tr role="row" {
            td role="cell" class="pick" data-label=(cx.t("list.choose")) {
                input type="checkbox" name="key" value=(id) aria-labelledby={ "choose k-" (id) };
            }
            th scope="row" role="rowheader" {
                span id={ "k-" (id) } { (show::key_link(record)) }
                span class="sub" {
                    (show::masked(record))
                    @if shows_environment { " " span class="faint" { (record.environment.as_str()) } }
                }
            }
            (cell("column.status", show::badges(cx, key)))
            (cell("column.owner", show::owner(cx, record)))
            (cell("column.created", show::day(record.created_at)))
            (cell("column.expires", show::or_text(cx, record.expires_at, "time.never", show::day)))
            (cell(
                "column.last_used",
                show::or_text(cx, key.usage.last_used_at, "time.never_used", show::day),
            ))
        }
    }
}

/// The links to the first and to the next page of a list with these filters.
pub(super) fn pages(
    cx: &Context,
    page: Page,
    filters: &[&'static str],
    next: Option<&str>,
) -> Markup {
    let filters = || {
        let set = filters.iter().map(|name| (*name, cx.query.get(name)));
        set.filter_map(|(name, value)| Some((name, value?)))
    };
    let is_first = cx.query.get("cursor").is_none();
    html! {
        @if next.is_some() || !is_first {
            nav class="pages" aria-label=(cx.t("list.pages")) {
                @if !is_first {
                    a class="button" href=(page.link_with(filters())) { (cx.t("list.newest")) }
                }
                @if let Some(cursor) = next {
                    @let fields = filters().chain([("cursor", cursor)]);
                    a class="button" rel="next" href=(page.link_with(fields)) {
                        (cx.t("list.older"))
                    }
                }
            }
        }
    }
}

/// The names of stored rows that a list leaves out, since they cannot be read.
pub(super) fn corrupt(cx: &Context, text: &'static str, rows: &[String]) -> Markup {
    html! {
        @if !rows.is_empty() {
            div class="notice bad" role="status" {
                p { (cx.t(text)) }
                ul { @for row in rows { li { code { (row) } } } }
            }
        }
    }
}
