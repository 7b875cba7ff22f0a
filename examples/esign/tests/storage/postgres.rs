//! Keys in PostgreSQL: two processes on one database, a database that goes down and comes back, and
//! what is written there.

use std::time::{Duration, Instant};

use crate::common::manage::{events, ids, items, list, rotate};
use crate::common::stores::{
    assert_both_agree, assert_no_secret, assert_one_quota, assert_refused_to_start,
};
use crate::common::{Answer, Call, Process, Server, USER};
use portunus_test_support::postgres::Postgres;
use portunus_test_support::wait::until;
use serde_json::{Value, json};

#[test]
fn changes_by_one_process_are_effective_in_the_other() {
    let postgres = Postgres::start();
    assert_both_agree("PostgreSQL", &postgres.database("keys"));
}

#[test]
fn two_processes_keep_one_quota_of_keys_and_one_primary() {
    let postgres = Postgres::start();
    assert_one_quota(&postgres.database("keys"));
}

#[test]
fn everything_is_still_there_after_a_restart() {
    let postgres = Postgres::start();
    let store = postgres.database("keys");
    let server = Server::on(&store, "allsign");
    let [used, revoked] = [
        server.issue(json!({ "metadata": { "a": [1, null] } })),
        server.issue(json!({})),
    ];
    assert_eq!(
        rotate(&server, used.id(), &json!({ "grace_seconds": 3600 })).status,
        201
    );
    server.revoke(revoked.id());
    for _ in 0..3 {
        assert_eq!(server.get("/whoami", &used.key).status, 200);
    }
    assert_eq!(server.get("/v2/documents", &used.key).status, 403);
    assert_eq!(server.stop().code, Some(0));
    let server = Server::on(&store, "allsign");
    assert_eq!(
        [&used, &revoked].map(|issued| server.get("/whoami", &issued.key).status),
        [200, 401]
    );
    let record = server.record(used.id());
    assert_eq!(
        (&record["request_count"], &record["metadata"]),
        (&json!(5), &json!({ "a": [1, null] }))
    );
    assert_eq!(
        items(&events(&server, "owner", &format!("?key_id={}", used.id()))).len(),
        7
    );
    assert_eq!(ids(&list(&server, "owner", "")).len(), 3);
}

#[test]
fn of_twenty_rotations_at_once_one_is_done() {
    let postgres = Postgres::start();
    let store = postgres.database("keys");
    let servers = [Server::on(&store, "allsign"), Server::on(&store, "allsign")];
    for _ in 0..5 {
        let old = servers[0].issue(json!({}));
        let answers = crate::common::at_once(20, |number| {
            rotate(&servers[number % 2], old.id(), &json!({})).status
        });
        assert_eq!(
            answers.iter().filter(|status| **status == 201).count(),
            1,
            "{answers:?}"
        );
        assert_eq!(
            answers.iter().filter(|status| **status == 409).count(),
            19,
            "{answers:?}"
        );
    }
    let page = list(&servers[1], "owner", "");
    let primaries = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| item["primary"] == true)
        .count();
    assert_eq!((ids(&page).len(), primaries), (10, 1));
}

/// Asserts that the response is a 503 with Retry-After.
#[track_caller]
fn assert_unavailable(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    let [after] = answer.fields("retry-after")[..] else {
        panic!("no Retry-After: {answer:?}")
    };
    assert!((1..=60).contains(&after.parse::<u64>().unwrap()), "{after}");
    assert_eq!(answer.fields("cache-control"), ["no-store"]);
    assert!(answer.fields("www-authenticate").is_empty());
}

