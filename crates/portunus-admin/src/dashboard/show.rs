//! How values are shown: names, times, statuses, notices.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use maud::{Markup, html};
use portunus::key::{KeyRecord, KeyStatus, UserId};
use portunus::manage::ManagedKey;

use super::context::Context;
use super::page::Page;
use crate::time::time_text;

/// Within this time, an expiry is marked.
pub(super) const SOON: Duration = Duration::from_secs(30 * 86_400);

/// Maximum number of characters of a name where it is not the subject.
const SHORT: usize = 120;

/// Returns whether a character changes how others are shown, or is not shown. Joiners inside words are
/// allowed; stored names of before the rule on names can contain all of these.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// A text that somebody wrote: apart from its surroundings, in its own direction, with marks that
/// would change or hide it written out.
pub(super) fn text(text: &str) -> Markup {
    html! { bdi dir="auto" { (marked(text, &|_| false)) } }
}

/// The same for a text that may have several lines.
pub(super) fn lines(text: &str) -> Markup {
    html! { bdi class="lines" dir="auto" { (marked(text, &|c| c == '\n')) } }
}

/// The beginning of a text.
pub(super) fn short(text: &str) -> Markup {
    self::text(&start(text))
}

fn start(text: &str) -> String {
    let mut start: String = text.chars().take(SHORT).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    start
}

/// The beginning of a text without markup, for titles.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::new();
    for c in start(text).chars() {
        match is_hidden(c) {
            true => drop(write!(plain, "[U+{:04X}]", u32::from(c))),
            false => plain.push(c),
        }
    }
    plain
}

fn marked(text: &str, is_kept: &dyn Fn(char) -> bool) -> Markup {
    let stays = |c: char| !is_hidden(c) || is_kept(c);
    let mut rest = text;
    let mut parts = Vec::new();
    while let Some(at) = rest.find(|c| !stays(c)) {
        let (before, after) = rest.split_at(at);
        let mark = after.chars().next().unwrap_or_default();
        parts.push((before, format!("U+{:04X}", u32::from(mark))));
        rest = &after[mark.len_utf8()..];
    }
    html! {
        @for (before, mark) in &parts { (before) span class="mark" { (mark) } }
        (rest)
    }
}

/// A time to the minute, in UTC.
pub(super) fn time(at: SystemTime) -> Markup {
    let text = time_text(at);
    let (day, minute) = (&text[..10], &text[11..16]);
    html! { time datetime=(text) { (day) " " (minute) " UTC" } }
}

/// A time to the second, rounded up, in UTC.
pub(super) fn second(at: SystemTime) -> Markup {
    let text = time_text(at + Duration::from_millis(999));
    let (day, second) = (&text[..10], &text[11..19]);
    html! { time datetime={ (day) "T" (second) "Z" } { (day) " " (second) " UTC" } }
}

/// The day of a time, in UTC.
pub(super) fn day(at: SystemTime) -> Markup {
    let text = time_text(at);
    html! { time datetime=(text) { (&text[..10]) } }
}

/// A time that may not be known or set.
pub(super) fn or_text(
    cx: &Context,
    at: Option<SystemTime>,
    otherwise: &'static str,
    show: fn(SystemTime) -> Markup,
) -> Markup {
    match at {
        Some(at) => show(at),
        None => html! { span class="faint" { (cx.t(otherwise)) } },
    }
}

/// The text and the class of a status.
pub(super) const fn status_text(status: KeyStatus) -> (&'static str, &'static str) {
    match status {
        KeyStatus::Active => ("status.active", "badge good"),
        KeyStatus::NotYetValid => ("status.not_yet_valid", "badge info"),
        KeyStatus::Expired => ("status.expired", "badge"),
        KeyStatus::Disabled => ("status.disabled", "badge warn"),
        KeyStatus::Revoked => ("status.revoked", "badge bad"),
        _ => ("status.unreadable", "badge bad"),
    }
}

/// The badges of a key: its status, and what needs attention.
pub(super) fn badges(cx: &Context, key: &ManagedKey) -> Markup {
    let (record, now) = (&key.record, cx.manager().now());
    let status = record.status(now);
    let (text, class) = status_text(status);
    let is_active = status == KeyStatus::Active;
    let soon = record.expires_at.is_some_and(|end| end < now + SOON) && is_active;
    let due = key.rotation_due.is_some_and(|due| due <= now);
    html! {
        span class="badges" {
            span class=(class) { (cx.t(text)) }
            @if key.primary { " " span class="badge info" { (cx.t("status.primary")) } }
            @if record.successor.is_some() && is_active {
                " " span class="badge warn" { (cx.t("status.rotated")) }
            } @else if soon {
                " " span class="badge warn" { (cx.t("status.expires_soon")) }
            }
            @if due { " " span class="badge warn" { (cx.t("status.rotation_due")) } }
        }
    }
}

/// The owner of a key, as people know it.
pub(super) fn owner(cx: &Context, record: &KeyRecord) -> Markup {
    let owner = &record.owner;
    let user = owner.user_email.as_deref();
    let user = user.or(owner.user_id.as_ref().map(UserId::as_str));
    let shows_tenant = cx.operator.operator().tenant().is_none();
    html! {
        @match user {
            Some(user) => (short(user)),
            None => span { (cx.t("owner.tenant")) },
        }
        @if shows_tenant { " " span class="faint" { (short(owner.tenant_id.as_str())) } }
    }
}

/// The displayable part of a secret.
pub(super) fn masked(record: &KeyRecord) -> Markup {
    html! { code class="masked" { (record.masked.as_str()) } }
}

/// A link to the page of a key, with its name.
pub(super) fn key_link(record: &KeyRecord) -> Markup {
    html! { a href=(Page::Key.of_key(&record.id)) { (short(&record.name)) } }
}

/// A message above a page.
pub(super) fn notice(class: &str, content: &Markup) -> Markup {
    html! { div class={ "notice " (class) } role="status" { (content) } }
}
