//! Databases written by earlier versions, with keys in every state: `tests/written` has a SQLite
//! file and a PostgreSQL dump for each earlier schema.
//!
//! They were created by [`write`] on the version in question, the dumps by `pg_dump --inserts
//! --no-owner` without the commands that only psql understands. Before a new schema is introduced,
//! add files of the previous one, and leave the existing ones unchanged.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use portunus::audit::EventQuery;
use portunus::key::KeyStatus;
use portunus::store::UsageDelta;
use portunus_test_support::wait::PATIENCE;

use super::*;

/// The newest schema for which there are files.
pub(crate) const LATEST: u32 = 5;

/// The file that a schema wrote.
pub(crate) fn file(schema: u32, kind: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/written");
    folder.join(format!("{schema}.{kind}"))
}

pub(crate) async fn data_of_every_earlier_schema_survives_migration<H: Home>(home: &H) {
    for schema in 1..=LATEST {
        let home = home.another();
        home.written(schema).await;
        let store = home.open().await;
        expect(&store).await;
        // Where the tenant of the deleted key is unknown, its deletion applies to every tenant.
        let again = Change::Insert {
            digest: peppered(6),
            record: Box::new(owned("again", "other", None)),
        };
        store.apply(&batch([again])).await.unwrap();
        let asked = [peppered(6), digest(6)];
        let other = store.find(&asked).await.unwrap();
        assert_eq!(other.is_some(), schema >= 3, "schema {schema}");
        let events = H::audit(&store).events(&EventQuery::new()).await.unwrap();
        let expected = if schema < 2 { 0 } else { 2 };
        assert_eq!(events.items.len(), expected, "schema {schema}");
        let open = store.open_bulk_operations().await.unwrap();
        assert_eq!(open.len(), usize::from(schema >= 5), "schema {schema}");
        // Repeating it changes nothing.
        home.migrate().await.unwrap();
        assert_eq!(found(&store, digest(1)).await, Some(id("k_active")));
    }
}

/// Many nodes are updated at once: none must wait for another in a cycle.
pub(crate) async fn an_earlier_schema_is_migrated_once_by_concurrent_nodes(home: &impl Home) {
    for schema in 1..=LATEST {
        let home = home.another();
        home.written(schema).await;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let home = home.clone();
            tasks.spawn(async move { home.migrate().await });
        }
        let done = tokio::time::timeout(PATIENCE, tasks.join_all()).await;
        for done in done.expect("they are deadlocked") {
            done.unwrap();
        }
        expect(&home.open().await).await;
    }
}

/// The lookup statement of the previous version.
fn old_lookup(bytes: &str) -> String {
    format!(
        "SELECT CAST(0 AS BIGINT) AS ended, id, scheme, digest, record FROM portunus_keys \
         WHERE digest IN ({bytes}) \
         UNION ALL SELECT CAST(1 AS BIGINT), key_id, scheme, digest, NULL FROM portunus_digests \
         WHERE digest IN ({bytes}) AND NOT EXISTS \
         (SELECT 1 FROM portunus_keys WHERE portunus_keys.id = portunus_digests.key_id)"
    )
}

pub(crate) async fn lookups_of_the_previous_version_continue_during_migration(home: &impl Home) {
    let mut best = Duration::MAX;
    // A busy machine may delay one of them, but not three times.
    for _ in 0..3 {
        best = best.min(longest_lookup_during_migration(&home.another()).await);
        if best < Duration::from_secs(1) {
            return;
        }
    }
    panic!("a lookup took {best:?}");
}

