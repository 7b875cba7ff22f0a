//! Importing many keys from a file, directly into a store: everything arrives once, whatever is
//! interrupted, and with its history and its events.
//!
//! `IMPORT_KEYS` is the number of keys (10 000); `scripts/measure import` imports more and shows the
//! rates.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use portunus::audit::{AuditTrail, JsonLines, verify};
use portunus::key::{Alphabet, KeyFormat, KeyHasher};
use portunus::store::{KeyStore, ListQuery};
use portunus::{ErrorCode, Portunus};
use portunus_admin::{ImportFormat, ImportReport, KeyImport, time_text};
use portunus_sqlx::{PostgresStore, SqliteStore};
use portunus_test_support::postgres::Postgres;
use portunus_test_support::{Head, Setup};

use crate::common::{Home, PostgresHome, SqliteHome, hex};

const ADDRESS: &str = "PORTUNUS_SQLX_IMPORT_ADDRESS";
const FILE: &str = "PORTUNUS_SQLX_IMPORT_FILE";

const HEADER: &str = "name,owner.tenant_id,owner.user_id,scopes,allowed_ips,metadata,digest.scheme,\
    digest.hex,last_four,created_at,last_used_at,request_count,status,revoked_at,revoke_reason,\
    expires_at,key_family";

/// As many as the largest call imports.
const BATCH: u64 = 500;

fn keys() -> u64 {
    let set = std::env::var("IMPORT_KEYS").ok();
    set.map_or(10_000, |keys| keys.parse().unwrap())
}

fn secret(number: u64) -> String {
    format!("old_{number:0>32}")
}

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000 + second)
}

/// What callers of a key learn.
fn refusal(number: u64) -> Option<ErrorCode> {
    match number % 10 {
        3 => Some(ErrorCode::KeyRevoked),
        4 => Some(ErrorCode::KeyExpired),
        5 => Some(ErrorCode::KeyDisabled),
        _ => None,
    }
}

/// Keys of a thousand tenants, half of them of one of their users.
fn row(number: u64, format: ImportFormat) -> String {
    let digest = hex(KeyHasher::sha256().digest(&secret(number)).to_bytes());
    let (tenant, user) = (number % 1_000, number / 1_000 % 7);
    let user = if number.is_multiple_of(2) {
        format!("u{user}")
    } else {
        String::new()
    };
    let (created, used) = (time_text(at(number)), time_text(at(number + 86_400)));
    let (status, revoked, reason, expires) = match number % 10 {
        3 => ("revoked", used.as_str(), "leaked", ""),
        4 => ("active", "", "", used.as_str()),
        5 => ("disabled", "", "", ""),
        _ => ("active", "", "", ""),
    };
    let last_four = format!("{:04}", number % 10_000);
    if format == ImportFormat::Csv {
        return format!(
            "\"key, {number}\",t{tenant},{user},document:read signature:write,192.0.2.0/24,\
             \"{{\"\"row\"\": {number}}}\",sha256,{digest},{last_four},{created},{used},{number},\
             {status},{revoked},{reason},{expires},f{number}\n"
        );
    }
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let row = serde_json::json!({
        "name": format!("key, {number}"),
        "owner": { "tenant_id": format!("t{tenant}"), "user_id": given(&user) },
        "scopes": ["document:read", "signature:write"],
        "allowed_ips": ["192.0.2.0/24"],
        "metadata": { "row": number },
        "digest": { "scheme": "sha256", "hex": digest },
        "last_four": last_four,
        "created_at": created,
        "last_used_at": used,
        "request_count": number,
        "status": status,
        "revoked_at": given(revoked),
        "revoke_reason": given(reason),
        "expires_at": given(expires),
        "key_family": format!("f{number}"),
    });
    format!("{row}\n")
}

fn write_file(path: &Path, format: ImportFormat) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    if format == ImportFormat::Csv {
        writeln!(file, "{HEADER}").unwrap();
    }
    for number in 0..keys() {
        file.write_all(row(number, format).as_bytes()).unwrap();
    }
    file.flush().unwrap();
}

