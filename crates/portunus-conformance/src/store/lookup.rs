//! Lookups by digest and by id, and that a read sees every earlier write.

use super::tools::{
    Store, all, apply, at, batch, delete, digest, found, found_id, id, insert, owned_by, peppered,
    primary, put_a, record, rehash, rejected, stored, update,
};
use crate::report::{Checked, Failure};
use portunus::key::{DigestScheme, KeyDigest, Revocation};
use portunus::store::Rejected;

checks!(FIRST: Store {
    "a key is found by its exact digest and by no similar one"
        => whole_digest,
});

checks!(CHECKS: Store {
    "a deleted key is neither found nor listed nor primary"
        => deleted depends on [known_id_or_digest],
    "every read sees the writes acknowledged before it"
        => read_your_writes depends on [deleted, versions],
    "a revoked key is found with its revocation"
        => revoked depends on [read_your_writes],
    "the same bytes under another scheme are a different digest"
        => other_scheme depends on [read_your_writes],
    "a key is found under any of a lookup's candidate digests"
        => candidates depends on [other_scheme],
    "a secret revoked or deleted under one digest is so under all candidates of a lookup"
        => ended depends on [candidates, revoked],
    "the newest digest of a secret decides, whatever another tenant did to an older one"
        => foreign depends on [ended],
    "a found key lists the other keys on which the result depends"
        => others depends on [foreign],
    "a rehashed key is found only under its new digest, and keeps its version"
        => rehashed depends on [other_scheme],
    "the id and every digest of a deleted key are reserved permanently"
        => tombstones depends on [rehashed],
    "a key cannot be rehashed from a digest it no longer has, or to a known one"
        => rehash_rejected depends on [tombstones],
});

async fn whole_digest(store: Store) -> Checked {
    put_a(&store).await?;
    ensure_eq!(
        found_id(&store, digest(1)).await?,
        Some(id("a")),
        "under its own digest"
    );
    for place in 0..32 {
        for flip in [1_u8, 0x20, 0x80] {
            let mut bytes = digest(1).to_bytes();
            bytes[place] ^= flip;
            let wrong = KeyDigest::new(DigestScheme::Sha256, bytes);
            ensure_eq!(
                found_id(&store, wrong).await?,
                None,
                "byte {place} of the digest changed by {flip:#04x}"
            );
        }
    }
    // Digests that differ only in their last bytes belong to different keys.
    for number in 0..16_u8 {
        let mut bytes = digest(1).to_bytes();
        bytes[31] = bytes[31].wrapping_add(number + 1);
        let near = KeyDigest::new(DigestScheme::Sha256, bytes);
        let name = format!("near{number}");
        let change = portunus::store::Change::Insert {
            digest: near,
            record: Box::new(record(&name)),
        };
        apply(&store, [change]).await?;
        ensure_eq!(
            found_id(&store, near).await?,
            Some(id(&name)),
            "a digest that differs in its last byte"
        );
    }
    ensure_eq!(
        found_id(&store, digest(1)).await?,
        Some(id("a")),
        "with similar digests present"
    );
    Ok(())
}

async fn other_scheme(store: Store) -> Checked {
    put_a(&store).await?;
    let schemes = [
        DigestScheme::Sha512,
        DigestScheme::HmacSha256 { pepper: 0 },
        DigestScheme::HmacSha256 { pepper: 1 },
        DigestScheme::HmacSha256 { pepper: u32::MAX },
    ];
    for (number, scheme) in schemes.into_iter().enumerate() {
        let same_bytes = KeyDigest::new(scheme, digest(1).to_bytes());
        ensure_eq!(
            found_id(&store, same_bytes).await?,
            None,
            "the same bytes under {scheme}"
        );
        let name = format!("key{number}");
        let change = portunus::store::Change::Insert {
            digest: same_bytes,
            record: Box::new(record(&name)),
        };
        apply(&store, [change]).await?;
        ensure_eq!(
            found_id(&store, same_bytes).await?,
            Some(id(&name)),
            "a key of its own under {scheme}"
        );
    }
    ensure_eq!(
        found_id(&store, digest(1)).await?,
        Some(id("a")),
        "under sha256, as before"
    );
    Ok(())
}

