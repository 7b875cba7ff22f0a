//! Batches: atomicity, conditions in their phases, and harmless retries.

use super::tools::{
    Snapshot, Store, acme, all, apply, at, batch, change, delete, digest, found_id, id, insert,
    made_at, owned_by, peppered, primary, put_a, record, rehash, rejected, set_primary, signing,
    stored, tenant, update, user,
};
use crate::report::{Checked, valid};
use crate::runner::shown;
use portunus::key::{KeyFamily, Owner, Revocation};
use portunus::store::{Change, Condition, OwnerRef, Rejected, WriteBatch};

checks!(FIRST: Store {
    "a known id or digest is rejected rather than reported as an outage"
        => known_id_or_digest depends on [whole_digest],
    "versions and primary keys are checked before the changes"
        => before_changes depends on [known_id_or_digest],
    "an update at another version is rejected with both versions"
        => versions depends on [before_changes],
});

checks!(CHECKS: Store {
    "every change of a key that does not exist is rejected as missing"
        => missing depends on [deleted, versions],
    "a batch with a version mismatch changes nothing"
        => early_condition depends on [versions],
    "a batch whose last change fails changes nothing and reserves no id or digest"
        => late_change depends on [missing, early_condition],
    "the number of active keys is checked after the changes"
        => after_changes depends on [late_change, read_your_writes],
    "a batch whose last condition fails changes nothing and reserves no id or digest"
        => late_condition depends on [after_changes],
    "a key's owner and family never change, but the owner's address may"
        => owner_and_family depends on [versions],
    "an empty batch changes nothing but still checks its conditions"
        => empty depends on [versions],
    "a retry of an applied batch is rejected without effect"
        => retries depends on [versions, rehash_rejected],
});

/// Changes of every kind, none of which may remain if the batch fails.
fn everything() -> Vec<Change> {
    let mut changed = record("a");
    changed.name = "changed".into();
    changed.version = 2;
    vec![
        insert(2, made_at("b", 5_000)),
        set_primary("b"),
        Change::Replace(Box::new(changed)),
        rehash("a", digest(1), digest(3)),
        Change::SetSigning {
            id: id("a"),
            state: None,
        },
        insert(4, record("c")),
        Change::Delete(id("c")),
        insert(5, owned_by("d", "acme", "u1")),
        rehash("d", digest(5), peppered(5)),
        Change::PinPrimary {
            owner: OwnerRef::User(tenant("acme"), user("u1")),
            at: at(1_000),
        },
        delete("e"),
    ]
}

async fn changes_nothing(store: Store, failing: WriteBatch) -> Checked {
    apply(
        &store,
        [
            insert(1, record("a")),
            insert(6, record("e")),
            set_primary("a"),
        ],
    )
    .await?;
    apply(
        &store,
        [Change::SetSigning {
            id: id("a"),
            state: Some(signing(1)),
        }],
    )
    .await?;
    let (names, digests) = (
        ["a", "b", "c", "d", "e"],
        [
            digest(1),
            digest(2),
            digest(3),
            digest(4),
            digest(5),
            peppered(5),
            digest(6),
        ],
    );
    let before = Snapshot::of(&store, &names, &digests).await?;
    rejected(&store, &failing).await?;
    ensure_eq!(
        Snapshot::of(&store, &names, &digests).await?,
        before,
        "after a batch that was rejected"
    );
    // Neither ids nor digests are reserved.
    let again = [
        ("b", digest(2)),
        ("c", digest(4)),
        ("d", digest(3)),
        ("x", digest(5)),
        ("y", peppered(5)),
    ];
    for (name, digest) in again {
        apply(
            &store,
            [Change::Insert {
                digest,
                record: Box::new(record(name)),
            }],
        )
        .await?;
    }
    Ok(())
}

async fn late_change(store: Store) -> Checked {
    let last = batch(everything()).change(delete("unknown"));
    changes_nothing(store, last).await
}

async fn late_condition(store: Store) -> Checked {
    let limit = Condition::ActiveKeysAtMost {
        owner: OwnerRef::Tenant(tenant("acme")),
        at: at(1_000),
        limit: 2,
    };
    changes_nothing(store, batch(everything()).require(limit)).await
}

