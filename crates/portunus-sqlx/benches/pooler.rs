//! The cost of a lookup through PgBouncer in transaction mode, by the two methods that work there,
//! compared to a direct connection: all of them in turn, round by round.
//!
//! `direct` is a named prepared statement. `inline` is a single message with the digest's digits
//! inlined, which is what the store does. `transaction` is `BEGIN` with its limits, an unnamed
//! statement in two steps, and `COMMIT`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

use portunus::store::KeyLookup;
use std::time::{Duration, Instant};

use portunus::key::{
    DigestScheme, Environment, KeyDigest, KeyId, KeyKind, KeyRecord, Owner, TenantId,
};
use portunus::store::{Change, KeyStore, WriteBatch};
use portunus_sqlx::PostgresStore;
use portunus_test_support::pgbouncer::PgBouncer;
use portunus_test_support::postgres::Postgres;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

const KEYS: u32 = 1_000;
const ROUNDS: usize = 2_000;

fn bytes(number: u32) -> [u8; 32] {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
    bytes
}

fn digest(number: u32) -> KeyDigest {
    KeyDigest::new(DigestScheme::Sha256, bytes(number))
}

async fn fill(store: &PostgresStore) {
    for number in 0..KEYS {
        let record = KeyRecord::new(
            KeyId::new(&format!("key{number}")).unwrap(),
            "a key",
            KeyKind::App,
            Environment::new("live").unwrap(),
            Owner::tenant(TenantId::new("acme").unwrap()),
            std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000),
        );
        let insert = Change::Insert {
            digest: digest(number),
            record: Box::new(record),
        };
        store
            .apply(&WriteBatch::new().change(insert))
            .await
            .unwrap();
    }
}

const STATEMENT: &str =
    "SELECT * FROM portunus_keys WHERE digest IN ($1, $2, $3, $4, $5, $6, $7, $8)";
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL statement_timeout = '3s'; \
    SET LOCAL lock_timeout = '3s'; SET LOCAL idle_in_transaction_session_timeout = '30s'";

fn query(number: u32) -> sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments> {
    (0..8).fold(sqlx::query(STATEMENT), |query, _| {
        query.bind(bytes(number).to_vec())
    })
}

async fn direct(connection: &mut PgConnection, number: u32) {
    assert_eq!(query(number).fetch_all(connection).await.unwrap().len(), 1);
}

async fn inline(connection: &mut PgConnection, number: u32) {
    let digits: String = bytes(number)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut text =
        format!("SET LOCAL statement_timeout = '3s'; SET LOCAL lock_timeout = '3s'; {STATEMENT}");
    for place in 1..=8 {
        text = text.replace(&format!("${place}"), &format!("decode('{digits}', 'hex')"));
    }
    let rows = sqlx::raw_sql(AssertSqlSafe(text))
        .fetch_all(connection)
        .await;
    assert_eq!(rows.unwrap().len(), 1);
}

async fn transaction(connection: &mut PgConnection, number: u32) {
    sqlx::raw_sql(BEGIN)
        .execute(&mut *connection)
        .await
        .unwrap();
    let rows = query(number)
        .persistent(false)
        .fetch_all(&mut *connection)
        .await;
    assert_eq!(rows.unwrap().len(), 1);
    sqlx::raw_sql("COMMIT")
        .execute(&mut *connection)
        .await
        .unwrap();
}

/// Prints the median and the 99th percentile of each, relative to the first one.
fn report(what: &str, mut all: Vec<(&str, Vec<Duration>)>) {
    let mut first = None;
    println!("{what}");
    for (name, took) in &mut all {
        took.sort_unstable();
        let (p50, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
        let first = *first.get_or_insert(p50);
        let ratio = p50.as_secs_f64() / first.as_secs_f64();
        println!("  {name:<40} p50 {p50:>9.1?}  p99 {p99:>9.1?}  {ratio:.2} times");
    }
}

#[tokio::main]
async fn main() {
    let server = Postgres::start();
    let address = server.database("keys");
    let pooler = PgBouncer::before(&server);
    let near = PostgresStore::connect(&address).await.unwrap();
    fill(&near).await;
    server.sql("keys", "VACUUM ANALYZE");
    let far = PostgresStore::behind_pooler(&pooler.address("keys"))
        .await
        .unwrap();

    let pooled: PgConnectOptions = pooler.address("keys").parse().unwrap();
    let pooled = pooled.extra_float_digits(None);
    let mut connection = PgConnection::connect(&address).await.unwrap();
    let mut through = PgConnection::connect_with(&pooled).await.unwrap();
    let names = [
        "direct",
        "through PgBouncer, inline",
        "through PgBouncer, transaction",
    ];
    let mut all: Vec<_> = names.into_iter().map(|name| (name, Vec::new())).collect();
    for round in 0..ROUNDS {
        for (way, (_, took)) in all.iter_mut().enumerate() {
            let number = (round as u32).wrapping_mul(7) % KEYS;
            let asked = Instant::now();
            match way {
                0 => direct(&mut connection, number).await,
                1 => inline(&mut through, number).await,
                _ => transaction(&mut through, number).await,
            }
            took.push(asked.elapsed());
        }
    }
    report("one statement, one connection", all);

    for at_once in [1, 8] {
        let names = [
            "find, direct",
            "find, through PgBouncer",
            "get, direct",
            "get, through PgBouncer",
        ];
        let mut all: Vec<_> = names.into_iter().map(|name| (name, Vec::new())).collect();
        for round in 0..ROUNDS / at_once {
            for (way, (_, took)) in all.iter_mut().enumerate() {
                let store = if way % 2 == 0 { &near } else { &far };
                let mut tasks = tokio::task::JoinSet::new();
                for number in 0..at_once {
                    let number = ((round * at_once + number) as u32).wrapping_mul(7) % KEYS;
                    let store = store.clone();
                    tasks.spawn(async move {
                        let asked = Instant::now();
                        if way < 2 {
                            assert!(store.find(&[digest(number)]).await.unwrap().is_some());
                        } else {
                            let id = KeyId::new(&format!("key{number}")).unwrap();
                            assert!(store.get(&id).await.unwrap().is_some());
                        }
                        asked.elapsed()
                    });
                }
                took.extend(tasks.join_all().await);
            }
        }
        report(&format!("the store, {at_once} at once"), all);
    }
}
