//! Random batches, on a database and on the in-memory store: the same results and the same reads.

use portunus::store::{MemoryStore, UsageDelta};

use super::*;

const IDS: [&str; 5] = ["a", "b", "C", "d", "e"];
const BATCHES: usize = 300;

fn owners() -> Vec<OwnerRef> {
    let of = |name: &str| {
        let tenant = tenant(name);
        let users = ["u1", "u2"].map(|by| OwnerRef::User(tenant.clone(), user(by)));
        [
            OwnerRef::Tenant(tenant.clone()),
            OwnerRef::TenantItself(tenant.clone()),
        ]
        .into_iter()
        .chain(users)
    };
    of("acme").chain(of("other")).collect()
}

fn some_digest(random: &mut Random) -> KeyDigest {
    let number = u32::try_from(random.below(8)).unwrap();
    if random.one_in(3) {
        peppered(number)
    } else {
        digest(number)
    }
}

fn some_time(random: &mut Random) -> SystemTime {
    at(random.below(6)) + Duration::from_nanos(random.below(3) * 500_000)
}

/// The owner of each id is almost always the same, so that updates can succeed.
fn some_record(random: &mut Random) -> KeyRecord {
    let place = usize::try_from(random.below(IDS.len() as u64)).unwrap();
    let owner = match if random.one_in(8) { place + 1 } else { place } % 4 {
        0 => Owner::tenant(tenant("acme")),
        1 => Owner::user(tenant("acme"), user("u1")),
        2 => Owner::user(tenant("acme"), user("u2")),
        _ => Owner::tenant(tenant("other")),
    };
    let kind = if random.one_in(6) {
        KeyKind::AccessToken
    } else {
        KeyKind::App
    };
    let mut record = KeyRecord::new(
        id(IDS[place]),
        "key",
        kind,
        live(),
        owner,
        at(random.below(4)),
    );
    record.name = random.pick(&["one", "two", "%"]).into();
    record.version = 1 + random.below(4);
    record.revoked = random.one_in(4).then(|| Revocation::new(at(1), None));
    record.expires_at = random.one_in(3).then(|| at(random.below(6)));
    record.not_before = random.one_in(5).then(|| at(random.below(6)));
    record.enabled = !random.one_in(4);
    record.may_be_primary = !random.one_in(4);
    record
}

/// A batch based on the stored state, so that about half of them succeed.
async fn some_batch(random: &mut Random, model: &MemoryStore) -> WriteBatch {
    let owners = owners();
    let mut batch = WriteBatch::new();
    for _ in 0..random.below(4) {
        let name = random.pick(&IDS);
        batch = match random.below(10) {
            0..3 => {
                // Occasionally a fresh id, since ids of deleted keys are reserved permanently.
                let mut record = some_record(random);
                if random.one_in(2) {
                    record.id = id(&format!("{}{}", record.id, random.below(40)));
                    record.family = (&record.id).into();
                }
                record.version = 1;
                let fresh = digest(100 + u32::try_from(random.below(1_000)).unwrap());
                let digest = if random.one_in(2) {
                    fresh
                } else {
                    some_digest(random)
                };
                batch.change(insert(digest, record))
            }
            3..5 => match model.get(&id(name)).await.unwrap() {
                Some(stored) => {
                    let mut record = some_record(random);
                    record.id = stored.id.clone();
                    record.family = stored.family.clone();
                    if !random.one_in(5) {
                        record.owner = stored.owner.clone();
                        record.version = stored.version;
                    }
                    batch.update(record)
                }
                None => batch.update(some_record(random)),
            },
            5 => {
                let (from, to) = (some_digest(random), some_digest(random));
                batch.change(rehash(name, from, to))
            }
            6 if random.one_in(3) => batch.change(Change::Delete(id(name))),
            7 => batch.change(Change::SetPrimary {
                owner: random.pick(&owners),
                key: id(name),
            }),
            8 => batch.change(Change::PinPrimary {
                owner: random.pick(&owners),
                at: some_time(random),
            }),
            _ => {
                let state =
                    (!random.one_in(3)).then(|| signing(u8::try_from(random.below(9)).unwrap()));
                batch.change(Change::SetSigning {
                    id: id(name),
                    state,
                })
            }
        };
    }
    for _ in 0..random.below(2) {
        let (owner, at) = (random.pick(&owners), some_time(random));
        batch = batch.require(match random.below(3) {
            0 => Condition::Version {
                id: id(random.pick(&IDS)),
                version: 1 + random.below(3),
            },
            1 => Condition::Primary {
                key: model.primary(&owner, at).await.unwrap(),
                owner,
                at,
            },
            _ => Condition::ActiveKeysAtMost {
                owner,
                at,
                limit: random.below(4),
            },
        });
    }
    batch
}

