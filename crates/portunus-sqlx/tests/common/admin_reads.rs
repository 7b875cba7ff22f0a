//! Management reads concurrent with lookups: whatever they filter by, none delays a lookup.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

use portunus::audit::{Action, AuditEvent, AuditOutcome, EventQuery, Party};
use portunus::key::{KeyStatus, WorkspaceId};

use super::*;

/// The size of the data and of the load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) events: u32,
    pub(crate) keys: u32,
    pub(crate) lookups: u32,
    /// The interval between the starts of two lookups.
    pub(crate) every: Duration,
    pub(crate) readers: u32,
}

/// The results of a measurement.
#[derive(Debug)]
pub(crate) struct Figures {
    /// The durations of the lookups, slowest first.
    pub(crate) lookups: Vec<Duration>,
    pub(crate) reads: u64,
    pub(crate) slowest_read: Duration,
}

fn event_id(number: u32) -> String {
    format!("{number:032x}")
}

fn digest_of_key(number: u32) -> KeyDigest {
    let text = format!("{number:032}");
    KeyDigest::new(DigestScheme::Sha256, text.as_bytes().try_into().unwrap())
}

fn workspace(name: &str) -> WorkspaceId {
    WorkspaceId::new(name).unwrap()
}

/// Writes one key and one event, and copies them in the database.
pub(crate) async fn fill<H: Home>(home: &H, store: &H::Store, size: Size) {
    let template = insert(digest_of_key(0), record("template"));
    store.apply(&batch([template])).await.unwrap();
    let id = event_id(0).parse().unwrap();
    let mut event = AuditEvent::new(id, at(1_000), Action::Request, AuditOutcome::Ok);
    event.tenant_id = Some(tenant("acme"));
    event.key_id = Some(super::id("key1"));
    event.actor = Some(Party::operator("ann"));
    event.workspaces = Some(vec![workspace("w1")]);
    H::audit(store).record(&[event]).await.unwrap();

    let is_sqlite = home.bytes(&[1]).starts_with('x');
    let (digest, event_id_of) = if is_sqlite {
        ("CAST(printf('%032d', n) AS BLOB)", "printf('%032x', n)")
    } else {
        (
            "convert_to(lpad(CAST(n AS TEXT), 32, '0'), 'UTF8')",
            "lpad(to_hex(n), 32, '0')",
        )
    };
    let numbers = |count: u32| {
        format!(
            "(WITH RECURSIVE count (n) AS \
             (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < {count}) SELECT n FROM count)"
        )
    };
    let of_keys = numbers(size.keys);
    let columns = "version, kind, environment, tenant_id, user_id, description, masked, \
                   not_before, expires_at, enabled, revoked_at, may_be_primary";
    let json = "replace(replace(record, '\"template\"', '\"key' || n || '\"'), \
                '\"secs_since_epoch\":1000,', '\"secs_since_epoch\":' || (1000 + n) || ',')";
    home.execute(format!(
        "INSERT INTO portunus_keys (id, family, name, scheme, digest, created_at, record, {columns}) \
         SELECT 'key' || n, 'key' || n, 'key' || n, scheme, {digest}, (1000 + n) * 1000, {json}, \
         {columns} FROM portunus_keys CROSS JOIN {of_keys} AS numbers WHERE id = 'template'"
    ))
    .await;
    home.execute(format!(
        "INSERT INTO portunus_digests (digest, scheme, key_id) \
         SELECT {digest}, 'sha256', 'key' || n FROM {of_keys} AS numbers"
    ))
    .await;
    let (first, of_events) = (event_id(0), numbers(size.events));
    home.execute(format!(
        "INSERT INTO portunus_events (id, at, action, outcome, tenant_id, key_id, event) \
         SELECT {event_id_of}, at, action, outcome, tenant_id, key_id, \
         replace(event, '{first}', {event_id_of}) \
         FROM portunus_events CROSS JOIN {of_events} AS numbers WHERE id = '{first}'"
    ))
    .await;
    home.execute(format!(
        "INSERT INTO portunus_event_parties (who, place) SELECT 'ann', place FROM portunus_events \
         WHERE id <> '{first}'"
    ))
    .await;
    if !is_sqlite {
        home.execute("ANALYZE".into()).await;
    }
}

/// Lists of which most match nothing.
fn lists() -> Vec<ListQuery> {
    let query = |change: &dyn Fn(&mut ListQuery)| {
        let mut query = ListQuery::new(at(1_000_000));
        query.tenant = Some(tenant("acme"));
        change(&mut query);
        query
    };
    vec![
        query(&|query| query.text = Some("nothing has this".into())),
        query(&|query| {
            query.environment = Some(live());
            query.text = Some("nor this".into());
        }),
        query(&|query| query.status = Some(KeyStatus::Expired)),
        query(&|query| query.within_workspaces = Some(vec![workspace("w9")])),
        query(&|query| {
            query.tenant = None;
            query.status = Some(KeyStatus::NotYetValid);
            query.text = Some("key".into());
        }),
    ]
}

