//! A batch of conditional changes, in a transaction that excludes concurrent changes of the
//! affected keys.
//!
//! The order is the same as in the in-memory store: conditions on the state before, changes,
//! conditions on the state after; the first one that fails is reported.

use std::collections::BTreeSet;

use async_trait::async_trait;
use portunus::key::{KeyDigest, KeyKind, TenantId};
use portunus::store::{
    Change, Condition, Invalidation, OwnerRef, Rejected, UsageDelta, WriteBatch,
};

use super::Operation;
use super::make::{live, make};
use super::primary::{Primary, columns};
use crate::fault::{Fault, Refusal};
use crate::record::TABLE;
use crate::sql::{self, Tell};
use crate::time;
use crate::value::{Session, Value};
use crate::write_queue::Lane;

/// The kinds of names that are locked, in the order in which they are locked.
const KEYS: i64 = 0;
pub(super) const TENANTS: i64 = 1;
pub(super) const SCHEMA: i64 = 2;
pub(super) const EVENTS: i64 = 3;
pub(super) const USAGE: i64 = 4;

/// The numbers of ids, and of fingerprints of digests, that fit into one message.
const KEYS_AT_ONCE: usize = 50;
const KNOWN_AT_ONCE: usize = 300;
/// The largest number of both that is sent in parts: that of a step of a bulk operation.
const MOST_IN_PARTS: usize = 500;

/// Applies a batch.
pub(crate) struct Apply<'a> {
    pub(crate) batch: &'a WriteBatch,
    /// Whether the change is recorded for the host's own bus.
    pub(crate) records: bool,
}

#[async_trait]
impl Operation for Apply<'_> {
    type Answer = ();

    fn lane(&self) -> Lane {
        Lane {
            narrows: self.batch.may_narrow(),
            tenant: self.tenant().map(ToString::to_string),
        }
    }

    async fn run(&self, session: &mut dyn Session) -> Result<(), Fault> {
        self.hold(session).await?;
        let is_last = |condition: &&Condition| condition.is_checked_afterwards();
        let conditions = self.batch.conditions().iter();
        for condition in conditions.clone().filter(|condition| !is_last(condition)) {
            check(session, condition).await?;
        }
        make(session, self.batch.changes()).await?;
        for condition in conditions.filter(is_last) {
            check(session, condition).await?;
        }
        for what in parts(Invalidation::of(self.batch)) {
            tell(session, &what, self.records).await?;
        }
        Ok(())
    }
}

