//! Events beside the keys: which are stored, in which order, and what a page of them contains.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use portunus::audit::{Action, AuditEvent, AuditOutcome, EventId, EventQuery, MemoryAudit, Party};
use portunus::key::WorkspaceId;

use super::*;

fn event_id(number: u64) -> EventId {
    format!("{number:032x}").parse().unwrap()
}

fn event(number: u64) -> AuditEvent {
    AuditEvent::new(
        event_id(number),
        at(1_000 + number),
        Action::Request,
        AuditOutcome::Ok,
    )
}

fn workspace(number: u64) -> WorkspaceId {
    WorkspaceId::new(&format!("w{number}")).unwrap()
}

const NAMES: [&str; 6] = [
    "ann",
    "Ann",
    "ANN@example.com",
    "ann@example.com",
    "bob",
    "b",
];

fn some_party(random: &mut Random) -> Option<Party> {
    match random.below(4) {
        0 => None,
        1 => Some(Party::operator(random.pick(&NAMES))),
        2 => Party::user(Some(&user(random.pick(&NAMES))), None),
        _ => Party::user(Some(&user(random.pick(&NAMES))), Some(random.pick(&NAMES))),
    }
}

fn some_event(random: &mut Random, number: u64) -> AuditEvent {
    let mut event = event(number);
    event.at = at(random.below(100)) + Duration::from_micros(random.below(3_000_000));
    event.action = random.pick(Action::ALL);
    if random.one_in(2) {
        event.action = Action::Request;
    }
    event.outcome = if random.one_in(2) {
        AuditOutcome::Ok
    } else {
        some_outcome(random)
    };
    event.tenant_id = (!random.one_in(4)).then(|| tenant(&format!("t{}", random.below(3))));
    event.key_id = (!random.one_in(3)).then(|| id(&format!("key{}", random.below(4))));
    event.actor = some_party(random);
    event.subject = some_party(random);
    event.key_owner = random.one_in(2).then(|| user(random.pick(&NAMES)));
    event.workspaces = random
        .one_in(3)
        .then(|| (0..random.below(3)).map(workspace).collect());
    event.detail = random
        .one_in(5)
        .then(|| "a \"reason\" with \0 and \\u0000 and é".into());
    event
}

fn some_outcome(random: &mut Random) -> AuditOutcome {
    let refused = |code: &portunus::ErrorCode| AuditOutcome::Refused(*code);
    let few = portunus::ErrorCode::ALL.iter().take(2).map(refused);
    random.pick(
        &few.chain([AuditOutcome::Ok, AuditOutcome::Failed])
            .collect::<Vec<_>>(),
    )
}

fn some_query(random: &mut Random) -> EventQuery {
    let mut query = EventQuery::new();
    query.tenant = random
        .one_in(3)
        .then(|| tenant(&format!("t{}", random.below(4))));
    query.within_workspaces = random
        .one_in(3)
        .then(|| (0..random.below(3)).map(workspace).collect());
    query.key_id = random
        .one_in(5)
        .then(|| id(&format!("key{}", random.below(5))));
    query.actor = random.one_in(4).then(|| random.pick(&NAMES).to_owned());
    query.owner = random.one_in(4).then(|| user(random.pick(&NAMES)));
    query.outcome = random.one_in(4).then(|| some_outcome(random));
    query.action = random.one_in(4).then(|| random.pick(Action::ALL));
    query.limit =
        usize::try_from(random.below(8)).unwrap() * usize::try_from(random.below(20)).unwrap();
    query
}

/// All pages of a query, as lists of events.
async fn pages(audit: &impl AuditReader, mut query: EventQuery) -> Vec<Vec<AuditEvent>> {
    let mut all = Vec::new();
    loop {
        let page = audit.events(&query).await.unwrap();
        all.push(page.items);
        query.before = page.next;
        if query.before.is_none() {
            return all;
        }
        assert!(all.len() < 1_000, "pages without end");
    }
}

async fn ids(audit: &impl AuditReader, query: EventQuery) -> Vec<EventId> {
    pages(audit, query)
        .await
        .concat()
        .into_iter()
        .map(|event| event.id)
        .collect()
}

fn to_the_millisecond(mut event: AuditEvent) -> AuditEvent {
    let since = event
        .at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_millis();
    event.at = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(since).unwrap());
    event
}

