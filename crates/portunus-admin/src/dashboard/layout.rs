//! The document around each page, its header fields, and the pages of refusals.

use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};
use zeroize::Zeroizing;

use super::context::{Context, Frame, Outcome, View};
use super::page::Page;
use super::{Fragment, assets, secret};
use crate::Fault;
use crate::wiped::Wiped;

/// Returns the response of a page.
pub(super) fn response(cx: &Context, outcome: Outcome) -> Response {
    match outcome {
        Outcome::Page(view) => page(&cx.frame, Some(cx), view),
        Outcome::SeeOther(reference) => see_other(&cx.frame, &reference),
    }
}

/// Returns the response to a request without an operator.
pub(super) fn signed_out(frame: &Frame, fault: Fault, is_read: bool) -> Response {
    let login = frame.site.look.login.as_deref();
    match login.filter(|_| is_read && fault.error().status() == 401) {
        // The event of the failed proof is recorded nevertheless.
        Some(login) => {
            let mut response = see_other(frame, login);
            response.extensions_mut().insert(fault.error().clone());
            response
        }
        None => refusal(frame, None, fault),
    }
}

/// Returns the page of a refusal, with its stable code.
pub(super) fn refusal(frame: &Frame, cx: Option<&Context>, fault: Fault) -> Response {
    let error = fault.error();
    let title = match error.status() {
        401 => "refused.signed_out",
        403 => "refused.forbidden",
        404 => "refused.not_found",
        429 => "refused.too_many",
        500.. => "refused.unavailable",
        _ => "refused.invalid",
    };
    let login = frame.site.look.login.as_deref();
    let body = html! {
        h1 { (frame.t(title)) }
        (reason(frame, &fault))
        @match (cx, login) {
            (None, Some(login)) => p { a class="button" href=(login) { (frame.t("refused.sign_in")) } },
            (Some(_), _) => p { a class="button" href=(Page::Keys.link()) { (frame.t("refused.back")) } },
            (None, None) => {},
        }
    };
    let mut view = View::new(frame.t(title), body);
    view.refused = Some(fault);
    page(frame, cx, view)
}

/// The detail and the stable code of a refusal.
pub(super) fn reason(frame: &Frame, fault: &Fault) -> Markup {
    let error = fault.error();
    html! {
        div class="notice bad" role="alert" {
            @if !error.detail().is_empty() { p { (error.detail()) } }
            p class="code" { (frame.t("refused.code")) " " code { (error.code().as_str()) } }
        }
    }
}

fn page(frame: &Frame, cx: Option<&Context>, view: View) -> Response {
    let document = document(frame, cx, &view);
    let bytes = match view.secret {
        Some(secret) => with_secret(&document, &secret),
        None => Body::from(document),
    };
    // The status and the fields that belong to it, such as `Retry-After`.
    let mut response = match view.refused {
        Some(fault) => fault.into_response(),
        None => StatusCode::OK.into_response(),
    };
    response.headers_mut().remove(CONTENT_LENGTH);
    *response.body_mut() = bytes;
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, html);
    protect(frame, response.headers_mut());
    response
}

/// Puts the secret in its place, without leaving copies of it in memory.
fn with_secret(document: &str, secret: &str) -> Body {
    let secret = Zeroizing::new(html! { (secret) }.into_string());
    let mut bytes = Wiped::with_capacity(document.len() + secret.len());
    // Escaped text never contains the place.
    let (before, after) = document.split_once(secret::PLACE).unwrap_or((document, ""));
    for part in [before, &secret, after] {
        bytes.push(part.as_bytes());
    }
    Body::from(bytes.into_bytes())
}

fn see_other(frame: &Frame, reference: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    // Only the host's own address can be invalid.
    let location = HeaderValue::from_str(reference);
    let location = location.unwrap_or_else(|_| HeaderValue::from_static("?page=keys"));
    response.headers_mut().insert(LOCATION, location);
    protect(frame, response.headers_mut());
    response
}

