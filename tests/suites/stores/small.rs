//! A small store that is correct, or has a given fault.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use portunus::events::SigningStore;
use portunus::key::{Delegation, KeyDigest, KeyId, KeyRecord, SigningState};
use portunus::store::{
    Change, Condition, Cursor, HourOfUse, KeyLookup, KeyStore, ListQuery, OwnerRef, Page, Rejected,
    StoreError, StoredKey, Usage, UsageByHour, UsageDelta, UsageStore, WriteBatch,
};

/// The fault of the store, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Right,
    LostUpdate,
    QuotaRace,
    VersionRace,
    DigestPrefix,
    AnyScheme,
    FirstCandidate,
    SecondLife,
    OtherLife,
    ForeignEnd,
    ForeignRevocation,
    OlderHeir,
    NamesNoOthers,
    NamesNoFormer,
    NamesNoEarlier,
    NamesNoPassedOver,
    StaleHit,
    StaleMiss,
    StaleFindNow,
    ForgetsDigests,
    ForgetsFormerDigests,
    ForgetsIds,
    ReplacesOwner,
    EmailIsOwner,
    ReplacesFamily,
    HalfBatch,
    BurntDigests,
    QuotaBefore,
    ConditionsAfter,
    DisabledFree,
    FamilyByKeys,
    FamilyIsOne,
    NoPromotion,
    OldestPromoted,
    PinIgnored,
    ForeignPrimary,
    TokensPrimary,
    SigningOutlives,
    SigningShown,
    DigestShown,
    NoExpiry,
    WholeSeconds,
    EmptyIsAbsent,
    OnlyNoneIsOn,
    ByOffset,
    ByTimeOnly,
    NoLimit,
    EmptyAtZero,
    ByLanguage,
    CursorInMilliseconds,
    PrimaryByLanguage,
    PrimariesByOwner,
    PrimariesWithoutNone,
    PrimariesNewest,
    HoursOutlive,
    HoursCountLater,
    BusyHoursUnlisted,
    Wildcards,
    UnicodeCase,
    AnyPlan,
    NeverExpiresFirst,
    NewIsUnused,
    ShowsDeleted,
    RevokedHidden,
    UsageMovesBack,
    UsageWraps,
    UsageStops,
    UsageIsAVersion,
    HistoryIsAnHour,
    HistoryOfNobody,
    TotalsForgotten,
    RejectedIsUnavailable,
    HalfRead,
    Panics,
}

use How::*;

#[derive(Clone)]
pub(crate) struct Small {
    how: How,
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Default)]
struct State {
    rows: Vec<Row>,
    digests_ever: Vec<(KeyDigest, KeyId)>,
    primaries: Vec<(OwnerRef, KeyId)>,
    remembered: HashMap<String, Option<Arc<StoredKey>>>,
    offsets: HashMap<KeyId, usize>,
}

#[derive(Clone)]
struct Row {
    digest: KeyDigest,
    record: KeyRecord,
    usage: Usage,
    by_hour: BTreeMap<SystemTime, u64>,
    signing: Option<SigningState>,
    deleted: bool,
}

fn place(record: &KeyRecord) -> (Reverse<SystemTime>, KeyId) {
    (Reverse(record.created_at), record.id.clone())
}

/// The position of a record under a locale's collation.
fn place_by(how: How, record: &KeyRecord) -> (Reverse<SystemTime>, String, KeyId) {
    let (at, id) = place(record);
    let letters = if matches!(how, ByLanguage | PrimaryByLanguage) {
        id.as_str().to_lowercase()
    } else {
        String::new()
    };
    (at, letters, id)
}

fn is_quota(condition: &Condition) -> bool {
    condition.is_checked_afterwards()
}

