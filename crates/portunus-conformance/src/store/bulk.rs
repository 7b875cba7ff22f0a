//! Bulk operations: each step is stored once, together with its changes.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::tools::{
    Store, apply, at, batch, change, digest, found_id, id, insert, put_a, record, rejected, stored,
    tenant, user,
};
use crate::report::{Checked, Failure, valid};
use portunus::Portunus;
use portunus::key::{Alphabet, KeyFormat, KeyId};
use portunus::manage::{BulkAction, BulkSelection, Operator, Role};
use portunus::store::{BulkOperation, Change, Condition, MemoryStore, Rejected, WriteBatch};

checks!(CHECKS: Store {
    "a bulk operation is returned as stored, and is open until it has ended"
        => bulk_kept depends on [versions],
    "a tenant with many open bulk operations does not keep those of others out of the list"
        => bulk_fair depends on [bulk_kept],
    "a step of a bulk operation is stored once"
        => bulk_once depends on [bulk_kept],
    "a step of a bulk operation and its changes are applied together or not at all"
        => bulk_together depends on [bulk_once],
    "of concurrent writers of one step of a bulk operation, one succeeds"
        => bulk_one_winner depends on [bulk_together],
});

fn operation(name: &str, started: u64) -> BulkOperation {
    BulkOperation::new(id(name), at(started))
}

fn step(operation: &BulkOperation) -> Change {
    Change::Bulk(Box::new(operation.clone()))
}

async fn open(store: &Store) -> Result<Vec<KeyId>, Failure> {
    let open = store.open_bulk_operations().await?;
    Ok(open.into_iter().map(|one| one.id).collect())
}

async fn bulk_kept(store: Store) -> Checked {
    ensure_eq!(
        store.bulk_operation(&id("a")).await?,
        None,
        "before it exists"
    );
    ensure_eq!(open(&store).await?, [], "before one exists");
    let (mut late, early) = (operation("a", 2_000), operation("b", 1_000));
    apply(&store, [step(&late), step(&early)]).await?;
    ensure_eq!(open(&store).await?, [id("b"), id("a")], "by their start");
    (late.step, late.done, late.left, late.failed) = (1, 7, Some(3), 2);
    late.failures = vec![("k1".into(), "'quotes', \"more\" and \u{e4}".into())];
    apply(&store, [step(&late)]).await?;
    ensure_eq!(
        store.bulk_operation(&id("a")).await?,
        Some(late.clone()),
        "after a step"
    );
    (late.step, late.ended_at) = (2, Some(at(3_000)));
    apply(&store, [step(&late)]).await?;
    ensure_eq!(
        store.bulk_operation(&id("a")).await?,
        Some(late),
        "after its end"
    );
    ensure_eq!(
        store.bulk_operation(&id("b")).await?,
        Some(early),
        "the other one"
    );
    ensure_eq!(open(&store).await?, [id("b")], "after one has ended");
    // An operation is not a key.
    ensure_eq!(
        store.get(&id("a")).await?,
        None,
        "a key with the id of an operation"
    );
    Ok(())
}

/// An operation as the library's manager writes it for an operator of a tenant.
async fn started_by(operator: Operator) -> Result<BulkOperation, Failure> {
    let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32);
    let keys = Portunus::builder(valid(format.build())).store(MemoryStore::new());
    let manager = valid(keys.build()).manager().by(operator);
    let started = manager.bulk(BulkSelection::All, BulkAction::Disable, None);
    Ok(started.await?)
}