async fn candidates(store: Store) -> Checked {
    put_a(&store).await?;
    let peppers = |first: u32| (first..first + 7).map(|pepper| DigestScheme::HmacSha256 { pepper });
    let mut asked: Vec<_> = peppers(1)
        .map(|scheme| KeyDigest::new(scheme, digest(9).to_bytes()))
        .collect();
    for place in 0..=asked.len() {
        let mut asked = asked.clone();
        asked.insert(place, digest(1));
        let found = store.find(&asked).await?;
        let under = found.map(|key| (key.record().id.clone(), *key.digest()));
        ensure_eq!(
            under,
            Some((id("a"), digest(1))),
            "as candidate {} of {}",
            place + 1,
            asked.len()
        );
    }
    asked.push(peppered(1));
    ensure!(
        store.find(&asked).await?.is_none(),
        "a key was found under candidates none of which is its digest"
    );
    ensure!(
        store.find(&[]).await?.is_none(),
        "a key was found under no digest at all"
    );
    Ok(())
}

async fn ended(store: Store) -> Checked {
    // Three secrets, each of which has two keys; the history of one does not affect another.
    let name = |key: &str, secret: u64| format!("{key}{secret}");
    for secret in 1..=3 {
        let other = portunus::store::Change::Insert {
            digest: peppered(secret),
            record: Box::new(record(&name("b", secret))),
        };
        apply(&store, [insert(secret, record(&name("a", secret))), other]).await?;
    }
    update(&store, "a2", |record| {
        record.revoked = Some(Revocation::new(at(1_000), None));
    })
    .await?;
    apply(&store, [rehash("a3", digest(3), digest(9)), delete("a3")]).await?;
    let expected = [
        (
            1,
            [Some(id("a1")), Some(id("b1"))],
            "two keys of one secret: the key of the first digest",
        ),
        (2, [Some(id("a2")), Some(id("a2"))], "one of them revoked"),
        (
            3,
            [None, None],
            "one of them deleted, after it had another digest",
        ),
    ];
    for (secret, expected, what) in expected {
        let mut found = Vec::new();
        for asked in [
            [digest(secret), peppered(secret)],
            [peppered(secret), digest(secret)],
        ] {
            found.push(store.find(&asked).await?.map(|key| key.record().id.clone()));
        }
        ensure_eq!(found, expected, "{what}");
    }
    let mut many: Vec<_> = (10..20).map(digest).collect();
    many.push(digest(3));
    for place in 0..many.len() {
        let mut many = many.clone();
        many.insert(place, peppered(3));
        ensure!(
            store.find(&many).await?.is_none(),
            "the deleted one's digest was overlooked among many, at {place}"
        );
    }
    Ok(())
}

async fn foreign(store: Store) -> Checked {
    // Three secrets of one tenant, whose older digest another tenant imported; and a fourth secret,
    // of which only the other tenant's key is left.
    for secret in 1..=4 {
        let ours = portunus::store::Change::Insert {
            digest: peppered(secret),
            record: Box::new(record(&format!("ours{secret}"))),
        };
        let theirs = owned_by(&format!("theirs{secret}"), "evil", "eve");
        apply(&store, [ours, insert(secret, theirs)]).await?;
    }
    update(&store, "theirs2", |record| {
        record.revoked = Some(Revocation::new(at(1_000), None));
    })
    .await?;
    apply(&store, [delete("theirs3"), delete("ours4")]).await?;
    let expected = [
        (1, Some("ours1"), "with another tenant's older key"),
        (2, Some("ours2"), "after the other tenant revoked its key"),
        (3, Some("ours3"), "after the other tenant deleted its key"),
        (4, None, "deleted, with another tenant's older key"),
    ];
    for (secret, expected, what) in expected {
        let found = store.find(&[peppered(secret), digest(secret)]).await?;
        let found = found.map(|key| key.record().id.clone());
        ensure_eq!(found, expected.map(id), "the key of a secret {what}");
    }
    Ok(())
}

