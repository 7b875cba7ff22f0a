//! The dashboard works wherever it is mounted.

use portunus_test_support::browser::Browser;
use serde_json::json;

use crate::site::{FRAMEWORKS, Site, proxy};

/// The files that the page loaded, and whether the stylesheet is in effect.
const LOADED: &str = "
    const files = performance.getEntriesByType('resource').map(file => new URL(file.name));
    return {
        paths: files.map(file => file.pathname),
        statuses: performance.getEntriesByType('resource').map(file => file.responseStatus),
        display: getComputedStyle(document.querySelector('main')).display,
        sheets: document.styleSheets.length,
    };";

/// Uses links, a form with a redirection, and a form with a page as its answer.
fn use_the_pages(browser: &Browser, start: &str) {
    browser.open(start);
    let path = browser.run("return location.pathname", &json!([]));
    let loaded = browser.run(LOADED, &json!([]));
    assert_eq!(loaded["display"], "grid", "{start}: {loaded}");
    for (file, status) in loaded["paths"]
        .as_array()
        .unwrap()
        .iter()
        .zip(loaded["statuses"].as_array().unwrap())
    {
        assert_eq!((file, status), (&path, &json!(200)), "{start}: {loaded}");
    }
    browser.follow("shared");
    browser.follow("Rename");
    browser.enter("Description", start);
    browser.press("Save");
    assert!(browser.text().contains("The changes are saved."), "{start}");
    assert!(browser.text().contains(start));
    browser.follow("Keys");
    browser.enter("Search in name, description and key", "shared");
    browser.press("Search");
    assert_eq!(browser.count("table.keys tbody tr"), 1, "{start}");
    browser.follow("New key");
    browser.enter("Name", "another");
    browser.press("Create key");
    // The script shows the button.
    assert!(browser.button("Copy").is_displayed(), "{start}");
    browser.follow("I have stored it");
    assert_eq!(browser.css("h1").text(), "another");
    let here = browser.run("return location.pathname", &json!([]));
    assert_eq!(here, path, "the pages have one path");
}

#[test]
fn pages_work_at_each_mount_with_and_without_a_slash() {
    let browser = Browser::start();
    let mounts: [(&str, &[&str]); 3] = [
        ("/", &["/"]),
        ("/keys", &["/keys", "/keys/"]),
        ("/a/b", &["/a/b", "/a/b/"]),
    ];
    for framework in FRAMEWORKS {
        for (mount, starts) in mounts {
            let site = Site::start(framework, mount);
            site.issue("shared");
            browser.open(&site.sign_in("olga"));
            for start in starts {
                use_the_pages(&browser, &site.at(start));
            }
        }
    }
}

#[test]
fn pages_work_behind_a_proxy_that_strips_a_prefix() {
    let browser = Browser::start();
    let mounts: [(&str, &[&str]); 2] = [
        ("/", &["/tools", "/tools/"]),
        ("/keys", &["/tools/keys", "/tools/keys/"]),
    ];
    for framework in FRAMEWORKS {
        for (mount, starts) in mounts {
            let site = Site::start(framework, mount);
            site.issue("shared");
            browser.open(&site.sign_in("olga"));
            let proxy = proxy(site.address, "/tools");
            for start in starts {
                use_the_pages(&browser, &format!("http://{proxy}{start}"));
            }
        }
    }
}