fn service(store: impl KeyStore, trail: AuditTrail) -> Portunus {
    let format = KeyFormat::builder("old_").random(Alphabet::BASE62, 32);
    Setup::on(store)
        .bearer([format.build().unwrap()])
        .audit(trail)
        .keys()
}

/// Imports a file as a program without HTTP does. `seen` is called after each part.
async fn import(
    keys: &Portunus,
    path: &Path,
    format: ImportFormat,
    mut seen: impl FnMut(&ImportReport),
) -> ImportReport {
    let mut file = File::open(path).unwrap();
    let mut import = KeyImport::new(keys.manager(), format);
    let mut part = vec![0; 64 << 10];
    loop {
        let read = file.read(&mut part).unwrap();
        if read == 0 {
            break;
        }
        import.push(&part[..read]).await.unwrap();
        seen(import.report());
    }
    let report = import.finish().await.unwrap();
    keys.manager().audit().unwrap().flush().await.unwrap();
    report
}

async fn count<H: Home>(home: &H, sql: &'static str) -> u64 {
    home.text(sql).await.parse().unwrap()
}

/// Asserts that everything is there, once.
async fn assert_complete<H: Home>(home: &H, keys: &Portunus) {
    let all = self::keys();
    for sql in [
        "SELECT CAST(count(*) AS TEXT) FROM portunus_keys",
        "SELECT CAST(count(*) AS TEXT) FROM portunus_digests",
        "SELECT CAST(count(*) AS TEXT) FROM portunus_usage",
    ] {
        assert_eq!(count(home, sql).await, all, "{sql}");
    }
    let uses = "SELECT CAST(SUM(uses) AS TEXT) FROM portunus_usage";
    assert_eq!(count(home, uses).await, all * (all - 1) / 2);
    let hours = "SELECT CAST(count(*) AS TEXT) FROM portunus_usage_by_hour";
    assert_eq!(count(home, hours).await, 0);
    // Each owner with a key that can be primary has one.
    let primaries = "SELECT CAST(count(*) AS TEXT) FROM portunus_primaries";
    let owners = "SELECT CAST(count(*) AS TEXT) FROM (SELECT DISTINCT tenant_id, user_id FROM \
        portunus_keys WHERE revoked_at IS NULL AND expires_at IS NULL) AS owners";
    assert_eq!(count(home, primaries).await, count(home, owners).await);
    for number in (0..all).step_by(all.div_ceil(101).try_into().unwrap()) {
        let head = Head::bearer(&secret(number)).from("192.0.2.7");
        let refused = keys.authenticator().authenticate(&head).await.err();
        assert_eq!(
            refused.map(|error| error.code()),
            refusal(number),
            "{number}"
        );
    }
    let mut query = ListQuery::new(SystemTime::now());
    query.limit = 3;
    for (key, number) in keys
        .manager()
        .list(query)
        .await
        .unwrap()
        .items
        .iter()
        .zip((0..all).rev())
    {
        let last_four = format!("…{:04}", number % 10_000);
        assert_eq!(
            (&*key.record.name, &*key.record.masked),
            (&*format!("key, {number}"), &*last_four)
        );
        assert_eq!(key.record.created_at, at(number));
        // The sample above may have used it.
        assert!(key.usage.count - number <= 1);
        assert_eq!(key.record.revoked.is_some(), number % 10 == 3);
    }
}

