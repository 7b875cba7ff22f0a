//! The page that verifies the chain of events: who sees it, what it finds, and how much it does at once.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use portunus::audit::{
    Action, AuditEvent, AuditOutcome, AuditSink, ChainHead, ChainKey, JsonLines,
};
use portunus::key::TenantId;
use portunus::manage::own_keys;
use tempfile::TempDir;

use crate::browser::{Browser, Page};
use crate::fixture::Fixture;

const CHAIN: &str = "/keys?page=chain";

/// A file with a chain.
struct Log {
    _folder: TempDir,
    path: PathBuf,
    sink: JsonLines,
}

impl Log {
    fn new(key: Option<ChainKey>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let sink = JsonLines::open(&path, key).unwrap();
        Self {
            _folder: folder,
            path,
            sink,
        }
    }

    async fn add(&self, count: u64) {
        let known = self.sink.head().lines;
        let event = |number: u64| {
            let id = format!("{:032x}", known + number).parse().unwrap();
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
            let mut event = AuditEvent::new(id, at, Action::KeyIssue, AuditOutcome::Ok);
            event.tenant_id = Some(TenantId::new("theirs").unwrap());
            event
        };
        let events: Vec<_> = (0..count).map(event).collect();
        self.sink.record(&events).await.unwrap();
    }

    /// Changes a line of the file, from 0.
    fn alter(&self, line: usize, change: impl Fn(&str) -> String) {
        let text = fs::read_to_string(&self.path).unwrap();
        let lines = text.lines().enumerate();
        let lines = lines.map(|(number, text)| match number == line {
            true => change(text),
            false => format!("{text}\n"),
        });
        fs::write(&self.path, lines.collect::<String>()).unwrap();
    }

    fn browser(&self, fixture: &Fixture, key: Option<ChainKey>) -> Browser {
        let dashboard = fixture.admin().dashboard().audit_chain(&self.path, key);
        fixture.at("/keys", dashboard).signed_in("host-1")
    }
}

/// Sends a step with the known end.
async fn step(browser: &Browser, step: &str, head: &str) -> Page {
    let page = browser.get(CHAIN).await.expect(200);
    let form = page.form().enter("step", step).enter("head", head);
    browser.submit(&page, &form).await
}

#[tokio::test]
async fn only_operators_without_a_tenant_verify_a_chain() {
    let fixture = Fixture::new();
    let log = Log::new(None);
    log.add(3).await;
    let host = log.browser(&fixture, None);
    let page = host.get("/keys?page=events").await.expect(200);
    let page = host.open(&page, &page.link("Verify the audit log")).await;
    let form = page.expect(200).form();
    for session in ["owner-1", "admin-1", "outsider-1"] {
        let other = host.clone().signed_in(session);
        other.get(CHAIN).await.expect(404);
        let events = other.get("/keys?page=events").await;
        assert!(!events.has("href=\"?page=chain\""), "{session}");
        // The token of a form that this session was given.
        let issue = other.get("/keys?page=issue").await;
        let token = issue.form().value("token").to_owned();
        let mut form = form.clone().enter("token", &token);
        form.action = "?page=chain".to_owned();
        let answer = other.post(&issue, &form).await.expect(404);
        assert!(!answer.has("intact"));
    }
    let portal = fixture.admin().operators(own_keys()).dashboard();
    let portal = fixture.at("/keys", portal.audit_chain(&log.path, None));
    portal.signed_in("ann-1").get(CHAIN).await.expect(404);
    let page = host.get(CHAIN).await.expect(200);
    assert!(
        page.text().contains("Nothing is verified yet"),
        "nobody verified it"
    );
    // Without a chain, there is no such page.
    let without = fixture.browser().signed_in("host-1");
    without.get(CHAIN).await.expect(404);
    assert!(
        !without
            .get("/keys?page=events")
            .await
            .expect(200)
            .has("href=\"?page=chain\"")
    );
}

