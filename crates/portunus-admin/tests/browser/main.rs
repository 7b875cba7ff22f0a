//! A real browser: requests that pages of other sites make Chromium send, with the operator's
//! cookie where the browser adds it, and that none of them changes anything.
//!
//! The hosts serve on `127.0.0.1`, with a cookie as proof. Cookies ignore ports, so a page on
//! another port is same-site: no `SameSite` value prevents its requests from carrying the cookie. A
//! page on `localhost` is cross-site. The hosts' CORS allows everything, so that no request is
//! blocked by a preflight.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod hosts;

use portunus_test_support::browser::Browser;
use serde_json::{Value, json};

use hosts::Host;

/// The attributes of the cookie; how the browser treats each is up to the browser.
const COOKIES: [&str; 4] = [
    "",
    "; SameSite=Lax",
    "; SameSite=Strict",
    "; SameSite=None; Secure",
];

/// Makes every kind of request that a script can make; returns a list of statuses.
const FETCHES: &str = r#"
const [api, key, done] = arguments;
const issue = JSON.stringify({ name: 'written by another site' });
const digest = { scheme: 'sha256', hex: 'ab'.repeat(32) };
const calls = [
    ['POST', '/keys', issue],
    ['POST', '/import', JSON.stringify({ name: 'planted', digest })],
    ['POST', `/keys/${key}/revoke`, undefined],
    ['POST', `/keys/${key}/rotate`, undefined],
    ['POST', `/keys/${key}/primary`, undefined],
    ['PATCH', `/keys/${key}`, issue],
    ['DELETE', `/keys/${key}`, undefined],
];
const types = ['application/json', 'text/plain', 'application/x-www-form-urlencoded', undefined];
(async () => {
    const came = [];
    for (const credentials of ['include', 'same-origin', 'omit'])
    for (const mode of ['cors', 'no-cors'])
    for (const type of types)
    for (const [method, path, body] of calls) {
        if (mode === 'no-cors' && method !== 'POST') continue;
        const headers = type && body ? { 'Content-Type': type } : {};
        try {
            const answer = await fetch(api + path, { method, mode, credentials, headers, body });
            came.push(answer.status);
        } catch (error) {
            came.push(String(error));
        }
    }
    navigator.sendBeacon(api + '/keys', new Blob([issue], { type: 'text/plain' }));
    navigator.sendBeacon(api + `/keys/${key}/revoke`);
    done(came);
})();
"#;

/// Posts a form whose content resembles JSON as closely as a form can, and leaves the page.
const FORM: &str = r#"
const [url, encoding] = arguments;
const form = document.createElement('form');
form.method = 'POST';
form.action = url;
form.enctype = encoding;
const field = document.createElement('input');
field.name = '{"name":"written by a form","description":"';
field.value = '"}';
form.append(field);
document.body.append(form);
form.submit();
"#;

const ENCODINGS: [&str; 3] = [
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "text/plain",
];

/// The requests of a page of the same site, or of a trusted one.
const WRITE: &str = r#"
const [api, type, done] = arguments;
const body = JSON.stringify({ name: 'wanted' });
const headers = { 'Content-Type': type };
fetch(api + '/keys', { method: 'POST', credentials: 'include', headers, body })
    .then(answer => done(answer.status), error => done(String(error)));
"#;

/// Signs the operator in at a host, with a cookie with these attributes.
fn sign_in(browser: &Browser, host: &Host, attributes: &str) {
    let encoded = attributes.replace("; ", "%3B%20");
    browser.open(&format!("{}/sign-in?{encoded}", host.origin("127.0.0.1")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_page_of_another_site_writes_with_the_operators_cookie() {
    let (host, elsewhere) = (Host::start(&[]).await, Host::start(&[]).await);
    let key = host.issue().await;
    let before = host.keys().await;
    let api = format!("{}/admin", host.origin("127.0.0.1"));
    let browser = Browser::start();
    for attributes in COOKIES {
        for name in ["127.0.0.1", "localhost"] {
            let context = format!("{attributes:?} {name}");
            sign_in(&browser, &host, attributes);
            host.forget();
            let page = format!("{}/page", elsewhere.origin(name));
            browser.open(&page);
            let came = browser.call(FETCHES, &json!([api, key]));
            let came = came.as_array().unwrap();
            assert!(came.len() > 100, "{context}: {came:?}");
            // An opaque response has status 0.
            let refused = |status: &Value| *status == 403 || *status == 0;
            assert!(came.iter().all(refused), "{context}: {came:?}");
            // Two more arrived as beacons, which have no response.
            host.until_written(came.len() + 2).await;
            assert_eq!(host.keys().await, before, "{context}");
            for encoding in ENCODINGS {
                for path in [
                    "/keys".to_owned(),
                    "/import".to_owned(),
                    format!("/keys/{key}/revoke"),
                ] {
                    let posts = host.writes().len();
                    browser.open(&page);
                    browser.run(FORM, &json!([format!("{api}{path}"), encoding]));
                    host.until_written(posts + 1).await;
                    assert_eq!(host.keys().await, before, "{context} {encoding} {path}");
                }
            }
            let writes = host.writes();
            assert!(
                writes.iter().all(|write| write.status == 403),
                "{context}: {writes:?}"
            );
            // Otherwise the test would show that the browser is careful, not the host.
            let proven = writes.iter().filter(|write| write.cookie).count();
            if name == "127.0.0.1" && !attributes.contains("Secure") {
                assert!(proven > 50, "{context}: {writes:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_the_own_site_and_of_a_trusted_one_write() {
    let elsewhere = Host::start(&[]).await;
    let trusting = Host::start(&[&elsewhere.origin("127.0.0.1")]).await;
    let api = format!("{}/admin", trusting.origin("127.0.0.1"));
    let browser = Browser::start();
    for attributes in ["", "; SameSite=Lax", "; SameSite=Strict"] {
        sign_in(&browser, &trusting, attributes);
        let own = format!("{}/page", trusting.origin("127.0.0.1"));
        let trusted = format!("{}/page", elsewhere.origin("127.0.0.1"));
        let other = format!("{}/page", elsewhere.origin("localhost"));
        for (page, written) in [(own, true), (trusted, true), (other, false)] {
            browser.open(&page);
            for (media, expected) in [
                ("application/json", if written { 201 } else { 403 }),
                ("text/plain", if written { 415 } else { 403 }),
            ] {
                let before = trusting.keys().await.len();
                let came = browser.call(WRITE, &json!([api, media]));
                assert_eq!(came, expected, "{attributes:?} {page} {media}");
                let after = trusting.keys().await.len();
                assert_eq!(
                    after - before,
                    usize::from(expected == 201),
                    "{page} {media}"
                );
            }
        }
    }
}
