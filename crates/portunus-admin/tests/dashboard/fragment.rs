//! The portal inside of a page of the host.

use std::collections::BTreeSet;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use portunus::manage::own_keys;
use portunus_admin::Fragment;

use crate::browser::Browser;
use crate::fixture::Fixture;

const STYLE: &str = include_str!("../../src/dashboard/dashboard.css");

/// What a layer of the host knows about the user.
#[derive(Clone)]
struct Greeting(&'static str);

fn document(page: &Fragment<'_>) -> String {
    let Fragment {
        title, html, nonce, ..
    } = page;
    let greeting = page.request.get::<Greeting>().unwrap().0;
    let status = page.status;
    format!(
        "<!DOCTYPE html><html><head><title>{title} – Acme</title><style nonce=\"{nonce}\">\
         .portunus {{ --portunus-accent: #00695c }}</style></head><body data-status=\"{status}\">\
         <p>{greeting}</p><main>{html}</main></body></html>"
    )
}

fn portal(fixture: &Fixture, document: fn(&Fragment<'_>) -> String) -> Browser {
    let portal = fixture.admin().operators(own_keys()).dashboard();
    let mut browser = fixture.at("/account/keys", portal.within(document));
    let greet = |mut request: Request, next: Next| async move {
        request.extensions_mut().insert(Greeting("Hello, Ann"));
        next.run(request).await
    };
    browser.router = Router::new()
        .fallback_service(browser.router)
        .layer(from_fn(greet));
    browser.signed_in("ann-1")
}

#[tokio::test]
async fn a_user_manages_its_keys_inside_of_the_hosts_page() {
    let fixture = Fixture::new();
    let browser = portal(&fixture, document);
    let list = browser.get("/account/keys").await.expect(200);
    assert!(list.has("<title>Keys – Acme</title>") && list.has("<p>Hello, Ann</p>"));
    let page = browser.open(&list, &list.link("New key")).await.expect(200);
    let form = page
        .form()
        .enter("name", "</title><script>alert(1)</script>");
    let issued = browser.submit(&page, &form).await.expect(200);
    let secret = issued.secret().unwrap();
    assert!(fixture.works(&secret).await);
    assert_eq!(issued.body.matches(&secret).count(), 1);
    let key = browser
        .open(&issued, &issued.link("I have stored it"))
        .await;
    for page in [&list, &page, &issued, &key.expect(200)] {
        let count = |text: &str| page.body.matches(text).count();
        for once in [
            "<html",
            "<head>",
            "<body",
            "– Acme</title>",
            "<main",
            "class=\"portunus ",
        ] {
            assert_eq!(count(once), 1, "{once}: {}", page.body);
        }
        assert!(!page.has("<script>") && !page.has("class=\"brand\""));
        // The host's style and the two files have the nonce that the policy allows.
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        let nonce = policy
            .split("'nonce-")
            .nth(1)
            .unwrap()
            .split('\'')
            .next()
            .unwrap();
        assert_eq!(count(&format!("nonce=\"{nonce}\"")), 3);
        assert!(
            page.headers["content-type"]
                .to_str()
                .unwrap()
                .starts_with("text/html")
        );
    }
}

#[tokio::test]
async fn every_reference_of_a_fragment_consists_of_a_query() {
    let fixture = Fixture::new();
    let browser = portal(&fixture, document);
    let page = browser.get("/account/keys?page=issue").await;
    browser
        .post(&page, &page.form().enter("name", "mine"))
        .await
        .expect(200);
    let (mut seen, mut next) = (BTreeSet::new(), vec!["/account/keys/".to_owned()]);
    while let Some(address) = next.pop() {
        if !seen.insert(address.clone()) {
            continue;
        }
        let page = browser.get(&address).await.expect(200);
        let kinds = [" href=\"", " src=\"", " action=\""].into_iter();
        for part in kinds.flat_map(|kind| page.body.split(kind).skip(1)) {
            let reference = part.split('"').next().unwrap().replace("&amp;", "&");
            assert!(reference.starts_with('?'), "{address}: {reference}");
            next.push(crate::browser::resolve(&address, &reference));
        }
    }
    assert!(seen.len() > 10, "{seen:?}");
}

#[tokio::test]
async fn refusals_are_inside_of_the_hosts_page_and_keep_their_status() {
    let fixture = Fixture::new();
    let mut browser = portal(&fixture, document);
    let unknown = browser.get("/account/keys?page=none").await.expect(404);
    assert!(unknown.has("data-status=\"404 Not Found\"") && unknown.has("Hello, Ann"));
    browser.session = None;
    let refused = browser.get("/account/keys").await.expect(401);
    assert!(refused.has("Hello, Ann") && refused.has("Sign in first") && !refused.has("<nav"));
    assert!(refused.headers.contains_key("www-authenticate"));
}

#[tokio::test]
async fn a_document_that_is_the_fragment_alone_can_be_included() {
    let fixture = Fixture::new();
    let browser = portal(&fixture, |page| page.html.to_owned());
    let page = browser.get("/account/keys").await.expect(200);
    assert!(
        page.body.starts_with("<div class=\"portunus fragment\"") && page.body.ends_with("</div>")
    );
    assert!(!page.has("<html") && !page.has("<title"));
}

#[test]
fn the_stylesheet_concerns_only_what_is_inside_of_its_class() {
    let mut source = STYLE.to_owned();
    while let Some(start) = source.find("/*") {
        let end = source[start..].find("*/").unwrap() + 2;
        source.replace_range(start..start + end, "");
    }
    let mut selectors = 0;
    let rules = source
        .split('{')
        .map(|part| part.rsplit(['}', ';']).next().unwrap().trim());
    for rule in rules.filter(|rule| !rule.is_empty() && !rule.starts_with('@')) {
        for selector in rule.split(",\n").flat_map(|line| line.split(", .")) {
            let selector = selector.trim().trim_start_matches('.');
            let own = ["portunus", ":where(.portunus)", "body.portunus"];
            // Inside of `:not(…)`.
            let is_list = ["warn", "bad", "info)"].contains(&selector);
            assert!(
                is_list || own.iter().any(|own| selector.starts_with(own)),
                "{selector}"
            );
            selectors += 1;
        }
    }
    assert!(selectors > 100, "{selectors}");
}
