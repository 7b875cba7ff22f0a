//! What listeners receive while nothing fails.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use tokio::task::JoinSet;

use super::nodes::{BusNodes, all_receive, digest, id, insert};
use super::recording_listener::{Change, EVERY, RecordingListener};
use crate::report::{Checked, Failure};
use portunus::store::{self, Invalidation, InvalidationListener, WriteBatch};

checks!(CHECKS: BusNodes {
    "caught_up is called repeatedly, or once on a lossless bus"
        => repeatedly,
    "a change on any node reaches every listener on every node"
        => by_every_listener depends on [repeatedly],
    "a listener has received every change that caught_up covers"
        => truth depends on [by_every_listener],
    "keys and fingerprints arrive complete, individually or as everything, and no others do"
        => exactly depends on [by_every_listener],
    "tenants arrive on every node, or everything does, and no others do"
        => tenants depends on [by_every_listener],
    "a change of thousands of keys arrives complete"
        => large depends on [exactly],
    "no change is lost among many concurrent ones on several nodes"
        => concurrent depends on [exactly, truth],
    "caught_up is correct from the start for a listener that subscribes late"
        => late depends on [truth],
    "a dropped listener is released without affecting others"
        => dropped depends on [truth],
    "a listener that panics does not make caught_up wrong for others"
        => panics depends on [truth],
});

async fn by_every_listener(nodes: BusNodes) -> Checked {
    let mut listeners: Vec<_> = nodes.listeners().await?.into();
    listeners.extend(nodes.listeners().await?);
    let mut all = Vec::new();
    for number in 0..20 {
        let change = nodes.alternating(number).change_key(number as u64).await?;
        all.push(change.clone());
        for listener in &listeners {
            listener
                .receives(std::slice::from_ref(&change), nodes.bound)
                .await?;
            listener.received_nothing_else(&all)?;
        }
    }
    Ok(())
}

async fn exactly(nodes: BusNodes) -> Checked {
    let listeners = nodes.listeners().await?;
    let longest = "i".repeat(128);
    let names = [
        "a", "B", "b", "a\"b", "a'b", "a\\b", "{}", "[1]", ",", ":", "$1", "%s", "null", "-1",
        "1e9", &longest,
    ];
    let mut all = vec![nodes.here.change(&WriteBatch::new()).await?];
    for (number, name) in (0..).zip(names) {
        let node = nodes.alternating(number as usize);
        all.push(
            node.change(&WriteBatch::new().change(insert(number, name)))
                .await?,
        );
        all.push(
            node.change(&WriteBatch::new().change(store::Change::Delete(id(name))))
                .await?,
        );
    }
    // Several in one batch, including repeated keys.
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
    all_receive(&listeners, &all, nodes.bound).await
}

async fn tenants(nodes: BusNodes) -> Checked {
    let listeners = nodes.listeners().await?;
    let longest = "t".repeat(128);
    let mut all = Vec::new();
    for (number, name) in ["t", "T", "a\"b\\", "{}", "null", &longest]
        .into_iter()
        .enumerate()
    {
        all.push(nodes.alternating(number).change_tenant(name).await?);
        all_receive(&listeners, &all, nodes.bound).await?;
    }
    all_receive(&listeners, &all, nodes.bound).await
}

async fn large(nodes: BusNodes) -> Checked {
    let listeners = nodes.listeners().await?;
    let (mut all, mut from) = (Vec::new(), 0);
    for (number, count) in [30, 300, 2_000].into_iter().enumerate() {
        let names: Vec<_> = (from..from + count)
            .map(|number| format!("key-of-a-batch-{number:08}"))
            .collect();
        let inserts = (from..)
            .zip(&names)
            .map(|(number, name)| insert(number, name));
        let deletes = names.iter().map(|name| store::Change::Delete(id(name)));
        let mut batches = vec![inserts.fold(WriteBatch::new(), WriteBatch::change)];
        // With a store, to delete the most takes it seconds, and has no longer message.
        if count < 2_000 {
            batches.push(deletes.fold(WriteBatch::new(), WriteBatch::change));
        }
        for batch in batches {
            all.push(nodes.alternating(number).change(&batch).await?);
        }
        all_receive(&listeners, &all, nodes.bound).await?;
        from += count;
    }
    Ok(())
}

async fn concurrent(nodes: BusNodes) -> Checked {
    let listeners = nodes.listeners().await?;
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let node = nodes.alternating(task).clone();
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
    all_receive(&listeners, &all, nodes.bound).await?;
    for listener in &listeners {
        listener.caught_up_was_correct(&all)?;
    }
    Ok(())
}

async fn repeatedly(nodes: BusNodes) -> Checked {
    let listeners = nodes.listeners().await?;
    for _ in 0..4 {
        for listener in &listeners {
            listener.wait_until_current(nodes.bound).await?;
        }
    }
    Ok(())
}

