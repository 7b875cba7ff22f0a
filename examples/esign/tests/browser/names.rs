//! Names that attack a page: nothing in them runs, breaks the layout or changes the direction of what
//! is around them.

use portunus_test_support::browser::Browser;
use serde_json::{Value, json};

use crate::site::{Framework, Site};

const MARKUP: &str = "</title></textarea><script>window.attacked = 1</script>\
    <img src=x onerror='window.attacked = 1'>\" autofocus onfocus='window.attacked = 1' x=\"";

/// The pages that show the name of a key.
const PAGES: [&str; 9] = [
    "keys", "key", "edit", "rotate", "primary", "disable", "revoke", "delete", "events",
];

/// What a name could have changed, and how the first element that contains it is laid out.
const STATE: &str = "
    const shown = [...document.querySelectorAll('main bdi')].find(e => e.textContent.includes(arguments[0]));
    return {
        attacked: window.attacked ?? null,
        scripts: document.scripts.length,
        images: document.images.length,
        page: getComputedStyle(document.querySelector('main')).direction,
        name: shown ? getComputedStyle(shown).direction : null,
        width: document.scrollingElement.scrollWidth - innerWidth,
    };";

fn open(browser: &Browser, site: &Site, page: &str, id: &str) {
    browser.open(&format!("{}?page={page}&id={id}", site.dashboard()));
}

/// Opens every page of a key at two widths; `part` is a part of its name.
fn assert_harmless(browser: &Browser, site: &Site, id: &str, part: &str, direction: &str) {
    for page in PAGES {
        open(browser, site, page, id);
        for width in [360, 1440] {
            browser.width(width);
            let state = browser.run(STATE, &json!([part]));
            let context = format!("{page} of {id} at {width}: {state}");
            assert_eq!(state["attacked"], Value::Null, "{context}");
            assert_eq!(
                (&state["scripts"], &state["images"]),
                (&json!(1), &json!(0)),
                "{context}"
            );
            assert_eq!(state["page"], "ltr", "{context}");
            assert!(state["width"].as_i64().unwrap() <= 0, "{context}");
            if page != "events" {
                assert_eq!(state["name"], direction, "{context}");
            }
        }
    }
}

#[test]
fn names_do_not_run_or_break_the_layout_or_turn_the_page_around() {
    let browser = Browser::start();
    let long = "x".repeat(10_000);
    let names = [
        (MARKUP, "onerror=", "ltr"),
        (&long, "xxxxxxxx", "ltr"),
        ("מפתח של שרת", "מפתח", "rtl"),
        ("مفتاح الخادم", "مفتاح", "rtl"),
        // Marks that would reverse or hide what follows them.
        ("safe\u{202e}eman\u{2066}", "safe", "ltr"),
        (
            "\u{200f}safe\u{200b}\u{feff}\u{7}\u{e0041}name\nline",
            "safe",
            "ltr",
        ),
    ];
    let site = Site::start(Framework::Axum, "/keys");
    let ids: Vec<_> = (0_u8..)
        .zip(names)
        .map(|(number, (name, ..))| site.keep(number, name))
        .collect();
    browser.open(&site.sign_in("olga"));
    for (id, (_, part, direction)) in ids.iter().zip(names) {
        assert_harmless(&browser, &site, id, part, direction);
    }
    // The marks are written out, and none is in the page.
    open(&browser, &site, "key", &ids[4]);
    let title = browser.css("h1").text();
    assert!(
        title.contains("U+202E") && title.contains("U+2066"),
        "{title}"
    );
    assert!(!browser.source().contains(['\u{202e}', '\u{2066}']));
    // A form keeps the name as it is.
    open(&browser, &site, "edit", &ids[0]);
    assert_eq!(browser.field("Name").value(), MARKUP);
}
