//! Random batches, applied to the store and to the [`Model`]: both must behave the same.
//!
//! Most batches are plausible, so that walks get far: versions, digests and primary keys are mostly
//! the stored ones.

use super::model::Model;
use super::tools::{
    Store, all, at, digest, environment, found, id, owned_by, peppered, record, signing, tenant,
    user,
};
use crate::random::Random;
use crate::report::{Checked, Failure};
use crate::runner::shown;
use portunus::key::{KeyDigest, KeyKind, KeyRecord, Revocation};
use portunus::store::{Change, Condition, OwnerRef, UsageDelta, WriteBatch};

/// The number of walks.
pub(super) const WALKS: u64 = 10;
const STEPS: u64 = 60;
const IDS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const DIGESTS: u64 = 10;

pub(super) async fn walk(store: Store, seed: u64) -> Checked {
    let (mut random, mut model) = (Random::new(seed), Model::default());
    for step in 0..STEPS {
        let batch = some_batch(&mut random, &model, store.usage().is_some());
        let (applied, expected) = (store.apply(&batch).await, model.apply(&batch));
        let context = || {
            format!(
                "step {step} of the walk with seed {seed}: {}",
                shown(&batch)
            )
        };
        match applied {
            Ok(()) => ensure!(expected, "{}\nwas applied but must be rejected", context()),
            Err(error) if error.as_rejected().is_some() => {
                ensure!(
                    !expected,
                    "{}\nwas rejected ({error}) but must be applied",
                    context()
                );
            }
            Err(error) => return Err(Failure::from(error)),
        }
        if random.one_in(3) {
            let count = random.between(1, 3);
            let deltas: Vec<_> = (0..count).map(|_| some_usage(&mut random)).collect();
            if let Some(counts) = store.usage() {
                counts.record_usage(&deltas).await?;
                model.record_usage(&deltas);
            }
        }
        // The list contains every record; the rest is queried now and then, as most of it does not
        // change.
        let agreed = async {
            listed_alike(&store, &model).await?;
            if random.one_in(5) || step == STEPS - 1 {
                agree(&store, &model, &mut random).await?;
            }
            Ok(())
        };
        agreed
            .await
            .map_err(|failure: Failure| Failure::new(format!("{}\n{}", context(), failure.seen)))?;
    }
    Ok(())
}

fn some_id(random: &mut Random) -> portunus::key::KeyId {
    id(random.pick(&IDS))
}

fn some_digest(random: &mut Random) -> KeyDigest {
    let number = random.below(DIGESTS);
    if random.one_in(2) {
        digest(number)
    } else {
        peppered(number)
    }
}

fn owners() -> Vec<OwnerRef> {
    let mut owners = Vec::new();
    for of in ["acme", "other"] {
        owners.extend([
            OwnerRef::Tenant(tenant(of)),
            OwnerRef::TenantItself(tenant(of)),
        ]);
        owners.extend(["u1", "u2"].map(|by| OwnerRef::User(tenant(of), user(by))));
    }
    owners
}

fn some_record(random: &mut Random) -> KeyRecord {
    let of = random.pick(&["acme", "other"]);
    let mut record = if random.one_in(2) {
        owned_by(random.pick(&IDS), of, random.pick(&["u1", "u2"]))
    } else {
        let mut record = record(random.pick(&IDS));
        record.owner.tenant_id = tenant(of);
        record
    };
    if random.one_in(2) {
        record.family = (&some_id(random)).into();
    }
    alter(random, &mut record);
    record
}

/// Changes the record, including the facts that determine which keys are active and primary.
fn alter(random: &mut Random, record: &mut KeyRecord) {
    record.name = format!("name {}", random.below(1_000)).into();
    record.created_at = at(random.below(3));
    record.expires_at = random.one_in(2).then(|| at(random.between(4, 8)));
    record.revoked = random.one_in(4).then(|| Revocation::new(at(1), None));
    record.enabled = !random.one_in(4);
    record.may_be_primary = !random.one_in(5);
    record.kind = random.pick(&[
        KeyKind::App,
        KeyKind::App,
        KeyKind::User,
        KeyKind::AccessToken,
    ]);
    record.environment = environment(random.pick(&["live", "test"]));
}