async fn truth(nodes: BusNodes) -> Checked {
    const MOST_CHANGES: u64 = 300;
    const ENOUGH_PROOFS: usize = 15;
    let listeners = nodes.listeners().await?;
    let (started, mut all) = (Instant::now(), Vec::new());
    // Some changes in quick succession and some alone, so that `caught_up` calls fall before,
    // between and after them.
    for number in 0..MOST_CHANGES {
        all.push(
            nodes
                .alternating((number / 7) as usize)
                .change_key(number)
                .await?,
        );
        if number % 5 == 0 {
            tokio::time::sleep(EVERY * (number % 20) as u32).await;
        }
        let enough = listeners
            .iter()
            .all(|listener| listener.proofs().0 >= ENOUGH_PROOFS);
        if enough || started.elapsed() > nodes.bound * 3 {
            break;
        }
    }
    for listener in &listeners {
        listener.wait_until_current(nodes.bound).await?;
        listener.caught_up_was_correct(&all)?;
    }
    all_receive(&listeners, &all, nodes.bound).await
}

async fn late(nodes: BusNodes) -> Checked {
    let first = nodes.listeners().await?;
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
    let mut listeners = Vec::new();
    for number in 0..20 {
        listeners.push(RecordingListener::on(&*nodes.alternating(number).bus));
        tokio::time::sleep(EVERY * 7).await;
    }
    RecordingListener::all_catch_up(&listeners, nodes.bound).await?;
    going_on.store(false, Ordering::Relaxed);
    let all = changing.await??;
    all_receive(&first, &all, nodes.bound).await?;
    RecordingListener::all_catch_up(&listeners, nodes.bound).await?;
    for listener in &listeners {
        listener.caught_up_was_correct(&all)?;
        listener.received_nothing_else(&all)?;
        let later: Vec<Change> = all
            .iter()
            .filter(|change| listener.was_registered_before(change))
            .cloned()
            .collect();
        listener.receives(&later, nodes.bound).await?;
    }
    Ok(())
}

async fn dropped(nodes: BusNodes) -> Checked {
    let listeners = nodes.listeners().await?;
    let mut all = Vec::new();
    for number in 0..4 {
        let leaving = nodes.listeners().await?;
        for bus in [&nodes.here.bus, &nodes.there.bus] {
            // A listener that is dropped before it receives anything.
            bus.subscribe(Weak::<RecordingListener>::new());
        }
        let gone: Vec<_> = leaving.iter().map(Arc::downgrade).collect();
        let later = nodes.listeners().await?;
        drop(leaving);
        let change = nodes.alternating(number).change_key(number as u64).await?;
        for listener in &later {
            listener
                .receives(std::slice::from_ref(&change), nodes.bound)
                .await?;
        }
        all.push(change);
        all_receive(&listeners, &all, nodes.bound).await?;
        let dropped = Instant::now();
        while gone.iter().any(|listener| listener.strong_count() > 0) {
            ensure!(
                dropped.elapsed() <= nodes.bound,
                "the bus keeps a listener that was dropped"
            );
            tokio::time::sleep(EVERY).await;
        }
    }
    for listener in &listeners {
        listener.wait_until_current(nodes.bound).await?;
        listener.caught_up_was_correct(&all)?;
    }
    Ok(())
}

/// A listener with a bug.
#[derive(Debug, Default)]
struct Panics {
    armed: AtomicBool,
    panicked: AtomicBool,
}

impl InvalidationListener for Panics {
    fn invalidated(&self, _: &Invalidation) {
        if self.armed.load(Ordering::SeqCst) {
            self.panicked.store(true, Ordering::SeqCst);
            // Without a message on the terminal, as the panic is intentional.
            std::panic::resume_unwind(Box::new("a listener of the suite panics"));
        }
    }

    fn caught_up(&self, _: Instant) {}
}

async fn panics(nodes: BusNodes) -> Checked {
    let before = nodes.listeners().await?;
    let panicking = [Arc::<Panics>::default(), Arc::<Panics>::default()];
    for (node, listener) in [&nodes.here, &nodes.there].into_iter().zip(&panicking) {
        let weak: Weak<Panics> = Arc::downgrade(listener);
        node.bus.subscribe(weak);
    }
    let after = nodes.listeners().await?;
    panicking
        .iter()
        .for_each(|listener| listener.armed.store(true, Ordering::SeqCst));
    let mut all = Vec::new();
    for number in 0..6 {
        // If publishing panics, the change is not acknowledged.
        all.extend(
            nodes
                .alternating(number)
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
                .alternating(number)
                .try_to_change_key(number as u64, nodes.bound)
                .await,
        );
    }
    for listener in before.iter().chain(&after) {
        // A bus may be silent from then on.
        let is_up_to_date = listener.wait_until_current(nodes.bound / 2).await.is_ok();
        listener.caught_up_was_correct(&all)?;
        if is_up_to_date {
            listener.receives(&all, nodes.bound).await?;
        }
    }
    Ok(())
}
