//! Audit events as lines that commit to each other: whatever is done to the file, the first altered
//! line is found.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime};

use portunus::ErrorCode;
use portunus::actor::ActorMode;
use portunus::audit::{
    Action, AuditEvent, AuditOutcome, AuditSink, ChainHead, ChainKey, JsonLines, RequestId,
    VerifyError, verify,
};
use portunus::key::TenantId;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

fn event(number: u128) -> AuditEvent {
    let at = SystemTime::UNIX_EPOCH
        + Duration::from_millis(1_800_000_000_123 + u64::try_from(number).unwrap());
    let outcome = AuditOutcome::Refused(ErrorCode::KeyRevoked);
    let mut event = AuditEvent::new(
        format!("{number:032x}").parse().unwrap(),
        at,
        Action::Request,
        outcome,
    );
    event.tenant_id = Some(TenantId::new("acme").unwrap());
    event.route = Some(format!("/documents/{number}"));
    event
}

fn events(numbers: impl IntoIterator<Item = u128>) -> Vec<AuditEvent> {
    numbers.into_iter().map(event).collect()
}

/// Locked for writing while a process is started, because the child briefly holds a copy of every
/// open file, including its lock.
static FORKING: RwLock<()> = RwLock::new(());

/// One file at a time in each thread.
struct Place {
    _no_fork: RwLockReadGuard<'static, ()>,
    _folder: TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let no_fork = FORKING.read().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    Place {
        _no_fork: no_fork,
        _folder: folder,
        path,
    }
}

impl Place {
    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }
    fn lines(&self) -> Vec<String> {
        String::from_utf8(self.bytes())
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }
    fn open(&self) -> JsonLines {
        JsonLines::open(&self.path, None).unwrap()
    }
}

fn key(byte: u8) -> ChainKey {
    ChainKey::new(&[byte; 32]).unwrap()
}

/// Returns a chain of this many lines, written two at a time.
async fn chain(length: u128, key: Option<ChainKey>) -> (Place, ChainHead) {
    let place = place();
    let sink = JsonLines::open(&place.path, key).unwrap();
    for pair in events(0..length).chunks(2) {
        sink.record(pair).await.unwrap();
    }
    let head = sink.head();
    (place, head)
}

/// Returns the reported line, counted from 1.
fn found(bytes: &[u8], key: Option<&ChainKey>, known: Option<&ChainHead>) -> Option<u64> {
    match verify(bytes, key, known) {
        Ok(_) => None,
        Err(VerifyError::Altered(altered)) => Some(altered.line),
        Err(other) => panic!("{other}"),
    }
}

fn joined(lines: &[String]) -> Vec<u8> {
    lines
        .iter()
        .flat_map(|line| [line.as_bytes(), b"\n"].concat())
        .collect()
}

