//! Checks pages of large data sets under every combination of filters: together they contain every
//! match, in order, and each examines a bounded number of rows. All keys of one tenant were created
//! in the same millisecond, and so were all events.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::cmp::Reverse;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use portunus::audit::{Action, AuditEvent, AuditOutcome, EventQuery, Party};
use portunus::key::{
    DigestScheme, Environment, KeyDigest, KeyFamily, KeyId, KeyKind, KeyRecord, KeyStatus, Owner,
    PlanName, Revocation, TenantId, UserId, WorkspaceId,
};
use portunus::store::{Change, Cursor, ListQuery, Usage, WriteBatch};

use super::{Apply, Events, List, Operation, RecordEvents};
use crate::value::Session;

/// The number of copies of each template.
const COPIES: u32 = 500;
/// The number of templates of keys of one tenant, and of templates of events.
const TEMPLATES: u32 = 24;
/// The page size.
const LIMIT: usize = 60;

/// A connection that measures the rows that statements examine.
#[async_trait]
trait Watched: Session {
    /// Runs a script of the test.
    async fn prepare(&mut self, sql: String);

    /// Asserts that the rows examined since the last call are within the bound of a page.
    fn assert_bounded(&mut self, what: &dyn std::fmt::Debug);
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn workspace(name: &str) -> WorkspaceId {
    WorkspaceId::new(name).unwrap()
}

fn environment(name: &str) -> Environment {
    Environment::new(name).unwrap()
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

/// The expressions with which a database copies rows.
fn copies(is_sqlite: bool) -> (&'static str, &'static str, String) {
    let (digest, hex) = if is_sqlite {
        ("randomblob(32)", "printf('%024x', n)")
    } else {
        (
            "sha256(convert_to(made, 'UTF8'))",
            "lpad(to_hex(n), 24, '0')",
        )
    };
    let numbers = format!(
        "(WITH RECURSIVE count (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count \
         WHERE n < {COPIES}) SELECT n FROM count) AS numbers"
    );
    (digest, hex, numbers)
}

/// Creates the keys of two tenants: one created all of its keys at the same time, the other one by
/// one, before and after.
async fn fill_keys(session: &mut impl Watched, is_sqlite: bool) {
    let mut batch = WriteBatch::new();
    for number in 0..TEMPLATES + 4 {
        let id = KeyId::new(&format!("t{number:02}")).unwrap();
        let name = if number % 4 == 1 { "a Needle" } else { "hay" };
        let of = tenant(if number < TEMPLATES { "acme" } else { "other" });
        let live = environment(if number / 6 % 2 == 0 { "live" } else { "test" });
        let mut record = KeyRecord::new(id, name, KeyKind::App, live, Owner::tenant(of), at(1_000));
        match number % 6 {
            0 => record.not_before = Some(at(5_000)),
            1 => record.expires_at = Some(at(900)),
            2 => record.enabled = false,
            3 => record.revoked = Some(Revocation::new(at(950), None)),
            _ => {}
        }
        record.owner.user_id = (number % 3 == 1).then(|| UserId::new("ann").unwrap());
        record.plan = (number % 4 == 2).then(|| PlanName::new("pro").unwrap());
        record.kind = [KeyKind::App, KeyKind::User][usize::from(number % 8 == 5)];
        record.description = (number % 7 == 2).then(|| "and a needle".into());
        record.workspaces = match number % 5 {
            0 => Some(vec![workspace("w2")]),
            1 => Some(vec![workspace("w1")]),
            _ => None,
        };
        let mut bytes = [7; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        batch = batch.change(Change::Insert {
            digest: KeyDigest::new(DigestScheme::Sha256, bytes),
            record: Box::new(record),
        });
    }
    session.script("BEGIN").await.unwrap();
    let (batch, records) = (&batch, false);
    Apply { batch, records }.run(session).await.unwrap();
    session.script("COMMIT").await.unwrap();
    let (digest, _, numbers) = copies(is_sqlite);
    let others = "version, kind, environment, tenant_id, user_id, description, masked, not_before, \
        expires_at, enabled, revoked_at, may_be_primary";
    let made = "CASE WHEN tenant_id = 'other' THEN 750 + n ELSE 1000 END";
    // Their ids are in no particular order.
    session
        .prepare(format!(
            "INSERT INTO portunus_keys (id, family, name, scheme, digest, created_at, record, {others}) \
             SELECT made, made, name, scheme, {digest}, ({made}) * 1000, \
             replace(replace(record, '\"' || id || '\"', '\"' || made || '\"'), \
             '\"secs_since_epoch\":1000,', '\"secs_since_epoch\":' || ({made}) || ','), {others} \
             FROM (SELECT portunus_keys.*, n, 'k' || (100000 + (n * 7919) % 100003) || '-' || id AS made \
             FROM portunus_keys CROSS JOIN {numbers}) AS copies"
        ))
        .await;
    // One in a hundred was never used, and one in a hundred long ago. The rows of most keys know that
    // they were used, but not those of the other tenant.
    let used = "INSERT INTO portunus_usage (key_id, uses, last_used_at) \
        SELECT id, 1, CASE WHEN id LIKE '%07-t%' THEN 86400000 ELSE 864000000 END \
        FROM portunus_keys WHERE id NOT LIKE '%42-t%'";
    session.prepare(used.into()).await;
    let known = "UPDATE portunus_keys SET used_on = COALESCE((SELECT last_used_at / 86400000 \
        FROM portunus_usage WHERE key_id = id), 0) WHERE tenant_id <> 'other'";
    session.prepare(known.into()).await;
}

/// Creates events most of which are alike in each respect.
async fn fill_events(session: &mut impl Watched, is_sqlite: bool) {
    let events: Vec<_> = (0..TEMPLATES)
        .map(|number| {
            let id = format!("{number:032x}").parse().unwrap();
            let action = match number % 4 {
                2 => Action::KeyRotate,
                _ => Action::Request,
            };
            let outcome = match number % 3 {
                1 => AuditOutcome::Failed,
                _ => AuditOutcome::Ok,
            };
            let mut event = AuditEvent::new(id, at(1_000), action, outcome);
            event.tenant_id = Some(tenant(if number == 7 { "other" } else { "acme" }));
            let key = if number == 5 { "key2" } else { "key1" };
            event.key_id = KeyId::new(key).ok();
            event.actor = Some(Party::operator(if number == 3 { "bob" } else { "Ann" }));
            event.workspaces = match number % 5 {
                0 => Some(vec![workspace("w2")]),
                1 => Some(vec![workspace("w1")]),
                _ => None,
            };
            event
        })
        .collect();
    RecordEvents(&events).run(session).await.unwrap();
    let (_, hex, numbers) = copies(is_sqlite);
    session
        .prepare(format!(
            "INSERT INTO portunus_events (id, at, action, outcome, tenant_id, key_id, event) \
             SELECT made, at, action, outcome, tenant_id, key_id, replace(event, id, made) \
             FROM (SELECT portunus_events.*, n, {hex} || substr(id, 25) AS made \
             FROM portunus_events CROSS JOIN {numbers}) AS copies ORDER BY n, id"
        ))
        .await;
    let template = format!("{:024x}", 0);
    session
        .prepare(format!(
            "INSERT INTO portunus_event_parties (who, place) SELECT parties.who, made.place \
             FROM portunus_events AS made \
             JOIN portunus_events AS template ON template.id = '{template}' || substr(made.id, 25) \
             JOIN portunus_event_parties AS parties ON parties.place = template.place \
             WHERE made.id <> template.id"
        ))
        .await;
}

/// The usage that [`fill_keys`] recorded.
fn usage_of(record: &KeyRecord) -> Usage {
    let (mut usage, id) = (Usage::default(), record.id.as_str());
    if !id.contains("42-t") {
        let day = if id.contains("07-t") { 1 } else { 10 };
        usage.last_used_at = Some(at(day * 86_400));
    }
    usage
}

/// Every combination of the filters of a list.
fn lists() -> Vec<ListQuery> {
    let mut queries = Vec::new();
    let statuses = [
        None,
        Some(KeyStatus::Active),
        Some(KeyStatus::NotYetValid),
        Some(KeyStatus::Expired),
        Some(KeyStatus::Disabled),
        Some(KeyStatus::Revoked),
        Some(KeyStatus::Unreadable),
    ];
    for status in statuses {
        for text in [None, Some("NEEDLE"), Some("nothing has this")] {
            for bits in 0..8 {
                let mut query = ListQuery::new(at(2_000));
                query.limit = LIMIT;
                (query.status, query.text) = (status, text.map(str::to_owned));
                query.tenant = (bits & 1 != 0).then(|| tenant("acme"));
                query.environment = (bits & 2 != 0).then(|| environment("test"));
                query.within_workspaces = (bits & 4 != 0).then(|| vec![workspace("w1")]);
                queries.push(query);
            }
        }
    }
    // The other filters, alone and together, with frequent and with rare values.
    let end_of_day_nine = at(9 * 86_400);
    for number in 0..1_024_u32 {
        let has = |bit: u32| number & (1 << bit) != 0;
        let mut query = ListQuery::new(at(2_000));
        query.limit = LIMIT;
        query.tenant = has(0).then(|| tenant("acme"));
        query.owner = has(1).then(|| UserId::new("ann").unwrap());
        query.plan = has(2).then(|| PlanName::new("pro").unwrap());
        query.kind = has(3).then_some(KeyKind::User);
        query.expires_before = has(4).then(|| at([900, 901, 5_000][number as usize % 3]));
        query.unused_since = has(5).then_some(end_of_day_nine);
        query.environment = has(6).then(|| environment("test"));
        query.status = match number >> 7 & 7 {
            1 => Some(KeyStatus::Active),
            2 => Some(KeyStatus::Expired),
            3 => Some(KeyStatus::NotYetValid),
            4 => Some(KeyStatus::Revoked),
            5 => Some(KeyStatus::Disabled),
            _ => None,
        };
        if number >> 7 & 7 == 6 {
            query.family = Some(KeyFamily::new("t05").unwrap());
        }
        if number >> 7 & 7 == 7 {
            query.within_workspaces = Some(vec![workspace("w1")]);
        }
        queries.push(query);
    }
    queries
}

/// Every combination of the filters of events, with frequent and with rare values.
fn event_queries() -> Vec<EventQuery> {
    let mut queries = Vec::new();
    for outcome in [None, Some(AuditOutcome::Ok), Some(AuditOutcome::Failed)] {
        for action in [None, Some(Action::Request), Some(Action::KeyRotate)] {
            for key in [None, Some("key1"), Some("key2")] {
                for actor in [None, Some("aNN"), Some("bob")] {
                    for bits in 0..4 {
                        let mut query = EventQuery::new();
                        query.limit = LIMIT;
                        (query.outcome, query.action) = (outcome, action);
                        query.key_id = key.map(|key| KeyId::new(key).unwrap());
                        query.actor = actor.map(str::to_owned);
                        query.tenant = (bits & 1 != 0).then(|| tenant("acme"));
                        query.within_workspaces = (bits & 2 != 0).then(|| vec![workspace("w1")]);
                        queries.push(query);
                    }
                }
            }
        }
    }
    queries
}

/// All keys, page by page.
async fn all_keys(session: &mut impl Watched) -> Vec<KeyRecord> {
    let (mut all, mut query) = (Vec::new(), ListQuery::new(at(2_000)));
    query.limit = 500;
    loop {
        let page = List(&query).run(session).await.unwrap();
        session.assert_bounded(&query);
        all.extend(page.items.iter().map(|key| (**key).clone()));
        query.after = page.next;
        if query.after.is_none() {
            return all;
        }
    }
}

/// All events, page by page.
async fn all_events(session: &mut impl Watched) -> Vec<AuditEvent> {
    let (mut all, mut query) = (Vec::new(), EventQuery::new());
    query.limit = 500;
    loop {
        let page = Events(&query).run(session).await.unwrap();
        session.assert_bounded(&query);
        all.extend(page.items);
        query.before = page.next;
        if query.before.is_none() {
            return all;
        }
    }
}

/// The starts of the pages to check. A page depends on its start alone: if each one contains
/// exactly the matches between its start and its end, no key is missing or duplicated overall.
fn starts(number: usize, of: usize, is_slow: bool) -> Vec<usize> {
    let (middle, late) = (number * 7_919 % of, of - 1 - number * 131 % 900);
    match number % 4 {
        // Only a few of the slow queries, from where they examine the most rows.
        _ if is_slow && !number.is_multiple_of(24) => vec![late],
        0 => vec![0, middle],
        1 => vec![0, late],
        2 => vec![middle],
        _ => vec![0],
    }
}

/// Asserts that a page that starts after this many items contains every match up to its end, and
/// that it ends early only after it examined many rows.
fn judge<T: PartialEq>(
    what: &dyn std::fmt::Debug,
    found: &[T],
    expected: &[T],
    end: Option<usize>,
) {
    let (found_of, expected_of) = (found.len(), expected.len());
    assert!(found == expected, "{found_of} of {expected_of}: {what:?}");
    let is_full = found_of == LIMIT;
    // The last few may be left out if they were created at one instant.
    let has_looked = end.is_none_or(|end| end >= 8_000);
    assert!(is_full || has_looked, "ends early, after {end:?}: {what:?}");
    assert_ne!(end, Some(0), "continues where it started: {what:?}");
}

async fn every_page_is_bounded_and_none_is_lost(session: &mut impl Watched) {
    let started = Instant::now();
    let whole = all_keys(session).await;
    let place = |record: &KeyRecord| (Reverse(record.created_at), record.id.clone());
    assert!(whole.is_sorted_by_key(place));
    let count = usize::try_from((COPIES + 1) * (TEMPLATES + 4)).unwrap();
    assert_eq!(whole.len(), count);
    for (number, mut query) in lists().into_iter().enumerate() {
        let is_slow = query.status == Some(KeyStatus::Unreadable);
        for start in starts(number, count, is_slow) {
            let before = start.checked_sub(1).map(|last| &whole[last]);
            query.after = before.map(|last| Cursor::new(last.created_at, last.id.clone()));
            let page = List(&query).run(session).await.unwrap();
            session.assert_bounded(&query);
            assert_eq!(page.corrupt, Vec::<String>::new());
            let rest = &whole[start..];
            let end = page.next.map(|next| {
                let end = (Reverse(next.created_at), next.id);
                rest.partition_point(|record| place(record) <= end)
            });
            let expected = rest[..end.unwrap_or(rest.len())].iter();
            let expected = expected.filter(|record| query.selects(record, &usage_of(record)));
            let expected: Vec<_> = expected.map(|record| &record.id).collect();
            let found: Vec<_> = page.items.iter().map(|key| &key.id).collect();
            judge(&query, &found, &expected, end);
        }
    }
    println!("lists in {:?}", started.elapsed());

    let started = Instant::now();
    let whole = all_events(session).await;
    // The last place, and one less for each earlier event.
    let count = usize::try_from((COPIES + 1) * TEMPLATES).unwrap();
    assert_eq!(whole.len(), count);
    for (number, mut query) in event_queries().into_iter().enumerate() {
        // One start each, since there are many queries.
        let starts = starts(number / 3, count, false);
        for start in starts.into_iter().cycle().skip(number).take(1) {
            let before = start.checked_sub(1).map(|last| count - last);
            query.before = before.map(|place| u64::try_from(place).unwrap());
            let page = Events(&query).run(session).await.unwrap();
            session.assert_bounded(&query);
            assert_eq!(page.corrupt, Vec::<String>::new());
            let end = page
                .next
                .map(|next| count - usize::try_from(next).unwrap() + 1 - start);
            let rest = &whole[start..];
            let expected = rest[..end.unwrap_or(rest.len())].iter();
            let expected = expected.filter(|event| query.selects(event));
            let expected: Vec<_> = expected.map(|event| event.id).collect();
            let found: Vec<_> = page.items.iter().map(|event| event.id).collect();
            judge(&query, &found, &expected, end);
        }
    }
    println!("events in {:?}", started.elapsed());
}
