//! What is heard while nothing fails.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::nodes::{BusNodes, all_hear, digest, id, insert};
use super::recording_listener::{Change, EVERY, RecordingListener};
use crate::report::{Checked, Failure};
use portunus::store::{self, Invalidation, InvalidationListener, WriteBatch};

checks!(CHECKS: BusNodes {
    "health is told again and again, or once where nothing is ever missed"
        => again_and_again,
    "what is changed on any node is heard by every listener of every node"
        => by_everybody rests on [again_and_again],
    "who is told that all was heard has heard it"
        => truth rests on [by_everybody],
    "keys and fingerprints arrive whole, by themselves or as everything, and no others do"
        => exactly rests on [by_everybody],
    "a change of thousands of keys arrives whole"
        => large rests on [exactly],
    "of many concurrent changes on several nodes none is lost"
        => concurrent rests on [exactly, truth],
    "a listener that comes late is told the truth from the beginning"
        => late rests on [truth],
    "a listener that is dropped is let go, and harms no other"
        => dropped rests on [truth],
    "a listener that panics makes no other trust what it has not heard"
        => panics rests on [truth],
});

async fn by_everybody(nodes: BusNodes) -> Checked {
    let mut ears: Vec<_> = nodes.ears().await?.into();
    ears.extend(nodes.ears().await?);
    let mut all = Vec::new();
    for number in 0..20 {
        let change = nodes.by_turns(number).change_key(number as u64).await?;
        all.push(change.clone());
        for listener in &ears {
            listener
                .hears(std::slice::from_ref(&change), nodes.bound)
                .await?;
            listener.heard_nothing_else(&all)?;
        }
    }
    Ok(())
}

async fn exactly(nodes: BusNodes) -> Checked {
    let ears = nodes.ears().await?;
    let longest = "i".repeat(128);
    let names = [
        "a", "B", "b", "a\"b", "a'b", "a\\b", "{}", "[1]", ",", ":", "$1", "%s", "null", "-1",
        "1e9", &longest,
    ];
    let mut all = vec![nodes.here.change(&WriteBatch::new()).await?];
    for (number, name) in (0..).zip(names) {
        let node = nodes.by_turns(number as usize);
        all.push(
            node.change(&WriteBatch::new().change(insert(number, name)))
                .await?,
        );
        all.push(
            node.change(&WriteBatch::new().change(store::Change::Delete(id(name))))
                .await?,
        );
    }
    // Several at once, of which some are the same.
    let (first, second) = (insert(100, "first"), insert(101, "second"));
    let moved = store::Change::Rehash {
        id: id("first"),
        from: digest(100),
        to: digest(102),
    };
    let gone = ["first", "second"].map(|name| store::Change::Delete(id(name)));
    let several = [first, second, moved]
        .into_iter()
        .chain(gone)
        .fold(WriteBatch::new(), WriteBatch::change);
    all.push(nodes.there.change(&several).await?);
    all_hear(&ears, &all, nodes.bound).await
}

async fn large(nodes: BusNodes) -> Checked {
    let ears = nodes.ears().await?;
    let (mut all, mut from) = (Vec::new(), 0);
    for (number, count) in [30, 300, 2_000].into_iter().enumerate() {
        let names: Vec<_> = (from..from + count)
            .map(|number| format!("key-of-a-batch-{number:08}"))
            .collect();
        let inserts = (from..)
            .zip(&names)
            .map(|(number, name)| insert(number, name));
        let deletes = names.iter().map(|name| store::Change::Delete(id(name)));
        let inserted = nodes
            .by_turns(number)
            .change(&inserts.fold(WriteBatch::new(), WriteBatch::change))
            .await?;
        let deleted = nodes
            .by_turns(number)
            .change(&deletes.fold(WriteBatch::new(), WriteBatch::change))
            .await?;
        all.extend([inserted, deleted]);
        all_hear(&ears, &all, nodes.bound).await?;
        from += count;
    }
    Ok(())
}

async fn concurrent(nodes: BusNodes) -> Checked {
    let ears = nodes.ears().await?;
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let node = nodes.by_turns(task).clone();
        tasks.spawn(async move {
            let mut changes = Vec::new();
            for turn in 0..15 {
                changes.push(node.change_key(task as u64 * 100 + turn).await?);
            }
            Ok::<_, Failure>(changes)
        });
    }
    let mut all = Vec::new();
    while let Some(done) = tasks.join_next().await {
        all.extend(done??);
    }
    all_hear(&ears, &all, nodes.bound).await?;
    for listener in &ears {
        listener.was_told_the_truth(&all)?;
    }
    Ok(())
}

async fn again_and_again(nodes: BusNodes) -> Checked {
    let ears = nodes.ears().await?;
    for _ in 0..4 {
        for listener in &ears {
            listener.is_sure_within(nodes.bound).await?;
        }
    }
    Ok(())
}

