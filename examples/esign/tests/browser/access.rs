//! The pages for people who use a keyboard or a screen reader: the accessibility tree that Chromium
//! builds of each page, and the order in which Tab reaches its controls.

use std::collections::HashSet;
use std::time::Duration;

use portunus_test_support::browser::Browser;
use portunus_test_support::wait::eventually_within;
use serde_json::{Value, json};

use crate::common::until;
use crate::pages::{Demo, PAGES};
use crate::site::{Framework, Site};

const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

/// The roles that are of no use without a name.
const NAMED: [&str; 20] = [
    "RootWebArea",
    "link",
    "button",
    "textbox",
    "searchbox",
    "combobox",
    "checkbox",
    "spinbutton",
    "DisclosureTriangle",
    "progressbar",
    "meter",
    "img",
    "image",
    "heading",
    "navigation",
    "search",
    "region",
    "table",
    "columnheader",
    "rowheader",
];

/// A node of the accessibility tree: its role and its name.
type Node = (String, String);

fn tree(browser: &Browser) -> Vec<Node> {
    let tree = browser.protocol("Accessibility.getFullAXTree", &json!({}));
    let nodes = tree["nodes"].as_array().unwrap().iter();
    let text = |value: &Value| {
        value["value"]
            .as_str()
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let nodes = nodes.filter(|node| node["ignored"] == false);
    nodes
        .map(|node| (text(&node["role"]), text(&node["name"])))
        .collect()
}

fn assert_readable(browser: &Browser, page: &str) {
    let nodes = tree(browser);
    let names = |wanted: &str| -> Vec<&str> {
        let found = nodes.iter().filter(|(role, _)| role == wanted);
        found.map(|(_, name)| name.as_str()).collect()
    };
    for (role, name) in &nodes {
        assert!(
            !NAMED.contains(&&**role) || !name.is_empty(),
            "{page}: a {role} without a name"
        );
    }
    assert_eq!(names("main").len(), 1, "{page}");
    let navigation = names("navigation");
    let different: HashSet<_> = navigation.iter().collect();
    assert_eq!(different.len(), navigation.len(), "{page}: {navigation:?}");
    let is_login = page.starts_with("login");
    assert_eq!(names("banner").len(), usize::from(!is_login), "{page}");
    // Tables stay tables where the stylesheet shows rows as cards.
    let headers = names("columnheader").len();
    assert!(
        names("table").is_empty() || headers > 1,
        "{page}: {headers}"
    );
    let facts = browser.run(
        "
        const all = selector => [...document.querySelectorAll(selector)];
        const ids = all('[id]').map(element => element.id);
        const references = all('[aria-describedby], [aria-labelledby]').flatMap(element =>
            ['aria-describedby', 'aria-labelledby'].flatMap(name =>
                (element.getAttribute(name) ?? '').split(' ').filter(id => id)));
        const isExplained = field => (field.getAttribute('aria-describedby') ?? '').split(' ')
            .some(id => document.getElementById(id)?.matches('.error'));
        return {
            language: document.documentElement.lang,
            titled: document.title.startsWith(document.querySelector('h1').textContent),
            repeated: ids.filter((id, at) => ids.indexOf(id) !== at),
            dangling: references.filter(id => !document.getElementById(id)),
            levels: all('h1, h2, h3').map(heading => Number(heading.localName[1])),
            unexplained: all('[aria-invalid]').filter(field => !isExplained(field)).length,
        };",
        &json!([]),
    );
    assert_eq!(facts["language"], "en", "{page}");
    assert_eq!(
        facts["titled"], true,
        "{page}: the title says what the page is"
    );
    for none in ["repeated", "dangling"] {
        assert_eq!(facts[none], json!([]), "{page}: {none}");
    }
    assert_eq!(
        facts["unexplained"], 0,
        "{page}: a wrong field without its error"
    );
    let levels = facts["levels"].as_array().unwrap();
    assert_eq!(
        levels.iter().filter(|level| **level == 1).count(),
        1,
        "{page}: {facts}"
    );
    assert_eq!(levels[0], 1, "{page}: {facts}");
}

/// Remembers which elements get the focus, and how it is shown.
const WATCH: &str = "
    window.reached = [];
    addEventListener('focusin', ({ target }) => {
        const { outlineStyle, outlineWidth } = getComputedStyle(target);
        const { width, height, top, bottom } = target.getBoundingClientRect();
        const seen = outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2
            && width > 0 && height > 0 && bottom > 0 && top < innerHeight;
        reached.push({ target, seen });
    });
    window.controls = [...document.querySelectorAll(
        'a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex=\"0\"]')]
        .filter(control => control.checkVisibility() && !control.disabled);
    const alert = document.activeElement.matches('[role=alert]');
    if (alert) controls[0].focus();
    reached.length = 0;
    // Each part of a date is reached separately, up to six of them and a button.
    const parts = 7 * controls.filter(control => /^date/.test(control.type)).length;
    return { count: controls.length + parts, alert };";

/// Returns the controls that Tab did not reach in the order of the page, or does not show.
const MISSED: &str = "
    const begin = arguments[0] ? 1 : 0;
    const described = control => control.outerHTML.slice(0, 120);
    return controls.slice(begin).flatMap((control, at) => {
        const { target, seen } = reached[at] ?? {};
        return target === control && seen ? [] : [described(control)];
    });";

fn assert_reachable(browser: &Browser, page: &str) {
    let watched = browser.run(WATCH, &json!([]));
    let (count, alert) = (watched["count"].as_u64().unwrap(), watched["alert"] == true);
    // A form with errors is read from its summary on.
    let is_wrong = browser.count("form[method=post] [aria-invalid]") > 0;
    assert!(alert || !is_wrong, "{page}: the summary has the focus");
    browser.keys(TAB, usize::try_from(count).unwrap() - usize::from(alert));
    // What has the focus is told a moment later.
    let missed = || browser.run(MISSED, &json!([alert]));
    eventually_within(Duration::from_secs(5), || {
        (missed() == json!([])).then_some(())
    });
    assert_eq!(missed(), json!([]), "{page}");
}

#[test]
fn every_page_is_usable_with_a_keyboard_and_a_screen_reader() {
    let demo = Demo::new("actix");
    for page in PAGES {
        demo.open(page);
        for width in [360, 1440] {
            demo.browser.width(width);
            assert_readable(&demo.browser, page.0);
        }
        assert_reachable(&demo.browser, page.0);
    }
}

#[test]
fn so_are_the_pages_that_the_demo_lacks() {
    let (site, browser) = (Site::start(Framework::Actix, "/keys"), Browser::start());
    site.issue("first");
    site.walk(&browser, |name| {
        for width in [360, 1440] {
            browser.width(width);
            assert_readable(&browser, name);
        }
        assert_reachable(&browser, name);
    });
}

#[test]
fn a_key_is_issued_with_the_keyboard_alone() {
    let demo = Demo::new("axum");
    let browser = &demo.browser;
    demo.open(PAGES.iter().find(|page| page.0 == "issue").unwrap());
    browser.keys(TAB, 1);
    browser.keys(ENTER, 1);
    let focused = |id: &str| browser.run("return document.activeElement.id", &json!([])) == id;
    until("the first link skips the navigation", || focused("main"));
    browser.keys(TAB, 1);
    until("the first field has the focus", || focused("f-name"));
    for letter in ["k", "e", "y"] {
        browser.keys(letter, 1);
    }
    browser.keys(ENTER, 1);
    until("the secret is shown", || browser.count("#secret") == 1);
    let name = browser.css("#secret-label").text();
    assert_eq!(name, "Secret of key");
}