/// How long the longest lookup takes while the database is migrated.
async fn longest_lookup_during_migration<H: Home>(home: &H) -> Duration {
    const KEYS: u32 = 50_000;
    // Schema 5 adds indexes of this table; no later one changes it.
    home.written(4).await;
    let columns = "family, version, kind, environment, tenant_id, user_id, name, description, \
                   masked, created_at, not_before, expires_at, enabled, revoked_at, may_be_primary, \
                   signing";
    let number = "(WITH RECURSIVE count (n) AS \
                  (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < KEYS) SELECT n FROM count)";
    let number = number.replace("KEYS", &KEYS.to_string());
    let digest_of = if home.bytes(&[1]).starts_with("x") {
        "CAST(printf('%032d', n) AS BLOB)"
    } else {
        "convert_to(lpad(CAST(n AS TEXT), 32, '0'), 'UTF8')"
    };
    home.execute(format!(
        "INSERT INTO portunus_keys (id, scheme, digest, record, {columns}) \
         SELECT 'big' || n, scheme, {digest_of}, replace(record, '\"k_disabled\"', '\"big' || n || '\"'), \
         {columns} FROM portunus_keys CROSS JOIN {number} AS numbers WHERE id = 'k_disabled'"
    ))
    .await;
    let is_done = std::sync::Arc::new(AtomicBool::new(false));
    let looking = tokio::spawn({
        let (home, is_done) = (home.clone(), std::sync::Arc::clone(&is_done));
        let lookup = old_lookup(&home.bytes(&digest(1).to_bytes()));
        async move {
            let (mut longest, mut count) = (Duration::ZERO, 0_u32);
            let mut connection = home.raw().await;
            loop {
                // A lookup that starts after the end proves nothing.
                if is_done.load(Ordering::SeqCst) {
                    return (longest, count);
                }
                let started = Instant::now();
                assert_eq!(H::rows(&mut connection, &lookup).await, 1);
                longest = longest.max(started.elapsed());
                count += 1;
            }
        }
    });
    let started = Instant::now();
    let store = home.open().await;
    let took = started.elapsed();
    is_done.store(true, Ordering::SeqCst);
    let (longest, count) = looking.await.unwrap();
    println!("{KEYS} keys in {took:?}: {count} lookups, the longest {longest:?}");
    assert!(count > 0, "no lookup completed meanwhile");
    assert_eq!(found(&store, digest(1)).await, Some(id("k_active")));
    longest
}

pub(crate) async fn a_previous_node_continues_and_its_deletions_apply_to_every_tenant<H: Home>(
    home: &H,
) {
    home.written(2).await;
    let store = home.open().await;
    // The statements with which that version deletes and inserts a key.
    home.execute("DELETE FROM portunus_keys WHERE id = 'k_revoked'".into())
        .await;
    let foreign = Change::Insert {
        digest: peppered(3),
        record: Box::new(owned("again", "other", None)),
    };
    store.apply(&batch([foreign])).await.unwrap();
    assert!(
        store
            .find(&[peppered(3), digest(3)])
            .await
            .unwrap()
            .is_none()
    );
    let record = "replace(record, '\"k_disabled\"', '\"older\"')";
    home.execute(format!(
        "INSERT INTO portunus_keys (id, scheme, digest, family, version, kind, environment, tenant_id, \
         user_id, name, description, masked, created_at, not_before, expires_at, enabled, revoked_at, \
         may_be_primary, record) SELECT 'older', scheme, {}, 'older', version, kind, environment, \
         tenant_id, user_id, 'older', description, masked, created_at, not_before, expires_at, enabled, \
         revoked_at, may_be_primary, {record} FROM portunus_keys WHERE id = 'k_disabled'",
        home.bytes(&digest(77).to_bytes())
    ))
    .await;
    assert_eq!(found(&store, digest(77)).await, Some(id("older")));
    // A node of this version that starts while they run.
    let other = home.open().await;
    assert_eq!(found(&other, digest(77)).await, Some(id("older")));
}

/// The rows of keys do not know of uses that a node of schema 3 counts.
pub(crate) async fn uses_that_a_previous_node_counts_exclude_keys_from_lists_of_unused_ones<
    H: Home,
>(
    home: &H,
) {
    home.written(3).await;
    let store = home.open().await;
    let mut query = ListQuery::new(now());
    query.unused_since = Some(at(20_000));
    query.tenant = Some(tenant("acme"));
    let unused = async || {
        let items = store.list(&query).await.unwrap().items;
        items
            .iter()
            .map(|key| key.id.to_string())
            .collect::<Vec<_>>()
    };
    let mut expected = [
        "k_active",
        "k_disabled",
        "k_expired",
        "k_not_yet",
        "k_of_user",
        "k_rehashed",
        "k_revoked",
        "k_rotated",
        "k_successor",
        "k_token",
    ]
    .to_vec();
    assert_eq!(unused().await, expected);
    let old =
        "INSERT INTO portunus_usage (key_id, uses, last_used_at) VALUES ('k_token', 1, 30000000)";
    home.execute(old.into()).await;
    expected.pop();
    assert_eq!(unused().await, expected);
    let late = UsageDelta::new(id("k_rotated"), 1, at(86_400 * 2), None);
    store.record_usage(&[late]).await.unwrap();
    expected.remove(7);
    assert_eq!(unused().await, expected);
    let known = "SELECT CAST(used_on AS TEXT) FROM portunus_keys WHERE id = 'k_rotated'";
    assert_eq!(home.text(known).await, "2");
    // Late news of an earlier use.
    let early = UsageDelta::new(id("k_rotated"), 1, at(10), None);
    store.record_usage(&[early]).await.unwrap();
    assert_eq!(home.text(known).await, "2");
}

