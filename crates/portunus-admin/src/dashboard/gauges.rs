//! The limits and the credits of a key as gauges.

use maud::{Markup, html};
use portunus::credit::{Balance, CreditAccount};
use portunus::limit::WindowState;
use portunus::manage::{ManageError, ManagedKey};
use portunus::quota::Quota;

use super::context::Context;
use super::show;
use crate::Fault;

/// The share of a limit, in percent, from which its gauge warns.
const HIGH: u64 = 80;

pub(super) async fn section(cx: &Context, key: &ManagedKey) -> Result<Markup, Fault> {
    let credits = match cx.manager().credits_of_key(&key.record.id).await {
        Ok(None) => None,
        Ok(Some((account, balance))) => Some(credits(cx, &account, &balance)),
        // The rest of the page, such as the link that revokes the key, works without them.
        Err(ManageError::Credits(_)) => Some(html! { p { (cx.t("gauge.no_credits")) } }),
        Err(error) => return Err(error.into()),
    };
    let limits = match cx.manager().limit_states(&key.record.id).await {
        Ok(limits) => states(cx, &limits),
        // The limiter or the directory does not answer.
        Err(ManageError::Refused(_)) => html! {
            @for quota in &key.policies { p { (limit(cx, quota)) } }
            p { (cx.t("gauge.no_limits")) }
        },
        Err(error) => return Err(error.into()),
    };
    let title = match credits.is_some() {
        true => "gauge.title",
        false => "field.limits",
    };
    Ok(html! {
        section class="card gauges" aria-labelledby="gauges" {
            h2 id="gauges" { (cx.t(title)) }
            (limits)
            @if let Some(credits) = credits { (credits) }
        }
    })
}

/// A gauge for each limit whose state is known, and the others as text.
fn states(cx: &Context, limits: &[(Quota, Option<WindowState>)]) -> Markup {
    html! {
        @if limits.is_empty() { p { (cx.t("limits.none")) } }
        @for (number, (quota, state)) in limits.iter().enumerate() {
            @match state {
                Some(state) => (gauge(cx, number, quota, *state)),
                None => p { (limit(cx, quota)) },
            }
        }
    }
}

fn gauge(cx: &Context, number: usize, quota: &Quota, state: WindowState) -> Markup {
    let id = format!("gauge-{number}");
    let limit = quota.limit();
    let left = state.remaining().min(limit);
    let used = limit - left;
    let high = u128::from(limit) * u128::from(HIGH) / 100;
    let text = cx.fill(
        "gauge.limit",
        &[
            ("used", html! { strong { (used) } }),
            ("limit", html! { (limit) }),
            ("left", html! { (left) }),
            ("name", html! { (quota.name()) }),
            ("seconds", html! { (quota.window().as_secs()) }),
        ],
    );
    let more_at = |reset| cx.manager().now().checked_add(reset);
    html! {
        div class="gauge" {
            p id=(id) { (text) }
            meter min="0" max=(limit) high=(high) optimum="0" value=(used) aria-labelledby=(id) {}
            @if let Some(at) = state.reset().and_then(more_at) {
                p class="hint" { (cx.fill("gauge.reset", &[("time", show::second(at))])) }
            }
        }
    }
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