#[test]
fn while_the_database_is_away_the_answer_is_503_and_afterwards_all_is_well() {
    let postgres = Postgres::start();
    let server = Server::on(&postgres.database("keys"), "allsign");
    let plenty = json!({ "requests_per_minute": 100_000, "requests_per_hour": 100_000 });
    let [used, fresh, revoked] =
        [0, 1, 2].map(|_| server.issue(json!({ "rate_limit_config": plenty })));
    server.revoke(revoked.id());
    let unknown = "allsign_live_sk_0123456789abcdefghijABCDEFGHIJ01";
    for crash in [false, true] {
        assert_eq!(server.get("/whoami", &used.key).status, 200);
        if crash {
            postgres.crash();
        } else {
            postgres.stop();
        }
        let away = Instant::now();
        // A cached answer may be used until it is stale; after that, the result is a 503.
        while away.elapsed() < Duration::from_millis(2500) {
            let (began, answer) = (away.elapsed(), server.get("/whoami", &used.key));
            assert!(
                matches!(answer.status, 200 | 503),
                "{}: {}",
                answer.status,
                answer.text()
            );
            assert!(
                answer.status == 503 || began < Duration::from_secs(2),
                "what is stale still counts"
            );
        }
        let keys = [&*used.key, &fresh.key, &revoked.key, unknown];
        let waited = crate::common::at_once(keys.len(), |number| {
            let asked = Instant::now();
            assert_unavailable(&server.get("/whoami", keys[number]));
            asked.elapsed()
        });
        println!("503 after {waited:?}");
        assert!(
            waited
                .iter()
                .all(|waited| *waited < Duration::from_secs(10))
        );
        let path = format!("/keys/{}", fresh.id());
        let calls = [
            Call::get("/keys"),
            Call::post("/keys").json(&json!({ "name": "n" })),
            Call::post(&format!("{path}/revoke")),
            Call::post(&format!("{path}/rotate")),
            Call::post("/verify").json(&json!({ "key": unknown })),
            Call::get("/events"),
            Call::new("PATCH", &path).json(&json!({ "name": "n" })),
            Call::new("DELETE", &path),
        ];
        crate::common::at_once(calls.len(), |number| {
            let answer = server.admin("owner", calls[number].clone());
            assert_unavailable(&answer);
            assert_eq!(answer.json()["code"], "STORE_UNAVAILABLE");
            assert!(!answer.text().contains("pg"), "{}", answer.text());
        });
        server.assert_alive();
        postgres.start_again();
        let back = Instant::now();
        crate::common::until("it recovers by itself", || {
            server.get("/whoami", &fresh.key).status == 200
        });
        println!("recovered after {:?}", back.elapsed());
        assert_eq!(server.get("/whoami", &revoked.key).status, 401);
        assert_eq!(server.get("/whoami", unknown).status, 401);
        assert_eq!(
            ids(&list(&server, "owner", "")).len(),
            3,
            "what was answered 503 was not done"
        );
        assert_eq!(server.record(fresh.id())["version"], 1);
    }
    // Events from the time when writing failed were written later.
    crate::common::until("the events of the outage are shown", || {
        let page = events(&server, "owner", "?outcome=STORE_UNAVAILABLE&limit=500");
        items(&page)
            .iter()
            .any(|event| event["action"] == "key.delete")
    });
    assert_eq!(server.stop().code, Some(0));
}