impl State {
    fn live(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| !row.deleted)
    }

    fn row(&mut self, id: &KeyId) -> Result<&mut Row, Rejected> {
        let row = self
            .rows
            .iter_mut()
            .find(|row| row.record.id == *id && !row.deleted);
        row.ok_or_else(|| Rejected::Missing(id.clone()))
    }

    fn find(&self, how: How, digests: &[KeyDigest]) -> Option<Arc<StoredKey>> {
        let same = |one: &KeyDigest, other: &KeyDigest| match how {
            DigestPrefix => {
                one.scheme() == other.scheme() && one.to_bytes()[..16] == other.to_bytes()[..16]
            }
            AnyScheme => one.to_bytes() == other.to_bytes(),
            _ => one == other,
        };
        let digests = if how == FirstCandidate {
            &digests[..digests.len().min(1)]
        } else {
            digests
        };
        let rows = || {
            self.live()
                .filter(|row| how != RevokedHidden || row.record.revoked.is_none())
        };
        let row_of = |digest: &KeyDigest| rows().find(|row| same(digest, &row.digest));
        let deleted_in = |digest: &KeyDigest| {
            let mut ever = self.digests_ever.iter();
            let (_, id) = ever.find(|(known, _)| known == digest && how != SecondLife)?;
            let row = self.rows.iter().find(|row| row.record.id == *id)?;
            row.deleted.then_some(&row.record.owner.tenant_id)
        };
        let is_known = |digest: &&KeyDigest| {
            row_of(digest).is_some() || (how != OlderHeir && deleted_in(digest).is_some())
        };
        let newest = digests.iter().find(is_known)?;
        let row = row_of(newest)?;
        let tenant = &row.record.owner.tenant_id;
        let ends = |of: &portunus::key::TenantId| of == tenant || how == ForeignEnd;
        if digests.iter().filter_map(deleted_in).any(ends) {
            return None;
        }
        let ends = |row: &Row| {
            let here = row.record.owner.tenant_id == *tenant || how == ForeignRevocation;
            row.record.revoked.is_some() && here && how != OtherLife
        };
        let revoked = digests
            .iter()
            .filter_map(|digest| Some((row_of(digest)?, digest)))
            .find(|(row, _)| ends(row));
        let (row, asked) = revoked.unwrap_or((row, newest));
        let mut others: Vec<_> = Vec::new();
        let mut is_before = true;
        for digest in digests {
            is_before &= digest != newest;
            let mut ever = self.digests_ever.iter();
            let holder = ever.find(|(known, _)| known == digest).map(|(_, id)| id);
            let Some(other) = self.live().find(|row| Some(&row.record.id) == holder) else {
                continue;
            };
            let (id, is_former) = (&other.record.id, other.digest != *digest);
            let is_named = match how {
                NamesNoOthers => false,
                NamesNoFormer => !is_former,
                NamesNoEarlier => !is_before,
                NamesNoPassedOver => digest != newest,
                _ => true,
            };
            let counts = is_before || other.record.owner.tenant_id == *tenant;
            if is_named && counts && *id != row.record.id && !others.contains(id) {
                others.push(id.clone());
            }
        }
        let key = StoredKey::new(*asked, as_returned(how, &row.record));
        Some(Arc::new(key.with_others(others)))
    }

    fn primary(&self, how: How, owner: &OwnerRef, at: SystemTime) -> Option<KeyId> {
        let set = self
            .primaries
            .iter()
            .find(|(of, _)| of == owner)
            .map(|(_, key)| key);
        if how == NoPromotion
            && let Some(set) = set
        {
            return self
                .live()
                .find(|row| row.record.id == *set)
                .map(|row| row.record.id.clone());
        }
        let can = |record: &KeyRecord| match how {
            TokensPrimary => {
                record.may_be_primary
                    && record.revoked.is_none()
                    && record.expires_at.is_none_or(|end| at < end)
            }
            _ => record.can_be_primary(at),
        };
        let mut able: Vec<_> = self
            .live()
            .map(|row| &row.record)
            .filter(|r| owner.includes(r) && can(r))
            .collect();
        able.sort_by_key(|record| {
            let of = if how == PrimaryByLanguage { how } else { Right };
            place_by(of, record)
        });
        if how == OldestPromoted {
            able.reverse();
        }
        able.iter()
            .find(|record| Some(&record.id) == set)
            .or(able.first())
            .map(|record| record.id.clone())
    }

    fn check(&mut self, how: How, condition: &Condition) -> Result<(), Rejected> {
        match condition {
            Condition::Version { id, version } => match self.row(id)?.record.version {
                stored if stored == *version || how == LostUpdate => Ok(()),
                stored => Err(Rejected::Version {
                    id: id.clone(),
                    expected: *version,
                    stored,
                }),
            },
            Condition::Primary { owner, key, at } if self.primary(how, owner, *at) == *key => {
                Ok(())
            }
            Condition::ActiveKeysAtMost { owner, at, limit }
            | Condition::ActiveFamiliesAtMost { owner, at, limit } => {
                let mine = self
                    .live()
                    .map(|row| &row.record)
                    .filter(|record| owner.includes(record));
                let counts =
                    |r: &&KeyRecord| r.counts_as_active(*at) && (how != DisabledFree || r.enabled);
                let mut keys_of = HashMap::new();
                mine.filter(counts)
                    .for_each(|record| *keys_of.entry(&record.family).or_insert(0) += 1);
                let by_family = matches!(condition, Condition::ActiveFamiliesAtMost { .. });
                let count = |keys: &u64| match how {
                    _ if !by_family => *keys,
                    FamilyByKeys => *keys,
                    FamilyIsOne => 1,
                    _ => keys - u64::from(*keys > 1),
                };
                match keys_of.values().map(count).sum() {
                    active if active <= *limit => Ok(()),
                    active => Err(Rejected::TooManyActive {
                        active,
                        limit: *limit,
                    }),
                }
            }
            _ => Err(Rejected::Primary),
        }
    }

    fn knows(&self, how: How, digest: &KeyDigest) -> bool {
        match how {
            ForgetsDigests => self.live().any(|row| row.digest == *digest),
            ForgetsFormerDigests => self.rows.iter().any(|row| row.digest == *digest),
            _ => self.digests_ever.iter().any(|(known, _)| known == digest),
        }
    }

    fn make(&mut self, how: How, change: &Change) -> Result<(), Rejected> {
        match change {
            Change::Insert { digest, record } => {
                if self
                    .rows
                    .iter()
                    .any(|row| row.record.id == record.id && !(how == ForgetsIds && row.deleted))
                {
                    return Err(Rejected::IdKnown(record.id.clone()));
                }
                if self.knows(how, digest) {
                    return Err(Rejected::DigestKnown);
                }
                self.digests_ever.push((*digest, record.id.clone()));
                let record = (**record).clone();
                let (usage, by_hour) = (Usage::default(), BTreeMap::new());
                self.rows.push(Row {
                    digest: *digest,
                    record,
                    usage,
                    by_hour,
                    signing: None,
                    deleted: false,
                });
            }
            Change::Replace(record) => {
                let row = self.row(&record.id)?;
                let (stored, moved) = (&row.record.owner, &record.owner);
                let same = how != EmailIsOwner || stored.user_email == moved.user_email;
                let same = same
                    && (&stored.tenant_id, &stored.user_id) == (&moved.tenant_id, &moved.user_id);
                let same = same || how == ReplacesOwner;
                if !same || (row.record.family != record.family && how != ReplacesFamily) {
                    return Err(Rejected::Owner(record.id.clone()));
                }
                row.record = (**record).clone();
            }
            Change::Rehash { id, from, to } => {
                if self.row(id)?.digest != *from {
                    return Err(Rejected::Missing(id.clone()));
                }
                if self.knows(how, to) {
                    return Err(Rejected::DigestKnown);
                }
                self.row(id)?.digest = *to;
                self.digests_ever.push((*to, id.clone()));
            }
            Change::Delete(id) => {
                let row = self.row(id)?;
                row.deleted = true;
                if !matches!(how, HoursOutlive | HoursCountLater) {
                    row.by_hour.clear();
                }
            }
            Change::SetPrimary { owner, key } => {
                if !owner.includes(&self.row(key)?.record) && how != ForeignPrimary {
                    return Err(Rejected::Owner(key.clone()));
                }
                self.primaries.retain(|(of, _)| of != owner);
                self.primaries.push((owner.clone(), key.clone()));
            }
            Change::PinPrimary { owner, at } if how != PinIgnored => {
                let key = self.primary(how, owner, *at);
                self.primaries.retain(|(of, _)| of != owner);
                self.primaries.extend(key.map(|key| (owner.clone(), key)));
            }
            Change::SetSigning { id, state } => self.row(id)?.signing.clone_from(state),
            Change::AddUsage(delta) if how == HistoryIsAnHour => self.record(how, delta)?,
            Change::AddUsage(delta) => match self.row(&delta.id) {
                Err(_) if how == HistoryOfNobody => {}
                row => row?.usage.add(delta),
            },
            _ => {}
        }
        Ok(())
    }

    fn apply(&mut self, how: How, batch: &WriteBatch) -> Result<(), Rejected> {
        let late = |condition: &&Condition| match how {
            QuotaBefore => false,
            ConditionsAfter => true,
            _ => is_quota(condition),
        };
        for condition in batch
            .conditions()
            .iter()
            .filter(|condition| !late(condition))
        {
            self.check(how, condition)?;
        }
        batch
            .changes()
            .iter()
            .try_for_each(|change| self.make(how, change))?;
        batch
            .conditions()
            .iter()
            .filter(late)
            .try_for_each(|condition| self.check(how, condition))
    }

    fn record(&mut self, how: How, delta: &UsageDelta) -> Result<(), Rejected> {
        let row = self.row(&delta.id)?;
        row.usage.add(delta);
        let hour = row
            .by_hour
            .entry(HourOfUse::start_of(delta.last_used_at))
            .or_default();
        *hour = hour.saturating_add(delta.count);
        match how {
            UsageMovesBack => row.usage.last_used_at = Some(delta.last_used_at),
            UsageWraps => row.usage.count &= u64::from(u32::MAX),
            UsageIsAVersion => row.record.version += 1,
            _ => {}
        }
        Ok(())
    }
}

