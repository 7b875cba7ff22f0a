//! Recorded changes: every write's, from the moment on which that is asked for until it is forgotten.

use std::collections::BTreeSet;
use std::sync::Arc;

use portunus::key::SigningState;
use portunus::store::{Change, Invalidation, Rejected, WriteBatch};
use tokio::task::JoinSet;

use super::tools::{
    Store, apply, batch, change, delete, digest, id, insert, peppered, put_a, record, rehash,
    rejected, signing,
};
use crate::report::{Checked, Failure};

checks!(FIRST: Store {
    "before the first write no change is recorded, and forgetting unknown ones has no effect"
        => none_recorded depends on [versions],
});

checks!(CHECKS: Store {
    "changes are recorded from the moment on which that is asked for"
        => recorded_since depends on [none_recorded],
    "the recorded changes name every key and digest that a write changed"
        => recorded_whole depends on [recorded_since, rehashed, deleted],
    "a rejected write records no change"
        => rejected_unrecorded depends on [recorded_whole, late_change],
    "recorded changes are returned, oldest first, until they are forgotten"
        => recorded_until depends on [recorded_whole],
    "the number of a forgotten change is not used again"
        => numbers depends on [recorded_until],
    "the changes of concurrent writers are all returned, however many they are"
        => recorded_all depends on [recorded_until],
});

/// Whether what was recorded invalidates all that is expected.
fn covers(recorded: &[Invalidation], expected: &Invalidation) -> bool {
    let everything = recorded.iter().any(|what| what.everything);
    let key = |id| recorded.iter().any(|what| what.keys.contains(id));
    let known = |print| recorded.iter().any(|what| what.known.contains(print));
    everything || (expected.keys.iter().all(key) && expected.known.iter().all(known))
}

async fn recorded(store: &Store) -> Result<Vec<Invalidation>, Failure> {
    let all = store.recorded_changes().await?;
    Ok(all.into_iter().map(|(_, what)| what).collect())
}

/// Returns the numbers of the recorded changes.
async fn recorded_numbers(store: &Store) -> Result<Vec<u64>, Failure> {
    let all = store.recorded_changes().await?;
    Ok(all.into_iter().map(|(number, _)| number).collect())
}

async fn forget_all(store: &Store) -> Checked {
    let numbers = recorded_numbers(store).await?;
    store.forget_changes(&numbers).await?;
    ensure_eq!(recorded(store).await?, [], "after all were forgotten");
    Ok(())
}

fn start(store: &Store) -> Checked {
    ensure!(
        store.record_changes(),
        "the store no longer records changes"
    );
    Ok(())
}

async fn none_recorded(store: Store) -> Checked {
    ensure_eq!(recorded(&store).await?, [], "before the first write");
    store.forget_changes(&[]).await?;
    store.forget_changes(&[0, 1, 1, 1_000_000]).await?;
    ensure_eq!(recorded(&store).await?, [], "before the first write");
    Ok(())
}

async fn recorded_since(store: Store) -> Checked {
    put_a(&store).await?;
    ensure_eq!(recorded(&store).await?, [], "before that was asked for");
    for (number, name) in [(2, "b"), (3, "c")] {
        // Once more changes nothing.
        start(&store)?;
        let new = batch([insert(number, record(name))]);
        store.apply(&new).await?;
        let seen = recorded(&store).await?;
        ensure!(
            covers(&seen, &Invalidation::of(&new)),
            "the change of {name} was not recorded: {seen:?}"
        );
    }
    Ok(())
}

async fn recorded_whole(store: Store) -> Checked {
    put_a(&store).await?;
    start(&store)?;
    let disabled = change(&store, "a", |record| record.enabled = false).await?;
    let mut writes = vec![
        ("an update", disabled),
        ("an insertion", batch([insert(2, record("b"))])),
        ("a rehash", batch([rehash("b", digest(2), peppered(2))])),
        (
            "several changes",
            batch([
                insert(3, record("c")),
                rehash("c", digest(3), peppered(3)),
                delete("b"),
                insert(4, record("d")),
            ]),
        ),
        ("a deletion", batch([delete("a")])),
    ];
    if store.signing().is_some() {
        let state = |number| signing_of("d", signing(number));
        writes.push(("a signing state", batch([state(1)])));
    }
    for (what, write) in writes {
        store.apply(&write).await?;
        let (seen, expected) = (recorded(&store).await?, Invalidation::of(&write));
        ensure!(
            covers(&seen, &expected),
            "{what} invalidates {expected:?}; recorded were {seen:?}"
        );
        forget_all(&store).await?;
    }
    Ok(())
}

