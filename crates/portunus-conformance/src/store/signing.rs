//! What keys sign events with: kept, told by one call alone, and gone with its key.

use super::tools::{
    Store, all, apply, delete, digest, found, id, insert, peppered, put_a, record, rehash, signing,
    states, stored, update,
};
use crate::random::Random;
use crate::report::{Checked, valid};
use portunus::key::SigningState;
use portunus::store::Change;

checks!(CHECKS: Store {
    "a signing state is kept as it was given until it is taken away"
        => signing_kept rests on [versions, rehashed],
    "a signing state is gone with its key"
        => signing_gone rests on [signing_kept, deleted],
    "neither a signing state nor a digest shows in what a store returns or in its Debug"
        => secret rests on [whole_digest],
});

fn set(name: &str, state: Option<SigningState>) -> Change {
    Change::SetSigning {
        id: id(name),
        state,
    }
}

/// A state of bytes of every kind, zero and 255 among them.
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
        states(&store)?.signing_state(&id("nobody")).await?,
        None,
        "of a key that is not there"
    );
    for seed in 0..4 {
        apply(&store, [set("a", Some(random_state(seed)))]).await?;
        let told = states(&store)?.signing_state(&id("a")).await?;
        ensure!(
            told == Some(random_state(seed)),
            "another signing state was returned than was set last"
        );
    }
    ensure_eq!(
        states(&store)?.signing_state(&id("b")).await?,
        None,
        "of the key beside it"
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
        "the version: a signing state is no change of the record"
    );
    apply(&store, [set("a", None)]).await?;
    ensure_eq!(
        states(&store)?.signing_state(&id("a")).await?,
        None,
        "after it was taken away"
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
        "of a key that was there for one batch only"
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
            ensure!(!leaks, "the Debug of {what} shows a {secret}");
        }
    }
    Ok(())
}