fn event_queries() -> Vec<EventQuery> {
    let query = |change: &dyn Fn(&mut EventQuery)| {
        let mut query = EventQuery::new();
        query.tenant = Some(tenant("acme"));
        change(&mut query);
        query
    };
    vec![
        query(&|query| {
            query.key_id = Some(id("key1"));
            query.outcome = Some(AuditOutcome::Failed);
        }),
        query(&|query| {
            query.key_id = Some(id("key1"));
            query.within_workspaces = Some(vec![workspace("w9")]);
        }),
        query(&|query| {
            query.actor = Some("ann".into());
            query.outcome = Some(AuditOutcome::Failed);
        }),
        query(&|query| query.within_workspaces = Some(vec![workspace("w9")])),
        query(&|query| {
            query.tenant = None;
            query.action = Some(Action::KeyRevoke);
        }),
    ]
}

/// Looks up uncached keys while management reads are repeated.
pub(crate) async fn measure<H: Home>(store: &H::Store, size: Size) -> Figures {
    let (is_done, reads) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut tasks = tokio::task::JoinSet::new();
    for reader in 0..size.readers {
        let (store, is_done, reads) = (store.clone(), Arc::clone(&is_done), Arc::clone(&reads));
        tasks.spawn(async move {
            let (audit, mut slowest) = (H::audit(&store), Duration::ZERO);
            let (lists, queries) = (lists(), event_queries());
            let mut turn = reader as usize;
            while !is_done.load(Ordering::SeqCst) {
                let started = Instant::now();
                // A read that gets no permit in time is rejected, and is repeated.
                if turn.is_multiple_of(2) {
                    let _ = store.list(&lists[turn / 2 % lists.len()]).await;
                } else {
                    let _ = audit.events(&queries[turn / 2 % queries.len()]).await;
                }
                slowest = slowest.max(started.elapsed());
                reads.fetch_add(1, Ordering::SeqCst);
                turn += 1;
            }
            slowest
        });
    }
    let mut lookups = Vec::new();
    let mut ticks = tokio::time::interval(size.every.max(Duration::from_nanos(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for number in 0..size.lookups {
        ticks.tick().await;
        let key = 1 + number.wrapping_mul(2_654_435_761) % size.keys;
        let started = Instant::now();
        let found = store.find(&[digest_of_key(key)]).await.unwrap();
        lookups.push(started.elapsed());
        assert_eq!(found.unwrap().record().id, id(&format!("key{key}")));
    }
    is_done.store(true, Ordering::SeqCst);
    lookups.sort_by(|one, other| other.cmp(one));
    let slowest = tasks.join_all().await.into_iter().max();
    Figures {
        lookups,
        reads: reads.load(Ordering::SeqCst),
        slowest_read: slowest.unwrap_or_default(),
    }
}

pub(crate) async fn lookups_continue_during_management_reads_that_stop_after_ten_thousand_rows<
    H: Home,
>(
    home: &H,
) {
    let size = Size {
        events: 20_000,
        keys: 12_000,
        lookups: 60,
        every: Duration::ZERO,
        readers: 4,
    };
    let store = home.open().await;
    fill(home, &store, size).await;
    let figures = measure::<H>(&store, size).await;
    assert_eq!(figures.lookups.len(), 60);
    assert!(figures.reads > 0, "{figures:?}");

    // Each page stops after ten thousand rows, with a position to continue from.
    for (text, expected) in [("nothing has this", vec![]), ("key11999", vec!["key11999"])] {
        let mut query = lists().remove(0);
        query.text = Some(text.into());
        let (mut pages, mut shown) = (0, Vec::new());
        loop {
            let page = store.list(&query).await.unwrap();
            assert_eq!(page.corrupt, Vec::<String>::new());
            shown.extend(page.items.iter().map(|key| key.name.clone()));
            pages += 1;
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        assert_eq!(shown, expected);
        assert!(
            (2..=3).contains(&pages),
            "{text}: {pages} pages of 12 001 keys"
        );
    }
    let audit = H::audit(&store);
    for mut query in [event_queries().remove(1), event_queries().remove(3)] {
        let mut pages = 0;
        loop {
            let page = audit.events(&query).await.unwrap();
            assert!(page.items.is_empty() && page.corrupt.is_empty(), "{page:?}");
            pages += 1;
            match page.next {
                Some(next) => query.before = Some(next),
                None => break,
            }
        }
        assert!((3..=4).contains(&pages), "{pages} pages of 20 001 events");
    }
    // The same applies to rows that are omitted because they may belong to another tenant.
    home.execute("UPDATE portunus_keys SET tenant_id = 'foreign'".into())
        .await;
    let mut query = ListQuery::new(at(1_000_000));
    query.tenant = Some(tenant("foreign"));
    let first = store.list(&query).await.unwrap();
    assert_eq!((first.items, first.corrupt), (vec![], vec![]));
    query.after = first.next;
    assert!(query.after.is_some(), "one page of 12 001 keys");
    assert_eq!(
        store.list(&query).await.unwrap(),
        portunus::store::Page::default()
    );
}
