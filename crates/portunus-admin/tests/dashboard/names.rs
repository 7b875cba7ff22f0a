//! Names that attack a page: markup, lengths, directions, marks of records that are older than the rules.

use std::time::SystemTime;

use portunus::key::{Environment, KeyId, KeyKind, KeyRecord, Owner, TenantId};

use crate::fixture::Fixture;

const MARKUP: &str = "</title><script>alert(1)</script>\" onload='x' <img src=x> &amp; {name}";

fn old(id: &str, name: &str) -> KeyRecord {
    let owner = Owner::tenant(TenantId::new("ours").unwrap());
    let environment = Environment::new("live").unwrap();
    let id = KeyId::new(id).unwrap();
    let mut record = KeyRecord::new(
        id,
        name,
        KeyKind::App,
        environment,
        owner,
        SystemTime::UNIX_EPOCH,
    );
    record.description = Some(name.to_owned());
    record.masked = "acme_…<b>!".into();
    record
}

/// The pages that show a name.
const PAGES: [&str; 8] = [
    "key", "edit", "rotate", "primary", "disable", "enable", "revoke", "delete",
];

#[tokio::test]
async fn markup_in_names_is_text() {
    let fixture = Fixture::new();
    fixture.keep(1, old("key_markup", MARKUP)).await;
    let browser = fixture.browser();
    let list = browser.get("/keys").await.expect(200);
    let mut pages = vec![list];
    for page in PAGES {
        pages.push(browser.action(page, "key_markup").await.expect(200));
    }
    pages.push(
        browser
            .get("/keys?query=%3Cscript%3Ealert(1)%3C/script%3E%22%20x=%22")
            .await,
    );
    for page in pages {
        assert!(
            !page.has("<script>") && !page.has("<img") && !page.has("<b>"),
            "{}",
            page.body
        );
        assert!(page.text().contains("alert(1)") || page.address.contains("query"));
        assert_eq!(
            page.body.matches("<script").count(),
            1,
            "the dashboard's own"
        );
        assert!(
            !page.has("style=\"") && !page.has("<style"),
            "no inline style"
        );
    }
    let kept = browser.action("edit", "key_markup").await.form();
    assert_eq!(kept.value("name"), MARKUP);
}

#[tokio::test]
async fn long_and_foreign_names_are_isolated_and_shown() {
    let fixture = Fixture::new();
    let long = "x".repeat(10_000);
    fixture.keep(1, old("key_long", &long)).await;
    fixture.keep(2, old("key_hebrew", "מפתח של שרת")).await;
    fixture.keep(3, old("key_arabic", "مفتاح الخادم")).await;
    let browser = fixture.browser();
    let list = browser.get("/keys").await.expect(200);
    assert!(
        list.body.len() < 30_000,
        "the list shortens names: {}",
        list.body.len()
    );
    assert!(
        browser.key("key_long").await.expect(200).has(&long),
        "the page of the key does not"
    );
    for (id, name) in [
        ("key_hebrew", "מפתח של שרת"),
        ("key_arabic", "مفتاح الخادم"),
    ] {
        let isolated = format!("<bdi dir=\"auto\">{name}</bdi>");
        assert!(
            list.has(&isolated) && browser.key(id).await.has(&isolated),
            "{id}"
        );
    }
}

#[tokio::test]
async fn marks_that_change_or_hide_a_name_are_written_out() {
    let fixture = Fixture::new();
    let marks = [
        "\u{202e}",
        "\u{2066}",
        "\u{200b}",
        "\u{feff}",
        "\u{7}",
        "\n",
        "\u{e0041}",
    ];
    for (number, mark) in (0_u8..).zip(marks) {
        let id = format!("key_{number}");
        fixture
            .keep(number, old(&id, &format!("safe{mark}name")))
            .await;
    }
    let browser = fixture.browser();
    let list = browser.get("/keys").await.expect(200);
    for (number, mark) in (0_u8..).zip(marks) {
        let written = format!("U+{:04X}", u32::from(mark.chars().next().unwrap()));
        assert!(list.has(&written), "{written}");
        let page = browser.key(&format!("key_{number}")).await.expect(200);
        let (before, _) = page.body.split_once("<p class=\"lead\">").unwrap();
        assert!(before.contains(&written), "{written}");
        assert!(
            mark == "\n" || !before.contains(mark),
            "{written} is not in the page itself"
        );
    }
    let texts = list.body.split("<tbody").nth(1).unwrap();
    assert!(!texts.contains(&marks[..5].concat()[..3]));
}
