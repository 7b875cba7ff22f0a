//! Behavior of every store: two processes on one store agree, and no secret is written.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::json;

use super::manage::{assert_problem, ids, list};
use super::{Call, Ended, Server, at_once, eventually, hex};

/// For each of these requests, returns the latest start after now at which it was still accepted.
fn last_accepted(refused: impl Fn() -> bool) -> Duration {
    let (now, mut last) = (Instant::now(), Duration::ZERO);
    let look = || {
        let began = now.elapsed();
        let is_refused = refused();
        if !is_refused {
            last = began;
        }
        is_refused.then_some(())
    };
    eventually(look).expect("the request is refused in time");
    last
}

/// Prints p50, p99 and the maximum, and asserts that the maximum is below two seconds.
fn assert_in_time(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    println!(
        "{what}, {} times: p50 {:?}, p99 {:?}, max {:?}",
        took.len(),
        at(50),
        at(99),
        took[took.len() - 1]
    );
    assert!(
        took[took.len() - 1] < Duration::from_secs(2),
        "{what}: {took:?}"
    );
}

/// Asserts that what one process acknowledges is effective in another one on the same store: at
/// once if a key is issued, and within two seconds if one is withdrawn. Prints how long it took.
pub(crate) fn assert_both_agree(kind: &str, store: &str) {
    let start = || Server::start_on(store, "allsign", &["--trusted-proxy", "127.0.0.1/32"], &[]);
    let [one, other] = [start(), start()];
    for act in ["revoke", "disable", "narrow", "rotate", "delete"] {
        let mut took = Vec::new();
        one.issue(json!({ "name": "primary" }));
        // All at once, so that they wait in parallel: each key was just used and is in the cache.
        // The keys are not limited for being tried so often.
        let plenty = json!({ "requests_per_minute": 1_000_000, "requests_per_hour": 1_000_000 });
        let body = json!({ "scopes": ["document:read"], "rate_limit_config": plenty });
        let keys: Vec<_> = (0..25).map(|_| one.issue(body.clone())).collect();
        let (other_address, refusal) = ("X-Forwarded-For", if act == "narrow" { 403 } else { 401 });
        let asked = AtomicU32::new(0);
        let ask = |server: &Server, key: &str| {
            let from = Ipv4Addr::from(0x0a00_0000 + asked.fetch_add(1, Ordering::Relaxed));
            let call = Call::get("/v2/documents")
                .bearer(key)
                .field(other_address, from.to_string());
            match server.send(&call).status {
                200 => false,
                status if status == refusal => true,
                status => panic!("{act}: {status}"),
            }
        };
        for issued in &keys {
            assert!(
                !ask(&other, &issued.key),
                "issued here, known there at once"
            );
        }
        let results = at_once(keys.len(), |number| {
            let issued = &keys[number];
            thread::sleep(Duration::from_millis(number as u64 * 20));
            let path = format!("/keys/{}", issued.id());
            let call = match act {
                "revoke" => Call::post(&format!("{path}/revoke")),
                "rotate" => Call::post(&format!("{path}/rotate")),
                "delete" => Call::new("DELETE", &path),
                "disable" => Call::new("PATCH", &path).json(&json!({ "enabled": false })),
                _ => Call::new("PATCH", &path).json(&json!({ "scopes": [] })),
            };
            assert!(!ask(&other, &issued.key));
            let answer = one.admin("owner", call);
            assert!(
                (200..300).contains(&answer.status),
                "{act}: {}",
                answer.text()
            );
            assert!(ask(&one, &issued.key), "{act}: at once where it was done");
            last_accepted(|| ask(&other, &issued.key))
        });
        took.extend(results);
        assert_in_time(&format!("{kind}, {act} seen by the other process"), took);
        for issued in &keys {
            assert!(ask(&other, &issued.key), "it stays so");
        }
    }
    // Usage is visible only on the node that counted it until it is written, within about a second.
    super::until("both show the same", || {
        list(&one, "owner", "?limit=500")["items"] == list(&other, "owner", "?limit=500")["items"]
    });
}

/// Asserts that of two hundred concurrent issues, half of them in another process, exactly as many
/// succeed as the quota allows.
pub(crate) fn assert_one_quota(store: &str) {
    let servers = [
        Server::on(store, "dropbox-sign"),
        Server::on(store, "dropbox-sign"),
    ];
    let answers = at_once(20, |number| {
        let issue = |_| {
            servers[number % 2].admin("owner", Call::post("/keys").json(&json!({ "name": "n" })))
        };
        (0..10).map(issue).collect::<Vec<_>>()
    });
    let (made, refused): (Vec<_>, Vec<_>) = answers
        .iter()
        .flatten()
        .partition(|answer| answer.status == 201);
    assert_eq!((made.len(), refused.len()), (4, 196));
    for answer in refused {
        assert_problem(answer, 409, "QUOTA_EXCEEDED", &[]);
    }
    for server in &servers {
        let page = list(server, "owner", "");
        let primaries = page["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|item| item["primary"] == true)
            .count();
        assert_eq!((ids(&page).len(), primaries), (4, 1));
        for answer in &made {
            assert_eq!(
                server
                    .get("/whoami", answer.json()["key"].as_str().unwrap())
                    .status,
                200
            );
        }
    }
}

/// Asserts one line on stderr, nothing on stdout, and exit code 2. Returns the line.
#[track_caller]
pub(crate) fn assert_refused_to_start(ended: &Ended) -> String {
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert_eq!(ended.stdout, "");
    let line = ended.stderr.strip_suffix('\n').expect("a whole line");
    assert!(
        !line.contains('\n') && !line.trim().is_empty(),
        "{:?}",
        ended.stderr
    );
    line.to_owned()
}

/// Asserts that stored data contains no secret, raw or in base64, at any position.
pub(crate) fn assert_no_secret(stored: &[u8], secrets: &[&str]) {
    let text = String::from_utf8_lossy(stored);
    for secret in secrets {
        let random = &secret[secret.len() - 32..];
        let mut traces: Vec<_> = (0..=random.len() - 12)
            .map(|from| random[from..from + 12].to_owned())
            .collect();
        for skipped in 0..3 {
            let bytes = &random.as_bytes()[skipped..];
            let bytes = &bytes[..bytes.len() / 3 * 3];
            traces.extend([STANDARD_NO_PAD.encode(bytes), URL_SAFE_NO_PAD.encode(bytes)]);
        }
        traces.push(hex(random));
        for trace in traces {
            assert!(!text.contains(&trace), "{trace} is stored");
        }
    }
}