/// Returns the line as an attacker without a key would rewrite it: another route, and a matching
/// hash.
fn forged(line: &str, change: impl FnOnce(String) -> String) -> String {
    let (content, _) = line.rsplit_once(r#","hash":""#).unwrap();
    let content = change(content.to_owned());
    let hash: String = Sha256::digest(&content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!(r#"{content},"hash":"{hash}"}}"#)
}

#[tokio::test]
async fn a_chain_is_intact_and_ends_as_the_sink_reports() {
    for key in [None, Some(key(1))] {
        let (place, head) = chain(5, key.clone()).await;
        assert_eq!(
            verify(&*place.bytes(), key.as_ref(), Some(&head)).unwrap(),
            head
        );
        assert_eq!(head.lines, 5);
        assert!(place.lines()[0].starts_with(&format!(
            r#"{{"seq":1,"prev":"{}","event":{{"id":"#,
            "0".repeat(64)
        )));
        for (line, event) in place.lines().iter().zip(events(0..5)) {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(
                serde_json::from_value::<AuditEvent>(line["event"].clone()).unwrap(),
                event
            );
        }
        assert!(head.to_string().starts_with("5 ") && head.to_string().len() == 66);
    }
    assert_eq!(verify(&b""[..], None, None).unwrap().lines, 0);
}

#[tokio::test]
async fn every_byte_that_is_altered_is_found_in_its_line() {
    for key in [None, Some(key(1))] {
        let (place, head) = chain(3, key.clone()).await;
        let good = place.bytes();
        let mut line = 1;
        for at in 0..good.len() {
            for with in [good[at] ^ 1, good[at] ^ 0x20, b'\n', 0, 0xff] {
                if with == good[at] {
                    continue;
                }
                let mut bad = good.clone();
                bad[at] = with;
                assert_eq!(
                    found(&bad, key.as_ref(), Some(&head)),
                    Some(line),
                    "byte {at} is {with}"
                );
            }
            line += u64::from(good[at] == b'\n');
        }
    }
}

#[tokio::test]
async fn every_byte_that_is_taken_out_or_put_in_is_found() {
    let (place, head) = chain(3, None).await;
    let good = place.bytes();
    let mut line = 1;
    for at in 0..good.len() {
        let mut shorter = good.clone();
        shorter.remove(at);
        assert_eq!(
            found(&shorter, None, Some(&head)),
            Some(line),
            "without byte {at}"
        );
        for with in *b" \n\"0}" {
            let mut longer = good.clone();
            longer.insert(at, with);
            if longer.len() > good.len() {
                // An additional line end makes an empty line after a valid one.
                let line = line + u64::from(with == b'\n' && good[at] == b'\n');
                assert_eq!(
                    found(&longer, None, Some(&head)),
                    Some(line),
                    "byte {with} before {at}"
                );
            }
        }
        line += u64::from(good[at] == b'\n');
    }
}

#[tokio::test]
async fn lines_that_are_taken_out_doubled_or_moved_are_found() {
    for key in [None, Some(key(7))] {
        let (place, head) = chain(6, key.clone()).await;
        let good = place.lines();
        let check = |bad: &[String], expected: u64, what: &str| {
            assert_eq!(
                found(&joined(bad), key.as_ref(), Some(&head)),
                Some(expected),
                "{what}"
            );
        };
        for at in 0..6 {
            let number = at as u64 + 1;
            let mut bad = good.clone();
            bad.remove(at);
            check(&bad, number, "taken out");
            let mut bad = good.clone();
            bad.insert(at, good[at].clone());
            check(&bad, number + 1, "doubled");
            for other in at + 1..6 {
                let mut bad = good.clone();
                bad.swap(at, other);
                check(&bad, number, "exchanged");
            }
            let bad = &good[..at];
            check(bad, number, "the end is missing");
            let mut bad = good.clone();
            bad.insert(at, String::new());
            check(&bad, number, "an empty line");
        }
    }
}

#[tokio::test]
async fn a_missing_end_is_found_by_a_known_head_only() {
    let (place, head) = chain(6, None).await;
    let good = place.lines();
    for length in 0..6 {
        assert_eq!(
            found(&joined(&good[..length]), None, None),
            None,
            "nothing says that there was more"
        );
        assert_eq!(
            found(&joined(&good[..length]), None, Some(&head)),
            Some(length as u64 + 1)
        );
    }
    let earlier = verify(&*joined(&good[..3]), None, None).unwrap();
    assert_eq!(
        found(&place.bytes(), None, Some(&earlier)),
        None,
        "a head of before still holds"
    );
}

#[tokio::test]
async fn a_line_that_was_written_anew_with_its_hash_is_the_one_that_is_found() {
    let (place, head) = chain(6, None).await;
    let good = place.lines();
    for at in 0..6 {
        let mut bad = good.clone();
        bad[at] = forged(&bad[at], |content| {
            content.replace("/documents/", "/nothing/")
        });
        assert_ne!(bad[at], good[at]);
        assert_eq!(found(&joined(&bad), None, Some(&head)), Some(at as u64 + 1));
    }
}

#[tokio::test]
async fn a_line_that_was_made_up_and_put_in_is_found() {
    let (place, head) = chain(6, None).await;
    let good = place.lines();
    for at in 0..6 {
        let mut bad = good.clone();
        // It matches the line before it; only the line after it does not match.
        bad.insert(
            at,
            forged(&good[at], |content| {
                content.replace("/documents/", "/nothing/")
            }),
        );
        let line = found(&joined(&bad), None, Some(&head)).unwrap();
        assert!(
            line == at as u64 + 1 || line == at as u64 + 2,
            "line {line} of two that do not fit at {at}"
        );
    }
}

/// Rewrites all lines from the altered one on, as an attacker without a key would.
fn written_anew(good: &[String], from: usize) -> Vec<String> {
    let mut bad = good.to_vec();
    for at in from..bad.len() {
        let before = at.checked_sub(1).map_or("0".repeat(64), |at| {
            bad[at][bad[at].len() - 66..bad[at].len() - 2].into()
        });
        bad[at] = forged(&good[at], |content| {
            let start = content.find(r#""prev":""#).unwrap() + 8;
            let content = format!("{}{before}{}", &content[..start], &content[start + 64..]);
            if at == from {
                content.replace("KEY_REVOKED", "OK")
            } else {
                content
            }
        });
    }
    bad
}

#[tokio::test]
async fn without_the_key_a_keyed_chain_cannot_be_rewritten() {
    let (place, head) = chain(6, Some(key(1))).await;
    for from in 0..6 {
        let bad = joined(&written_anew(&place.lines(), from));
        assert_eq!(found(&bad, Some(&key(1)), None), Some(from as u64 + 1));
    }
    assert_eq!(
        found(&place.bytes(), Some(&key(2)), Some(&head)),
        Some(1),
        "another key"
    );
    assert_eq!(found(&place.bytes(), None, Some(&head)), Some(1), "no key");
    drop(place);
    let (unkeyed, unkeyed_head) = chain(6, None).await;
    for from in 0..6 {
        let bad = joined(&written_anew(&unkeyed.lines(), from));
        assert_eq!(
            found(&bad, None, None),
            None,
            "without a key and a head, nobody can tell"
        );
        assert!(
            found(&bad, None, Some(&unkeyed_head)).is_some(),
            "a head that was kept elsewhere tells"
        );
    }
    assert_eq!(
        found(&unkeyed.bytes(), Some(&key(1)), None),
        Some(1),
        "a chain that was made without"
    );
}

#[test]
fn a_chain_key_has_32_bytes_and_shows_none() {
    for (length, good) in [(0, false), (31, false), (32, true), (200, true)] {
        assert_eq!(
            ChainKey::new(&vec![b'k'; length]).is_some(),
            good,
            "{length}"
        );
    }
    assert_eq!(format!("{:?}", key(b'k')), "ChainKey([redacted])");
}

#[tokio::test]
async fn a_file_that_is_opened_again_goes_on() {
    for key in [None, Some(key(3))] {
        let place = place();
        for round in 0..4 {
            let sink = JsonLines::open(&place.path, key.clone()).unwrap();
            sink.record(&events(round * 3..round * 3 + 3))
                .await
                .unwrap();
        }
        assert_eq!(
            verify(&*place.bytes(), key.as_ref(), None).unwrap().lines,
            12
        );
    }
}

#[tokio::test]
async fn a_line_that_a_crash_cut_off_is_taken_away_and_the_chain_goes_on() {
    let (place, _) = chain(3, None).await;
    let good = place.bytes();
    let last = joined(&place.lines()[..2]).len();
    for end in last..good.len() {
        fs::write(&place.path, &good[..end]).unwrap();
        let sink = place.open();
        assert_eq!(sink.head().lines, 2, "cut at {end}");
        sink.record(&events([9])).await.unwrap();
        drop(sink);
        assert_eq!(verify(&*place.bytes(), None, None).unwrap().lines, 3);
    }
    // What a file system may leave in a block that was never written.
    fs::write(&place.path, [&good[..], &[0; 4096]].concat()).unwrap();
    assert_eq!(place.open().head().lines, 3);
}

#[tokio::test]
async fn one_at_a_time_has_it_open() {
    let place = place();
    let sink = place.open();
    assert_eq!(
        JsonLines::open(&place.path, None).unwrap_err().kind(),
        ErrorKind::ResourceBusy
    );
    drop(sink);
    place.open();
}

#[tokio::test]
async fn a_file_with_another_key_or_an_altered_last_line_is_not_opened_and_stays_as_it_is() {
    let (place, _) = chain(3, Some(key(1))).await;
    let before = place.bytes();
    for wrong in [None, Some(key(2))] {
        assert_eq!(
            JsonLines::open(&place.path, wrong).unwrap_err().kind(),
            ErrorKind::InvalidData
        );
    }
    let mut bad = before.clone();
    let at = bad.len() - 100;
    bad[at] ^= 1;
    fs::write(&place.path, &bad).unwrap();
    assert_eq!(
        JsonLines::open(&place.path, Some(key(1)))
            .unwrap_err()
            .kind(),
        ErrorKind::InvalidData
    );
    assert_eq!(place.bytes(), bad);
}

#[test]
fn a_file_that_is_not_a_chain_is_rejected_and_unchanged() {
    for text in ["hello\n", "{}\n", "\n", "a secret without an end of line"] {
        let place = place();
        fs::write(&place.path, text).unwrap();
        let opened = JsonLines::open(&place.path, None);
        assert_eq!(place.bytes(), text.as_bytes(), "{text:?} was erased");
        assert_eq!(
            opened.unwrap_err().kind(),
            ErrorKind::InvalidData,
            "{text:?}"
        );
    }
}

#[cfg(unix)]
#[tokio::test]
async fn only_its_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let (place, _) = chain(1, None).await;
    assert_eq!(
        fs::metadata(&place.path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

/// Runs one test of this file again in a process whose files are limited to 8 KiB or 16 KiB,
/// depending on the shell's unit.
#[cfg(target_os = "linux")]
fn again_on_a_full_disk(test: &str) -> bool {
    if std::env::var_os("THE_DISK_IS_FULL").is_some() {
        return false;
    }
    let script = r#"trap "" XFSZ; ulimit -f 16; exec "$0" --exact "$1""#;
    let mut shell = std::process::Command::new("sh");
    let shell = shell
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(test);
    let _forking = FORKING.write().unwrap_or_else(PoisonError::into_inner);
    let output = shell.env("THE_DISK_IS_FULL", "1").output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("1 passed"), "it ran: {told}");
    true
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_leaves_a_valid_chain() {
    if again_on_a_full_disk("chain::a_full_disk_leaves_a_valid_chain") {
        return;
    }
    let place = place();
    let sink = place.open();
    let mut batches = 0;
    while sink
        .record(&events(batches * 7..batches * 7 + 7))
        .await
        .is_ok()
    {
        batches += 1;
        assert!(batches < 1000, "the disk never became full");
    }
    let head = sink.head();
    assert_eq!(
        u128::from(head.lines),
        batches * 7,
        "of a batch that did not fit, nothing is kept"
    );
    assert_eq!(verify(&*place.bytes(), None, Some(&head)).unwrap(), head);
    assert!(
        sink.record(&events(batches * 7..batches * 7 + 7))
            .await
            .is_err()
    );
    let mut one = 1_000_000;
    while sink.record(&events([one])).await.is_ok() {
        one += 1;
    }
    assert_eq!(
        verify(&*place.bytes(), None, Some(&sink.head())).unwrap(),
        sink.head()
    );
    drop(sink);
    place.open();
}

#[tokio::test]
async fn an_event_that_is_given_twice_is_kept_once() {
    let place = place();
    let sink = place.open();
    sink.record(&events(0..2)).await.unwrap();
    sink.record(&events(1..3)).await.unwrap();
    let ids = place.lines().len();
    assert_eq!(
        ids, 3,
        "AuditSink: one that is kept already (by its id) is not kept twice"
    );
}

#[tokio::test]
async fn a_line_longer_than_any_reader_takes_is_never_written() {
    let place = place();
    let mut huge = event(1);
    huge.detail = Some("x".repeat(2 << 20));
    let sink = place.open();
    let _ = sink.record(&[huge]).await;
    let head = sink.head();
    drop(sink);
    assert_eq!(
        verify(&*place.bytes(), None, Some(&head)).unwrap(),
        head,
        "an untouched chain is whole"
    );
    assert_eq!(
        JsonLines::open(&place.path, None).unwrap().head(),
        head,
        "and can be gone on with"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_event_with_any_texts_is_read_as_written(
        texts in prop::collection::vec(any::<String>(), 4),
        many in prop::collection::vec("\\PC{0,20}", 0..5),
        millis in 0_u64..253_402_300_799_999,
        count: Option<u64>,
    ) {
        let hostile = "\"}\n{\"seq\":1,\"hash\":\"\u{202e}\u{2028}\\\r\0";
        let mut written = event(1);
        written.at = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        written.method = Some(texts[0].clone() + hostile);
        written.route = Some(texts[1].clone());
        written.detail = Some(hostile.to_owned() + &texts[2]);
        written.actor = Some(portunus::audit::Party::operator(texts[3].clone()));
        written.request_id = RequestId::new("\"};--");
        written.mode = Some(ActorMode::AppUser);
        (written.scopes, written.count) = (many, count);
        written.client_ip = Some("2001:db8::1".parse().unwrap());

        let json = serde_json::to_string(&written).unwrap();
        prop_assert_eq!(&serde_json::from_str::<AuditEvent>(&json).unwrap(), &written);

        let place = place();
        let sink = place.open();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(sink.record(&[written.clone(), event(2)])).unwrap();
        prop_assert_eq!(place.lines().len(), 2);
        prop_assert_eq!(verify(&*place.bytes(), None, Some(&sink.head())).unwrap(), sink.head());
        let line: serde_json::Value = serde_json::from_str(&place.lines()[0]).unwrap();
        prop_assert_eq!(serde_json::from_value::<AuditEvent>(line["event"].clone()).unwrap(), written);
    }
}

#[tokio::test]
async fn a_chain_that_is_followed_line_by_line_ends_and_breaks_where_it_does_as_a_whole() {
    let (place, head) = chain(6, None).await;
    let whole = place.bytes();
    let lines = place.lines();
    let without_third = joined(&[&lines[..2], &lines[3..]].concat());
    let forged = {
        let mut lines = lines.clone();
        lines[3] = forged(&lines[3], |line| line.replace("/documents", "/nothing"));
        joined(&lines)
    };
    let missing = joined(&lines[..4]);
    for bytes in [
        &whole,
        &without_third,
        &forged,
        &missing,
        &whole[..90].to_vec(),
    ] {
        for known in [None, Some(head), Some(ChainHead::new(2, [1; 32]))] {
            let mut rest = bytes.as_slice();
            let mut reached = ChainHead::EMPTY;
            let followed = loop {
                match reached.follow(&mut rest, None, known.as_ref()) {
                    Ok(Some(next)) => reached = next,
                    Ok(None) => break Ok(reached),
                    Err(error) => break Err(error.to_string()),
                }
            };
            let verified = verify(bytes.as_slice(), None, known.as_ref());
            assert_eq!(followed, verified.map_err(|error| error.to_string()));
        }
    }
}
