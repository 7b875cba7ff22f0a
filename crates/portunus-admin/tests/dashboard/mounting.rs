//! The dashboard works wherever it is mounted: every link, form and file is reached as a browser
//! resolves it.

use std::collections::{BTreeSet, VecDeque};

use crate::browser::{Browser, resolve};
use crate::fixture::Fixture;

/// Opens every reference of every page, and returns the number of pages.
async fn walk(browser: &Browser, start: &str) -> usize {
    let (mut seen, mut next) = (BTreeSet::new(), VecDeque::from([start.to_owned()]));
    while let Some(address) = next.pop_front() {
        if !seen.insert(address.clone()) {
            continue;
        }
        let page = browser.get(&address).await.expect(200);
        let references = [" href=\"", " src=\"", " action=\""];
        for part in references
            .iter()
            .flat_map(|kind| page.body.split(kind).skip(1))
        {
            let reference = part.split('"').next().unwrap().replace("&amp;", "&");
            if !reference.starts_with('#') {
                assert!(reference.starts_with('?'), "{address}: {reference}");
                next.push_back(resolve(&address, &reference));
            }
        }
    }
    seen.len()
}

#[tokio::test]
async fn every_reference_is_reached_wherever_the_dashboard_is_mounted() {
    let fixture = Fixture::new();
    fixture.issue("one").await;
    let (id, _) = fixture.issue("two").await;
    // Where it is mounted, what a proxy strips, and the addresses that a person opens.
    let cases: [(&str, &str, &[&str]); 5] = [
        ("/", "", &["/"]),
        ("/keys", "", &["/keys", "/keys/", "/keys?"]),
        ("/a/b", "", &["/a/b", "/a/b/"]),
        ("/", "/proxied", &["/proxied", "/proxied/"]),
        (
            "/keys",
            "/proxied/deep",
            &["/proxied/deep/keys", "/proxied/deep/keys/"],
        ),
    ];
    for (mount, stripped, starts) in cases {
        for start in starts {
            let mut browser = fixture.at(mount, fixture.admin().dashboard());
            browser.stripped = stripped;
            let pages = walk(&browser, start).await;
            assert!(pages > 20, "{start}: {pages}");
            let page = browser.get(start).await;
            let key = browser.open(&page, &page.link("two")).await.expect(200);
            let edit = browser.open(&key, &key.link("Edit")).await.expect(200);
            let saved = browser.submit(&edit, &edit.form()).await.expect(200);
            assert!(
                saved.address.contains(&format!("id={id}")),
                "{}",
                saved.address
            );
        }
    }
}

#[tokio::test]
async fn paths_below_the_mount_do_not_exist() {
    let fixture = Fixture::new();
    let browser = fixture.browser();
    for path in [
        "/keys/x",
        "/keys/x/",
        "/keys/x?page=issue",
        "/keys?page=nothing",
    ] {
        browser.get(path).await.expect(404);
    }
}

#[tokio::test]
async fn files_are_kept_by_browsers_until_they_change() {
    let fixture = Fixture::new();
    let mut browser = fixture.browser();
    browser.session = None;
    let page = browser.get("/keys").await.expect(401);
    let files: Vec<_> = page.body.split("?file=").skip(1).collect();
    assert_eq!(files.len(), 3);
    for file in files {
        let name = file.split('"').next().unwrap();
        let answer = browser.get(&format!("/keys?file={name}")).await.expect(200);
        let kept = answer.headers["cache-control"].to_str().unwrap();
        assert!(kept.contains("immutable"), "{kept}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert!(
            !answer.has("http://") || name.ends_with("svg"),
            "no other origin"
        );
    }
    for name in [
        "dashboard.css",
        "dashboard-0000000000000000.css",
        "../Cargo.toml",
        "",
    ] {
        let answer = browser.get(&format!("/keys?file={name}")).await;
        assert!([401, 404].contains(&answer.status), "{name}");
    }
}
