//! The limits and the credits of a key as gauges.
//!
//! A limiter says how much of a quota is used only when it counts a request. The gauges of limits are
//! therefore estimates from the usage counts, of limits that count this key and last for an hour or
//! longer.

use std::time::{Duration, SystemTime};

use maud::{Markup, html};
use portunus::credit::{Balance, CreditAccount};
use portunus::manage::{ManageError, ManagedKey};
use portunus::quota::Quota;
use portunus::store::{HourOfUse, UsageByHour};

use super::context::Context;
use super::show;
use crate::Fault;

const HOUR: Duration = Duration::from_secs(3600);

/// The longest window whose use is known: as long as the usage on the page.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// The share of a limit, in percent, from which its gauge warns.
const HIGH: u64 = 80;

pub(super) async fn section(
    cx: &Context,
    key: &ManagedKey,
    uses: &UsageByHour,
) -> Result<Markup, Fault> {
    let credits = match cx.manager().credits_of_key(&key.record.id).await {
        Ok(None) => None,
        Ok(Some((account, balance))) => Some(credits(cx, &account, &balance)),
        // The rest of the page, such as the link that revokes the key, works without them.
        Err(ManageError::Credits(_)) => Some(html! { p { (cx.t("gauge.no_credits")) } }),
        Err(error) => return Err(error.into()),
    };
    let title = match credits.is_some() {
        true => "gauge.title",
        false => "field.limits",
    };
    let now = cx.manager().now();
    let has_estimate = key.policies.iter().any(|quota| is_estimated(key, quota));
    Ok(html! {
        section class="card gauges" aria-labelledby="gauges" {
            h2 id="gauges" { (cx.t(title)) }
            @if key.policies.is_empty() { p { (cx.t("limits.none")) } }
            @for (number, quota) in key.policies.iter().enumerate() {
                @if is_estimated(key, quota) {
                    (estimate(cx, number, quota, used(uses, quota, now)))
                } @else {
                    p { (limit(cx, quota)) }
                }
            }
            @if has_estimate { p class="hint" { (cx.t("gauge.hint")) } }
            @if let Some(credits) = credits { (credits) }
        }
    })
}

/// The limits of a key, without their use.
pub(super) fn limits(cx: &Context, key: &ManagedKey) -> Markup {
    html! {
        section class="card" aria-labelledby="limits" {
            h2 id="limits" { (cx.t("field.limits")) }
            @if key.policies.is_empty() { p { (cx.t("limits.none")) } }
            @else { ul class="plain" { @for quota in &key.policies { li { (limit(cx, quota)) } } } }
        }
    }
}

fn limit(cx: &Context, quota: &Quota) -> Markup {
    cx.fill(
        "limits.one",
        &[
            ("limit", html! { (quota.limit()) }),
            ("name", html! { (quota.name()) }),
            ("seconds", html! { (quota.window().as_secs()) }),
        ],
    )
}

/// Returns whether the usage counts tell how much of a quota is used: it counts the key, all of its
/// requests, and hours.
fn is_estimated(key: &ManagedKey, quota: &Quota) -> bool {
    let own = key.quotas.as_ref().map_or(&[][..], |own| own.as_slice());
    own.contains(quota) && (HOUR..=LONGEST).contains(&quota.window())
}

/// Returns about how many requests were counted in the window that ends now. Of the hour in which it
/// began, as large a part as belongs to it.
fn used(uses: &UsageByHour, quota: &Quota, now: SystemTime) -> u64 {
    let begin = now.checked_sub(quota.window());
    let begin = begin.unwrap_or(SystemTime::UNIX_EPOCH);
    let part = |hour: &HourOfUse| {
        let before = begin.duration_since(hour.start).unwrap_or_default();
        let within = HOUR.saturating_sub(before).as_millis();
        let counted = u128::from(hour.count) * within / HOUR.as_millis();
        u64::try_from(counted).unwrap_or(u64::MAX)
    };
    uses.hours.iter().map(part).fold(0, u64::saturating_add)
}

fn estimate(cx: &Context, number: usize, quota: &Quota, used: u64) -> Markup {
    let id = format!("gauge-{number}");
    let limit = quota.limit();
    let high = u128::from(limit) * u128::from(HIGH) / 100;
    let text = cx.fill(
        "gauge.estimate",
        &[
            ("used", html! { strong { (used) } }),
            ("limit", html! { (limit) }),
            ("name", html! { (quota.name()) }),
            ("seconds", html! { (quota.window().as_secs()) }),
        ],
    );
    html! {
        div class="gauge" {
            p id=(id) { (text) }
            meter min="0" max=(limit) high=(high) optimum="0" value=(used.min(limit))
                aria-labelledby=(id) {}
        }
    }
}

/// What is left of the credits, of all grants that may still be spent.
fn credits(cx: &Context, account: &CreditAccount, balance: &Balance) -> Markup {
    let granted = balance.grants.iter().map(|grant| grant.units);
    let granted = granted.fold(0, u64::saturating_add);
    // More is left than a period grants if what was left of earlier ones is kept.
    let total = granted.max(balance.available);
    let whose = match account {
        CreditAccount::Key(_) => "gauge.credits_of_key",
        CreditAccount::User(..) => "gauge.credits_of_user",
        _ => "gauge.credits_of_tenant",
    };
    let text = cx.fill(
        "gauge.credits",
        &[
            ("left", html! { strong { (balance.available) } }),
            ("total", html! { (total) }),
        ],
    );
    let refills = balance.grants.iter().filter_map(|grant| grant.refills_at);
    html! {
        div class="gauge" {
            p id="gauge-credits" { (text) " " (cx.t(whose)) }
            meter min="0" max=(total.max(1)) low=(total / 5) optimum=(total.max(1))
                value=(balance.available) aria-labelledby="gauge-credits" {}
            @if let Some(at) = refills.min() {
                p class="hint" { (cx.fill("gauge.refilled", &[("time", show::time(at))])) }
            }
        }
    }
}
