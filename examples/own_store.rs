//! A store of one's own: keys in one JSON file, which is written anew for each change.
//!
//! `cargo run --example own_store` issues a key, opens the file again as another process would, and
//! revokes it. `cargo test --example own_store` runs the suite for stores against it.
//!
//! Good for one process and some thousand keys. Reads come from memory; a write is on the disk when
//! it is acknowledged.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use portunus::events::SigningStore;
use portunus::key::{
    Alphabet, DigestScheme, KeyDigest, KeyFormat, KeyId, KeyRecord, KeyStatus, Owner, SigningState,
    TenantId,
};
use portunus::manage::{KeyManager, NewKey};
use portunus::scope;
use portunus::store::{
    Change, Condition, Cursor, HourOfUse, KeyLookup, KeyStore, ListQuery, Match, OwnerRef, Page,
    Rejected, StoreError, StoredKey, Usage, UsageByHour, UsageDelta, UsageStore, WriteBatch,
};
use serde::{Deserialize, Serialize};

/// The store. Cloning shares the file.
#[derive(Clone)]
struct FileStore {
    inner: Arc<Inner>,
}

/// Where, and nothing of what: there are digests and signing states in it.
impl std::fmt::Debug for FileStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileStore({})", self.inner.path.display())
    }
}

struct Inner {
    path: PathBuf,
    /// Held while the file is written: one batch after the other.
    writing: Mutex<()>,
    /// What the file says. Readers never wait for the disk.
    kept: RwLock<Arc<Kept>>,
}

/// What the file says.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Kept {
    keys: BTreeMap<KeyId, Row>,
    /// Every digest that was ever known, and whose it was; also of keys that are deleted.
    digests: BTreeMap<String, KeyId>,
    /// Whose the deleted keys were.
    deleted: BTreeMap<KeyId, TenantId>,
    /// The primary keys that were set, by owner.
    primaries: BTreeMap<String, KeyId>,
}

/// One key.
#[derive(Clone, Serialize, Deserialize)]
struct Row {
    digest: String,
    record: KeyRecord,
    /// How often, when last, and from where.
    usage: (u64, Option<SystemTime>, Option<IpAddr>),
    /// Uses by the hour, the hour as seconds since the epoch.
    hours: BTreeMap<u64, u64>,
    /// What it signs events with, in hexadecimal: a secret.
    signing: Option<String>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if rest.is_empty() {
        pairs.iter().map(digits).collect()
    } else {
        None
    }
}

fn digest_text(digest: &KeyDigest) -> String {
    format!("{} {}", digest.scheme(), hex(&digest.to_bytes()))
}

fn parse_digest(text: &str) -> Option<KeyDigest> {
    let (scheme, bytes) = text.split_once(' ')?;
    Some(KeyDigest::new(
        scheme.parse::<DigestScheme>().ok()?,
        from_hex(bytes)?.try_into().ok()?,
    ))
}

/// Identifiers have no spaces, so that no two owners share a text.
fn owner_text(owner: &OwnerRef) -> Result<String, StoreError> {
    match owner {
        OwnerRef::Tenant(tenant) => Ok(tenant.to_string()),
        OwnerRef::TenantItself(tenant) => Ok(format!("{tenant} ")),
        OwnerRef::User(tenant, user) => Ok(format!("{tenant} {user}")),
        newer => Err(StoreError::unavailable(format!(
            "this store does not know {newer:?}"
        ))),
    }
}