#[tokio::test]
async fn a_long_chain_is_verified_in_bounded_steps_and_then_only_what_is_new() {
    let fixture = Fixture::new();
    let log = Log::new(None);
    log.add(20_500).await;
    let browser = log.browser(&fixture, None);
    let page = step(&browser, "next", "").await.expect(200);
    assert!(page.text().contains("Nothing is verified yet"));
    let page = step(&browser, "start", "").await.expect(200);
    assert!(
        page.text().contains("The first 10000 lines are intact"),
        "{}",
        page.text()
    );
    assert!(page.has("<progress "));
    let page = step(&browser, "next", "").await.expect(200);
    assert!(page.text().contains("The first 20000 lines are intact"));
    let page = step(&browser, "next", "").await.expect(200);
    assert!(
        page.text().contains("All 20500 lines are intact"),
        "{}",
        page.text()
    );
    assert!(
        page.has(&log.sink.head().to_string()),
        "the end, to be kept elsewhere"
    );
    log.add(2).await;
    let page = browser.submit(&page, &page.form()).await.expect(200);
    assert!(
        page.text().contains("All 20502 lines are intact"),
        "{}",
        page.text()
    );
    // Shorter than what was verified.
    let text = fs::read_to_string(&log.path).unwrap();
    let shorter: String = text.split_inclusive('\n').take(20_000).collect();
    fs::write(&log.path, shorter).unwrap();
    let page = step(&browser, "next", "").await.expect(200);
    assert!(
        page.text().contains("broken at line 20502"),
        "{}",
        page.text()
    );
}

#[tokio::test]
async fn what_breaks_the_chain_is_found_and_shown() {
    let fixture = Fixture::new();
    let key = ChainKey::new(&[7; 32]).unwrap();
    let log = Log::new(Some(key.clone()));
    log.add(5).await;
    let whole = fs::read_to_string(&log.path).unwrap();
    let head = log.sink.head();
    let browser = log.browser(&fixture, Some(key));
    let page = step(&browser, "start", &head.to_string()).await.expect(200);
    assert!(
        page.text().contains("All 5 lines are intact"),
        "{}",
        page.text()
    );
    type Change<'c> = &'c dyn Fn(&str) -> String;
    let changes: [(usize, Change<'_>, &str); 4] = [
        (2, &|line| line.replace("theirs", "others") + "\n", "line 3"),
        (1, &|_| String::new(), "line 2"),
        (3, &|line| format!("{line}\n{line}\n"), "line 5"),
        (4, &|line| line[..40].to_owned(), "line 5"),
    ];
    for (line, change, found) in changes {
        fs::write(&log.path, &whole).unwrap();
        log.alter(line, change);
        let page = step(&browser, "start", "").await.expect(200);
        let broken = format!("The log is broken at {found}");
        assert!(page.text().contains(&broken), "{line}: {}", page.text());
        assert!(page.has("notice bad"));
    }
    // Missing at the end, which only the known end tells.
    fs::write(&log.path, &whole).unwrap();
    log.alter(4, |_| String::new());
    assert!(
        step(&browser, "start", "")
            .await
            .text()
            .contains("All 4 lines are intact")
    );
    let page = step(&browser, "start", &head.to_string()).await.expect(200);
    assert!(page.text().contains("broken at line 5"), "{}", page.text());
    // Another secret.
    let other = log.browser(&fixture, ChainKey::new(&[8; 32]));
    assert!(
        step(&other, "start", "")
            .await
            .text()
            .contains("broken at line 1")
    );
}

#[tokio::test]
async fn a_wrong_known_end_has_its_error_and_a_missing_file_is_an_outage() {
    let fixture = Fixture::new();
    let log = Log::new(None);
    log.add(1).await;
    let browser = log.browser(&fixture, None);
    for head in ["<b>x</b>", "1", "1 abc", "-1 0"] {
        let page = step(&browser, "start", head).await.expect(422);
        assert!(page.error("head").is_some(), "{}", page.body);
        assert!(!page.has("<b>x"));
    }
    let rewritten = ChainHead::new(1, [9; 32]);
    let page = step(&browser, "start", &rewritten.to_string())
        .await
        .expect(200);
    assert!(
        page.text().contains("it differs from the known chain head"),
        "{}",
        page.text()
    );
    fs::remove_file(&log.path).unwrap();
    let page = step(&browser, "start", "").await.expect(503);
    let path = log.path.to_str().unwrap();
    assert!(!page.has(path), "{}", page.body);
}