pub(crate) async fn random_pages_agree_with_the_log_in_memory<H: Home>(home: &H) {
    let (audit, model) = (H::audit(&home.open().await), MemoryAudit::new(100_000));
    let mut random = Random(11);
    let mut number = 0;
    for _ in 0..30 {
        let batch: Vec<AuditEvent> = (0..random.below(30))
            .map(|_| {
                number += 1;
                to_the_millisecond(some_event(&mut random, number))
            })
            .collect();
        audit.record(&batch).await.unwrap();
        model.record(&batch).await.unwrap();
        for _ in 0..6 {
            let query = some_query(&mut random);
            assert_eq!(
                pages(&audit, query.clone()).await,
                pages(&model, query.clone()).await,
                "{query:?}"
            );
        }
    }
    assert!(model.all().len() > 300);
    assert_eq!(
        pages(&audit, EventQuery::new()).await,
        pages(&model, EventQuery::new()).await
    );
    for (before, found) in [(Some(0), 0), (Some(u64::MAX), 50), (None, 50)] {
        let mut query = EventQuery::new();
        query.before = before;
        assert_eq!(audit.events(&query).await.unwrap().items.len(), found);
    }
}

pub(crate) async fn an_event_recorded_twice_is_stored_once<H: Home>(home: &H) {
    let audit = H::audit(&home.open().await);
    let mut other = event(1);
    other.detail = Some("the same id".into());
    audit
        .record(&[event(1), event(2), other.clone(), event(1)])
        .await
        .unwrap();
    audit.record(&[event(3), event(2), other]).await.unwrap();
    audit.record(&[]).await.unwrap();
    assert_eq!(
        pages(&audit, EventQuery::new()).await,
        [[event(3), event(2), event(1)]]
    );
    // Many concurrent writers of the same events.
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let audit = H::audit(&home.open().await);
        writers.spawn(async move {
            for part in (4..104).collect::<Vec<_>>().chunks(10) {
                audit
                    .record(&part.iter().map(|number| event(*number)).collect::<Vec<_>>())
                    .await
                    .unwrap();
            }
        });
    }
    writers.join_all().await;
    let expected: Vec<_> = (1..104).rev().map(event_id).collect();
    assert_eq!(ids(&audit, EventQuery::new()).await, expected);
}

pub(crate) async fn a_large_batch_is_stored_in_order_and_its_rare_events_are_found_quickly<
    H: Home,
>(
    home: &H,
) {
    let audit = H::audit(&home.open().await);
    let mut all: Vec<AuditEvent> = (0..8_192).map(event).collect();
    for event in &mut all {
        event.tenant_id = Some(tenant("acme"));
        event.actor = Party::user(Some(&user("u1")), Some("u1@example.com"));
        event.key_id = Some(id("key1"));
    }
    all[5].key_id = Some(id("rare"));
    all[6].actor = Some(Party::operator("rare"));
    all[7].outcome = "FAILED".parse().unwrap();
    all[8].action = Action::KeyDelete;
    all[9].tenant_id = Some(tenant("rare"));
    let started = Instant::now();
    audit.record(&all[..512]).await.unwrap();
    println!("512 events in {:?}", started.elapsed());
    audit.record(&all[512..]).await.unwrap();
    let expected: Vec<_> = (0..8_192).rev().map(event_id).collect();
    assert_eq!(ids(&audit, EventQuery::new()).await, expected);
    let query = |change: fn(&mut EventQuery)| {
        let mut query = EventQuery::new();
        change(&mut query);
        query
    };
    let rare = [
        (5, query(|query| query.key_id = Some(id("rare")))),
        (6, query(|query| query.actor = Some("rare".into()))),
        (7, query(|query| query.outcome = Some(AuditOutcome::Failed))),
        (8, query(|query| query.action = Some(Action::KeyDelete))),
        (9, query(|query| query.tenant = Some(tenant("rare")))),
    ];
    for (number, query) in rare {
        let started = Instant::now();
        assert_eq!(ids(&audit, query.clone()).await, [event_id(number)]);
        print!("{:?} ", started.elapsed());
        if query.tenant.is_none() {
            let mut of_tenant = query;
            of_tenant.tenant = Some(tenant("acme"));
            assert_eq!(ids(&audit, of_tenant).await, [event_id(number)]);
        }
    }
    println!("for pages of one rare event");
}