impl Apply<'_> {
    /// The tenant of a key in the batch, if the batch states it.
    fn tenant(&self) -> Option<&TenantId> {
        let changed = self.batch.changes().iter().find_map(|change| match change {
            Change::Insert { record, .. } | Change::Replace(record) => {
                Some(&record.owner.tenant_id)
            }
            Change::SetPrimary { owner, .. } | Change::PinPrimary { owner, .. } => of(owner),
            _ => None,
        });
        changed.or_else(|| {
            self.batch
                .conditions()
                .iter()
                .find_map(|asked| match asked {
                    Condition::Primary { owner, .. }
                    | Condition::ActiveKeysAtMost { owner, .. }
                    | Condition::ActiveFamiliesAtMost { owner, .. } => of(owner),
                    _ => None,
                })
        })
    }

    /// Locks every key and every new digest that the batch names, and the tenant of every owner
    /// whose keys it queries or changes. A new digest of a key does not affect the owner's other
    /// keys, so that many keys of one tenant can be rehashed at the same time.
    async fn hold(&self, session: &mut dyn Session) -> Result<(), Fault> {
        let Some(hold) = session.dialect().hold else {
            return Ok(());
        };
        let (mut keys, mut tenants, mut deleted) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for condition in self.batch.conditions() {
            match condition {
                Condition::Version { id, .. } => {
                    keys.insert(id.as_str().to_owned());
                }
                Condition::Primary { owner, .. }
                | Condition::ActiveKeysAtMost { owner, .. }
                | Condition::ActiveFamiliesAtMost { owner, .. } => {
                    tenants.insert(tenant(owner)?.to_owned());
                }
                _ => return Err(Refusal::Unknown("condition").into()),
            }
        }
        for change in self.batch.changes() {
            match change {
                Change::Insert { record, .. } | Change::Replace(record) => {
                    if let Change::Insert { digest, .. } = change {
                        keys.insert(name(digest));
                    }
                    keys.insert(record.id.as_str().to_owned());
                    // A stored record of another tenant than this one is never replaced.
                    tenants.insert(record.owner.tenant_id.as_str().to_owned());
                }
                Change::Rehash { id, to, .. } => {
                    keys.insert(id.as_str().to_owned());
                    keys.insert(name(to));
                }
                Change::SetSigning { id, .. } | Change::AddUsage(UsageDelta { id, .. }) => {
                    keys.insert(id.as_str().to_owned());
                }
                Change::Delete(id) => {
                    keys.insert(id.as_str().to_owned());
                    deleted.push(id);
                }
                Change::SetPrimary { owner, key } => {
                    keys.insert(key.as_str().to_owned());
                    tenants.insert(tenant(owner)?.to_owned());
                }
                Change::PinPrimary { owner, .. } => {
                    tenants.insert(tenant(owner)?.to_owned());
                }
                // The row is enough: of two writers of one step, the second finds another step.
                Change::Bulk(_) => {}
                _ => return Err(Refusal::Unknown("change").into()),
            }
        }
        let json = |names: BTreeSet<String>| {
            let names: Vec<_> = names.into_iter().collect();
            Value::from(serde_json::Value::from(names).to_string())
        };
        session.change(hold, vec![json(keys), KEYS.into()]).await?;
        for id in deleted {
            // From here on, no other transaction inserts or deletes this id, and the tenant of a
            // key never changes.
            for row in session
                .rows(sql::TENANT_OF, vec![id.as_str().into()])
                .await?
            {
                tenants.insert(row.of(TABLE, id.as_str()).text("tenant_id")?);
            }
        }
        session
            .change(hold, vec![json(tenants), TENANTS.into()])
            .await?;
        Ok(())
    }
}

/// Announces a change that is not one of a key.
#[cfg(feature = "sqlite")]
pub(crate) struct Publish(pub(crate) Invalidation);

#[cfg(feature = "sqlite")]
#[async_trait]
impl Operation for Publish {
    type Answer = ();

    async fn run(&self, session: &mut dyn Session) -> Result<(), Fault> {
        tell(session, &self.0, false).await
    }
}

/// Announces a change to those who may have cached the data, in the same transaction, and records it
/// for those who listen to another bus.
pub(super) async fn tell(
    session: &mut dyn Session,
    what: &Invalidation,
    records: bool,
) -> Result<(), Fault> {
    if what.is_empty() {
        return Ok(());
    }
    if records {
        let what = crate::bus::message::changed(what).into();
        session.change(sql::outbox::RECORD, vec![what]).await?;
    }
    match session.dialect().tell {
        #[cfg(feature = "sqlite")]
        Tell::Count(count, remember) => {
            session.change(count, Vec::new()).await?;
            session
                .change(remember, vec![crate::bus::message::changed(what).into()])
                .await?
        }
        #[cfg(feature = "postgres")]
        Tell::Notify(sql) => {
            session
                .change(sql, vec![crate::bus::message::changed(what).into()])
                .await?
        }
    };
    Ok(())
}

/// A change in parts of which each fits into one message, where the whole would not: caches would drop
/// everything. They do for more than [`MOST_IN_PARTS`].
fn parts(mut what: Invalidation) -> Vec<Invalidation> {
    if what.keys.len() <= KEYS_AT_ONCE && what.known.len() <= KNOWN_AT_ONCE {
        return vec![what];
    }
    what.keys.sort_unstable();
    what.keys.dedup();
    if what.keys.len() + what.known.len() > MOST_IN_PARTS {
        return vec![what];
    }
    let keys = what.keys.chunks(KEYS_AT_ONCE).map(|keys| {
        let mut part = Invalidation::default();
        part.keys = keys.to_vec();
        part
    });
    let known = what.known.chunks(KNOWN_AT_ONCE).map(|known| {
        let mut part = Invalidation::default();
        part.known = known.to_vec();
        part
    });
    keys.chain(known).collect()
}