async fn others(store: Store) -> Checked {
    let asked: Vec<_> = (1..=5).map(peppered).collect();
    let key = |place: usize, record| portunus::store::Change::Insert {
        digest: asked[place],
        record: Box::new(record),
    };
    let foreign = owned_by("theirs", "evil", "eve");
    apply(&store, [key(1, record("a")), key(2, foreign)]).await?;
    let named = async |digests: &[KeyDigest]| {
        let found = store.find(digests).await?;
        let mut named = found.map(|key| {
            let own = key.record().id.clone();
            [&[own], key.others()].concat()
        });
        if let Some(named) = &mut named {
            named[1..].sort();
        }
        Ok::<_, Failure>(named)
    };
    ensure_eq!(
        named(&asked).await?,
        Some(vec![id("a")]),
        "a key with another tenant's"
    );
    let other_user = owned_by("c", "acme", "bob");
    apply(&store, [key(3, record("b")), key(4, other_user)]).await?;
    ensure_eq!(
        named(&asked).await?,
        Some(vec![id("a"), id("b"), id("c")]),
        "the first of three keys of one tenant, with the others"
    );
    update(&store, "c", |record| {
        record.revoked = Some(Revocation::new(at(1_000), None));
    })
    .await?;
    ensure_eq!(
        named(&asked).await?,
        Some(vec![id("c"), id("a"), id("b")]),
        "the one of the three that was revoked, with the others"
    );
    ensure_eq!(
        named(&asked[3..]).await?,
        Some(vec![id("c"), id("b")]),
        "without the one whose digest is not requested"
    );
    // Deleting it would end the secret, as deleting the key with its current digest would.
    let moved = rehash("b", peppered(4), digest(4));
    let of_another = rehash("theirs", peppered(3), digest(3));
    apply(&store, [moved, of_another]).await?;
    ensure_eq!(
        named(&asked).await?,
        Some(vec![id("c"), id("a"), id("b")]),
        "with the one that has another digest now"
    );
    let early = key(0, owned_by("early", "evil", "eve"));
    apply(&store, [early, rehash("early", peppered(1), digest(1))]).await?;
    ensure_eq!(
        named(&asked).await?,
        Some(vec![id("c"), id("a"), id("b"), id("early")]),
        "with another tenant's that had a newer digest of the secret"
    );
    for (deleted, asked) in [("early", &asked[..]), ("b", &asked[1..])] {
        apply(&store, [delete(deleted)]).await?;
        ensure_eq!(
            named(asked).await?,
            None,
            "after {deleted} was deleted, which was named"
        );
    }
    Ok(())
}

async fn revoked(store: Store) -> Checked {
    put_a(&store).await?;
    let revocation = Revocation::new(at(1_000), Some("lost".into()));
    update(&store, "a", |record| {
        record.revoked = Some(revocation.clone());
    })
    .await?;
    let found = found(&store, digest(1)).await?;
    ensure_eq!(
        found.and_then(|key| key.record().revoked.clone()),
        Some(revocation),
        "the revocation, when looked up"
    );
    Ok(())
}

async fn deleted(store: Store) -> Checked {
    apply(&store, [insert(1, record("a")), insert(2, record("b"))]).await?;
    apply(&store, [delete("a")]).await?;
    ensure_eq!(
        found_id(&store, digest(1)).await?,
        None,
        "a deleted key by its digest"
    );
    ensure!(
        store.get(&id("a")).await?.is_none(),
        "get returned a deleted key"
    );
    let listed: Vec<_> = all(&store)
        .await?
        .iter()
        .map(|key| key.id.clone())
        .collect();
    ensure_eq!(listed, [id("b")], "the list");
    ensure_eq!(
        primary(&store, 1_000).await?,
        Some(id("b")),
        "the primary key"
    );
    let missing = Rejected::Missing(id("a"));
    ensure_eq!(
        rejected(&store, &batch([delete("a")])).await?,
        missing,
        "deleting it again"
    );
    Ok(())
}

