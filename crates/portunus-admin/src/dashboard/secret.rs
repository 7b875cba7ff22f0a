//! The page that shows a secret, once.

use maud::{Markup, PreEscaped, html};
use portunus::key::{KeyRecord, PlaintextKey};

use super::context::{Context, View};
use super::page::Page;
use super::show;

/// The place of the secret in the page. Text is escaped, so nothing else can contain it.
pub(super) const PLACE: &str = "<secret-of-the-key>";

/// Returns the page of a new secret. `more` says what else was done.
pub(super) fn show(
    cx: &Context,
    title: &str,
    key: PlaintextKey,
    record: &KeyRecord,
    more: &Markup,
) -> View {
    let last_four: String = {
        let all: Vec<char> = record.masked.chars().collect();
        all[all.len().saturating_sub(4)..].iter().collect()
    };
    let prefix = record.masked.split('…').next().unwrap_or_default();
    let body = html! {
        h1 { (title) }
        div class="notice warn" role="status" {
            p { strong { (cx.t("secret.once")) } }
            p { (cx.t("secret.once_hint")) }
        }
        section class="card secret" aria-labelledby="secret-label" {
            p class="label" id="secret-label" {
                (cx.fill("secret.of", &[("name", show::text(&record.name))]))
            }
            div class="secret-row" {
                code id="secret" { (PreEscaped(PLACE)) }
                button type="button" hidden data-copy="secret" data-copied=(cx.t("secret.copied"))
                    data-failed=(cx.t("secret.copy_failed")) { (cx.t("secret.copy")) }
            }
            p class="visually-hidden" role="status" id="copy-result" {}
            dl class="facts" {
                div { dt { (cx.t("secret.prefix")) } dd { code { (prefix) } } }
                div { dt { (cx.t("secret.last_four")) } dd { code { (last_four) } } }
            }
        }
        (more)
        p { a class="button primary" href=(Page::Key.of_key(&record.id)) { (cx.t("secret.done")) } }
    };
    View::new(title, body).with_secret(key)
}
