//! Signing states: stored, returned by one call only, and deleted with their keys.

use super::tools::{
    Store, all, apply, delete, digest, found, id, insert, peppered, put_a, record, rehash, signing,
    states, stored, update,
};
use crate::random::Random;
use crate::report::{Checked, valid};
use portunus::key::SigningState;
use portunus::store::Change;

checks!(CHECKS: Store {
    "a signing state is returned as stored until it is removed"
        => signing_kept depends on [versions, rehashed],
    "a signing state is deleted with its key"
        => signing_gone depends on [signing_kept, deleted],
    "no signing state or digest appears in a store's results or its Debug output"
        => secret depends on [whole_digest],
});

fn set(name: &str, state: Option<SigningState>) -> Change {
    Change::SetSigning {
        id: id(name),
        state,
    }
}

/// A state with bytes of every kind, including zero and 255.
fn random_state(seed: u64) -> SigningState {
    let mut random = Random::new(seed);
    let mut bytes = [0_u8; SigningState::LENGTH];
    for byte in &mut bytes {
        *byte = random.next().to_le_bytes()[0];
    }
    (bytes[0], bytes[1], bytes[2]) = (1, 0, 255);
    valid(SigningState::from_bytes(&bytes))
}

async fn signing_kept(store: Store) -> Checked {
    apply(&store, [insert(1, record("a")), insert(2, record("b"))]).await?;
    ensure_eq!(
        states(&store)?.signing_state(&id("a")).await?,
        None,
        "of a key that has none"
    );
    ensure_eq!(
        states(&store)?.signing_state(&id("unknown")).await?,
        None,
        "of a key that does not exist"
    );
    for seed in 0..4 {
        apply(&store, [set("a", Some(random_state(seed)))]).await?;
        let state = states(&store)?.signing_state(&id("a")).await?;
        ensure!(
            state == Some(random_state(seed)),
            "the returned signing state is not the last one that was set"
        );
    }
    ensure_eq!(
        states(&store)?.signing_state(&id("b")).await?,
        None,
        "of the other key"
    );
    update(&store, "a", |record| record.name = "renamed".into()).await?;
    apply(&store, [rehash("a", digest(1), peppered(1))]).await?;
    ensure!(
        states(&store)?.signing_state(&id("a")).await? == Some(random_state(3)),
        "an update or a rehash lost the state"
    );
    ensure_eq!(
        stored(&store, "a").await?.version,
        2,
        "the version: a signing state does not change the record"
    );
    apply(&store, [set("a", None)]).await?;
    ensure_eq!(
        states(&store)?.signing_state(&id("a")).await?,
        None,
        "after it was removed"
    );
    Ok(())
}

async fn signing_gone(store: Store) -> Checked {
    put_a(&store).await?;
    apply(&store, [set("a", Some(signing(9)))]).await?;
    apply(&store, [delete("a")]).await?;
    ensure_eq!(
        states(&store)?.signing_state(&id("a")).await?,
        None,
        "after its key was deleted"
    );
    apply(
        &store,
        [
            insert(2, record("b")),
            set("b", Some(signing(9))),
            delete("b"),
        ],
    )
    .await?;
    ensure_eq!(
        states(&store)?.signing_state(&id("b")).await?,
        None,
        "of a key that existed within one batch only"
    );
    Ok(())
}

async fn secret(store: Store) -> Checked {
    put_a(&store).await?;
    let state = random_state(7);
    apply(&store, [set("a", Some(state.clone()))]).await?;
    let shown = [
        ("the store", format!("{store:?}")),
        (
            "what get returns",
            format!("{:?}", stored(&store, "a").await?),
        ),
        ("what list returns", format!("{:?}", all(&store).await?)),
        (
            "what find returns",
            format!("{:?}", found(&store, digest(1)).await?),
        ),
        (
            "what signing_state returns",
            format!("{:?}", states(&store)?.signing_state(&id("a")).await?),
        ),
    ];
    for (secret, bytes) in [
        ("signing state", &state.as_bytes()[3..11]),
        ("digest", &digest(1).to_bytes()[..8]),
    ] {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let list: Vec<String> = bytes.iter().map(ToString::to_string).collect();
        for (what, shown) in &shown {
            let plain = shown.to_lowercase().replace([' ', '\n', '\t'], "");
            let leaks = plain.contains(&hex) || plain.contains(&list.join(","));
            ensure!(!leaks, "the Debug output of {what} contains a {secret}");
        }
    }
    Ok(())
}