async fn tombstones(store: Store) -> Checked {
    put_a(&store).await?;
    apply(&store, [rehash("a", digest(1), peppered(1))]).await?;
    apply(&store, [rehash("a", peppered(1), peppered(2))]).await?;
    apply(&store, [delete("a")]).await?;
    for known in [digest(1), peppered(1), peppered(2)] {
        let again = portunus::store::Change::Insert {
            digest: known,
            record: Box::new(record("b")),
        };
        ensure_eq!(
            rejected(&store, &batch([again])).await?,
            Rejected::DigestKnown,
            "a digest that it once had"
        );
    }
    let why = rejected(&store, &batch([insert(3, record("a"))])).await?;
    ensure_eq!(why, Rejected::IdKnown(id("a")), "its id");
    // The same for a key that existed within one batch only.
    apply(&store, [insert(4, record("c")), delete("c")]).await?;
    ensure_eq!(
        found_id(&store, digest(4)).await?,
        None,
        "inserted and deleted in one batch"
    );
    ensure_eq!(
        rejected(&store, &batch([insert(4, record("d"))])).await?,
        Rejected::DigestKnown,
        "its digest"
    );
    Ok(())
}

async fn rehashed(store: Store) -> Checked {
    put_a(&store).await?;
    apply(&store, [rehash("a", digest(1), peppered(1))]).await?;
    ensure_eq!(
        found_id(&store, digest(1)).await?,
        None,
        "under the old digest"
    );
    ensure_eq!(
        found_id(&store, peppered(1)).await?,
        Some(id("a")),
        "under the new digest"
    );
    ensure_eq!(stored(&store, "a").await?.version, 1, "its version");
    Ok(())
}

async fn rehash_rejected(store: Store) -> Checked {
    apply(&store, [insert(1, record("a")), insert(2, record("b"))]).await?;
    apply(&store, [rehash("a", digest(1), peppered(1))]).await?;
    let again = rejected(&store, &batch([rehash("a", digest(1), peppered(3))])).await?;
    ensure_eq!(again, Rejected::Missing(id("a")), "from its old digest");
    for (known, what) in [(digest(2), "another key's"), (digest(1), "its own former")] {
        let why = rejected(&store, &batch([rehash("a", peppered(1), known)])).await?;
        ensure_eq!(why, Rejected::DigestKnown, "onto {what} digest");
    }
    ensure_eq!(
        found_id(&store, peppered(1)).await?,
        Some(id("a")),
        "under the digest that it kept"
    );
    ensure_eq!(
        found_id(&store, digest(2)).await?,
        Some(id("b")),
        "the other key"
    );
    Ok(())
}

async fn read_your_writes(store: Store) -> Checked {
    for round in 0..20_u64 {
        let name = format!("key{round}");
        // Looked up before it exists, so that a cached miss is noticed.
        ensure_eq!(
            found_id(&store, digest(round)).await?,
            None,
            "round {round}: before it is inserted"
        );
        ensure!(
            store.get(&id(&name)).await?.is_none(),
            "round {round}: a key that was never inserted"
        );
        let mut new = record(&name);
        new.created_at = at(2_000 + round);
        apply(&store, [insert(round, new)]).await?;
        ensure_eq!(
            found_id(&store, digest(round)).await?,
            Some(id(&name)),
            "round {round}: after its insertion"
        );
        ensure_eq!(
            primary(&store, 5_000).await?,
            Some(id(&name)),
            "round {round}: the newest key is primary"
        );
        update(&store, &name, |record| record.enabled = false).await?;
        for (how, enabled) in [
            (
                "find",
                found(&store, digest(round))
                    .await?
                    .map(|key| key.record().enabled),
            ),
            ("get", store.get(&id(&name)).await?.map(|key| key.enabled)),
            ("list", all(&store).await?.first().map(|key| key.enabled)),
        ] {
            ensure_eq!(
                enabled,
                Some(false),
                "round {round}: whether it is enabled, by {how}, after it was disabled"
            );
        }
        apply(&store, [delete(&name)]).await?;
        ensure_eq!(
            found_id(&store, digest(round)).await?,
            None,
            "round {round}: after its deletion"
        );
        ensure!(
            store.get(&id(&name)).await?.is_none(),
            "round {round}: get by its id after its deletion"
        );
        ensure_eq!(
            all(&store).await?.len(),
            0,
            "round {round}: how many are listed after its deletion"
        );
        ensure_eq!(
            primary(&store, 5_000).await?,
            None,
            "round {round}: the primary key after its deletion"
        );
    }
    Ok(())
}