pub(crate) async fn names_of_any_kind_are_found_as_they_are_written<H: Home>(home: &H) {
    let (audit, model) = (H::audit(&home.open().await), MemoryAudit::new(100));
    let long = format!("{}@example.com", "Long".repeat(5_000));
    let names = [
        "É@x",
        "é@x",
        "nul\0",
        "NUL\u{2400}",
        "'; --",
        "%",
        "\"\\",
        "",
        " ",
        &long,
        &long[..300],
        "\u{1f511}",
    ];
    let events: Vec<AuditEvent> = (0..)
        .zip(names)
        .map(|(number, name)| {
            let mut event = event(number);
            match number % 2 {
                0 => event.actor = Party::user(None, Some(name)),
                _ => event.subject = Some(Party::operator(name)),
            }
            event
        })
        .collect();
    audit.record(&events).await.unwrap();
    model.record(&events).await.unwrap();
    for name in names.iter().flat_map(|name| {
        [
            (*name).to_owned(),
            name.to_ascii_uppercase(),
            name.to_lowercase(),
        ]
    }) {
        let mut query = EventQuery::new();
        query.actor = Some(name.clone());
        assert_eq!(
            ids(&audit, query.clone()).await,
            ids(&model, query).await,
            "{name:.20?}"
        );
    }
    assert_eq!(
        pages(&audit, EventQuery::new()).await,
        pages(&model, EventQuery::new()).await
    );
}

pub(crate) async fn old_events_are_deleted_and_no_place_is_reused<H: Home>(home: &H) {
    let audit = H::audit(&home.open().await);
    let mut events: Vec<AuditEvent> = (0..5_000).map(event).collect();
    for event in &mut events {
        event.actor = Some(Party::operator("ann"));
    }
    audit.record(&events).await.unwrap();
    assert_eq!(H::forget(&audit, at(0)).await.unwrap(), 0);
    assert_eq!(H::forget(&audit, at(1_000 + 4_900)).await.unwrap(), 4_900);
    assert_eq!(H::forget(&audit, at(1_000 + 4_900)).await.unwrap(), 0);
    let kept: Vec<_> = (4_900..5_000).rev().map(event_id).collect();
    assert_eq!(ids(&audit, EventQuery::new()).await, kept);
    assert_eq!(
        home.text("SELECT CAST(COUNT(*) AS TEXT) FROM portunus_event_parties")
            .await,
        "100"
    );
    let mut first = EventQuery::new();
    first.limit = 1;
    let place = audit.events(&first).await.unwrap().next.unwrap();
    // An event of the same millisecond is kept, one of a moment before is deleted.
    assert_eq!(H::forget(&audit, at(1_000 + 4_999)).await.unwrap(), 99);
    assert_eq!(H::forget(&audit, at(1_000_000)).await.unwrap(), 1);
    assert_eq!(
        home.text("SELECT CAST(COUNT(*) AS TEXT) FROM portunus_event_parties")
            .await,
        "0"
    );
    assert_eq!(ids(&audit, EventQuery::new()).await, []);
    audit.record(&[event(1), event(2)]).await.unwrap();
    assert!(
        audit.events(&first).await.unwrap().next.unwrap() > place,
        "a place that had been given was given again"
    );
}