/// The lock name of a digest, which cannot be an id: ids contain no spaces.
fn name(digest: &KeyDigest) -> String {
    let hex: String = digest
        .to_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{} {hex}", digest.scheme())
}

fn tenant(owner: &OwnerRef) -> Result<&str, Refusal> {
    let tenant = of(owner).ok_or(Refusal::Unknown("owner"))?;
    Ok(tenant.as_str())
}

/// The tenant of an owner; `None` for an unknown kind of owner.
fn of(owner: &OwnerRef) -> Option<&TenantId> {
    match owner {
        OwnerRef::Tenant(tenant) | OwnerRef::TenantItself(tenant) | OwnerRef::User(tenant, _) => {
            Some(tenant)
        }
        _ => None,
    }
}

async fn check(session: &mut dyn Session, condition: &Condition) -> Result<(), Fault> {
    match condition {
        Condition::Version { id, version } => match live(session, id).await?.version {
            stored if stored == *version => Ok(()),
            stored => Err(Rejected::Version {
                id: id.clone(),
                expected: *version,
                stored,
            }
            .into()),
        },
        Condition::Primary { owner, key, at } => {
            match (Primary { owner, at: *at }).run(session).await? {
                primary if primary == *key => Ok(()),
                _ => Err(Rejected::Primary.into()),
            }
        }
        Condition::ActiveKeysAtMost { owner, at, limit }
        | Condition::ActiveFamiliesAtMost { owner, at, limit } => {
            let count = match condition {
                Condition::ActiveFamiliesAtMost { .. } => sql::COUNT_FAMILIES,
                _ => sql::COUNT_ACTIVE,
            };
            let sql = count.of(owner).ok_or(Refusal::Unknown("owner"))?;
            let [_, tenant, user] = columns(owner)?;
            let values = vec![
                tenant,
                user,
                time::floor(*at).into(),
                KeyKind::AccessToken.as_str().into(),
            ];
            let rows = session.rows(sql, values).await?;
            let active = rows
                .into_iter()
                .next()
                .map_or(Ok(0), |row| row.of(TABLE, "of an owner").int("count"))?;
            let limit = *limit;
            match u64::try_from(active).unwrap_or(0) {
                active if active <= limit => Ok(()),
                active => Err(Rejected::TooManyActive { active, limit }.into()),
            }
        }
        _ => Err(Refusal::Unknown("condition").into()),
    }
}

#[cfg(test)]
mod tests {
    use portunus::key::KeyId;

    use super::*;

    #[test]
    fn a_step_of_a_bulk_operation_is_published_key_by_key() {
        let mut what = Invalidation::default();
        let id = |number| KeyId::new(&format!("{number:0>128}"));
        what.keys = (0..500)
            .chain(0..500)
            .filter_map(|number| id(number).ok())
            .collect();
        let parts_of_keys = parts(what.clone());
        let mut all = Vec::new();
        for part in parts_of_keys {
            let message = crate::bus::message::changed(&part);
            assert!(!message.contains("everything"), "{}", message.len());
            all.extend(part.keys);
        }
        what.keys.truncate(500);
        assert_eq!(all, what.keys);
        let mut known = Invalidation::default();
        known.known = (0..500).map(|number| u64::MAX - number).collect();
        let sent = parts(known.clone()).into_iter();
        let sent: Vec<u64> = sent.flat_map(|part| part.known).collect();
        assert_eq!(sent, known.known);
        known.known.push(0);
        assert_eq!(parts(known.clone()), [known]);
    }
}