/// A record as the store returns it.
fn as_returned(how: How, record: &KeyRecord) -> KeyRecord {
    let mut as_returned = record.clone();
    let whole = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
    };
    match how {
        NoExpiry => as_returned.expires_at = None,
        WholeSeconds => as_returned.created_at = whole(as_returned.created_at),
        EmptyIsAbsent => {
            as_returned.workspaces = as_returned
                .workspaces
                .take()
                .filter(|list| !list.is_empty());
        }
        OnlyNoneIsOn if as_returned.delegation == Delegation::Only(Vec::new()) => {
            as_returned.delegation = Delegation::On;
        }
        _ => {}
    }
    as_returned
}

/// SQL's `LIKE`.
fn like(text: &[char], pattern: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['%', rest @ ..] => (0..=text.len()).any(|skip| like(&text[skip..], rest)),
        [one, rest @ ..] => {
            matches!(text, [first, others @ ..] if (first == one || *one == '_') && like(others, rest))
        }
    }
}

impl Small {
    pub(crate) fn new(how: How) -> Self {
        Self {
            how,
            state: Arc::default(),
        }
    }

    /// Writes a record unconditionally, replacing the one with its id.
    pub(crate) fn put(&self, digest: KeyDigest, record: KeyRecord) {
        let mut state = self.state.lock().unwrap();
        state.digests_ever.push((digest, record.id.clone()));
        if let Ok(row) = state.row(&record.id) {
            (row.digest, row.record) = (digest, record);
            return;
        }
        state.rows.push(Row {
            digest,
            record,
            usage: Usage::default(),
            by_hour: BTreeMap::new(),
            signing: None,
            deleted: false,
        });
    }