async fn agree(store: &impl WholeStore, model: &MemoryStore, random: &mut Random) {
    let listed = all(model).await;
    assert_eq!(all(store).await, listed, "the list");
    for number in 0..8 {
        for digest in [digest(number), peppered(number)] {
            let of = |stored: Option<std::sync::Arc<portunus::store::StoredKey>>| {
                stored.map(|stored| (*stored.digest(), (**stored.record()).clone()))
            };
            assert_eq!(
                of(store.find(&[digest]).await.unwrap()),
                of(model.find(&[digest]).await.unwrap()),
                "number {number} under {digest:?}"
            );
        }
    }
    for item in &listed {
        let id = &item.id;
        assert_eq!(store.get(id).await.unwrap().as_ref(), Some(item));
        assert_eq!(
            store.signing_state(id).await.unwrap(),
            model.signing_state(id).await.unwrap()
        );
        assert_eq!(
            store.usage_by_hour(id, at(0), at(100_000)).await.unwrap(),
            model.usage_by_hour(id, at(0), at(100_000)).await.unwrap()
        );
    }
    let ids: Vec<_> = IDS.iter().map(|name| id(name)).collect();
    assert_eq!(
        store.usage_of(&ids).await.unwrap(),
        model.usage_of(&ids).await.unwrap()
    );
    for owner in owners() {
        let at = some_time(random);
        assert_eq!(
            store.primary(&owner, at).await.unwrap(),
            model.primary(&owner, at).await.unwrap(),
            "primary of {owner:?} at {at:?}"
        );
    }
}

pub(crate) async fn random_batches_match_the_in_memory_store(home: &impl Home) {
    let (store, model) = (home.open().await, MemoryStore::new());
    let mut random = Random(2_026);
    let mut applied = 0;
    for number in 0..BATCHES {
        let batch = some_batch(&mut random, &model).await;
        let (done, expected) = (store.apply(&batch).await, model.apply(&batch).await);
        match (&done, &expected) {
            (Ok(()), Ok(())) => applied += 1,
            (Err(one), Err(other))
                if one.as_rejected() == other.as_rejected() && one.as_rejected().is_some() => {}
            _ => panic!("batch {number}: {done:?} instead of {expected:?} of {batch:?}"),
        }
        if random.one_in(3) {
            let name = random.pick(&IDS);
            let ip = random
                .one_in(2)
                .then(|| std::net::IpAddr::from([192, 0, 2, 1]));
            let delta = UsageDelta::new(id(name), random.below(9), at(random.below(20_000)), ip);
            let other = UsageDelta::new(id(name), 1, at(random.below(20_000)), None);
            for store in [&store as &dyn UsageStore, &model] {
                store
                    .record_usage(&[delta.clone(), other.clone()])
                    .await
                    .unwrap();
            }
        }
        if random.one_in(20) {
            let before = at(random.below(10_000));
            let forgotten = model.forget_usage_before(before).await.unwrap();
            assert_eq!(store.forget_usage_before(before).await.unwrap(), forgotten);
        }
        if number % 5 == 0 || number + 1 == BATCHES {
            agree(&store, &model, &mut random).await;
        }
    }
    assert!(
        (BATCHES / 4..BATCHES * 9 / 10).contains(&applied),
        "{applied} of {BATCHES} were applied"
    );
}
