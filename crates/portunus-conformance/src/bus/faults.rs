//! What is heard when the second node is cut off, and when it is back.

use std::time::Instant;

use super::caches::{becomes, caches, is_let_in, revoke};
use super::nodes::{BusNodes, all_hear, digest, insert};
use super::recording_listener::RecordingListener;
use crate::report::Checked;
use portunus::store::{KeyStore, WriteBatch};

checks!(CHECKS: BusNodes {
    "a node that is cut off does not go on saying that it has heard all"
        => silent rests on [truth],
    "what is changed while a node is cut off is heard there, or everything is, before it is well \
     again"
        => made_up rests on [silent],
    "what a node that is cut off changes is heard by the others, or is an error"
        => said rests on [truth],
    "a node that is cut off refuses a revoked key within the bound"
        => refused_while_cut rests on [silent, revoked_elsewhere],
});

async fn silent(nodes: BusNodes) -> Checked {
    let ears = nodes.ears().await?;
    nodes.cut().await;
    // As long as that it may be well by what came before.
    let ends = Instant::now() + nodes.bound;
    tokio::time::sleep_until((ends + nodes.bound / 2).into()).await;
    ears[1].was_sure_of_nothing_after(ends)?;
    nodes.restore().await;
    RecordingListener::wake(&ears, nodes.bound).await
}

async fn made_up(nodes: BusNodes) -> Checked {
    let ears = nodes.ears().await?;
    let (mut all, mut number) = (Vec::new(), 0);
    // Gone for a moment, for less than the bound, and for longer.
    for length in [nodes.bound / 200, nodes.bound / 4, nodes.bound * 3 / 2] {
        nodes.cut().await;
        let cut = Instant::now();
        for part in 1..=5 {
            // On some fabrics nobody can change anything meanwhile.
            all.extend(nodes.here.try_to_change_key(number, nodes.bound / 10).await);
            number += 1;
            tokio::time::sleep_until((cut + length * part / 5).into()).await;
        }
        nodes.restore().await;
        // Where a connection is made just now, changes go on.
        for _ in 0..5 {
            all.extend(nodes.here.try_to_change_key(number, nodes.bound).await);
            number += 1;
        }
        RecordingListener::wake(&ears, nodes.bound).await?;
        for listener in &ears {
            listener.was_told_the_truth(&all)?;
        }
        all_hear(&ears, &all, nodes.bound).await?;
    }
    Ok(())
}

async fn said(nodes: BusNodes) -> Checked {
    let ears = nodes.ears().await?;
    let mut all = Vec::new();
    nodes.cut().await;
    for number in 0..2 {
        all.extend(nodes.there.try_to_change_key(number, nodes.bound / 2).await);
    }
    nodes.restore().await;
    RecordingListener::wake(&ears, nodes.bound).await?;
    for listener in &ears {
        listener.was_told_the_truth(&all)?;
        listener.hears(&all, nodes.bound).await?;
    }
    Ok(())
}

async fn refused_while_cut(nodes: BusNodes) -> Checked {
    let [here, there] = caches(&nodes).await;
    here.apply(&WriteBatch::new().change(insert(1, "key1")))
        .await?;
    ensure!(
        is_let_in(&there, digest(1), nodes.bound).await,
        "the key is not let in"
    );
    nodes.cut().await;
    let acknowledged = tokio::time::timeout(nodes.bound, revoke(&here, "key1")).await;
    // Where no change can be made either, there is nothing to be refused.
    if let Ok(Ok(acknowledged)) = acknowledged {
        becomes(&there, digest(1), false, acknowledged, nodes.bound).await?;
    }
    nodes.restore().await;
    Ok(())
}