pub(crate) async fn a_compatible_later_schema_is_accepted(home: &impl Home) {
    let store = home.open().await;
    write(&store).await;
    // Two versions later, with additions that affect nothing here.
    home.execute("ALTER TABLE portunus_keys ADD COLUMN region TEXT".into())
        .await;
    home.execute("CREATE TABLE portunus_plans (name TEXT NOT NULL PRIMARY KEY)".into())
        .await;
    home.execute(
        "INSERT INTO portunus_schema (version, oldest) VALUES (1001, 3), (1002, 3)".into(),
    )
    .await;
    home.migrate().await.unwrap();
    let store = home.open().await;
    expect(&store).await;
    store
        .apply(&batch([insert(digest(50), record("more"))]))
        .await
        .unwrap();
    store
        .apply(&batch([Change::Delete(id("more"))]))
        .await
        .unwrap();

    home.execute("INSERT INTO portunus_schema (version, oldest) VALUES (1003, 1002)".into())
        .await;
    let error = home.migrate().await.unwrap_err();
    for part in ["schema 1003", "knows", "1002", "update the program"] {
        assert!(error.contains(part), "{error}");
    }
    // Running nodes continue: only starting is refused.
    assert_eq!(found(&store, digest(1)).await, Some(id("k_active")));
}

/// The instant at which keys are as [`expect`] states.
pub(crate) fn now() -> SystemTime {
    at(100_000)
}

fn owned(name: &str, tenant_id: &str, by: Option<&str>) -> KeyRecord {
    let mut record = record(name);
    record.owner = match by {
        Some(user_id) => Owner::user(tenant(tenant_id), UserId::new(user_id).unwrap()),
        None => Owner::tenant(tenant(tenant_id)),
    };
    record
}

/// A record with every kind of restriction.
fn narrow(name: &str) -> KeyRecord {
    let mut record = record(name);
    let json = serde_json::json!({
        "description": "keeps \u{e4}ll, and 'quotes'",
        "scopes": ["document:read", "signature:*"],
        "access": "read-only",
        "workspaces": ["ws1", "ws2"],
        "plan": "standard",
        "allowed_ips": ["192.0.2.0/24", "2001:db8::/32"],
    });
    let mut whole = serde_json::to_value(&record).unwrap();
    for (name, value) in json.as_object().unwrap() {
        whole[name] = value.clone();
    }
    record = serde_json::from_value(whole).unwrap();
    record
}