/// Adds the fields that protect a page. No source is allowed except what carries the response's nonce.
fn protect(frame: &Frame, headers: &mut HeaderMap) {
    let nonce = &frame.nonce;
    let frames = &frame.site.look.frames;
    let ancestors = match frames.is_empty() {
        true => "'none'".to_owned(),
        false => frames.iter().map(|site| format!("{site} ")).collect(),
    };
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors {}",
        ancestors.trim_end()
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    if frames.is_empty() {
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    }
    let fixed: [(HeaderName, &'static str); 5] = [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // With `no-referrer`, browsers send `Origin: null` with forms, which is refused.
        (REFERRER_POLICY, "same-origin"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// The document, or the host's around a fragment.
fn document(frame: &Frame, cx: Option<&Context>, view: &View) -> String {
    let Some(of_host) = &frame.site.look.document else {
        return whole(frame, cx, view).into_string();
    };
    let title = html! { (view.title) }.into_string();
    let html = fragment(frame, cx, view).into_string();
    let status = view.refused.as_ref().map(|fault| fault.error().status());
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    of_host(&Fragment {
        title: &title,
        html: &html,
        nonce: &frame.nonce,
        status: status.unwrap_or(StatusCode::OK),
        request: &frame.request,
    })
}

fn fragment(frame: &Frame, cx: Option<&Context>, view: &View) -> Markup {
    html! {
        div class="portunus fragment" lang=(frame.t("lang")) dir=(frame.t("dir")) {
            (files(frame))
            @if let Some(cx) = cx { div class="top" { (navigation(cx)) } }
            div class="content" { (view.body) }
        }
    }
}

fn files(frame: &Frame) -> Markup {
    let nonce = &*frame.nonce;
    html! {
        link rel="stylesheet" href=(assets::STYLE.link()) nonce=(nonce);
        script src=(assets::SCRIPT.link()) nonce=(nonce) defer {}
    }
}

fn whole(frame: &Frame, cx: Option<&Context>, view: &View) -> Markup {
    html! {
        (DOCTYPE)
        html lang=(frame.t("lang")) dir=(frame.t("dir")) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (view.title) " · " (frame.t("app.name")) }
                link rel="icon" href=(assets::ICON.link()) type="image/svg+xml";
                (files(frame))
            }
            body class="portunus" {
                a class="skip" href="#main" { (frame.t("nav.skip")) }
                header class="top" {
                    (brand(frame, cx))
                    @if let Some(cx) = cx { (navigation(cx)) (who(cx)) }
                }
                main class="content" id="main" tabindex="-1" { (view.body) }
            }
        }
    }
}

fn brand(frame: &Frame, cx: Option<&Context>) -> Markup {
    let name = frame.t("app.name");
    html! {
        @if cx.is_some() {
            a class="brand" href=(Page::Keys.link()) { (name) }
        } @else {
            span class="brand" { (name) }
        }
    }
}

/// The links to the main pages.
fn navigation(cx: &Context) -> Markup {
    let here = Page::of(&cx.query);
    let has_log = cx.operator.shared.events.is_some();
    let pages = [
        (Page::Keys, "nav.keys"),
        (Page::Issue, "nav.issue"),
        (Page::Explain, "nav.explain"),
        (Page::Events, "nav.events"),
    ];
    let pages = pages
        .into_iter()
        .filter(|(page, _)| has_log || *page != Page::Events);
    html! {
        nav aria-label=(cx.t("nav.label")) {
            ul {
                @for (page, text) in pages {
                    @let current = (here == Some(page)).then_some("page");
                    li { a href=(page.link()) aria-current=[current] { (cx.t(text)) } }
                }
            }
        }
    }
}

/// Who is signed in.
fn who(cx: &Context) -> Markup {
    let operator = cx.operator.operator();
    let who = operator.email.as_deref().unwrap_or(operator.name());
    html! {
        div class="who" {
            span class="visually-hidden" { (cx.t("nav.signed_in_as")) " " }
            bdi class="operator" { (who) }
            @if let Some(logout) = &cx.frame.site.look.logout {
                form method="post" action=(logout) {
                    button class="quiet" { (cx.t("nav.sign_out")) }
                }
            }
        }
    }
}