async fn truth(nodes: BusNodes) -> Checked {
    const MOST_CHANGES: u64 = 300;
    const ENOUGH_PROOFS: usize = 15;
    let ears = nodes.ears().await?;
    let (started, mut all) = (Instant::now(), Vec::new());
    // Some changes right after each other and some alone, so that proofs fall before, between and
    // after.
    for number in 0..MOST_CHANGES {
        all.push(
            nodes
                .by_turns((number / 7) as usize)
                .change_key(number)
                .await?,
        );
        if number % 5 == 0 {
            tokio::time::sleep(EVERY * (number % 20) as u32).await;
        }
        let enough = ears
            .iter()
            .all(|listener| listener.proofs().0 >= ENOUGH_PROOFS);
        if enough || started.elapsed() > nodes.bound * 3 {
            break;
        }
    }
    for listener in &ears {
        listener.is_sure_within(nodes.bound).await?;
        listener.was_told_the_truth(&all)?;
    }
    all_hear(&ears, &all, nodes.bound).await
}

async fn late(nodes: BusNodes) -> Checked {
    let first = nodes.ears().await?;
    let going_on = Arc::new(AtomicBool::new(true));
    let (node, goes_on) = (nodes.here.clone(), Arc::clone(&going_on));
    let changing = tokio::spawn(async move {
        let mut changes = Vec::new();
        while goes_on.load(Ordering::Relaxed) {
            changes.push(node.change_key(changes.len() as u64).await?);
            tokio::time::sleep(EVERY).await;
        }
        Ok::<_, Failure>(changes)
    });
    let mut ears = Vec::new();
    for number in 0..20 {
        ears.push(RecordingListener::on(&*nodes.by_turns(number).bus));
        tokio::time::sleep(EVERY * 7).await;
    }
    RecordingListener::wake(&ears, nodes.bound).await?;
    going_on.store(false, Ordering::Relaxed);
    let all = changing.await??;
    all_hear(&first, &all, nodes.bound).await?;
    RecordingListener::wake(&ears, nodes.bound).await?;
    for listener in &ears {
        listener.was_told_the_truth(&all)?;
        listener.heard_nothing_else(&all)?;
        let later: Vec<Change> = all
            .iter()
            .filter(|change| listener.was_there_before(change))
            .cloned()
            .collect();
        listener.hears(&later, nodes.bound).await?;
    }
    Ok(())
}

async fn dropped(nodes: BusNodes) -> Checked {
    let ears = nodes.ears().await?;
    let mut all = Vec::new();
    for number in 0..4 {
        let leaving = nodes.ears().await?;
        for bus in [&nodes.here.bus, &nodes.there.bus] {
            // One that is gone before it hears anything.
            bus.subscribe(Weak::<RecordingListener>::new());
        }
        let gone: Vec<_> = leaving.iter().map(Arc::downgrade).collect();
        let later = nodes.ears().await?;
        drop(leaving);
        let change = nodes.by_turns(number).change_key(number as u64).await?;
        for listener in &later {
            listener
                .hears(std::slice::from_ref(&change), nodes.bound)
                .await?;
        }
        all.push(change);
        all_hear(&ears, &all, nodes.bound).await?;
        let dropped = Instant::now();
        while gone.iter().any(|listener| listener.strong_count() > 0) {
            ensure!(
                dropped.elapsed() <= nodes.bound,
                "the bus keeps a listener that nobody else has"
            );
            tokio::time::sleep(EVERY).await;
        }
    }
    for listener in &ears {
        listener.is_sure_within(nodes.bound).await?;
        listener.was_told_the_truth(&all)?;
    }
    Ok(())
}

/// A listener with a mistake in it.
#[derive(Debug, Default)]
struct Panics {
    armed: AtomicBool,
    panicked: AtomicBool,
}

impl InvalidationListener for Panics {
    fn invalidated(&self, _: &Invalidation) {
        if self.armed.load(Ordering::SeqCst) {
            self.panicked.store(true, Ordering::SeqCst);
            // Without a word on the terminal, as it is meant.
            std::panic::resume_unwind(Box::new("a listener of the suite panics"));
        }
    }

    fn caught_up(&self, _: Duration) {}
}

async fn panics(nodes: BusNodes) -> Checked {
    let before = nodes.ears().await?;
    let panicking = [Arc::<Panics>::default(), Arc::<Panics>::default()];
    for (node, listener) in [&nodes.here, &nodes.there].into_iter().zip(&panicking) {
        let weak: Weak<Panics> = Arc::downgrade(listener);
        node.bus.subscribe(weak);
    }
    let after = nodes.ears().await?;
    panicking
        .iter()
        .for_each(|listener| listener.armed.store(true, Ordering::SeqCst));
    let mut all = Vec::new();
    for number in 0..6 {
        // Where publishing panics, nobody is told that it was done.
        all.extend(
            nodes
                .by_turns(number)
                .try_to_change_key(number as u64, nodes.bound)
                .await,
        );
    }
    let started = Instant::now();
    while panicking
        .iter()
        .any(|listener| !listener.panicked.load(Ordering::SeqCst))
        && started.elapsed() < nodes.bound
    {
        tokio::time::sleep(EVERY).await;
    }
    drop(panicking);
    for number in 6..8 {
        all.extend(
            nodes
                .by_turns(number)
                .try_to_change_key(number as u64, nodes.bound)
                .await,
        );
    }
    for listener in before.iter().chain(&after) {
        // A bus may be silent from then on.
        let is_well = listener.is_sure_within(nodes.bound / 2).await.is_ok();
        listener.was_told_the_truth(&all)?;
        if is_well {
            listener.hears(&all, nodes.bound).await?;
        }
    }
    Ok(())
}
