//! What nodes on one PostgreSQL receive from each other, also while connections fail and other
//! clients use the channel.

use portunus::store::UsageStore;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::recording_listener::{Received, RecordingListener};
use crate::common::{
    Home, PostgresHome, acme, at, batch, digest, id, insert, never, record, rehash, rejected,
    secrets, signing, with_a,
};
use portunus::audit::{Action, AuditEvent, AuditOutcome, AuditSink};
use portunus::store::{Change, Invalidation, InvalidationBus, KeyStore, UsageDelta, WriteBatch};
use portunus_sqlx::PostgresStore;
use portunus_test_support::postgres::Postgres;
use portunus_test_support::proxy::{Failing, Proxy, Which};
use portunus_test_support::wait::eventually_async;
use sqlx::postgres::PgListener;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_receive_each_others_changes() {
    let server = Arc::new(Postgres::start());
    every_write_reaches_the_other_node_soon(&PostgresHome::new(&server)).await;
    changes_to_a_secret_reach_every_cache(&PostgresHome::new(&server)).await;
    rolled_back_and_uncached_changes_are_not_published(&PostgresHome::new(&server)).await;
    a_change_too_large_for_a_message_becomes_everything(&PostgresHome::new(&server)).await;
    a_hosts_publication_reaches_all(&PostgresHome::new(&server)).await;
    a_new_listener_receives_everything_first_and_a_dropped_one_nothing(&PostgresHome::new(&server))
        .await;
    a_bus_that_is_dropped_leaves_no_connection(&PostgresHome::new(&server)).await;
    messages_of_other_clients_prove_nothing(&PostgresHome::new(&server)).await;
    silent_or_broken_connections_are_replaced(&PostgresHome::new(&server)).await;
    a_server_that_is_stopped_proves_nothing(&PostgresHome::new(&server)).await;
}

/// Disables and enables the key `a` a number of times; returns when each write was acknowledged.
async fn revise(store: &PostgresStore, times: u64) -> Vec<(String, Instant)> {
    let mut written = Vec::new();
    for _ in 0..times {
        let current = crate::common::get(store, "a").await;
        store
            .apply(&WriteBatch::new().update(current))
            .await
            .unwrap();
        written.push(("a".into(), Instant::now()));
    }
    written
}

async fn every_write_reaches_the_other_node_soon(home: &PostgresHome) {
    let (here, there) = (home.open().await, home.open().await);
    let buses = [here.bus(), there.bus()];
    let listeners = [
        RecordingListener::awake_on(&buses[0]).await,
        RecordingListener::awake_on(&buses[1]).await,
    ];
    let (mut latencies, mut written) = (Vec::new(), Vec::new());
    for number in 0..100 {
        let name = format!("key{number}");
        let inserted = batch([insert(digest(number), record(&name))]);
        let revised = WriteBatch::new().update(record(&name));
        for write in [inserted, revised] {
            let expected = Invalidation::of(&write);
            here.apply(&write).await.unwrap();
            let acknowledged = Instant::now();
            if !expected.keys.is_empty() {
                written.push((name.clone(), acknowledged));
            }
            let received = listeners[1]
                .wait_until(&name, |received| {
                    *received == Received::Changed(expected.clone())
                })
                .await;
            latencies.push(received.saturating_duration_since(acknowledged));
        }
    }
    latencies.sort();
    let (p50, p99) = (
        latencies[latencies.len() / 2],
        latencies[latencies.len() * 99 / 100],
    );
    println!(
        "200 writes reached the other node {p50:?} (p50) and {p99:?} (p99) after they were acknowledged"
    );
    assert!(p99 <= Duration::from_secs(1), "{p99:?}");
    for listener in &listeners {
        listener.wait_for_proof().await;
        assert_eq!(
            listener.changes().len(),
            200,
            "each once, also where it was written"
        );
        listener.assert_no_false_proof(&written);
    }
}

async fn changes_to_a_secret_reach_every_cache(home: &PostgresHome) {
    let (here, there) = (home.open().await, home.open().await);
    let nodes = [here, there].map(|store| {
        let bus = store.bus();
        (store, bus)
    });
    secrets::changes_to_any_key_of_a_secret_reach_every_cache(nodes).await;
}

