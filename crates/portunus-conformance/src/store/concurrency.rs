//! Concurrent writers and readers: writes are serialized, and no partial write is visible.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::{JoinSet, yield_now};

use super::tools::{
    Store, acme, all, apply, at, batch, delete, digest, found_id, id, insert, made_at, peppered,
    primary, put_a, record, rehash, set_primary, stored,
};
use crate::report::{Checked, Failure};
use portunus::key::{DigestScheme, KeyDigest, Revocation};
use portunus::store::{Condition, Rejected, WriteBatch};

checks!(CHECKS: Store {
    "exactly one of many concurrent updates of one version succeeds"
        => one_winner depends on [versions],
    "no acknowledged concurrent update is lost"
        => no_lost_update depends on [one_winner],
    "exactly 4 of 200 concurrent insertions under a quota of 4 succeed"
        => concurrent_quota depends on [after_changes, active],
    "exactly one of many concurrent insertions of one digest succeeds"
        => one_digest depends on [known_id_or_digest],
    "exactly one of many concurrent swaps of one primary key succeeds"
        => one_primary depends on [before_changes, newest],
    "no acknowledged revocation is lost among concurrent updates"
        => revocations depends on [one_winner, revoked],
    "no reader sees a partially applied batch"
        => no_half depends on [deleted],
    "a key is found at every moment during its rehash"
        => while_rehashed depends on [candidates, rehashed],
});

/// The outcomes of concurrent batches; anything except success and this kind of rejection is a
/// failure.
async fn at_once(
    store: &Store,
    batches: impl IntoIterator<Item = WriteBatch>,
    expected: fn(&Rejected) -> bool,
) -> Result<usize, Failure> {
    let mut tasks = JoinSet::new();
    for batch in batches {
        let store = Arc::clone(store);
        tasks.spawn(async move { store.apply(&batch).await });
    }
    let mut applied = 0;
    while let Some(outcome) = tasks.join_next().await {
        match outcome? {
            Ok(()) => applied += 1,
            Err(error) => match error.as_rejected() {
                Some(why) if expected(why) => {}
                _ => return Err(Failure::from(error)),
            },
        }
    }
    Ok(applied)
}

async fn one_winner(store: Store) -> Checked {
    put_a(&store).await?;
    for round in 1..=20 {
        let updates = (0..8).map(|writer| {
            let mut mine = record("a");
            (mine.version, mine.name) = (round, format!("writer {writer}").into());
            WriteBatch::new().update(mine)
        });
        let won = at_once(&store, updates, |why| {
            matches!(why, Rejected::Version { .. })
        })
        .await?;
        ensure_eq!(won, 1, "how many of 8 updates of version {round} succeeded");
        ensure_eq!(
            stored(&store, "a").await?.version,
            round + 1,
            "the version after them"
        );
    }
    Ok(())
}