fn some_batch(random: &mut Random, model: &Model, counts: bool) -> WriteBatch {
    let mut batch = WriteBatch::new();
    let mut replaced = Vec::new();
    for _ in 0..random.below(4) {
        batch = match random.below(if counts { 15 } else { 14 }) {
            0..=4 => {
                let record = Box::new(some_record(random));
                batch.change(Change::Insert {
                    digest: some_digest(random),
                    record,
                })
            }
            5..=6 => {
                let mut record = some_record(random);
                // One update of a key per batch: a second one would have the wrong version.
                if replaced.contains(&record.id) {
                    continue;
                }
                replaced.push(record.id.clone());
                if let Some(row) = model.row(&record.id).filter(|_| !random.one_in(6)) {
                    record = row.record.clone();
                    alter(random, &mut record);
                    if random.one_in(5) {
                        record.version = random.between(1, 4);
                    }
                }
                batch.update(record)
            }
            7..=8 => {
                let id = some_id(random);
                let known = model
                    .row(&id)
                    .filter(|_| !random.one_in(4))
                    .map(|row| row.digest);
                let (from, to) = (
                    known.unwrap_or_else(|| some_digest(random)),
                    some_digest(random),
                );
                if from == to {
                    continue;
                }
                batch.change(Change::Rehash { id, from, to })
            }
            9 => batch.change(Change::Delete(some_id(random))),
            10 => {
                let key = some_id(random);
                let own = model
                    .row(&key)
                    .filter(|_| !random.one_in(3))
                    .map(|row| OwnerRef::of(&row.record.owner));
                let owner = own.unwrap_or_else(|| random.pick(&owners()));
                batch.change(Change::SetPrimary { owner, key })
            }
            11..=12 => {
                let owner = random.pick(&owners());
                batch.change(Change::PinPrimary {
                    owner,
                    at: at(random.between(3, 8)),
                })
            }
            14 => batch.change(Change::AddUsage(some_usage(random))),
            _ => {
                let state = random
                    .one_in(2)
                    .then(|| signing(random.below(200).to_le_bytes()[0]));
                batch.change(Change::SetSigning {
                    id: some_id(random),
                    state,
                })
            }
        };
    }
    if random.one_in(3) {
        batch = batch.require(some_condition(random, model));
    }
    batch
}

fn some_condition(random: &mut Random, model: &Model) -> Condition {
    let (owner, at) = (random.pick(&owners()), at(random.between(3, 8)));
    match random.below(4) {
        0 => {
            let id = some_id(random);
            let known = model
                .row(&id)
                .filter(|_| !random.one_in(3))
                .map(|row| row.record.version);
            Condition::Version {
                id,
                version: known.unwrap_or_else(|| random.between(1, 3)),
            }
        }
        1 => {
            let other = random
                .one_in(3)
                .then(|| random.one_in(2).then(|| some_id(random)));
            let key = other.unwrap_or_else(|| model.primary(&owner, at));
            Condition::Primary { owner, key, at }
        }
        2 => Condition::ActiveKeysAtMost {
            owner,
            at,
            limit: random.below(4),
        },
        _ => Condition::ActiveFamiliesAtMost {
            owner,
            at,
            limit: random.below(4),
        },
    }
}

fn some_usage(random: &mut Random) -> UsageDelta {
    let ip = random
        .one_in(2)
        .then(|| std::net::IpAddr::from([198, 51, 100, random.below(200).to_le_bytes()[0]]));
    UsageDelta::new(
        some_id(random),
        random.between(1, 9),
        at(random.below(20_000)),
        ip,
    )
}

async fn listed_alike(store: &Store, model: &Model) -> Checked {
    let live = model.live();
    let listed = all(store).await?;
    let expected: Vec<_> = live.iter().map(|row| &row.record).collect();
    let records: Vec<_> = listed.iter().map(|record| &**record).collect();
    ensure_eq!(records, expected, "the list");
    if let Some(counts) = store.usage() {
        let ids: Vec<_> = listed.iter().map(|record| record.id.clone()).collect();
        let expected: Vec<_> = live.iter().map(|row| row.usage).collect();
        ensure_eq!(counts.usage_of(&ids).await?, expected, "the usage of all");
    }
    Ok(())
}

/// Queries everything else that the model can answer.
async fn agree(store: &Store, model: &Model, random: &mut Random) -> Checked {
    let live = model.live();
    for number in 0..DIGESTS {
        for digest in [digest(number), peppered(number)] {
            let expected = live
                .iter()
                .find(|row| row.digest == digest)
                .map(|row| &row.record);
            let stored = found(store, digest).await?;
            ensure_eq!(
                stored.as_ref().map(|key| &**key.record()),
                expected,
                "found by digest {number} of {}",
                digest.scheme()
            );
        }
    }
    for name in IDS {
        let (stored, row) = (store.get(&id(name)).await?, model.row(&id(name)));
        ensure_eq!(
            stored.as_deref(),
            row.map(|row| &row.record),
            "{name} by its id"
        );
        if let Some(states) = store.signing() {
            let signing = states.signing_state(&id(name)).await?;
            ensure!(
                signing.as_ref() == row.and_then(|row| row.signing.as_ref()),
                "the signing state of {name} is not the one that was set"
            );
        }
        if let Some(counts) = store.usage() {
            let hourly = counts.usage_by_hour(&id(name), at(0), at(100_000)).await?;
            let hours: Vec<_> = hourly
                .hours
                .iter()
                .map(|hour| (hour.start, hour.count))
                .collect();
            let expected: Vec<_> = row
                .map(|row| row.by_hour.clone().into_iter().collect())
                .unwrap_or_default();
            ensure_eq!(hours, expected, "the hours of {name}");
        }
    }
    let (owners, at) = (owners(), at(random.between(3, 8)));
    let together = store.primaries(&owners, at).await?;
    ensure_eq!(
        together.len(),
        owners.len(),
        "the number of primary keys in the result"
    );
    for (owner, batched) in owners.iter().zip(together) {
        let expected = model.primary(owner, at);
        ensure_eq!(
            [store.primary(owner, at).await?, batched],
            [expected.clone(), expected],
            "the primary key of {owner:?} at {at:?}, separately and among others"
        );
    }
    Ok(())
}
