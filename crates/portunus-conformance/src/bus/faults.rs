//! What listeners receive while the second node is disconnected, and after it is reconnected.

use std::time::Instant;

use super::caches::{becomes, caches, is_admitted, revoke};
use super::nodes::{BusNodes, all_receive, digest, insert};
use super::recording_listener::RecordingListener;
use crate::report::Checked;
use portunus::store::{KeyStore, WriteBatch};

checks!(CHECKS: BusNodes {
    "a disconnected node stops calling caught_up"
        => silent depends on [truth],
    "changes made while a node is disconnected, or everything, reach it before caught_up"
        => reconnected depends on [silent],
    "a change by a disconnected node reaches the others or returns an error"
        => reported depends on [truth],
    "a disconnected node refuses a revoked key within the bound"
        => refused_while_cut depends on [silent, revoked_elsewhere],
});

async fn silent(nodes: BusNodes) -> Checked {
    let listeners = nodes.listeners().await?;
    nodes.cut().await;
    // Until then, `caught_up` may still cover earlier changes.
    let ends = Instant::now() + nodes.bound;
    tokio::time::sleep_until((ends + nodes.bound / 2).into()).await;
    listeners[1].covers_nothing_after(ends)?;
    nodes.restore().await;
    RecordingListener::all_catch_up(&listeners, nodes.bound).await
}

async fn reconnected(nodes: BusNodes) -> Checked {
    let listeners = nodes.listeners().await?;
    let (mut all, mut number) = (Vec::new(), 0);
    // Disconnected for a moment, for less than the bound, and for longer.
    for length in [nodes.bound / 200, nodes.bound / 4, nodes.bound * 3 / 2] {
        nodes.cut().await;
        let cut = Instant::now();
        for part in 1..=5 {
            // On some buses no change is possible meanwhile.
            all.extend(nodes.here.try_to_change_key(number, nodes.bound / 10).await);
            number += 1;
            tokio::time::sleep_until((cut + length * part / 5).into()).await;
        }
        nodes.restore().await;
        // While the node reconnects, changes continue.
        for _ in 0..5 {
            all.extend(nodes.here.try_to_change_key(number, nodes.bound).await);
            number += 1;
        }
        RecordingListener::all_catch_up(&listeners, nodes.bound).await?;
        for listener in &listeners {
            listener.caught_up_was_correct(&all)?;
        }
        all_receive(&listeners, &all, nodes.bound).await?;
    }
    Ok(())
}

async fn reported(nodes: BusNodes) -> Checked {
    let listeners = nodes.listeners().await?;
    let mut all = Vec::new();
    nodes.cut().await;
    for number in 0..2 {
        all.extend(nodes.there.try_to_change_key(number, nodes.bound / 2).await);
    }
    nodes.restore().await;
    RecordingListener::all_catch_up(&listeners, nodes.bound).await?;
    for listener in &listeners {
        listener.caught_up_was_correct(&all)?;
        listener.receives(&all, nodes.bound).await?;
    }
    Ok(())
}

async fn refused_while_cut(nodes: BusNodes) -> Checked {
    let [here, there] = caches(&nodes).await;
    here.apply(&WriteBatch::new().change(insert(1, "key1")))
        .await?;
    ensure!(
        is_admitted(&there, digest(1), nodes.bound).await,
        "the key is not admitted"
    );
    nodes.cut().await;
    let acknowledged = tokio::time::timeout(nodes.bound, revoke(&here, "key1")).await;
    // If no change is possible either, there is nothing to check.
    if let Ok(Ok(acknowledged)) = acknowledged {
        becomes(&there, digest(1), false, acknowledged, nodes.bound).await?;
    }
    nodes.restore().await;
    Ok(())
}