async fn is_imported_whole_and_recognized<H: Home>(home: &H, format: ImportFormat) {
    let folder = tempfile::tempdir().unwrap();
    let (path, chain) = (folder.path().join("keys"), folder.path().join("chain"));
    write_file(&path, format);
    let store = home.open().await;
    let lines = JsonLines::open(&chain, None).unwrap();
    let trail = AuditTrail::builder()
        .sink(H::audit(&store))
        .sink(lines)
        .build();
    let keys = service(store, trail.clone());
    let all = self::keys();
    for (created, already_there) in [(all, 0), (0, all)] {
        let begun = Instant::now();
        let report = import(&keys, &path, format, |_| ()).await;
        let rate = all as f64 / begun.elapsed().as_secs_f64();
        println!("{format:?}: {created} new and {already_there} known keys, {rate:.0} a second");
        assert_eq!(
            (report.created, report.already_there, report.refused),
            (created, already_there, 0),
            "{:?}",
            report.refusals.first()
        );
    }
    assert_complete(home, &keys).await;
    // Each key has one event, everywhere.
    let events = "SELECT CAST(count(*) AS TEXT) FROM portunus_events WHERE action = 'key.import'";
    assert_eq!(count(home, events).await, all);
    assert_eq!(trail.dropped(), 0);
    let head = verify(File::open(&chain).unwrap(), None, None).unwrap();
    assert_eq!(head.lines, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_imported_whole_and_recognized_on_sqlite() {
    is_imported_whole_and_recognized(&SqliteHome::new(), ImportFormat::JsonLines).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_imported_whole_and_recognized_on_postgres() {
    let server = Arc::new(Postgres::start());
    is_imported_whole_and_recognized(&PostgresHome::new(&server), ImportFormat::Csv).await;
}

/// Runs in a process that the tests below kill. In a run of all tests it does nothing.
#[tokio::test]
async fn a_process_that_imports_a_file() {
    let (Ok(address), Ok(path)) = (std::env::var(ADDRESS), std::env::var(FILE)) else {
        return;
    };
    let show = |report: &ImportReport| {
        println!("done {}", report.created + report.already_there);
    };
    let (path, format) = (Path::new(&path), ImportFormat::Csv);
    if address.starts_with("postgres") {
        let store = PostgresStore::connect(&address).await.unwrap();
        let trail = AuditTrail::builder().sink(store.audit()).build();
        import(&service(store, trail), path, format, show).await;
    } else {
        let store = SqliteStore::open(&address).await.unwrap();
        let trail = AuditTrail::builder().sink(store.audit()).build();
        import(&service(store, trail), path, format, show).await;
    }
}

async fn loses_and_duplicates_nothing<H: Home>(home: &H, address: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    write_file(&path, ImportFormat::Csv);
    let store = home.open().await;
    let (all, kills) = (self::keys(), 5);
    for kill in 1..=kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "importing::a_process_that_imports_a_file",
                "--nocapture",
            ])
            .env(ADDRESS, address)
            .env(FILE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let enough = all * kill / (kills + 1);
        let is_there = |line: String| {
            let done = line.strip_prefix("done ");
            done.is_some_and(|done| done.parse::<u64>().unwrap() >= enough)
        };
        let reached = lines.any(|line| is_there(line.unwrap()));
        // In the middle of the next writes.
        std::thread::sleep(Duration::from_millis(7 * kill));
        // SIGKILL
        child.kill().unwrap();
        assert!(
            !child.wait().unwrap().success() && reached,
            "it ended by itself"
        );
    }
    let trail = AuditTrail::builder().sink(H::audit(&store)).build();
    let keys = service(store, trail);
    let report = import(&keys, &path, ImportFormat::Csv, |_| ()).await;
    let counts = (report.created + report.already_there, report.refused);
    assert_eq!(counts, (all, 0), "{:?}", report.refusals.first());
    assert!(report.already_there >= all * kills / (kills + 1) && report.created > 0);
    assert_complete(home, &keys).await;
    // A process that is killed loses the events of its last write, as those of any operation.
    let events = "SELECT CAST(count(*) AS TEXT) FROM portunus_events WHERE action = 'key.import'";
    let events = count(home, events).await;
    assert!(
        (all - kills * BATCH..=all).contains(&events),
        "{events} of {all}"
    );
    let twice = "SELECT CAST(count(*) AS TEXT) FROM (SELECT key_id FROM portunus_events \
        WHERE action = 'key.import' GROUP BY key_id HAVING count(*) > 1) AS twice";
    assert_eq!(count(home, twice).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_is_killed_loses_and_duplicates_nothing_on_sqlite() {
    let home = SqliteHome::new();
    let address = home.path().display().to_string();
    loses_and_duplicates_nothing(&home, &address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_is_killed_loses_and_duplicates_nothing_on_postgres() {
    let server = Arc::new(Postgres::start());
    let home = PostgresHome::new(&server);
    let address = server.address(&home.name);
    loses_and_duplicates_nothing(&home, &address).await;
}
