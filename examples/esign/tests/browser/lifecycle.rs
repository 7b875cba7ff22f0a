//! A key from its creation to its end, as an operator sees it and as the API answers; and two operators
//! who change the same key.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use portunus_test_support::browser::Browser;
use serde_json::Value;
use sha2::Sha256;

use crate::common::{hex, until};
use crate::site::{FRAMEWORKS, Site, act};

const HOUR: Duration = Duration::from_secs(3600);

/// Returns the hash of an event under a key, as its receiver computes it.
fn hash(secret: &str, event: &Value) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    for name in ["event_time", "event_type"] {
        mac.update(event[name].as_str().unwrap().as_bytes());
    }
    hex(mac.finalize().into_bytes())
}

/// Issues, uses, rotates, makes primary and revokes a key. Only copying needs script.
fn lead_a_key_to_its_end(site: &Site, browser: &Browser, runs_script: bool) {
    let first = site.issue("first key");
    site.clock.advance(HOUR);
    browser.open(&site.sign_in("olga"));
    let title = if runs_script { "script" } else { "signed in" };
    assert_eq!(browser.title(), title);
    browser.open(&site.dashboard());

    browser.follow("New key");
    browser.enter("Name", "Production server");
    browser.field("document:read").click();
    browser.press("Create key");
    let secret = browser.css("#secret").text();
    assert!(secret.starts_with("acme_"), "{secret}");
    let copy = browser.css("button[data-copy]");
    assert_eq!(copy.is_displayed(), runs_script);
    if runs_script {
        copy.click();
        until("the button says so", || copy.text() == "Copied");
        assert_eq!(
            browser.css("#copy-result").property("textContent"),
            "Copied"
        );
        assert_eq!(browser.clipboard(), secret);
    }
    assert_eq!(site.status(&secret), 200);

    // The page with the secret, sent again, issues nothing and does not show it.
    browser.reload();
    assert!(!browser.source().contains(&secret));
    assert!(
        browser
            .text()
            .contains("already created when the page was reloaded")
    );
    browser.follow("Keys");
    assert_eq!(browser.count("table.keys tbody tr"), 2);
    let row = browser.css("table.keys tbody tr").text();
    assert!(
        row.contains("Production server") && row.contains("Active"),
        "{row}"
    );
    assert!(!browser.source().contains(&secret));

    browser.follow("Production server");
    act(browser, "rotate");
    browser.choose("The old key works for", "1 hour");
    browser.press("Rotate key");
    let successor = browser.css("#secret").text();
    assert_ne!(successor, secret);
    assert_eq!(
        [&secret, &successor].map(|key| site.status(key)),
        [200, 200]
    );
    browser.follow("See how much traffic still uses it");
    assert!(browser.text().contains("Progress of the rotation"));
    site.clock.advance(HOUR);
    assert_eq!(
        [&secret, &successor].map(|key| site.status(key)),
        [401, 200]
    );
    browser.reload();
    assert!(
        browser.text().contains("This key was replaced by"),
        "{}",
        browser.text()
    );

    let before = site.event(&successor);
    assert_eq!(before["event_hash"], hash(&first, &before));
    // The name of the successor is the same: the notice links to it.
    browser.css(".notice a").leave();
    act(browser, "primary");
    assert!(browser.text().contains("event_hash"), "{}", browser.text());
    browser.press("Make primary");
    assert!(
        browser
            .text()
            .contains("This is now the primary key of its owner.")
    );
    let after = site.event(&successor);
    assert_eq!(after["event_hash"], hash(&successor, &after));

    act(browser, "revoke");
    browser.enter("Confirm", "something else");
    browser.press("Revoke key");
    let wrong = browser.css("#f-confirm-error").text();
    assert_eq!(wrong, "This is neither the end of the key nor its name");
    assert_eq!(site.status(&successor), 200);
    browser.enter("Confirm", &successor[successor.len() - 4..]);
    browser.press("Revoke key");
    assert!(browser.text().contains("The key is revoked"));
    assert_eq!(site.status(&successor), 401);
    assert_eq!(site.status(&first), 200);

    // What can be undone, and the end.
    browser.follow("Keys");
    browser.enter("Search in name, description and key", "first");
    browser.press("Search");
    assert_eq!(browser.count("table.keys tbody tr"), 1);
    browser.follow("first key");
    for (action, button, status) in [
        ("disable", "Disable key", 401),
        ("enable", "Enable key", 200),
    ] {
        act(browser, action);
        browser.press(button);
        assert_eq!(site.status(&first), status, "{action}");
    }
    act(browser, "delete");
    browser.enter("Confirm", "first key");
    browser.press("Delete key");
    assert!(browser.text().contains("The key is deleted."));
    assert_eq!(browser.count("table.keys tbody tr"), 2);
    browser.follow("Check a key");
    browser.enter("Secret", &first);
    browser.press("Check");
    assert!(browser.text().contains("This key is not active."));
    browser.follow("Audit");
    browser.choose("Action", "key.delete");
    browser.press("Search");
    assert_eq!(browser.count("main table tbody tr"), 1);
}

#[test]
fn a_key_is_issued_copied_used_rotated_made_primary_and_revoked() {
    let browser = Browser::start();
    for framework in FRAMEWORKS {
        let site = Site::start(framework, "/keys");
        browser.allow_clipboard(&site.at(""));
        lead_a_key_to_its_end(&site, &browser, true);
    }
}

#[test]
fn everything_except_copying_works_without_script() {
    let browser = Browser::without_script();
    for framework in FRAMEWORKS {
        let site = Site::start(framework, "/keys");
        lead_a_key_to_its_end(&site, &browser, false);
    }
}

#[test]
fn of_two_operators_the_later_one_is_told_that_the_key_has_changed() {
    let (olga, oscar) = (Browser::start(), Browser::start());
    for framework in FRAMEWORKS {
        let site = Site::start(framework, "/keys");
        let secret = site.issue("shared");
        for (browser, name) in [(&olga, "olga"), (&oscar, "oscar")] {
            browser.open(&site.sign_in(name));
            browser.open(&site.dashboard());
            browser.follow("shared");
            act(browser, "edit");
        }
        oscar.enter("Name", "of oscar");
        oscar.press("Save");
        assert!(oscar.text().contains("The changes are saved."));

        olga.enter("Name", "of olga");
        olga.enter("Description", "written by olga");
        olga.press("Save");
        let told = olga.css("[role=alert]").text();
        assert!(
            told.contains("The key has changed since this page was opened"),
            "{told}"
        );
        // What is stored, and what she entered.
        assert!(olga.css("h1").text().contains("of oscar"));
        assert_eq!(olga.field("Name").value(), "of olga");
        assert_eq!(olga.field("Description").value(), "written by olga");
        oscar.reload();
        assert_eq!(oscar.css("h1").text(), "of oscar");
        olga.press("Save");
        assert_eq!(olga.css("h1").text(), "of olga");
        assert!(olga.text().contains("written by olga"));

        // A key that was rotated meanwhile is not revoked by a page that did not know it.
        oscar.reload();
        act(&oscar, "revoke");
        act(&olga, "rotate");
        olga.choose("The old key works for", "24 hours");
        olga.press("Rotate key");
        let successor = olga.css("#secret").text();
        oscar.enter("Confirm", "of olga");
        oscar.press("Revoke key");
        let told = oscar.css("[role=alert]").text();
        assert!(told.contains("The key has changed"), "{told}");
        assert_eq!(
            [&secret, &successor].map(|key| site.status(key)),
            [200, 200]
        );
    }
}
