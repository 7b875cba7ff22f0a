//! A write that narrows access waits neither for audit, usage or new keys nor for another tenant.

use portunus::store::UsageStore;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::common::{
    Home, PostgresHome, SqliteHome, at, batch, digest, get, id, insert, record, with_a,
};
use portunus::audit::{Action, AuditEvent, AuditOutcome, AuditSink};
use portunus::key::{KeyRecord, Owner, Revocation};
use portunus::store::{Change, KeyStore, UsageDelta, WriteBatch};
use portunus_test_support::postgres::Postgres;
use portunus_test_support::tenant;

/// The tenant that keeps the queue busy.
const BUSY: &str = "busy";

fn of_busy(name: &str) -> KeyRecord {
    let mut record = record(name);
    record.owner = Owner::tenant(tenant(BUSY));
    record
}

fn events(number: u128) -> Vec<AuditEvent> {
    let event = |place: u128| {
        let id = format!("{:032x}", number * 1_000 + place).parse().unwrap();
        AuditEvent::new(id, at(1), Action::Request, AuditOutcome::Ok)
    };
    (1..=100).map(event).collect()
}

fn revoked(mut record: KeyRecord) -> WriteBatch {
    record.revoked = Some(Revocation::new(at(2_000), None));
    WriteBatch::new().update(record)
}

/// Lets tasks run until each waits for the database.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[derive(Clone, Default)]
struct Order(Arc<Mutex<Vec<String>>>);

impl Order {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }
}

/// Starts writes of all kinds that cannot narrow, or belong to another tenant, each in its own
/// task.
async fn crowd<H: Home>(store: &H::Store, order: &Order) -> Vec<tokio::task::JoinHandle<()>> {
    let mut tasks = Vec::new();
    for number in 0..50_u32 {
        for kind in ["audit", "usage", "new", "busy"] {
            let (store, order) = (store.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                match kind {
                    "audit" => {
                        let audit = H::audit(&store);
                        audit.record(&events(number.into())).await.unwrap();
                    }
                    "usage" => {
                        let delta = UsageDelta::new(id("a"), 1, at(7_200), None);
                        store.record_usage(&[delta]).await.unwrap();
                    }
                    "new" => {
                        let new = insert(digest(1_000 + number), record(&format!("new{number}")));
                        store.apply(&batch([new])).await.unwrap();
                    }
                    _ => {
                        let record = of_busy(&format!("busy{number}"));
                        store
                            .apply(&WriteBatch::new().update(record))
                            .await
                            .unwrap();
                    }
                }
                order.note(kind);
            }));
        }
    }
    settle().await;
    tasks
}

/// Inserts keys of the busy tenant.
async fn busy_keys<S: KeyStore>(store: &S) {
    let keys =
        (0..50).map(|number| insert(digest(500 + number), of_busy(&format!("busy{number}"))));
    store.apply(&batch(keys)).await.unwrap();
}

#[tokio::test]
async fn on_sqlite_a_revocation_waits_for_the_write_in_progress_and_its_turn_among_tenants() {
    let home = SqliteHome::new();
    let store = with_a(&home).await;
    busy_keys(&store).await;
    store
        .apply(&batch([
            insert(digest(2), record("b")),
            insert(digest(3), record("c")),
        ]))
        .await
        .unwrap();
    // Another process holds the file until all of them wait.
    let mut other = home.connection().await;
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .unwrap();
    let order = Order::default();
    let mut tasks = crowd::<SqliteHome>(&store, &order).await;
    let narrowing = [
        ("revoke", revoked(record("a"))),
        ("delete", batch([Change::Delete(id("b"))])),
        ("disable", {
            let mut disabled = record("c");
            disabled.enabled = false;
            WriteBatch::new().update(disabled)
        }),
    ];
    for (name, narrow) in narrowing {
        let (store, order) = (store.clone(), order.clone());
        tasks.push(tokio::spawn(async move {
            store.apply(&narrow).await.unwrap();
            order.note(name);
        }));
    }
    settle().await;
    let freed = Instant::now();
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    let order = order.0.lock().unwrap().clone();
    println!("{} writes in {:?}", order.len(), freed.elapsed());
    for name in ["revoke", "delete", "disable"] {
        let place = order.iter().position(|done| done == name).unwrap();
        // The write in progress, and the busy tenant's turns.
        assert!(place <= 6, "{name} was number {place}: {:?}", &order[..10]);
    }
    let last = order.iter().rposition(|done| done == "busy").unwrap();
    let first = order
        .iter()
        .skip(1)
        .position(|done| done == "audit")
        .unwrap();
    assert!(last < first + 2, "narrowing writes precede audit");
}

#[tokio::test]
async fn on_postgres_neither_slow_writes_nor_a_slow_tenant_hold_all_turns() {
    let server = Arc::new(Postgres::start());
    let home = PostgresHome::new(&server);
    let store = with_a(&home).await;
    busy_keys(&store).await;
    // Audit batches wait for each other, as do writes for one tenant: here for this lock.
    let hold = "SELECT pg_advisory_xact_lock(8101251880330297344 + kind * 1024 \
         + (hashtextextended(name, 0) & 1023)) \
         FROM (VALUES (3, 'events'), (1, 'busy')) AS held (kind, name)";
    let mut other = home.connection().await;
    sqlx::raw_sql("BEGIN").execute(&mut other).await.unwrap();
    sqlx::query(hold).execute(&mut other).await.unwrap();
    let order = Order::default();
    let mut tasks = Vec::new();
    for number in 0..50_u32 {
        let (mine, noted) = (store.clone(), order.clone());
        tasks.push(tokio::spawn(async move {
            mine.audit().record(&events(number.into())).await.unwrap();
            noted.note("audit");
        }));
        let (mine, noted) = (store.clone(), order.clone());
        tasks.push(tokio::spawn(async move {
            let record = of_busy(&format!("busy{number}"));
            mine.apply(&WriteBatch::new().update(record)).await.unwrap();
            noted.note("busy");
        }));
    }
    settle().await;
    let asked = Instant::now();
    store.apply(&revoked(get(&store, "a").await)).await.unwrap();
    println!("a revocation took {:?}", asked.elapsed());
    assert!(
        order.0.lock().unwrap().is_empty(),
        "all the others still wait"
    );
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(order.0.lock().unwrap().len(), 100);
}
