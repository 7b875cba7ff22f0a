//! Bulk operations on a database: several nodes continue one operation.

use std::collections::HashMap;
use std::time::Instant;

use portunus::audit::{AuditTrail, EventQuery};
use portunus::manage::{BulkAction, BulkSelection, NewKey};
use portunus::{ErrorCode, Portunus};
use portunus_test_support::{Head, Setup};

use super::*;

fn node<H: Home>(store: &H::Store) -> (Portunus, AuditTrail) {
    let trail = AuditTrail::new([H::audit(store)]);
    let keys = Setup::on(store.clone())
        .bearer([portunus_test_support::format()])
        .environments([live()])
        .audit(trail.clone())
        .builder()
        .build()
        .unwrap();
    (keys, trail)
}

/// Every key is changed once and has one event, and the caches of all nodes know of it.
pub(crate) async fn several_nodes_share_a_bulk_operation<H: Home>(home: &H) {
    const KEYS: u32 = 1_300;
    let stores = [home.open().await, home.open().await, home.open().await];
    let nodes: Vec<_> = stores.iter().map(node::<H>).collect();
    let owner = || Owner::tenant(tenant("acme"));
    let mut rows: Vec<_> = (0..KEYS)
        .map(|number| {
            let mut record = record(&format!("key{number}"));
            record.created_at = at(1_000 + u64::from(number));
            insert(digest(number), record)
        })
        .collect();
    let mut foreign = record("foreign");
    foreign.owner = Owner::tenant(tenant("other"));
    rows.push(insert(digest(KEYS), foreign));
    for rows in rows.chunks(400) {
        stores[0].apply(&batch(rows.to_vec())).await.unwrap();
    }
    // A key in the cache of every node.
    let issued = nodes[0].0.manager().issue(NewKey::new("used", owner()));
    let secret = issued.await.unwrap().key.reveal();
    for (node, _) in &nodes {
        let used = node
            .authenticator()
            .authenticate(&Head::bearer(&secret))
            .await;
        used.unwrap();
    }
    let mut query = ListQuery::new(SystemTime::now());
    query.tenant = Some(tenant("acme"));
    let keys = BulkSelection::Matching(query);
    let host = nodes[0].0.manager();
    assert_eq!(
        host.bulk_count(keys.clone()).await.unwrap(),
        u64::from(KEYS) + 1
    );
    let action = BulkAction::Revoke(Some("leaked".into()));
    let id = host.bulk(keys, action, None).await.unwrap().id;
    let (started, mut tasks) = (Instant::now(), tokio::task::JoinSet::new());
    for (node, trail) in nodes.clone() {
        let id = id.clone();
        tasks.spawn(async move {
            while node
                .manager()
                .bulk_operation(&id)
                .await
                .unwrap()
                .ended_at
                .is_none()
            {
                let done = node.maintain().await;
                // Three nodes wait for one tenant's turn: on a busy machine a step takes longer than
                // a job may, and is done by the next run.
                let is_late = |why: &str| why == "timed out after 5s";
                let mut others = done.failures.iter();
                let other = others.find(|(_, why)| !is_late(&why.to_string()));
                assert!(other.is_none(), "{other:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            trail.flush().await.unwrap();
        });
    }
    tasks.join_all().await;
    println!("{KEYS} keys revoked by 3 nodes in {:?}", started.elapsed());
    let ended = host.bulk_operation(&id).await.unwrap();
    assert_eq!(
        (ended.done, ended.failed, ended.left),
        (u64::from(KEYS) + 1, 0, Some(0))
    );
    for number in 0..KEYS {
        let record = get(&stores[1], &format!("key{number}")).await;
        assert_eq!(
            (record.version, record.revoked.is_some()),
            (2, true),
            "{number}"
        );
    }
    let foreign = get(&stores[1], "foreign").await;
    assert_eq!((foreign.version, foreign.revoked.is_some()), (1, false));
    let mut query = EventQuery::new();
    query.action = Some(portunus::audit::Action::KeyRevoke);
    query.limit = 500;
    let mut each: HashMap<_, u32> = HashMap::new();
    loop {
        let page = H::audit(&stores[0]).events(&query).await.unwrap();
        for event in page.items {
            assert_eq!(event.operation.as_ref(), Some(&id));
            *each.entry(event.key_id.unwrap()).or_default() += 1;
        }
        query.before = page.next;
        if query.before.is_none() {
            break;
        }
    }
    assert_eq!(
        (each.len(), each.values().max()),
        (KEYS as usize + 1, Some(&1))
    );
    let end = Instant::now() + portunus_test_support::wait::PATIENCE;
    for (node, _) in &nodes {
        let head = Head::bearer(&secret);
        loop {
            let used = node.authenticator().authenticate(&head).await;
            if used.err().map(|error| error.code()) == Some(ErrorCode::KeyRevoked) {
                break;
            }
            assert!(Instant::now() < end, "a node still accepts the key");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