async fn known_id_or_digest(store: Store) -> Checked {
    put_a(&store).await?;
    let same_id = rejected(&store, &batch([insert(2, record("a"))])).await?;
    ensure_eq!(
        same_id,
        Rejected::IdKnown(id("a")),
        "its id under another digest"
    );
    let same_digest = rejected(&store, &batch([insert(1, record("b"))])).await?;
    ensure_eq!(
        same_digest,
        Rejected::DigestKnown,
        "its digest under another id"
    );
    Ok(())
}

async fn early_condition(store: Store) -> Checked {
    let condition = Condition::Version {
        id: id("a"),
        version: 7,
    };
    changes_nothing(store, batch(everything()).require(condition)).await
}

async fn before_changes(store: Store) -> Checked {
    put_a(&store).await?;
    let of_b = Condition::Version {
        id: id("b"),
        version: 1,
    };
    let why = rejected(&store, &batch([insert(2, record("b"))]).require(of_b)).await?;
    ensure_eq!(
        why,
        Rejected::Missing(id("b")),
        "the version of a key that the batch itself inserts"
    );
    let swap = |from: Option<&str>, to: &str| {
        let condition = Condition::Primary {
            owner: acme(),
            key: from.map(id),
            at: at(1_000),
        };
        batch([insert(2, made_at("b", 2_000)), set_primary(to)]).require(condition)
    };
    ensure_eq!(
        rejected(&store, &swap(Some("b"), "b")).await?,
        Rejected::Primary,
        "a key that is primary only afterwards"
    );
    ensure_eq!(
        rejected(&store, &swap(None, "b")).await?,
        Rejected::Primary,
        "no primary key, where there is one"
    );
    store.apply(&swap(Some("a"), "b")).await?;
    ensure_eq!(
        primary(&store, 1_000).await?,
        Some(id("b")),
        "the primary key after the swap"
    );
    Ok(())
}

async fn after_changes(store: Store) -> Checked {
    put_a(&store).await?;
    let at_most_one = Condition::ActiveKeysAtMost {
        owner: acme(),
        at: at(1_000),
        limit: 1,
    };
    let why = rejected(
        &store,
        &batch([insert(2, record("b"))]).require(at_most_one.clone()),
    )
    .await?;
    ensure_eq!(
        why,
        Rejected::TooManyActive {
            active: 2,
            limit: 1
        },
        "one key too many"
    );
    // Under the condition first: the order of the builder's calls does not matter.
    let mut exchange = WriteBatch::new()
        .require(at_most_one.clone())
        .change(insert(2, record("b")));
    exchange = exchange.change(delete("a"));
    store.apply(&exchange).await?;
    let revoke = change(&store, "b", |record| {
        record.revoked = Some(Revocation::new(at(999), None));
    })
    .await?;
    store
        .apply(&revoke.change(insert(3, record("c"))).require(at_most_one))
        .await?;
    ensure_eq!(
        all(&store).await?.len(),
        2,
        "how many keys there are, one of them revoked"
    );
    Ok(())
}

async fn versions(store: Store) -> Checked {
    put_a(&store).await?;
    let both = WriteBatch::new()
        .update(record("a"))
        .require(Condition::Version {
            id: id("a"),
            version: 2,
        });
    let why = rejected(&store, &both).await?;
    ensure_eq!(
        why,
        Rejected::Version {
            id: id("a"),
            expected: 2,
            stored: 1
        },
        "the version that the batch makes"
    );
    let named = |name: &str| {
        let mut record = record("a");
        record.name = name.into();
        WriteBatch::new().update(record)
    };
    store.apply(&named("first")).await?;
    let why = rejected(&store, &named("second")).await?;
    ensure_eq!(
        why,
        Rejected::Version {
            id: id("a"),
            expected: 1,
            stored: 2
        },
        "a second update of version 1"
    );
    let stored = stored(&store, "a").await?;
    ensure_eq!(
        (stored.name.as_str(), stored.version),
        ("first", 2),
        "the stored record"
    );
    Ok(())
}