    fn selects(&self, query: &ListQuery, row: &Row) -> bool {
        let (record, usage) = (&row.record, &row.usage);
        let mut rest = query.clone();
        match self.how {
            AnyPlan => rest.plan = None,
            NeverExpiresFirst if record.expires_at.is_none() => rest.expires_before = None,
            NewIsUnused if usage.last_used_at.is_none() => rest.unused_since = None,
            _ => {}
        }
        let Some(part) = rest.text.clone() else {
            return rest.selects(record, usage);
        };
        let texts = [
            Some(record.name.as_str()),
            Some(record.masked.as_str()),
            record.description.as_deref(),
        ];
        let mut texts = texts.into_iter().flatten();
        let chars = |text: &str| text.to_ascii_lowercase().chars().collect::<Vec<_>>();
        match self.how {
            Wildcards => {
                rest.text = None;
                rest.selects(record, usage)
                    && texts.any(|text| like(&chars(text), &chars(&format!("%{part}%"))))
            }
            UnicodeCase => {
                rest.text = None;
                rest.selects(record, usage)
                    && texts.any(|text| text.to_lowercase().contains(&part.to_lowercase()))
            }
            _ => rest.selects(record, usage),
        }
    }
}

#[async_trait]
impl KeyLookup for Small {
    async fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError> {
        assert!(
            self.how != Panics || digests.len() < 2,
            "more candidates than expected"
        );
        let mut state = self.state.lock().unwrap();
        let found = state.find(self.how, digests);
        if matches!(self.how, StaleHit | StaleMiss) && found.is_some() == (self.how == StaleHit) {
            let bytes: Vec<_> = digests
                .iter()
                .map(|digest| (digest.scheme(), digest.to_bytes()))
                .collect();
            return Ok(state
                .remembered
                .entry(format!("{bytes:?}"))
                .or_insert(found)
                .clone());
        }
        if matches!(self.how, StaleHit | StaleMiss) {
            let bytes: Vec<_> = digests
                .iter()
                .map(|digest| (digest.scheme(), digest.to_bytes()))
                .collect();
            return Ok(state
                .remembered
                .get(&format!("{bytes:?}"))
                .cloned()
                .unwrap_or(found));
        }
        Ok(found)
    }