async fn bulk_fair(store: Store) -> Checked {
    let boss = |of: &str| Operator::new(user("boss"), tenant(of), Role::Owner);
    let crowd = started_by(boss("crowd")).await?;
    // A store may read the tenant from JSON within JSON.
    let odd = Operator::new(user(r#"a","b\"#), tenant(r#"o"th\er"#), Role::Owner);
    let others = [
        started_by(odd).await?,
        started_by(boss(r#"o"th\er"#)).await?,
    ];
    let named = |of: &BulkOperation, name: &str, seconds: u64| {
        let mut named = of.clone();
        (named.id, named.started_at) = (id(name), at(seconds));
        step(&named)
    };
    let mut changes = Vec::new();
    for number in 0..101 {
        changes.push(named(&crowd, &format!("crowd{number}"), 1_000 + number));
    }
    changes.push(named(&others[0], "other0", 5_000));
    changes.push(named(&others[1], "other1", 5_001));
    changes.push(step(&operation("nobodys", 6_000)));
    apply(&store, changes).await?;
    let mut expected = ["crowd0", "other0", "nobodys", "crowd1", "other1"]
        .map(id)
        .to_vec();
    expected.extend((2..97).map(|number| id(&format!("crowd{number}"))));
    ensure_eq!(
        open(&store).await?,
        expected,
        "the oldest of each tenant, then the second one of each, and so on"
    );
    Ok(())
}

async fn bulk_once(store: Store) -> Checked {
    let mut one = operation("a", 1_000);
    apply(&store, [step(&one)]).await?;
    for wrong in [0, 2, 3] {
        one.step = wrong;
        let why = rejected(&store, &batch([step(&one)])).await?;
        ensure_eq!(why, Rejected::Bulk(id("a")), "step {wrong} after step 0");
    }
    one.step = 1;
    apply(&store, [step(&one)]).await?;
    let why = rejected(&store, &batch([step(&one)])).await?;
    ensure_eq!(why, Rejected::Bulk(id("a")), "step 1 again");
    one.id = id("unknown");
    let why = rejected(&store, &batch([step(&one)])).await?;
    ensure_eq!(
        why,
        Rejected::Bulk(id("unknown")),
        "step 1 of an unknown operation"
    );
    Ok(())
}

async fn bulk_together(store: Store) -> Checked {
    put_a(&store).await?;
    let mut one = operation("one", 1_000);
    apply(&store, [step(&one)]).await?;
    one.step = 1;
    let stale = WriteBatch::new()
        .change(step(&one))
        .require(Condition::Version {
            id: id("a"),
            version: 9,
        });
    rejected(&store, &stale).await?;
    let known = WriteBatch::new()
        .change(step(&one))
        .change(insert(1, record("other")));
    rejected(&store, &known).await?;
    let kept = store.bulk_operation(&id("one")).await?;
    ensure_eq!(kept.map(|kept| kept.step), Some(0), "after rejected steps");
    let disabled = change(&store, "a", |record| record.enabled = false).await?;
    store.apply(&disabled.change(step(&one))).await?;
    ensure!(
        !stored(&store, "a").await?.enabled,
        "the change of a step is lost"
    );
    // The same step again, with another change.
    let again = change(&store, "a", |record| record.enabled = true).await?;
    let again = again.change(insert(2, record("b"))).change(step(&one));
    let why = rejected(&store, &again).await?;
    ensure_eq!(why, Rejected::Bulk(id("one")), "the step again");
    ensure!(
        !stored(&store, "a").await?.enabled,
        "a rejected step changed a key"
    );
    ensure_eq!(
        found_id(&store, digest(2)).await?,
        None,
        "the key of a rejected step"
    );
    Ok(())
}

async fn bulk_one_winner(store: Store) -> Checked {
    let mut one = operation("one", 1_000);
    apply(&store, [step(&one)]).await?;
    for round in 1..=10_u64 {
        one.step = round;
        let mut writers = JoinSet::new();
        for writer in 0..8_u64 {
            (one.step, one.done) = (round, writer);
            let key = insert(100 * round + writer, record(&format!("k{round}x{writer}")));
            let (store, mine) = (Arc::clone(&store), batch([step(&one), key]));
            writers.spawn(async move { (writer, store.apply(&mine).await) });
        }
        let mut won = Vec::new();
        while let Some(done) = writers.join_next().await {
            match done? {
                (writer, Ok(())) => won.push(writer),
                (_, Err(error)) => ensure_eq!(
                    error.as_rejected(),
                    Some(&Rejected::Bulk(id("one"))),
                    "the error of a writer that comes too late: {error}"
                ),
            }
        }
        ensure_eq!(won.len(), 1, "writers of step {round} that succeeded");
        let kept = store.bulk_operation(&id("one")).await?;
        ensure_eq!(
            kept.map(|kept| kept.done),
            won.first().copied(),
            "whose step was stored"
        );
        for writer in 0..8 {
            let found = found_id(&store, digest(100 * round + writer)).await?;
            let is_winner = won == [writer];
            ensure_eq!(
                found.is_some(),
                is_winner,
                "the key of writer {writer}, step {round}"
            );
        }
    }
    Ok(())
}
