//! How a key is used: bars by hour and by day, and the progress of a rotation.

use std::time::{Duration, SystemTime};

use maud::{Markup, html};
use portunus::manage::ManagedKey;
use portunus::store::{HourOfUse, UsageByHour};

use super::context::Context;
use super::page::Page;
use super::show;
use crate::Fault;
use crate::time::time_text;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

const HOURS: u32 = 48;
const DAYS: u32 = 30;

/// A bar: the beginning of its period, and the requests in it.
type Bar = (SystemTime, u64);

/// Returns the uses in periods of this length, the last of which contains `now`.
fn bars(usage: &UsageByHour, now: SystemTime, length: Duration, count: u32) -> Vec<Bar> {
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let current = since.as_secs() / length.as_secs();
    let number_of = |at: SystemTime| {
        let since = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        since.as_secs() / length.as_secs()
    };
    let first = current.saturating_sub(u64::from(count) - 1);
    let mut bars: Vec<Bar> = (first..=current)
        .map(|number| {
            let start = Duration::from_secs(number * length.as_secs());
            (SystemTime::UNIX_EPOCH + start, 0)
        })
        .collect();
    for HourOfUse { start, count, .. } in &usage.hours {
        let place = number_of(*start).checked_sub(first);
        let place = place.and_then(|place| bars.get_mut(usize::try_from(place).ok()?));
        if let Some((_, sum)) = place {
            *sum = sum.saturating_add(*count);
        }
    }
    bars
}

/// Returns the uses of a key in the last 30 days.
pub(super) async fn recent(cx: &Context, key: &ManagedKey) -> Result<UsageByHour, Fault> {
    let from = cx.manager().now().checked_sub(DAY * DAYS);
    read(cx, key, from.unwrap_or(SystemTime::UNIX_EPOCH)).await
}

async fn read(cx: &Context, key: &ManagedKey, from: SystemTime) -> Result<UsageByHour, Fault> {
    let to = cx.manager().now() + Duration::from_secs(1);
    Ok(cx.manager().usage_by_hour(&key.record.id, from, to).await?)
}

pub(super) fn section(cx: &Context, key: &ManagedKey, usage: &UsageByHour) -> Markup {
    let now = cx.manager().now();
    let (by_hour, by_day) = (bars(usage, now, HOUR, HOURS), bars(usage, now, DAY, DAYS));
    html! {
        section class="card" aria-labelledby="usage" {
            h2 id="usage" { (cx.t("detail.usage")) }
            p {
                (cx.fill("usage.total", &[("count", html! { strong { (key.usage.count) } })]))
                " "
                @match key.usage.last_used_at {
                    Some(at) => (cx.fill("usage.last", &[("time", show::time(at))])),
                    None => (cx.t("time.never_used")),
                }
                @if let Some(ip) = key.usage.last_ip {
                    " " (cx.fill("usage.from", &[("address", html! { code { (ip) } })]))
                }
            }
            div class="columns" {
                (chart(cx, "usage.by_hour", &by_hour, 16))
                (chart(cx, "usage.by_day", &by_day, 10))
            }
        }
    }
}

