//! A custom key store: all keys in one JSON file, which is rewritten on every change.
//!
//! For one process on Unix and a few thousand keys. Reads are served from memory; a write is on the
//! disk before it is acknowledged. `KeyRows` provides the semantics of reads and of write batches.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use portunus::Portunus;
use portunus::events::SigningStore;
use portunus::key::{Alphabet, KeyDigest, KeyFormat, KeyId, KeyRecord, Owner, SigningState};
use portunus::manage::NewKey;
use portunus::store::{
    KeyLookup, KeyRow, KeyRows, KeyStore, ListQuery, OwnerRef, Page, StoreError, StoredKey, Usage,
    UsageByHour, UsageDelta, UsageStore, WriteBatch,
};
use serde::{Deserialize, Serialize};

type Answer<T> = Result<T, StoreError>;

/// The contents of the file. `Debug` redacts its secrets.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Kept {
    rows: BTreeMap<KeyId, KeyRow>,
    primaries: Vec<(OwnerRef, KeyId)>,
}

impl KeyRows for Kept {
    fn by_id(&self, id: &KeyId) -> Answer<Option<KeyRow>> {
        Ok(self.rows.get(id).cloned())
    }

    fn by_digest(&self, digest: &KeyDigest) -> Answer<Option<KeyRow>> {
        let has_it = |row: &&KeyRow| row.digests().any(|own| own == digest);
        Ok(self.rows.values().find(has_it).cloned())
    }

    fn records(&self, of: Option<&OwnerRef>) -> Answer<Vec<Arc<KeyRecord>>> {
        let rows = self.rows.values().filter(|row| !row.deleted);
        let own = rows.filter(|row| of.is_none_or(|owner| owner.includes(&row.record)));
        Ok(own.map(|row| Arc::clone(&row.record)).collect())
    }

    fn primary_set(&self, owner: &OwnerRef) -> Answer<Option<KeyId>> {
        let mut all = self.primaries.iter();
        Ok(all.find(|(of, _)| of == owner).map(|(_, key)| key.clone()))
    }

    fn put(&mut self, row: KeyRow) -> Answer<()> {
        self.rows.insert(row.record.id.clone(), row);
        Ok(())
    }

    fn put_primary(&mut self, owner: &OwnerRef, key: Option<KeyId>) -> Answer<()> {
        self.primaries.retain(|(of, _)| of != owner);
        self.primaries.extend(key.map(|key| (owner.clone(), key)));
        Ok(())
    }
}

/// The store. Clones share the file. Reads never wait for the disk.
#[derive(Debug, Clone)]
pub(crate) struct FileStore {
    file: Arc<Mutex<PathBuf>>,
    kept: Arc<RwLock<Kept>>,
}

impl FileStore {
    /// Opens the store of this file, which is empty if the file does not exist yet.
    pub(crate) fn open(path: &Path) -> Answer<Self> {
        let kept = match fs::read(path) {
            // Report the position only: the values may be secrets.
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| StoreError::corrupt(format!("column {}", error.column())))?,
            Err(error) if error.kind() == ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(StoreError::unavailable(error)),
        };
        Ok(Self {
            file: Arc::new(Mutex::new(path.to_owned())),
            kept: Arc::new(RwLock::new(kept)),
        })
    }

    /// Edits a copy, writes it to disk, and only then publishes it to readers: all or nothing.
    async fn write<T: Send + 'static>(
        &self,
        edit: impl FnOnce(&mut Kept) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let this = self.clone();
        let work = move || {
            let (path, mut kept) = (this.file.lock(), Kept::clone(&this.kept.read()));
            let done = edit(&mut kept)?;
            save(&path, &kept).map_err(StoreError::unavailable)?;
            *this.kept.write() = kept;
            Ok(done)
        };
        let worked = tokio::task::spawn_blocking(work).await;
        worked.map_err(StoreError::unavailable)?
    }
}

/// Replaces the file atomically: after a crash, either the old or the new one is there in full.
fn save(path: &Path, kept: &Kept) -> Result<(), Box<dyn Error + Send + Sync>> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(&serde_json::to_vec(kept)?)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    Ok(File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?)
}

#[async_trait]
impl KeyLookup for FileStore {
    async fn find(&self, digests: &[KeyDigest]) -> Answer<Option<Arc<StoredKey>>> {
        self.kept.read().find(digests)
    }
}

#[async_trait]
impl KeyStore for FileStore {
    async fn get(&self, id: &KeyId) -> Answer<Option<Arc<KeyRecord>>> {
        Ok(self.kept.read().live(id)?.map(|row| row.record))
    }

    async fn list(&self, query: &ListQuery) -> Answer<Page> {
        self.kept.read().list(query)
    }

    async fn primaries(&self, owners: &[OwnerRef], at: SystemTime) -> Answer<Vec<Option<KeyId>>> {
        self.kept.read().primaries(owners, at)
    }

    async fn apply(&self, batch: &WriteBatch) -> Answer<()> {
        let batch = batch.clone();
        self.write(move |kept| kept.apply(&batch)).await
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
    async fn signing_state(&self, id: &KeyId) -> Answer<Option<SigningState>> {
        Ok(self.kept.read().live(id)?.and_then(|row| row.signing))
    }
}

#[async_trait]
impl UsageStore for FileStore {
    async fn record_usage(&self, batch: &[UsageDelta]) -> Answer<()> {
        let batch = batch.to_vec();
        self.write(move |kept| kept.record_usage(&batch)).await
    }

    async fn usage_of(&self, ids: &[KeyId]) -> Answer<Vec<Usage>> {
        self.kept.read().usage_of(ids)
    }

    async fn usage_by_hour(
        &self,
        id: &KeyId,
        from: SystemTime,
        to: SystemTime,
    ) -> Answer<UsageByHour> {
        self.kept.read().usage_by_hour(id, from, to)
    }

    async fn forget_usage_before(&self, before: SystemTime) -> Answer<u64> {
        self.write(move |kept| kept.forget_usage_before(before))
            .await
    }
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("keys.json");
    let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32);
    let keys = Portunus::builder(format.build()?).store(FileStore::open(&path)?);
    let new = NewKey::new("first key", Owner::tenant("tenant-1".parse()?));
    let issued = keys.build()?.manager().issue(new).await?;
    // Reads the file again, as another process would.
    let known = FileStore::open(&path)?.get(&issued.record.id).await?;
    assert_eq!(known, Some(issued.record));
    Ok(())
}