fn instant(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn usage(row: &Row) -> Usage {
    let mut usage = Usage::default();
    (usage.count, usage.last_used_at, usage.last_ip) = row.usage;
    usage
}

fn record(row: &Row) -> Arc<KeyRecord> {
    Arc::new(row.record.clone())
}

/// The order of lists: newest first, then by id.
fn place(record: &KeyRecord) -> (std::cmp::Reverse<SystemTime>, KeyId) {
    (std::cmp::Reverse(record.created_at), record.id.clone())
}

impl Kept {
    fn row(&self, id: &KeyId) -> Result<&Row, StoreError> {
        self.keys
            .get(id)
            .ok_or_else(|| StoreError::rejected(Rejected::Missing(id.clone())))
    }

    fn row_mut(&mut self, id: &KeyId) -> Result<&mut Row, StoreError> {
        self.keys
            .get_mut(id)
            .ok_or_else(|| StoreError::rejected(Rejected::Missing(id.clone())))
    }

    /// The key that was set, if it still can be; else the newest of the owner's that can.
    fn primary(&self, owner: &OwnerRef, at: SystemTime) -> Result<Option<KeyId>, StoreError> {
        let set = self.primaries.get(&owner_text(owner)?);
        let records = self.keys.values().map(|row| &row.record);
        let able = records.filter(|record| owner.includes(record) && record.can_be_primary(at));
        Ok(able
            .min_by_key(|record| (Some(&record.id) != set, place(record)))
            .map(|record| record.id.clone()))
    }

    fn check(&self, condition: &Condition) -> Result<(), StoreError> {
        let rejected = match condition {
            Condition::Version { id, version } => match self.row(id)?.record.version {
                stored if stored == *version => return Ok(()),
                stored => Rejected::Version {
                    id: id.clone(),
                    expected: *version,
                    stored,
                },
            },
            Condition::Primary { owner, key, at } if self.primary(owner, *at)? == *key => {
                return Ok(());
            }
            Condition::Primary { .. } => Rejected::Primary,
            Condition::ActiveKeysAtMost { owner, at, limit } => {
                let records = self.keys.values().map(|row| &row.record);
                match records
                    .filter(|record| owner.includes(record) && record.counts_as_active(*at))
                    .count() as u64
                {
                    active if active <= *limit => return Ok(()),
                    active => Rejected::TooManyActive {
                        active,
                        limit: *limit,
                    },
                }
            }
            newer => {
                return Err(StoreError::unavailable(format!(
                    "this store does not know {newer:?}"
                )));
            }
        };
        Err(StoreError::rejected(rejected))
    }

    fn change(&mut self, change: &Change) -> Result<(), StoreError> {
        match change {
            Change::Insert { digest, record } => {
                if self.digests.values().any(|id| *id == record.id) {
                    return Err(StoreError::rejected(Rejected::IdKnown(record.id.clone())));
                }
                let (digest, record) = (self.claim(digest, &record.id)?, KeyRecord::clone(record));
                let (id, usage) = (record.id.clone(), (0, None, None));
                self.keys.insert(
                    id,
                    Row {
                        digest,
                        record,
                        usage,
                        hours: BTreeMap::new(),
                        signing: None,
                    },
                );
            }
            Change::Replace(record) => {
                let row = self.row_mut(&record.id)?;
                if !row.record.is_of_the_same_owner(record) {
                    return Err(StoreError::rejected(Rejected::Owner(record.id.clone())));
                }
                row.record = KeyRecord::clone(record);
            }
            Change::Rehash { id, from, to } => {
                if self.row(id)?.digest != digest_text(from) {
                    return Err(StoreError::rejected(Rejected::Missing(id.clone())));
                }
                if from != to {
                    self.row_mut(id)?.digest = self.claim(to, id)?;
                }
            }
            Change::Delete(id) => {
                let tenant = self.row(id)?.record.owner.tenant_id.clone();
                self.keys.remove(id);
                self.deleted.insert(id.clone(), tenant);
            }
            Change::SetPrimary { owner, key } => {
                if !owner.includes(&self.row(key)?.record) {
                    return Err(StoreError::rejected(Rejected::Owner(key.clone())));
                }
                self.primaries.insert(owner_text(owner)?, key.clone());
            }
            Change::PinPrimary { owner, at } => match self.primary(owner, *at)? {
                Some(key) => drop(self.primaries.insert(owner_text(owner)?, key)),
                None => drop(self.primaries.remove(&owner_text(owner)?)),
            },
            Change::SetSigning { id, state } => {
                self.row_mut(id)?.signing = state.as_ref().map(|state| hex(state.as_bytes()));
            }
            newer => {
                return Err(StoreError::unavailable(format!(
                    "this store does not know {newer:?}"
                )));
            }
        }
        Ok(())
    }

    /// Makes a digest a key's, if nobody ever had it.
    fn claim(&mut self, digest: &KeyDigest, id: &KeyId) -> Result<String, StoreError> {
        let text = digest_text(digest);
        if self.digests.contains_key(&text) {
            return Err(StoreError::rejected(Rejected::DigestKnown));
        }
        self.digests.insert(text.clone(), id.clone());
        Ok(text)
    }

    /// What is on the disk must be understood to the last byte: a key that cannot be read must not
    /// look like none.
    fn understood(self) -> Result<Self, StoreError> {
        if let Some(place) = self
            .digests
            .keys()
            .position(|text| parse_digest(text).is_none())
        {
            return Err(StoreError::corrupt(format!("digest number {}", place + 1)));
        }
        match self
            .keys
            .iter()
            .find(|(id, row)| self.digests.get(&row.digest) != Some(id) || row.record.id != **id)
        {
            Some((id, _)) => Err(StoreError::corrupt(format!("the digest or the id of {id}"))),
            None => Ok(self),
        }
    }
}

impl FileStore {
    /// The keys in this file; none, if there is no file yet.
    fn open(path: &Path) -> Result<Self, StoreError> {
        let kept = match fs::read(path) {
            // Where, and not what: a value may be a secret.
            Ok(text) => serde_json::from_slice::<Kept>(&text).map_err(|error| {
                StoreError::corrupt(format!("column {} of the file", error.column()))
            })?,
            Err(error) if error.kind() == ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(StoreError::unavailable(error)),
        };
        let kept = RwLock::new(Arc::new(kept.understood()?));
        Ok(Self {
            inner: Arc::new(Inner {
                path: path.to_owned(),
                writing: Mutex::new(()),
                kept,
            }),
        })
    }

    fn read(&self) -> Arc<Kept> {
        Arc::clone(
            &self
                .inner
                .kept
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Edits a copy, writes it to the disk, and only then shows it: all or nothing.
    async fn write<T: Send + 'static>(
        &self,
        edit: impl FnOnce(&mut Kept) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let this = self.clone();
        let work = move || {
            let _one_at_a_time = this
                .inner
                .writing
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let mut kept = Kept::clone(&this.read());
            let done = edit(&mut kept)?;
            save(&this.inner.path, &kept).map_err(StoreError::unavailable)?;
            *this
                .inner
                .kept
                .write()
                .unwrap_or_else(PoisonError::into_inner) = Arc::new(kept);
            Ok(done)
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(StoreError::unavailable)?
    }
}

/// A new file in the place of the old one. A crash leaves one of them, and whole.
fn save(path: &Path, kept: &Kept) -> Result<(), Box<dyn Error + Send + Sync>> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(&serde_json::to_vec(kept)?)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    // The folder's entry is on the disk only when the folder is.
    #[cfg(unix)]
    File::open(
        path.parent()
            .filter(|it| *it != Path::new(""))
            .unwrap_or(Path::new(".")),
    )?
    .sync_all()?;
    Ok(())
}

#[async_trait]
impl KeyLookup for FileStore {
    async fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError> {
        let kept = self.read();
        Ok(StoredKey::of_one_secret(digests, |digest| {
            let text = digest_text(digest);
            let id = kept.digests.get(&text)?;
            let Some(row) = kept.keys.get(id) else {
                return Some(Match::Deleted(kept.deleted.get(id).cloned()));
            };
            let record = &row.record;
            Some(if row.digest == text {
                Match::Key(Arc::new(StoredKey::new(*digest, record.clone())))
            } else {
                Match::Former(record.id.clone(), record.owner.tenant_id.clone())
            })
        }))
    }
}

#[async_trait]
impl KeyStore for FileStore {
    async fn get(&self, id: &KeyId) -> Result<Option<Arc<KeyRecord>>, StoreError> {
        Ok(self.read().keys.get(id).map(record))
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        let kept = self.read();
        let after = query
            .after
            .as_ref()
            .map(|cursor| (std::cmp::Reverse(cursor.created_at), cursor.id.clone()));
        let is_later =
            |record: &KeyRecord| after.as_ref().is_none_or(|after| place(record) > *after);
        let mut rows: Vec<&Row> = kept
            .keys
            .values()
            .filter(|row| query.selects(&row.record) && is_later(&row.record))
            .collect();
        rows.sort_by_key(|row| place(&row.record));
        let limit = query.limit.clamp(1, 500);
        let last = rows.get(limit - 1).filter(|_| rows.len() > limit);
        let next = last.map(|row| Cursor::new(row.record.created_at, row.record.id.clone()));
        Ok(Page::new(
            rows.into_iter().take(limit).map(record).collect(),
            next,
        ))
    }

    async fn primaries(
        &self,
        owners: &[OwnerRef],
        at: SystemTime,
    ) -> Result<Vec<Option<KeyId>>, StoreError> {
        let kept = self.read();
        owners.iter().map(|owner| kept.primary(owner, at)).collect()
    }

    async fn apply(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        let batch = batch.clone();
        self.write(move |kept| {
            let counts =
                |condition: &&Condition| matches!(condition, Condition::ActiveKeysAtMost { .. });
            batch
                .conditions()
                .iter()
                .filter(|condition| !counts(condition))
                .try_for_each(|it| kept.check(it))?;
            batch
                .changes()
                .iter()
                .try_for_each(|change| kept.change(change))?;
            // How many keys there are is asked afterwards.
            batch
                .conditions()
                .iter()
                .filter(counts)
                .try_for_each(|it| kept.check(it))
        })
        .await
    }

    fn usage(&self) -> Option<Arc<dyn UsageStore>> {
        Some(Arc::new(self.clone()))
    }

    fn signing(&self) -> Option<Arc<dyn SigningStore>> {
        Some(Arc::new(self.clone()))
    }
}

#[async_trait]
impl SigningStore for FileStore {
    async fn signing_state(&self, id: &KeyId) -> Result<Option<SigningState>, StoreError> {
        let kept = self.read();
        let Some(text) = kept.keys.get(id).and_then(|row| row.signing.as_deref()) else {
            return Ok(None);
        };
        let state = from_hex(text).and_then(|bytes| SigningState::from_bytes(&bytes).ok());
        state
            .map(Some)
            .ok_or_else(|| StoreError::corrupt(format!("what {id} signs with")))
    }
}

#[async_trait]
impl UsageStore for FileStore {
    async fn usage_of(&self, ids: &[KeyId]) -> Result<Vec<Usage>, StoreError> {
        let kept = self.read();
        let of = |id| kept.keys.get(id).map(usage).unwrap_or_default();
        Ok(ids.iter().map(of).collect())
    }

    async fn record_usage(&self, batch: &[UsageDelta]) -> Result<(), StoreError> {
        let batch = batch.to_vec();
        self.write(move |kept| {
            for delta in &batch {
                let Some(row) = kept.keys.get_mut(&delta.id) else {
                    continue;
                };
                let mut usage = usage(row);
                usage.add(delta);
                row.usage = (usage.count, usage.last_used_at, usage.last_ip);
                let start =
                    HourOfUse::start_of(delta.last_used_at).duration_since(SystemTime::UNIX_EPOCH);
                let hour = row
                    .hours
                    .entry(start.unwrap_or_default().as_secs())
                    .or_default();
                *hour = hour.saturating_add(delta.count);
            }
            Ok(())
        })
        .await
    }

    async fn usage_by_hour(
        &self,
        id: &KeyId,
        from: SystemTime,
        to: SystemTime,
    ) -> Result<UsageByHour, StoreError> {
        let kept = self.read();
        let hours = kept.keys.get(id).into_iter().flat_map(|row| &row.hours);
        let hours = hours.map(|(hour, count)| HourOfUse::new(instant(*hour), *count));
        let within =
            hours.filter(|hour| hour.start >= HourOfUse::start_of(from) && hour.start < to);
        Ok(UsageByHour::new(within.collect()))
    }

    async fn forget_usage_before(&self, before: SystemTime) -> Result<u64, StoreError> {
        self.write(move |kept| {
            let hours = |kept: &Kept| {
                kept.keys
                    .values()
                    .map(|row| row.hours.len() as u64)
                    .sum::<u64>()
            };
            let all = hours(kept);
            kept.keys.values_mut().for_each(|row| {
                row.hours
                    .retain(|hour, _| instant(*hour) + HourOfUse::LENGTH >= before);
            });
            Ok(all - hours(kept))
        })
        .await
    }
}

#[tokio::main]
#[allow(clippy::print_stdout, reason = "the program's output")]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("keys.json");
    let format = KeyFormat::builder("acme_")
        .random(Alphabet::BASE62, 32)
        .build()?;
    let manager = || {
        Ok::<_, Box<dyn Error>>(
            KeyManager::builder(FileStore::open(&path)?, format.clone()).build()?,
        )
    };
    let new = NewKey::new("first key", Owner::tenant("tenant-1".parse()?))
        .with_scopes([scope!("document:read")]);
    let key = manager()?.issue(new).await?.key.reveal();
    println!("issued {key}");
    // As in another process: all that is known stands in the file, and the secret does not.
    let found = manager()?.verify(&key).await?.ok_or("it is in the file")?;
    assert!(!fs::read_to_string(&path)?.contains(&key));
    manager()?.revoke(&found.record.id, Some("lost")).await?;
    let record = manager()?.get(&found.record.id).await?.record;
    assert_eq!(record.status(SystemTime::now()), KeyStatus::Revoked);
    println!("revoked");
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::FileStore;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn the_file_keeps_what_a_store_promises() {
        let folder = tempfile::tempdir().unwrap();
        let number = AtomicUsize::new(0);
        let fresh = || {
            folder
                .path()
                .join(format!("{}.json", number.fetch_add(1, Ordering::Relaxed)))
        };
        portunus_conformance::key_store(|| async { FileStore::open(&fresh()).unwrap() })
            .await
            .unwrap();
    }
}