fn signing_of(name: &str, state: SigningState) -> Change {
    Change::SetSigning {
        id: id(name),
        state: Some(state),
    }
}

async fn rejected_unrecorded(store: Store) -> Checked {
    put_a(&store).await?;
    start(&store)?;
    let known = batch([insert(2, record("b")), insert(1, record("c"))]);
    rejected(&store, &known).await?;
    let why = rejected(&store, &batch([delete("nobody")])).await?;
    ensure_eq!(
        why,
        Rejected::Missing(id("nobody")),
        "a key that is unknown"
    );
    ensure_eq!(recorded(&store).await?, [], "after rejected writes only");
    Ok(())
}

async fn recorded_until(store: Store) -> Checked {
    start(&store)?;
    // The numbers after each write: those of the first write, and so on.
    let (mut ends, mut writes) = (Vec::new(), Vec::new());
    for (number, name) in [(1, "a"), (2, "b"), (3, "c")] {
        let new = batch([insert(number, record(name))]);
        store.apply(&new).await?;
        ends.push(recorded(&store).await?.len());
        writes.push(Invalidation::of(&new));
    }
    let all = store.recorded_changes().await?;
    ensure_eq!(store.recorded_changes().await?, all, "when read again");
    let changes: Vec<_> = all.iter().map(|(_, what)| what.clone()).collect();
    let starts = [0, ends[0], ends[1]];
    for (number, write) in writes.iter().enumerate() {
        let of_write = changes.get(starts[number]..ends[number]);
        ensure!(
            of_write.is_some_and(|seen| covers(seen, write)),
            "write {number} in order, of {changes:?}"
        );
    }
    let middle: Vec<_> = all[ends[0]..ends[1]]
        .iter()
        .map(|(number, _)| *number)
        .collect();
    // A second node does the same.
    for turn in 0..2 {
        store.forget_changes(&middle).await?;
        let left = [&all[..ends[0]], &all[ends[1]..]].concat();
        let seen = store.recorded_changes().await?;
        ensure_eq!(
            seen,
            left,
            "after those between were forgotten, turn {turn}"
        );
    }
    forget_all(&store).await
}

async fn numbers(store: Store) -> Checked {
    start(&store)?;
    let mut used = BTreeSet::new();
    for number in 0..6 {
        apply(&store, [insert(number, record(&format!("k{number}")))]).await?;
        for number in recorded_numbers(&store).await? {
            // A node that was slow would otherwise forget a change that it never read.
            ensure!(used.insert(number), "the number {number} was used again");
        }
        forget_all(&store).await?;
    }
    Ok(())
}

async fn recorded_all(store: Store) -> Checked {
    const WRITERS: u64 = 8;
    const WRITES: u64 = 64;
    start(&store)?;
    let write = |number: u64| -> WriteBatch {
        let name = format!("k{number}");
        batch([insert(number, record(&name))])
    };
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            for turn in 0..WRITES {
                store.apply(&write(writer * WRITES + turn)).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    let (mut seen, mut used) = (Vec::new(), BTreeSet::new());
    loop {
        let some = store.recorded_changes().await?;
        if some.is_empty() {
            break;
        }
        let numbers: Vec<_> = some.iter().map(|(number, _)| *number).collect();
        for number in &numbers {
            ensure!(
                used.insert(*number),
                "the change {number} was returned again"
            );
        }
        seen.extend(some.into_iter().map(|(_, what)| what));
        store.forget_changes(&numbers).await?;
    }
    for number in 0..WRITERS * WRITES {
        ensure!(
            covers(&seen, &Invalidation::of(&write(number))),
            "the change of write {number} is not among {} that were returned",
            seen.len()
        );
    }
    Ok(())
}