async fn rolled_back_and_uncached_changes_are_not_published(home: &PostgresHome) {
    let store = with_a(home).await;
    let bus = store.bus();
    let listener = RecordingListener::awake_on(&bus).await;
    rejected(
        &store,
        WriteBatch::new().update(record("a")).require(never()),
    )
    .await;
    rejected(
        &store,
        batch([
            insert(digest(2), record("b")),
            insert(digest(1), record("c")),
        ]),
    )
    .await;
    let mut given_up = home.connection().await;
    sqlx::raw_sql("BEGIN; SELECT pg_notify('portunus_changes', 'nonsense'); ROLLBACK")
        .execute(&mut given_up)
        .await
        .unwrap();
    let set = Change::SetPrimary {
        owner: acme(),
        key: id("a"),
    };
    let pin = Change::PinPrimary {
        owner: acme(),
        at: at(1_000),
    };
    store.apply(&batch([set, pin])).await.unwrap();
    store.apply(&WriteBatch::new()).await.unwrap();
    store
        .record_usage(&[UsageDelta::new(id("a"), 3, at(7_200), None)])
        .await
        .unwrap();
    let event_id = format!("{:032x}", 7).parse().unwrap();
    store
        .audit()
        .record(&[AuditEvent::new(
            event_id,
            at(1),
            Action::Request,
            AuditOutcome::Ok,
        )])
        .await
        .unwrap();
    listener.wait_for_proof().await;
    assert_eq!(listener.changes(), []);
    let sign = Change::SetSigning {
        id: id("a"),
        state: Some(signing(1)),
    };
    for write in [batch([rehash("a", digest(1), digest(9))]), batch([sign])] {
        store.apply(&write).await.unwrap();
        listener.wait_for_proof().await;
        assert_eq!(listener.changes(), [Invalidation::of(&write)]);
        listener.clear();
    }
}

async fn a_change_too_large_for_a_message_becomes_everything(home: &PostgresHome) {
    let store = home.open().await;
    let bus = store.bus();
    let listener = RecordingListener::awake_on(&bus).await;
    let many = |count: u32, from: u32| {
        batch((from..from + count).map(|n| insert(digest(n), record(&format!("key{n}")))))
    };
    for (write, fits) in [(many(100, 0), true), (many(1_000, 1_000), false)] {
        store.apply(&write).await.unwrap();
        listener.wait_for_proof().await;
        let expected = if fits {
            Invalidation::of(&write)
        } else {
            Invalidation::everything()
        };
        assert_eq!(listener.changes(), [expected]);
        listener.clear();
    }
}

async fn a_hosts_publication_reaches_all(home: &PostgresHome) {
    let (here, there) = (home.open().await, home.open().await);
    let buses = [here.bus(), there.bus()];
    let listeners = [
        RecordingListener::awake_on(&buses[0]).await,
        RecordingListener::awake_on(&buses[1]).await,
    ];
    let what = Invalidation::of(&batch([Change::Delete(id("a\"\\'b"))]));
    buses[0].publish(&what).await.unwrap();
    assert_eq!(
        listeners[0].changes().first(),
        Some(&what),
        "at once on the node that published it"
    );
    buses[0].publish(&Invalidation::default()).await.unwrap();
    listeners[1].wait_for_proof().await;
    assert_eq!(listeners[1].changes(), [what]);
    here.close().await;
    let error = buses[0]
        .publish(&Invalidation::everything())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to publish a change to other nodes"
    );
}

async fn a_new_listener_receives_everything_first_and_a_dropped_one_nothing(home: &PostgresHome) {
    let store = with_a(home).await;
    let bus = store.bus();
    let first = RecordingListener::awake_on(&bus).await;
    let second = RecordingListener::on(&bus);
    second.wait_for_proof().await;
    second.assert_everything_first();
    assert_eq!(first.changes(), [], "only the new one");
    drop(first);
    revise(&store, 1).await;
    second.wait_for_key("a").await;
    assert_eq!(format!("{bus:?}"), "PostgresBus(1 listeners)");
}

async fn a_bus_that_is_dropped_leaves_no_connection(home: &PostgresHome) {
    let store = home.open().await;
    let bus = store.bus();
    let listener = RecordingListener::awake_on(&bus).await;
    let count = || {
        home.text("SELECT CAST(COUNT(*) AS TEXT) FROM pg_stat_activity WHERE datname = current_database()")
    };
    let with: u32 = count().await.parse().unwrap();
    drop(bus.clone());
    listener.wait_for_proof().await;
    drop(bus);
    let gone = async || (count().await.parse::<u32>().unwrap() == with - 1).then_some(());
    let gone = eventually_async(gone).await;
    gone.expect("its connection remains");
    listener.clear();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(listener.all(), []);
}