async fn missing(store: Store) -> Checked {
    put_a(&store).await?;
    apply(&store, [delete("a")]).await?;
    for name in ["a", "unknown"] {
        let asked = [
            WriteBatch::new().update(record(name)),
            WriteBatch::new().require(Condition::Version {
                id: id(name),
                version: 1,
            }),
            batch([Change::Replace(Box::new(record(name)))]),
            batch([delete(name)]),
            batch([rehash(name, digest(1), peppered(1))]),
            batch([set_primary(name)]),
            batch([Change::SetSigning {
                id: id(name),
                state: Some(signing(1)),
            }]),
            batch([Change::SetSigning {
                id: id(name),
                state: None,
            }]),
        ];
        for batch in asked {
            ensure_eq!(
                rejected(&store, &batch).await?,
                Rejected::Missing(id(name)),
                "{}",
                shown(&batch)
            );
        }
    }
    Ok(())
}

async fn owner_and_family(store: Store) -> Checked {
    apply(
        &store,
        [
            insert(1, record("a")),
            insert(2, owned_by("b", "acme", "u1")),
        ],
    )
    .await?;
    let owners = [
        Owner::tenant(tenant("other")),
        Owner::user(tenant("acme"), user("u2")),
        Owner::tenant(tenant("acme")),
    ];
    for name in ["a", "b"] {
        let before = stored(&store, name).await?;
        for owner in &owners {
            if *owner != before.owner {
                let given = change(&store, name, |record| record.owner = owner.clone()).await?;
                ensure_eq!(
                    rejected(&store, &given).await?,
                    Rejected::Owner(id(name)),
                    "{name} given to {owner:?}"
                );
            }
        }
        let moved = change(&store, name, |record| {
            record.family = valid(KeyFamily::new("another"));
        })
        .await?;
        ensure_eq!(
            rejected(&store, &moved).await?,
            Rejected::Owner(id(name)),
            "{name} moved to another family"
        );
        ensure_eq!(
            stored(&store, name).await?,
            before,
            "the record stored afterwards"
        );
        update(&store, name, |record| {
            record.owner = record.owner.clone().with_email("a@example.com");
        })
        .await?;
        let address = stored(&store, name).await?.owner.user_email.clone();
        ensure_eq!(
            address.as_deref(),
            Some("a@example.com"),
            "{name}'s owner has another address"
        );
    }
    Ok(())
}

async fn empty(store: Store) -> Checked {
    put_a(&store).await?;
    store.apply(&WriteBatch::new()).await?;
    store
        .apply(&WriteBatch::new().require(Condition::Version {
            id: id("a"),
            version: 1,
        }))
        .await?;
    let never = Condition::Version {
        id: id("a"),
        version: 2,
    };
    let why = rejected(&store, &WriteBatch::new().require(never)).await?;
    ensure_eq!(
        why,
        Rejected::Version {
            id: id("a"),
            expected: 2,
            stored: 1
        },
        "a condition without a change"
    );
    Ok(())
}

async fn retries(store: Store) -> Checked {
    let inserted = batch([insert(1, record("a"))]);
    store.apply(&inserted).await?;
    let why = rejected(&store, &inserted).await?;
    ensure!(
        matches!(why, Rejected::IdKnown(_) | Rejected::DigestKnown),
        "an insertion again: {why:?}"
    );
    let mut renamed = record("a");
    renamed.name = "renamed".into();
    let updated = WriteBatch::new().update(renamed);
    store.apply(&updated).await?;
    let why = rejected(&store, &updated).await?;
    ensure_eq!(
        why,
        Rejected::Version {
            id: id("a"),
            expected: 1,
            stored: 2
        },
        "an update again"
    );
    let rehashed = batch([rehash("a", digest(1), peppered(1))]);
    store.apply(&rehashed).await?;
    let why = rejected(&store, &rehashed).await?;
    ensure_eq!(why, Rejected::Missing(id("a")), "a rehash again");
    // Changes that state a result rather than a difference may be repeated.
    for _ in 0..2 {
        apply(
            &store,
            [
                set_primary("a"),
                Change::PinPrimary {
                    owner: acme(),
                    at: at(1_000),
                },
            ],
        )
        .await?;
        apply(
            &store,
            [Change::SetSigning {
                id: id("a"),
                state: Some(signing(2)),
            }],
        )
        .await?;
    }
    let stored = stored(&store, "a").await?;
    ensure_eq!(
        (stored.name.as_str(), stored.version),
        ("renamed", 2),
        "the stored record"
    );
    ensure_eq!(
        found_id(&store, peppered(1)).await?,
        Some(id("a")),
        "under its digest"
    );
    ensure_eq!(
        primary(&store, 1_000).await?,
        Some(id("a")),
        "the primary key"
    );
    Ok(())
}