    fn find_now(
        &self,
        digests: &[KeyDigest],
    ) -> Option<Result<Option<Arc<StoredKey>>, StoreError>> {
        let mut state = self.state.lock().unwrap();
        let found = state.find(self.how, digests);
        let key = format!("{:?}", digests.first().map(KeyDigest::to_bytes));
        (self.how == StaleFindNow).then(|| Ok(state.remembered.entry(key).or_insert(found).clone()))
    }
}

#[async_trait]
impl KeyStore for Small {
    async fn get(&self, id: &KeyId) -> Result<Option<Arc<KeyRecord>>, StoreError> {
        let mut state = self.state.lock().unwrap();
        Ok(state
            .row(id)
            .ok()
            .map(|row| Arc::new(as_returned(self.how, &row.record))))
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        let mut state = self.state.lock().unwrap();
        let shown = |row: &&Row| self.how == ShowsDeleted || !row.deleted;
        let mut rows: Vec<_> = state
            .rows
            .iter()
            .filter(shown)
            .filter(|row| self.selects(query, row))
            .collect();
        let of = if self.how == ByLanguage {
            ByLanguage
        } else {
            Right
        };
        let place = |row: &Row| place_by(of, &as_returned(self.how, &row.record));
        rows.sort_by_key(|row| place(row));
        let start = query.after.as_ref().map_or(0, |after| match self.how {
            ByOffset => state.offsets[&after.id],
            ByTimeOnly => rows.partition_point(|row| row.record.created_at >= after.created_at),
            _ => {
                let mut record = KeyRecord::clone(&state.rows[0].record);
                (record.created_at, record.id) = (after.created_at, after.id.clone());
                rows.partition_point(|row| place(row) <= place_by(of, &record))
            }
        });
        let limit = query
            .limit
            .clamp(1, if self.how == NoLimit { usize::MAX } else { 500 });
        let limit = if self.how == EmptyAtZero {
            limit.min(query.limit)
        } else {
            limit
        };
        let more = rows.len().saturating_sub(start) > limit;
        let rows = rows.into_iter().skip(start).take(limit);
        let items: Vec<_> = rows
            .map(|row| Arc::new(as_returned(self.how, &row.record)))
            .collect();
        let last = items.last().filter(|_| more);
        let cut = |at: SystemTime| {
            let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
            let beyond = u64::from(since.subsec_nanos() % 1_000_000);
            let is_cut = self.how == CursorInMilliseconds;
            at - Duration::from_nanos(if is_cut { beyond } else { 0 })
        };
        let next = last.map(|record| Cursor::new(cut(record.created_at), record.id.clone()));
        if let Some(next) = &next {
            state.offsets.insert(next.id.clone(), start + limit);
        }
        Ok(Page::new(items, next))
    }

    async fn primary(&self, owner: &OwnerRef, at: SystemTime) -> Result<Option<KeyId>, StoreError> {
        Ok(self.state.lock().unwrap().primary(self.how, owner, at))
    }

    async fn primaries(
        &self,
        owners: &[OwnerRef],
        at: SystemTime,
    ) -> Result<Vec<Option<KeyId>>, StoreError> {
        let mut owners = owners.to_vec();
        if self.how == PrimariesByOwner {
            owners.sort();
        }
        let mut state = self.state.lock().unwrap().clone();
        if self.how == PrimariesNewest {
            state.primaries.clear();
        }
        let primaries = owners
            .iter()
            .map(|owner| state.primary(self.how, owner, at));
        Ok(primaries
            .filter(|key| self.how != PrimariesWithoutNone || key.is_some())
            .collect())
    }