pub(crate) async fn pages_hold_every_event_once_while_others_are_written<H: Home>(home: &H) {
    let audit = H::audit(&home.open().await);
    let done = Arc::new(AtomicBool::new(false));
    let kept = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 1..4_u64 {
        let (audit, done, kept) = (
            H::audit(&home.open().await),
            Arc::clone(&done),
            Arc::clone(&kept),
        );
        writers.spawn(async move {
            for round in 0.. {
                let events: Vec<_> = (0..1 + round % 7)
                    .map(|part| event((writer << 40) + (round << 8) + part))
                    .collect();
                audit.record(&events).await.unwrap();
                kept.lock()
                    .unwrap()
                    .extend(events.iter().map(|event| event.id));
                if done.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
    }
    until_async("60 events", || kept.lock().unwrap().len() >= 60).await;
    let mut seen_before: Vec<EventId> = Vec::new();
    for _ in 0..15 {
        let acknowledged = kept.lock().unwrap().clone();
        let mut query = EventQuery::new();
        query.limit = 40;
        let seen = ids(&audit, query).await;
        let unique: std::collections::BTreeSet<_> = seen.iter().collect();
        assert_eq!(unique.len(), seen.len(), "an event is on two pages");
        assert!(
            acknowledged.iter().all(|id| unique.contains(id)),
            "an event that was acknowledged is missing"
        );
        // What was seen once stays in order, and new events come only before it.
        assert!(seen.ends_with(&seen_before), "an event appeared late");
        seen_before = seen;
    }
    done.store(true, Ordering::Relaxed);
    writers.join_all().await;
}

pub(crate) async fn a_filter_without_matches_gives_short_pages_that_continue<H: Home>(home: &H) {
    let audit = H::audit(&home.open().await);
    let mut events: Vec<AuditEvent> = (0..11_000).map(event).collect();
    for event in &mut events[20..] {
        event.workspaces = Some(vec![workspace(1)]);
    }
    audit.record(&events).await.unwrap();
    let mut query = EventQuery::new();
    query.within_workspaces = Some(vec![workspace(2)]);
    let pages = pages(&audit, query).await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [0, 20]);
}

pub(crate) async fn an_unreadable_event_is_reported_rather_than_omitted<H: Home>(home: &H) {
    let audit = H::audit(&home.open().await);
    let mut whole = event(1);
    whole.tenant_id = Some(tenant("acme"));
    whole.key_id = Some(id("key1"));
    whole.detail = Some("a confidential detail".into());
    audit
        .record(&[event(0), whole.clone(), event(2)])
        .await
        .unwrap();
    let column = |name: &str, value: &str| {
        home.execute(format!(
            "UPDATE portunus_events SET {name} = {value} WHERE id LIKE '%1'"
        ))
    };
    let columns = [
        ("at", "5", "1001000"),
        ("action", "'key.read'", "'request'"),
        ("outcome", "'FAILED'", "'OK'"),
        ("tenant_id", "NULL", "'acme'"),
        ("tenant_id", "'other'", "'acme'"),
        ("key_id", "'other'", "'key1'"),
        ("event", "''", ""),
        ("event", "'{}'", ""),
        ("event", "REPLACE(event, 'request', 'nonsense')", ""),
        ("event", "REPLACE(event, '\"acme\"', '7')", ""),
        (
            "tenant_id",
            "'other', event = REPLACE(event, 'request', 'nonsense')",
            "'acme'",
        ),
        ("tenant_id", "'other', at = 5", "'acme', at = 1001000"),
    ];
    let json = serde_json::to_string(&whole).unwrap();
    for (name, value, back) in columns {
        column(name, value).await;
        let page = audit.events(&EventQuery::new()).await.unwrap();
        let [corrupt] = &*page.corrupt else {
            panic!("{name}: {page:?}")
        };
        assert!(
            corrupt.starts_with("portunus_events row \"2\"")
                && corrupt.ends_with(&format!("column {name}"))
                && !corrupt.contains("detail"),
            "{corrupt}"
        );
        assert_eq!(page.items.len(), 2, "the others are listed");
        for (of, named) in [("other", 0), ("acme", usize::from(name != "tenant_id"))] {
            let mut query = EventQuery::new();
            query.tenant = Some(tenant(of));
            let page = audit.events(&query).await.unwrap();
            assert_eq!(
                (page.items.len(), page.corrupt.len(), page.next),
                (0, named, None),
                "{of}, {name} = {value}: {page:?}"
            );
        }
        let back = if back.is_empty() {
            format!("'{json}'")
        } else {
            back.to_owned()
        };
        column(name, &back).await;
        column("event", &format!("'{json}'")).await;
        assert_eq!(
            audit.events(&EventQuery::new()).await.unwrap().items.len(),
            3
        );
    }
    column("id", "'x1'").await;
    let page = audit.events(&EventQuery::new()).await.unwrap();
    assert_eq!((page.items.len(), page.corrupt.len()), (2, 1));
    // Unreadable events can still be deleted.
    assert_eq!(H::forget(&audit, at(1_000_000)).await.unwrap(), 3);
    home.execute("DROP TABLE portunus_events".into()).await;
    let error = audit.record(&[event(7)]).await.unwrap_err();
    assert_eq!(error.to_string(), "the audit log is unavailable");
    audit.events(&EventQuery::new()).await.unwrap_err();
    H::forget(&audit, at(1)).await.unwrap_err();
}