/// Keys in every state, as created by a host's manager.
pub(crate) async fn write(store: &impl WholeStore) {
    let changed = |name: &str, change: &dyn Fn(&mut KeyRecord)| {
        let mut record = record(name);
        change(&mut record);
        record
    };
    let keys = [
        (1, narrow("k_active")),
        (2, changed("k_disabled", &|record| record.enabled = false)),
        (
            3,
            changed("k_revoked", &|record| {
                record.revoked = Some(Revocation::new(at(2_000), Some("lost".into())));
            }),
        ),
        (
            4,
            changed("k_expired", &|record| record.expires_at = Some(at(2_000))),
        ),
        (
            5,
            changed("k_not_yet", &|record| {
                record.not_before = Some(at(1_000_000));
            }),
        ),
        (6, record("k_deleted")),
        (
            7,
            changed("k_rotated", &|record| {
                record.expires_at = Some(at(1_000_000));
                record.successor = Some(id("k_successor"));
            }),
        ),
        (
            8,
            changed("k_successor", &|record| {
                record.predecessor = Some(id("k_rotated"));
            }),
        ),
        (9, record("k_rehashed")),
        (
            10,
            owned(
                "k_of_user",
                "acme",
                Some("7D444840-9DC0-11D1-B245-5FFDCE74FAD2"),
            ),
        ),
        (
            11,
            changed("k_token", &|record| record.kind = KeyKind::AccessToken),
        ),
        (12, owned("k_foreign", "other", None)),
    ];
    for (number, record) in keys {
        store
            .apply(&batch([insert(digest(number), record)]))
            .await
            .unwrap();
    }
    let signing = |number: u8| {
        let mut bytes = [number; SigningState::LENGTH];
        bytes[0] = 1;
        SigningState::from_bytes(&bytes).unwrap()
    };
    let primary = Change::SetPrimary {
        owner: OwnerRef::TenantItself(tenant("acme")),
        key: id("k_active"),
    };
    let sign = Change::SetSigning {
        id: id("k_active"),
        state: Some(signing(7)),
    };
    let moved = rehash("k_rehashed", digest(9), digest(109));
    store.apply(&batch([primary, sign, moved])).await.unwrap();
    store
        .apply(&batch([Change::Delete(id("k_deleted"))]))
        .await
        .unwrap();
    let used = |name: &str, count, seconds| {
        UsageDelta::new(
            id(name),
            count,
            at(seconds),
            Some("192.0.2.7".parse().unwrap()),
        )
    };
    store
        .record_usage(&[used("k_active", 3, 4_000), used("k_expired", 1, 1_500)])
        .await
        .unwrap();
    store
        .record_usage(&[used("k_active", 2, 9_000)])
        .await
        .unwrap();
}

/// Asserts that everything is as [`write`] left it.
pub(crate) async fn expect(store: &impl WholeStore) {
    for (number, name, status) in [
        (1, "k_active", KeyStatus::Active),
        (2, "k_disabled", KeyStatus::Disabled),
        (3, "k_revoked", KeyStatus::Revoked),
        (4, "k_expired", KeyStatus::Expired),
        (5, "k_not_yet", KeyStatus::NotYetValid),
        (7, "k_rotated", KeyStatus::Active),
        (8, "k_successor", KeyStatus::Active),
        (109, "k_rehashed", KeyStatus::Active),
        (10, "k_of_user", KeyStatus::Active),
        (11, "k_token", KeyStatus::Active),
        (12, "k_foreign", KeyStatus::Active),
    ] {
        let found = store.find(&[digest(number)]).await.unwrap();
        let found = found.unwrap_or_else(|| panic!("{name} is not found"));
        assert_eq!(found.record().id, id(name));
        assert_eq!(found.record().status(now()), status, "{name}");
    }
    for gone in [6, 9] {
        assert!(store.find(&[digest(gone)]).await.unwrap().is_none());
        let known = batch([insert(digest(gone), record("again"))]);
        assert_eq!(rejected(store, known).await, Rejected::DigestKnown);
    }
    let active = store.get(&id("k_active")).await.unwrap().unwrap();
    assert_eq!(*active, narrow("k_active"));
    let usage = used(store, &id("k_active")).await;
    assert_eq!((usage.count, usage.last_used_at), (5, Some(at(9_000))));
    let hours = store
        .usage_by_hour(&id("k_active"), at(0), now())
        .await
        .unwrap();
    assert_eq!(
        hours
            .hours
            .iter()
            .map(|hour| hour.count)
            .collect::<Vec<_>>(),
        [3, 2]
    );
    let signing = store.signing_state(&id("k_active")).await.unwrap();
    assert_eq!(
        signing.unwrap().as_bytes()[1..],
        [7; SigningState::LENGTH - 1]
    );
    let acme = OwnerRef::TenantItself(tenant("acme"));
    assert_eq!(
        store.primary(&acme, now()).await.unwrap(),
        Some(id("k_active"))
    );
    let revoked = store.get(&id("k_revoked")).await.unwrap().unwrap();
    let revocation = revoked.revoked.clone().unwrap();
    assert_eq!(
        (revocation.at, revocation.reason.as_deref()),
        (at(2_000), Some("lost"))
    );
    assert_eq!(
        store
            .list(&ListQuery::new(now()))
            .await
            .unwrap()
            .items
            .len(),
        11
    );
}