    async fn apply(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        let racing = |condition: &Condition| match self.how {
            QuotaRace => is_quota(condition),
            VersionRace => matches!(condition, Condition::Version { .. }),
            _ => false,
        };
        if batch.conditions().iter().any(racing) {
            // Checks first and acts later.
            self.state
                .lock()
                .unwrap()
                .clone()
                .apply(self.how, batch)
                .map_err(StoreError::rejected)?;
            tokio::time::sleep(Duration::from_millis(2)).await;
            let kept = batch
                .conditions()
                .iter()
                .filter(|condition| !racing(condition))
                .cloned();
            let kept = kept.fold(WriteBatch::new(), WriteBatch::require);
            let rest = batch
                .changes()
                .iter()
                .cloned()
                .fold(kept, WriteBatch::change);
            return self
                .state
                .lock()
                .unwrap()
                .apply(self.how, &rest)
                .map_err(StoreError::rejected);
        }
        if self.how == HalfRead && batch.changes().len() > 1 {
            self.state
                .lock()
                .unwrap()
                .clone()
                .apply(self.how, batch)
                .map_err(StoreError::rejected)?;
            for change in batch.changes() {
                self.state
                    .lock()
                    .unwrap()
                    .make(self.how, change)
                    .map_err(StoreError::rejected)?;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            return Ok(());
        }
        let mut state = self.state.lock().unwrap();
        let mut next = state.clone();
        let done = next.apply(self.how, batch);
        if self.how == BurntDigests {
            state.digests_ever.clone_from(&next.digests_ever);
        }
        if done.is_ok() || self.how == HalfBatch {
            *state = next;
        }
        match done {
            Err(why) if self.how == RejectedIsUnavailable => Err(StoreError::unavailable(why)),
            done => done.map_err(StoreError::rejected),
        }
    }

    fn usage(&self) -> Option<Arc<dyn UsageStore>> {
        Some(Arc::new(self.clone()))
    }

    fn signing(&self) -> Option<Arc<dyn SigningStore>> {
        Some(Arc::new(self.clone()))
    }
}

#[async_trait]
impl SigningStore for Small {
    async fn signing_state(&self, id: &KeyId) -> Result<Option<SigningState>, StoreError> {
        let state = self.state.lock().unwrap();
        let row = state
            .rows
            .iter()
            .find(|row| row.record.id == *id && (!row.deleted || self.how == SigningOutlives));
        Ok(row.and_then(|row| row.signing.clone()))
    }
}

#[async_trait]
impl UsageStore for Small {
    async fn usage_of(&self, ids: &[KeyId]) -> Result<Vec<Usage>, StoreError> {
        let state = self.state.lock().unwrap();
        let row = |id: &KeyId| state.live().find(|row| row.record.id == *id);
        Ok(ids
            .iter()
            .map(|id| row(id).map(|row| row.usage).unwrap_or_default())
            .collect())
    }

    async fn record_usage(&self, batch: &[UsageDelta]) -> Result<(), StoreError> {
        let mut state = self.state.lock().unwrap();
        for delta in batch {
            if state.record(self.how, delta).is_err() && self.how == UsageStops {
                break;
            }
        }
        Ok(())
    }

    async fn usage_by_hour(
        &self,
        id: &KeyId,
        from: SystemTime,
        to: SystemTime,
    ) -> Result<UsageByHour, StoreError> {
        let state = self.state.lock().unwrap();
        let shown = |row: &&Row| row.record.id == *id && (!row.deleted || self.how == HoursOutlive);
        let row = state.rows.iter().find(shown);
        let hours = row.map(|row| row.by_hour.clone()).unwrap_or_default();
        let within = hours
            .into_iter()
            .filter(|(start, _)| *start >= HourOfUse::start_of(from) && *start < to);
        let mut hours: Vec<_> = within
            .map(|(start, count)| HourOfUse::new(start, count))
            .collect();
        if self.how == BusyHoursUnlisted {
            hours.retain(|hour| hour.count < 20);
        }
        Ok(UsageByHour::new(hours))
    }

    async fn forget_usage_before(&self, before: SystemTime) -> Result<u64, StoreError> {
        let mut forgotten = 0;
        for row in &mut self.state.lock().unwrap().rows {
            let known = row.by_hour.len();
            row.by_hour
                .retain(|start, _| *start + HourOfUse::LENGTH >= before);
            forgotten += (known - row.by_hour.len()) as u64;
            if self.how == TotalsForgotten {
                row.usage.count = row.by_hour.values().sum();
            }
        }
        Ok(forgotten)
    }
}

impl fmt::Debug for Small {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock().unwrap();
        let signing: Vec<_> = state
            .rows
            .iter()
            .filter_map(|row| Some(row.signing.as_ref()?.as_bytes()))
            .collect();
        let digests = state.rows.iter().map(|row| row.digest.to_bytes());
        if self.how == DigestShown {
            write!(f, "{:?}", digests.collect::<Vec<_>>())
        } else if self.how == SigningShown {
            write!(f, "{signing:?}")
        } else {
            write!(f, "Small({} rows)", state.rows.len())
        }
    }
}