/// Bars, and the same numbers as a table. `digits` is how much of a time names a period.
fn chart(cx: &Context, title: &'static str, bars: &[Bar], digits: usize) -> Markup {
    const HEIGHT: u64 = 80;
    let most = bars.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let sum = bars
        .iter()
        .fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
    // At least a pixel, so that one request can be seen beside a million.
    let height = |count: u64| match u128::from(count) * u128::from(HEIGHT) {
        0 => 0,
        scaled => u64::try_from(scaled / u128::from(most.max(1)))
            .unwrap_or(HEIGHT)
            .max(1),
    };
    let name = |at: SystemTime| time_text(at)[..digits].replace('T', " ");
    let view = format!("0 0 {} {HEIGHT}", bars.len() * 10);
    let described = cx.fill(
        "usage.described",
        &[("count", html! { (sum) }), ("most", html! { (most) })],
    );
    let id = title.replace('.', "-");
    html! {
        figure class="chart" {
            figcaption id=(id) { (cx.t(title)) }
            svg viewBox=(view) preserveAspectRatio="none" role="img" aria-labelledby=(id)
                aria-describedby={ (id) "-text" } {
                @for (number, (start, count)) in bars.iter().enumerate() {
                    @let high = height(*count);
                    rect x=(number * 10 + 1) y=(HEIGHT - high) width="8" height=(high) {
                        title { (name(*start)) ": " (count) }
                    }
                }
            }
            p class="hint" id={ (id) "-text" } { (described) }
            @if sum > 0 {
                details {
                    summary { (cx.t("usage.as_table")) }
                    table class="numbers" {
                        caption class="visually-hidden" { (cx.t(title)) }
                        thead {
                            tr { th scope="col" { (cx.t("usage.period")) }
                                th scope="col" { (cx.t("usage.requests")) } }
                        }
                        tbody {
                            @for (start, count) in bars.iter().rev().filter(|(_, count)| *count > 0) {
                                tr { th scope="row" { (name(*start)) } td { (count) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// How much of the traffic still uses the old key of a rotation, on the pages of both keys.
pub(super) async fn progress(cx: &Context, key: &ManagedKey) -> Result<Markup, Fault> {
    let record = &key.record;
    let other = record.successor.as_ref().or(record.predecessor.as_ref());
    let Some(other) = other else {
        return Ok(html! {});
    };
    // It may have been deleted since.
    let Ok(other) = cx.manager().get(other).await else {
        return Ok(html! {});
    };
    let (old, new) = match record.successor.is_some() {
        true => (key, &other),
        false => (&other, key),
    };
    let now = cx.manager().now();
    if !old.record.counts_as_active(now) {
        let link = show::key_link(&other.record);
        let text = match record.successor.is_some() {
            true => "progress.replaced",
            false => "progress.replaces",
        };
        return Ok(show::notice(
            "info",
            &html! { p { (cx.fill(text, &[("key", link)])) } },
        ));
    }
    let from = now
        .checked_sub(DAY)
        .unwrap_or(now)
        .max(new.record.created_at);
    let sum = |usage: &UsageByHour| {
        let counts = usage.hours.iter().map(|hour| hour.count);
        counts.fold(0_u64, u64::saturating_add)
    };
    let (by_old, by_new) = (
        sum(&read(cx, old, from).await?),
        sum(&read(cx, new, from).await?),
    );
    let all = by_old.saturating_add(by_new);
    Ok(html! {
        section class="card progress" aria-labelledby="progress" {
            h2 id="progress" { (cx.t("progress.title")) }
            p {
                (cx.fill("progress.keys", &[
                    ("old", html! { (show::key_link(&old.record)) " " (show::masked(&old.record)) }),
                    ("new", html! { (show::key_link(&new.record)) " " (show::masked(&new.record)) }),
                ]))
            }
            @if all > 0 {
                progress max=(all) value=(by_new) aria-labelledby="progress-text" {}
            }
            p id="progress-text" {
                (cx.fill("progress.counts", &[
                    ("old", html! { strong { (by_old) } }),
                    ("new", html! { strong { (by_new) } }),
                ]))
            }
            p {
                @match old.record.expires_at {
                    Some(end) => (cx.fill("progress.until", &[("time", show::time(end))])),
                    None => (cx.t("rotate.stays")),
                }
                " "
                @match old.usage.last_used_at {
                    Some(at) => (cx.fill("progress.last", &[("time", show::time(at))])),
                    None => (cx.t("progress.unused")),
                }
            }
            @if by_old == 0 {
                @let revoke = Page::Revoke.of_key(&old.record.id);
                p { a class="button" href=(revoke) { (cx.t("progress.revoke")) } }
            }
        }
    })
}