async fn no_lost_update(store: Store) -> Checked {
    put_a(&store).await?;
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for _ in 0..5 {
                // Retries until it succeeds: each rejection is the success of another writer.
                let mut turns = 0;
                loop {
                    turns += 1;
                    ensure!(turns < 1_000, "an update was rejected {turns} times");
                    let mut mine = (*stored(&store, "a").await?).clone();
                    mine.description =
                        Some(format!("{}x", mine.description.take().unwrap_or_default()));
                    yield_now().await;
                    match store.apply(&WriteBatch::new().update(mine)).await {
                        Ok(()) => break,
                        Err(error)
                            if matches!(error.as_rejected(), Some(Rejected::Version { .. })) =>
                        {
                            yield_now().await;
                        }
                        Err(error) => return Err(Failure::from(error)),
                    }
                }
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let record = stored(&store, "a").await?;
    let letters = record.description.as_deref().unwrap_or_default().len();
    ensure_eq!(
        (letters, record.version),
        (40, 41),
        "letters and version after 40 updates that added a letter each"
    );
    Ok(())
}

async fn concurrent_quota(store: Store) -> Checked {
    let insertions = (0..200).map(|number| {
        let limit = Condition::ActiveKeysAtMost {
            owner: acme(),
            at: at(1_000),
            limit: 4,
        };
        batch([insert(number, record(&format!("key{number}")))]).require(limit)
    });
    let most = |why: &Rejected| {
        matches!(
            why,
            Rejected::TooManyActive {
                active: 5,
                limit: 4
            }
        )
    };
    let inserted = at_once(&store, insertions, most).await?;
    ensure_eq!(
        (inserted, all(&store).await?.len()),
        (4, 4),
        "how many insertions succeeded, and how many keys exist"
    );
    Ok(())
}

async fn one_digest(store: Store) -> Checked {
    for round in 0..10 {
        let insertions =
            (0..8).map(|number| batch([insert(round, record(&format!("key{round}-{number}")))]));
        let inserted = at_once(&store, insertions, |why| *why == Rejected::DigestKnown).await?;
        ensure_eq!(
            inserted,
            1,
            "how many of 8 insertions of one digest succeeded"
        );
        let same_id = (0..8).map(|number| {
            batch([insert(
                1_000 + round * 8 + number,
                record(&format!("id{round}")),
            )])
        });
        let inserted = at_once(&store, same_id, |why| matches!(why, Rejected::IdKnown(_))).await?;
        ensure_eq!(inserted, 1, "how many of 8 insertions of one id succeeded");
    }
    Ok(())
}

async fn one_primary(store: Store) -> Checked {
    apply(
        &store,
        (0..8).map(|number| insert(number, made_at(&format!("key{number}"), 1_000 + number))),
    )
    .await?;
    for _ in 0..10 {
        let before = primary(&store, 2_000).await?;
        let others = (0..8)
            .map(|number| format!("key{number}"))
            .filter(|name| before != Some(id(name)));
        let swaps = others.map(|name| {
            let condition = Condition::Primary {
                owner: acme(),
                key: before.clone(),
                at: at(2_000),
            };
            batch([set_primary(&name)]).require(condition)
        });
        let swapped = at_once(&store, swaps, |why| *why == Rejected::Primary).await?;
        ensure_eq!(
            swapped,
            1,
            "how many of 7 swaps of one primary key succeeded"
        );
        ensure!(
            primary(&store, 2_000).await? != before,
            "the primary key is still {before:?}"
        );
    }
    Ok(())
}

async fn revocations(store: Store) -> Checked {
    for round in 0..10 {
        let name = format!("key{round}");
        apply(&store, [insert(round, record(&name))]).await?;
        let read = stored(&store, &name).await?;
        let mut tasks = JoinSet::new();
        for writer in 0..6 {
            let (store, mut mine) = (Arc::clone(&store), (*read).clone());
            tasks.spawn(async move {
                match writer {
                    0 => mine.revoked = Some(Revocation::new(at(1_000), None)),
                    _ => mine.name = format!("writer {writer}").into(),
                }
                let applied = store.apply(&WriteBatch::new().update(mine)).await.is_ok();
                Ok::<_, Failure>(writer == 0 && applied)
            });
        }
        let mut acknowledged = false;
        while let Some(done) = tasks.join_next().await {
            acknowledged |= done??;
        }
        let revoked = stored(&store, &name).await?.revoked.is_some();
        ensure_eq!(
            revoked,
            acknowledged,
            "round {round}: whether the key is revoked, compared to what was acknowledged"
        );
    }
    Ok(())
}

async fn no_half(store: Store) -> Checked {
    apply(
        &store,
        [insert(0, record("left0")), insert(1, record("right0"))],
    )
    .await?;
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        tokio::spawn(async move {
            let mut looks = 0_u64;
            while !done.load(Ordering::SeqCst) || looks == 0 {
                let seen: Vec<_> = all(&store)
                    .await?
                    .iter()
                    .map(|key| key.id.to_string())
                    .collect();
                let rest = |side: &str| {
                    seen.iter()
                        .filter_map(|name| name.strip_prefix(side))
                        .map(str::to_owned)
                        .collect::<Vec<_>>()
                };
                ensure_eq!(
                    (rest("left"), rest("right").len()),
                    (rest("right"), 1),
                    "the two keys of one pair"
                );
                looks += 1;
                yield_now().await;
            }
            Ok::<_, Failure>(())
        })
    };
    for round in 1..=100_u64 {
        // One pair is deleted and the next is inserted, in one batch.
        let (old, new) = (round - 1, round);
        let pair = [
            delete(&format!("left{old}")),
            insert(2 * new, record(&format!("left{new}"))),
            insert(2 * new + 1, record(&format!("right{new}"))),
            delete(&format!("right{old}")),
        ];
        apply(&store, pair).await?;
        yield_now().await;
    }
    done.store(true, Ordering::SeqCst);
    reader.await?
}

async fn while_rehashed(store: Store) -> Checked {
    for round in 0..60_u64 {
        let name = format!("key{round}");
        apply(&store, [insert(round, record(&name))]).await?;
        // The new digest first and the old one last, in the authenticator's order.
        let mut asked = vec![peppered(round)];
        let other = |pepper| {
            KeyDigest::new(
                DigestScheme::HmacSha256 { pepper },
                digest(round).to_bytes(),
            )
        };
        asked.extend((2..8).map(other));
        asked.push(digest(round));
        let done = Arc::new(AtomicBool::new(false));
        let reader = {
            let (store, done) = (Arc::clone(&store), Arc::clone(&done));
            tokio::spawn(async move {
                let (mut looks, mut missed) = (0_u64, 0_u64);
                while !done.load(Ordering::SeqCst) || looks == 0 {
                    missed += u64::from(store.find(&asked).await?.is_none());
                    if let Some(found) = store.find_now(&asked) {
                        missed += u64::from(found?.is_none());
                    }
                    looks += 1;
                    yield_now().await;
                }
                Ok::<_, Failure>(missed)
            })
        };
        yield_now().await;
        apply(&store, [rehash(&name, digest(round), peppered(round))]).await?;
        done.store(true, Ordering::SeqCst);
        ensure_eq!(
            reader.await??,
            0,
            "round {round}: how often a valid key was not found"
        );
        ensure_eq!(
            found_id(&store, peppered(round)).await?,
            Some(id(&name)),
            "round {round}: the key afterwards"
        );
    }
    Ok(())
}
