//! The import of lines: a report for each line, and nothing lost.

use portunus::key::KeyHasher;
use portunus::store::ListQuery;

use crate::browser::{Browser, Page};
use crate::fixture::Fixture;

const IMPORT: &str = "/keys?page=import";

fn hex(number: u8) -> String {
    format!("{number:02x}").repeat(32)
}

async fn send(browser: &Browser, format: &str, lines: &str) -> Page {
    let page = browser.get(IMPORT).await.expect(200);
    let form = page.form().enter("format", format);
    // As browsers send line breaks.
    let lines = lines.replace('\n', "\r\n");
    browser.post(&page, &form.enter("lines", &lines)).await
}

#[tokio::test]
async fn lines_are_imported_and_each_refused_one_has_its_reason() {
    let fixture = Fixture::new();
    let browser = fixture.browser();
    let list = browser.get("/keys").await;
    browser.open(&list, &list.link("Import")).await.expect(200);
    let header = "name,scopes,digest.scheme,digest.hex\n";
    let good = format!("<b>job</b>,document:read,sha256,{}\n", hex(1));
    let wrong = format!("other,<script>,sha256,{}\n", hex(2));
    let short = "too,short\n";
    let lines = format!("{header}{good}{wrong}\n{short}");
    let page = send(&browser, "csv", &lines).await.expect(200);
    assert!(page.text().contains("were created: 1"), "{}", page.body);
    assert!(page.text().contains("were refused: 2"));
    assert!(!page.has("<script>"));
    for (line, reason) in [("3", "scope"), ("5", "2 fields")] {
        let row = page
            .body
            .split(&format!("<th scope=\"row\">{line}</th>"))
            .nth(1);
        let row = row.unwrap().split("</tr>").next().unwrap();
        assert!(
            row.contains(reason) && row.contains("INVALID_BODY"),
            "{row}"
        );
    }
    assert_eq!(page.form().value("lines"), lines, "to be corrected");
    let corrected = lines.replace("<script>", "user:read").replace(short, "");
    let page = send(&browser, "csv", &corrected).await.expect(200);
    let text = page.text();
    assert!(text.contains("were created: 1") && text.contains("already there: 1"));
    assert_eq!(page.form().value("lines"), "");
    let list = browser.get("/keys").await;
    assert!(list.has("&lt;b&gt;job&lt;/b&gt;") && list.has("other"));
}

#[tokio::test]
async fn an_imported_secret_works_and_its_digest_is_imported_once() {
    let fixture = Fixture::new();
    let browser = fixture.browser();
    let secret = "acme_live_0123456789abcdefghijklmnopqrstuv";
    let digest: String = KeyHasher::sha256()
        .digest(secret)
        .to_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let line =
        format!("{{\"name\":\"job\",\"digest\":{{\"scheme\":\"sha256\",\"hex\":\"{digest}\"}}}}");
    let page = send(&browser, "json", &line).await.expect(200);
    assert!(page.text().contains("were created: 1"), "{}", page.body);
    // The same line with another name is another key with the same digest.
    let other = line.replace("job", "thief");
    let page = send(&browser, "json", &other).await.expect(200);
    assert!(page.text().contains("were refused: 1"), "{}", page.body);
    assert!(!page.has(&digest) || page.form().value("lines") == other);
}

#[tokio::test]
async fn what_cannot_be_imported_at_all_is_shown_again() {
    let fixture = Fixture::new();
    let browser = fixture.browser();
    let good = format!("name,digest.scheme,digest.hex\njob,sha256,{}", hex(1));
    for (format, lines, field) in [
        ("csv", "", Some("lines")),
        ("json", " \n\n", Some("lines")),
        ("xml", &good, Some("format")),
        ("csv", "<script>,b\n1,2", None),
        ("csv", "name,name,digest.scheme,digest.hex\n", None),
    ] {
        let page = send(&browser, format, lines).await.expect(422);
        assert_eq!(
            page.error(field.unwrap_or("lines")).is_some(),
            field.is_some()
        );
        assert!(!page.has("<script>"));
        assert_eq!(page.form().value("lines"), lines);
    }
    fixture.store.fail_all();
    let page = send(&browser, "csv", &good).await.expect(503);
    fixture.store.recover();
    assert_eq!(page.form().value("lines"), good);
    let page = browser.post(&page, &page.form()).await.expect(200);
    assert!(page.text().contains("were created: 1"));
    let page = send(&browser, "csv", &good.repeat(16_000)).await;
    page.expect(413);
    let form = browser.get(IMPORT).await.form().enter("lines", &good);
    let page = browser.get(IMPORT).await;
    browser
        .post(&page, &form.enter("token", "x"))
        .await
        .expect(403);
}

#[tokio::test]
async fn an_operator_imports_only_what_it_may_issue() {
    let fixture = Fixture::new();
    let line = |number: u8, owner: &str, scopes: &str| {
        let hex = hex(number);
        format!("job,{owner},{scopes},sha256,{hex}\n")
    };
    let header = "name,owner.user_id,scopes,digest.scheme,digest.hex\n".to_owned();
    let lines = header.clone() + &line(1, "bob", "") + &line(2, "ann", "document:write");
    let portal = fixture.portal();
    let page = send(&portal, "csv", &lines).await.expect(200);
    assert!(page.text().contains("were created: 0"), "{}", page.body);
    assert_eq!(page.body.matches("<code>FORBIDDEN</code>").count(), 2);
    let page = send(&portal, "csv", &(header + &line(3, "ann", "document:read"))).await;
    assert!(page.text().contains("were created: 1"), "{}", page.body);
    let member = fixture.browser().signed_in("member-1");
    member.get(IMPORT).await.expect(403);
    let page = portal.get(IMPORT).await;
    let form = page.form().enter("lines", &lines);
    member.post(&page, &form).await.expect(403);
    let query = ListQuery::new(portunus::Clock::now(&fixture.clock));
    let keys = fixture.keys.manager().list(query).await.unwrap();
    assert_eq!(keys.items.len(), 1);
}
