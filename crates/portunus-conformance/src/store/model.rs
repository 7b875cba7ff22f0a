//! A slow and obviously correct store: all rows are in one vector, which is copied before each
//! batch.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::SystemTime;

use portunus::key::{KeyDigest, KeyId, KeyRecord, SigningState};
use portunus::store::{Change, Condition, HourOfUse, OwnerRef, Usage, UsageDelta, WriteBatch};

#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    rows: Vec<Row>,
    digests_ever: Vec<KeyDigest>,
    primaries: Vec<(OwnerRef, KeyId)>,
}

#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) digest: KeyDigest,
    pub(super) record: KeyRecord,
    pub(super) usage: Usage,
    pub(super) by_hour: BTreeMap<SystemTime, u64>,
    pub(super) signing: Option<SigningState>,
    deleted: bool,
}

impl Model {
    /// The rows of keys that are not deleted, in list order.
    pub(super) fn live(&self) -> Vec<&Row> {
        let mut live: Vec<_> = self.rows.iter().filter(|row| !row.deleted).collect();
        live.sort_by_key(|row| (Reverse(row.record.created_at), row.record.id.clone()));
        live
    }

    pub(super) fn row(&self, id: &KeyId) -> Option<&Row> {
        self.rows
            .iter()
            .find(|row| row.record.id == *id && !row.deleted)
    }

    fn row_mut(&mut self, id: &KeyId) -> Option<&mut Row> {
        self.rows
            .iter_mut()
            .find(|row| row.record.id == *id && !row.deleted)
    }

    pub(super) fn primary(&self, owner: &OwnerRef, at: SystemTime) -> Option<KeyId> {
        let set = self
            .primaries
            .iter()
            .find(|(of, _)| of == owner)
            .map(|(_, id)| id);
        let live = self.live();
        let mut able = live
            .iter()
            .map(|row| &row.record)
            .filter(|r| owner.includes(r) && r.can_be_primary(at));
        let first = able.clone().next();
        able.find(|record| Some(&record.id) == set)
            .or(first)
            .map(|record| record.id.clone())
    }

    fn set_primary(&mut self, owner: &OwnerRef, key: Option<KeyId>) {
        self.primaries.retain(|(of, _)| of != owner);
        self.primaries.extend(key.map(|key| (owner.clone(), key)));
    }

    /// Applies a batch, or changes nothing and returns `false`.
    pub(super) fn apply(&mut self, batch: &WriteBatch) -> bool {
        let mut next = self.clone();
        let (after, before): (Vec<_>, Vec<_>) = batch
            .conditions()
            .iter()
            .partition(|condition| condition.is_checked_afterwards());
        let done = before.into_iter().all(|condition| next.meets(condition))
            && batch
                .changes()
                .iter()
                .all(|change| next.make(change).is_some())
            && after.into_iter().all(|condition| next.meets(condition));
        if done {
            *self = next;
        }
        done
    }

    fn meets(&self, condition: &Condition) -> bool {
        match condition {
            Condition::Version { id, version } => self
                .row(id)
                .is_some_and(|row| row.record.version == *version),
            Condition::Primary { owner, key, at } => self.primary(owner, *at) == *key,
            Condition::ActiveKeysAtMost { owner, at, limit } => {
                let mine = self
                    .live()
                    .into_iter()
                    .filter(|row| owner.includes(&row.record));
                mine.filter(|row| row.record.counts_as_active(*at)).count() as u64 <= *limit
            }
            Condition::ActiveFamiliesAtMost { owner, at, limit } => {
                let mut families: Vec<_> = self
                    .live()
                    .into_iter()
                    .filter(|row| owner.includes(&row.record) && row.record.counts_as_active(*at))
                    .map(|row| row.record.family.clone())
                    .collect();
                families.sort();
                // The second key of a family is free.
                let free = families
                    .chunk_by(|a, b| a == b)
                    .filter(|keys| keys.len() > 1);
                (families.len() - free.count()) as u64 <= *limit
            }
            other => unreachable!("no walk uses {other:?}"),
        }
    }

    fn make(&mut self, change: &Change) -> Option<()> {
        match change {
            Change::Insert { digest, record } => {
                let known = self.rows.iter().any(|row| row.record.id == record.id)
                    || self.digests_ever.contains(digest);
                (!known).then_some(())?;
                self.digests_ever.push(*digest);
                self.rows.push(Row {
                    digest: *digest,
                    record: (**record).clone(),
                    usage: Usage::default(),
                    by_hour: BTreeMap::new(),
                    signing: None,
                    deleted: false,
                });
            }
            Change::Replace(record) => {
                let row = self.row_mut(&record.id)?;
                let same = row.record.owner == record.owner && row.record.family == record.family;
                same.then_some(())?;
                row.record = (**record).clone();
            }
            Change::Rehash { id, from, to } => {
                (!self.digests_ever.contains(to)).then_some(())?;
                let row = self.row_mut(id).filter(|row| row.digest == *from)?;
                row.digest = *to;
                self.digests_ever.push(*to);
            }
            Change::Delete(id) => {
                let row = self.row_mut(id)?;
                (row.deleted, row.signing) = (true, None);
            }
            Change::SetPrimary { owner, key } => {
                owner.includes(&self.row(key)?.record).then_some(())?;
                self.set_primary(owner, Some(key.clone()));
            }
            Change::PinPrimary { owner, at } => {
                let key = self.primary(owner, *at);
                self.set_primary(owner, key);
            }
            Change::SetSigning { id, state } => self.row_mut(id)?.signing.clone_from(state),
            Change::AddUsage(delta) => self.row_mut(&delta.id)?.usage.add(delta),
            other => unreachable!("no walk makes {other:?}"),
        }
        Some(())
    }

    pub(super) fn record_usage(&mut self, deltas: &[UsageDelta]) {
        for delta in deltas {
            if let Some(row) = self.row_mut(&delta.id) {
                row.usage.add(delta);
                *row.by_hour
                    .entry(HourOfUse::start_of(delta.last_used_at))
                    .or_default() += delta.count;
            }
        }
    }
}