#[test]
fn told_to_stop_while_the_database_is_away_it_stops() {
    let postgres = Postgres::start();
    let server = Server::on(&postgres.database("keys"), "allsign");
    let issued = server.issue(json!({}));
    assert_eq!(server.get("/whoami", &issued.key).status, 200);
    postgres.stop();
    // Answered from the cache, unless the database took long to stop. The use before it may have been
    // written.
    let status = server.get("/whoami", &issued.key).status;
    assert!(matches!(status, 200 | 503), "{status}");
    let ended = server.stop();
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let lost = ["1 key uses", "2 key uses"];
    assert!(
        ended.stderr.contains("esign: lost ")
            && lost.iter().any(|uses| ended.stderr.contains(uses)),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

#[test]
fn a_schema_of_a_newer_version_stays_as_it_is() {
    let postgres = Postgres::start();
    let store = postgres.database("keys");
    let server = Server::on(&store, "allsign");
    server.issue(json!({}));
    assert_eq!(server.stop().code, Some(0));
    postgres.sql(
        "keys",
        "UPDATE portunus_schema SET version = 99 WHERE version = 2",
    );
    let before = postgres.dump("keys");
    let line =
        assert_refused_to_start(&Process::start(&["--ready-json", "--store", &store], &[]).wait());
    assert!(line.contains("99"), "{line}");
    assert!(
        without_nonce(&postgres.dump("keys")) == without_nonce(&before),
        "the database was changed"
    );
    let nowhere = store.replace("/keys", "/nowhere");
    assert_refused_to_start(&Process::start(&["--ready-json", "--store", &nowhere], &[]).wait());
    let nobody = store.replace("tester", "nobody");
    assert_refused_to_start(&Process::start(&["--ready-json", "--store", &nobody], &[]).wait());
}

/// New versions of `pg_dump` write a random token at the beginning and the end.
fn without_nonce(dump: &[u8]) -> String {
    let text = String::from_utf8_lossy(dump);
    text.lines()
        .filter(|line| !line.contains("restrict"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn a_dump_holds_no_secret() {
    let postgres = Postgres::start();
    for (number, profile) in ["allsign", "dropbox-sign"].into_iter().enumerate() {
        let name = format!("keys{number}");
        let server = Server::on(&postgres.database(&name), profile);
        let issued = server.issue(json!({}));
        let successor: Value = rotate(&server, issued.id(), &json!({})).json();
        let successor = successor["key"].as_str().unwrap();
        for key in [&*issued.key, successor] {
            server.get("/whoami", key);
            server.send(&server.with_key(Call::get("/whoami").field("X-User-Id", USER), key));
        }
        let tokens = ["owner", "admin"].map(|name| server.operator(name));
        events(&server, "owner", "");
        assert_eq!(server.stop().code, Some(0));
        let dump = postgres.dump(&name);
        assert!(
            String::from_utf8_lossy(&dump).contains(issued.id()),
            "it is the right dump"
        );
        assert_no_secret(&dump, &[&issued.key, successor, &tokens[0], &tokens[1]]);
    }
}

#[test]
fn the_database_is_reached_over_tls_where_its_address_says_so() {
    let postgres = Postgres::start_on_port(0);
    let plain = postgres.database("keys");
    let with = |mode: &str| plain.replace("sslmode=disable", &format!("sslmode={mode}"));
    let refused = |store: &str| {
        assert_refused_to_start(&Process::start(&["--ready-json", "--store", store], &[]).wait())
    };
    let line = refused(&with("require"));
    assert!(line.contains("server does not support TLS"), "{line}");
    let certificate = postgres.use_tls();
    let line = refused(&with("verify-full"));
    assert!(line.contains("certificate"), "{line}");
    let verified = format!("verify-full&sslrootcert={}", certificate.display());
    for store in [with("require"), with(&verified)] {
        let server = Server::on(&store, "allsign");
        let issued = server.issue(json!({}));
        assert_eq!(server.get("/whoami", &issued.key).status, 200);
        let clear = "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) \
            WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND NOT ssl";
        assert_eq!(postgres.sql("keys", clear).trim(), "0");
        let all = "SELECT count(*) > 2 FROM pg_stat_ssl WHERE ssl";
        assert_eq!(postgres.sql("keys", all).trim(), "t");
        assert_eq!(server.stop().code, Some(0));
    }
}

#[test]
fn slow_lists_leave_connections_for_lookups_and_one_more_list_is_503() {
    let postgres = Postgres::start();
    let store = postgres.database("keys");
    // A function in the list's query sleeps once per key.
    let slow = "CREATE SCHEMA slow; CREATE FUNCTION slow.strpos(text, text) RETURNS int \
        LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.7); RETURN 1; END'";
    postgres.sql("keys", slow);
    let path = "ALTER DATABASE keys SET search_path = public, slow, pg_catalog";
    postgres.sql("keys", path);
    let issued: Vec<_> = {
        let first = Server::on(&store, "allsign");
        (0..10).map(|_| first.issue(json!({}))).collect()
    };
    // Another process, in which none of them is cached.
    let server = Server::on(&store, "allsign");
    let read = |query: &str| {
        let asked = Instant::now();
        let answer = server.admin("owner", Call::get(&format!("/keys{query}")));
        (answer, asked.elapsed())
    };
    std::thread::scope(|scope| {
        let lists = [0, 1].map(|_| scope.spawn(|| read("?query=slow").0.status));
        until("two lists have all places", || {
            let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
            postgres.sql("keys", asleep).trim() == "2"
        });
        let more = scope.spawn(|| read(""));
        for issued in &issued {
            let asked = Instant::now();
            assert_eq!(server.get("/whoami", &issued.key).status, 200);
            assert!(asked.elapsed() < Duration::from_secs(3));
        }
        let (answer, took) = more.join().unwrap();
        assert_unavailable(&answer);
        assert!((5.0..6.5).contains(&took.as_secs_f64()), "{took:?}");
        assert_eq!(lists.map(|list| list.join().unwrap()), [200, 200]);
    });
    assert_eq!(ids(&list(&server, "owner", "")).len(), 10);
}
