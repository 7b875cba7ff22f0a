//! The dashboard works wherever it is mounted.

use portunus_test_support::browser::Browser;
use serde_json::{Value, json};

use crate::site::{FRAMEWORKS, Site, act, proxy};

/// The path and the status of each file that the page loaded, and whether the stylesheet is in effect.
const LOADED: &str = "
    const files = performance.getEntriesByType('resource');
    return {
        files: files.map(file => [new URL(file.name).pathname, file.responseStatus]),
        display: getComputedStyle(document.querySelector('main')).display,
    };";

/// Uses links, a form with a redirection, and a form with a page as its answer.
fn use_the_pages(browser: &Browser, start: &str) {
    browser.open(start);
    let path = browser.run("return location.pathname", &json!([]));
    let loaded = browser.run(LOADED, &json!([]));
    assert_eq!(loaded["display"], "grid", "{start}: {loaded}");
    let files = loaded["files"].as_array().unwrap();
    let from_the_mount = |file: &Value| *file == json!([path, 200]);
    assert!(
        files.len() > 1 && files.iter().all(from_the_mount),
        "{start}: {loaded}"
    );
    browser.follow("New key");
    browser.enter("Name", "of this test");
    browser.press("Create key");
    // The script shows the button.
    assert!(browser.button("Copy").is_displayed(), "{start}");
    browser.follow("I have stored it");
    act(browser, "edit");
    browser.enter("Description", start);
    browser.press("Save");
    assert!(browser.text().contains("The changes are saved."), "{start}");
    assert_eq!(browser.css(".lead").text(), start);
    let here = browser.run("return location.pathname", &json!([]));
    assert_eq!(here, path, "the pages have one path");
}

/// A path, what a proxy removes from the start of each path, and the addresses that people open.
const MOUNTS: [(&str, &str, &[&str]); 5] = [
    ("/", "", &["/"]),
    ("/keys", "", &["/keys", "/keys/"]),
    ("/a/b", "", &["/a/b", "/a/b/"]),
    ("/", "/tools", &["/tools", "/tools/"]),
    ("/keys", "/tools", &["/tools/keys", "/tools/keys/"]),
];

#[test]
fn the_pages_work_wherever_they_are_mounted_and_behind_a_proxy_that_strips_a_prefix() {
    let browser = Browser::start();
    for framework in FRAMEWORKS {
        for (mount, prefix, starts) in MOUNTS {
            let site = Site::start(framework, mount);
            browser.open(&site.sign_in("olga"));
            let address = match prefix {
                "" => site.address,
                prefix => proxy(site.address, prefix),
            };
            for start in starts {
                use_the_pages(&browser, &format!("http://{address}{start}"));
            }
        }
    }
}
