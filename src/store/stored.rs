//! A key as look-ups answer it.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::key::{KeyDigest, KeyId, KeyRecord};

/// A key as a store returns it to the authenticator: its record and the digest it was found under.
///
/// Stores that keep keys in memory should hand out the same `Arc` until the key changes: what has
/// been compiled for it is kept inside.
pub struct StoredKey {
    digest: KeyDigest,
    record: Arc<KeyRecord>,
    compiled: Compiled,
    others: Box<[KeyId]>,
    /// The same key without the others, which has what was compiled.
    alone: Option<Arc<StoredKey>>,
}

impl StoredKey {
    /// A key with the digest that is stored for it.
    #[must_use]
    pub fn new(digest: KeyDigest, record: impl Into<Arc<KeyRecord>>) -> Self {
        Self {
            digest,
            record: record.into(),
            compiled: Compiled::default(),
            others: Box::default(),
            alone: None,
        }
    }

    /// The same key, beside these others that its secret has: for a store that does not end its
    /// look-ups with [`of_one_secret`](Self::of_one_secret).
    #[must_use]
    pub fn with_others(mut self, others: impl Into<Box<[KeyId]>>) -> Self {
        self.others = others.into();
        self
    }

    pub(super) fn beside(key: &Arc<Self>, others: Vec<KeyId>) -> Self {
        let alone = key.alone.as_ref().unwrap_or(key);
        Self {
            alone: Some(Arc::clone(alone)),
            ..Self::new(key.digest, Arc::clone(&key.record)).with_others(others)
        }
    }

    /// The other keys on which it depends that the secret has this one, in no order: those of the
    /// same tenant that have one of the digests that were asked for, or had it before their present
    /// one; and those of any tenant that had a digest before the first that is a key's. When one of
    /// them is revoked, deleted or given another digest, the secret may have another key or none.
    ///
    /// There are none, unless one secret was imported under several digests.
    #[must_use]
    pub fn others(&self) -> &[KeyId] {
        &self.others
    }

    /// The stored digest.
    #[must_use]
    pub fn digest(&self) -> &KeyDigest {
        &self.digest
    }

    /// The record.
    #[must_use]
    pub fn record(&self) -> &Arc<KeyRecord> {
        &self.record
    }

    pub(crate) fn compiled(&self) -> &Compiled {
        self.alone.as_deref().map_or(&self.compiled, Self::compiled)
    }
}

impl fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredKey")
            .field("digest", &self.digest)
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

/// What authenticators have compiled from one record: a short list that only grows, each entry
/// tagged by who made it, so that two authenticators on one store never take each other's.
#[derive(Default)]
pub(crate) struct Compiled {
    first: OnceLock<Box<CompiledFor>>,
}

struct CompiledFor {
    tag: u64,
    value: Arc<dyn Any + Send + Sync>,
    next: OnceLock<Box<CompiledFor>>,
}

/// More authenticators than this on one key compile per request.
const MOST_COMPILED: usize = 8;

impl Compiled {
    /// The value made under this tag, made now if there is none.
    pub(crate) fn get_or_try_make<T: Send + Sync + 'static, E>(
        &self,
        tag: u64,
        make: impl FnOnce() -> Result<Arc<T>, E>,
    ) -> Result<Arc<T>, E> {
        let mut place = &self.first;
        for _ in 0..MOST_COMPILED {
            match place.get() {
                Some(entry) if entry.tag == tag => {
                    if let Ok(value) = Arc::clone(&entry.value).downcast::<T>() {
                        return Ok(value);
                    }
                    place = &entry.next;
                }
                Some(entry) => place = &entry.next,
                None => {
                    let value = make()?;
                    let entry = CompiledFor {
                        tag,
                        value: Arc::clone(&value) as _,
                        next: OnceLock::new(),
                    };
                    // Somebody else may have been quicker: their entry stays, this value is used
                    // once.
                    let _ = place.set(Box::new(entry));
                    return Ok(value);
                }
            }
        }
        make()
    }
}