async fn messages_of_other_clients_prove_nothing(home: &PostgresHome) {
    let store = with_a(home).await;
    let mut spy = PgListener::connect(&home.server.address(&home.name))
        .await
        .unwrap();
    spy.listen("portunus_changes").await.unwrap();
    let bus = store.bus();
    let listener = RecordingListener::awake_on(&bus).await;
    let mut other = home.connection().await;
    let (mut beats, mut spoken) = (0, BTreeSet::new());
    let huge = "x".repeat(7_999);
    let mut garbage = vec![
        "",
        " ",
        "nonsense",
        "{}",
        "changed",
        "changed {",
        "beat",
        "beat ",
        "beat x y",
        "é\u{1f511}",
        &huge,
    ];
    garbage.extend([
        "changed {\"keys\":[7],\"known\":[]}",
        "changed {\"keys\":[],\"known\":[1e99]}",
    ]);
    let mut round = 0_usize;
    while beats < 8 {
        let said = spy.recv().await.unwrap().payload().to_owned();
        if spoken.contains(&said) {
            continue;
        }
        let mut say = vec![garbage[round % garbage.len()].to_owned()];
        round += 1;
        if let Some((node, mark)) = said
            .strip_prefix("beat ")
            .and_then(|beat| beat.split_once(' '))
        {
            beats += 1;
            // The same mark again, the next one, another node's, and other letters.
            let number = u64::from_str_radix(mark, 16).unwrap();
            let next = format!("beat {node} {:016x}", number.wrapping_add(1));
            let zero = format!("beat {node} {:016x}", 0);
            let of_another = format!("beat {:016x} {mark}", 7);
            say.extend([
                said.clone(),
                said.clone(),
                next,
                zero,
                of_another,
                said.to_uppercase(),
            ]);
        }
        for payload in say {
            sqlx::query("SELECT pg_notify('portunus_changes', $1)")
                .bind(&payload)
                .execute(&mut other)
                .await
                .unwrap();
            spoken.insert(payload);
        }
    }
    listener.wait_for_proof().await;
    // Also those that the spy of a busy machine has not received yet.
    let pause = Duration::from_millis(100);
    while let Ok(said) = tokio::time::timeout(pause, spy.recv()).await {
        beats += usize::from(spoken.insert(said.unwrap().payload().to_owned()));
    }
    let proofs = listener
        .all()
        .iter()
        .filter(|(_, received)| matches!(received, Received::All(_)))
        .count();
    // One or two more may have arrived meanwhile.
    assert!(
        (7..=beats + 3).contains(&proofs),
        "{proofs} proofs of {beats} heartbeats"
    );
    assert!(
        listener
            .changes()
            .iter()
            .all(|what| *what == Invalidation::everything())
    );
    assert!(!listener.changes().is_empty());
    revise(&store, 1).await;
    listener.wait_for_key("a").await;
}

/// A store whose connections use an unreliable network.
async fn behind(proxy: &Proxy, home: &PostgresHome) -> PostgresStore {
    let address = proxy.address(&home.name);
    PostgresStore::connect(&address).await.unwrap()
}

async fn silent_or_broken_connections_are_replaced(home: &PostgresHome) {
    let store = with_a(home).await;
    let proxy = Proxy::before(home.server.socket());
    let far = behind(&proxy, home).await;
    let bus = far.bus();
    let listener = RecordingListener::awake_on(&bus).await;
    let mut written = revise(&store, 5).await;
    for (name, failing) in [("silent", Failing::Silent), ("cut", Failing::Reset)] {
        listener.wait_for_proof().await;
        listener.assert_no_false_proof(&written);
        listener.clear();
        written.clear();
        proxy.fail_present(failing, Which::All);
        let failed = Instant::now();
        written.extend(revise(&store, 5).await);
        listener.wait_for_everything().await;
        println!(
            "connections that were {name} were made anew after {:?}",
            failed.elapsed()
        );
        assert!(
            failed.elapsed() < Duration::from_secs(5),
            "{name}: {:?}",
            failed.elapsed()
        );
        written.extend(revise(&store, 5).await);
        listener.wait_for_proof().await;
        listener.assert_no_false_proof(&written);
    }
    // Silent for longer: no message meanwhile, however often it reconnects.
    proxy.fail(Failing::Silent, Which::All);
    let silent = Instant::now();
    written.extend(revise(&store, 5).await);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(
        listener.proven().unwrap() <= silent + Duration::from_millis(50),
        "a proof out of silence"
    );
    listener.clear();
    proxy.fail_present(Failing::Silent, Which::All);
    listener.wait_for_proof().await;
    listener.assert_everything_first();
    listener.assert_no_false_proof(&written);
    // Cut repeatedly: it recovers each time.
    for _ in 0..5 {
        proxy.fail_present(Failing::Reset, Which::All);
        listener.clear();
        written = revise(&store, 2).await;
        listener.wait_for_proof().await;
        listener.assert_no_false_proof(&written);
    }
}

async fn a_server_that_is_stopped_proves_nothing(home: &PostgresHome) {
    let store = with_a(home).await;
    let bus = store.bus();
    let listener = RecordingListener::awake_on(&bus).await;
    home.server.stop();
    let stopped = Instant::now();
    listener.clear();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(
        listener.proven().is_none_or(|proven| proven <= stopped),
        "a proof without a server"
    );
    home.server.start_again();
    let running = Instant::now();
    listener.wait_for_proof().await;
    println!(
        "a recovered server was received after {:?}",
        running.elapsed()
    );
    listener.assert_everything_first();
    let written = revise(&store, 3).await;
    listener.wait_for_proof().await;
    listener.assert_no_false_proof(&written);
}
