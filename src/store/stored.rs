//! A key as lookups return it.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::key::{KeyDigest, KeyId, KeyRecord};

/// A key as a store returns it to the authenticator: its record and the digest under which it was
/// found.
///
/// A store that keeps keys in memory should return the same `Arc` until the key changes, because
/// values compiled from the record are cached inside.
pub struct StoredKey {
    digest: KeyDigest,
    record: Arc<KeyRecord>,
    compiled: Compiled,
    others: Box<[KeyId]>,
    /// The same key without `others`; it holds the compiled values.
    alone: Option<Arc<StoredKey>>,
}

impl StoredKey {
    /// Creates a key with its stored digest.
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

    /// Sets the other keys that the secret's match depends on. For stores that do not end their
    /// lookups with [`of_one_secret`](Self::of_one_secret).
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

    /// Returns the other keys on which this answer depends, in no order. These are the keys of the
    /// same tenant that have one of the queried digests, or had it before their current one; and
    /// the keys of any tenant that formerly had a digest that precedes the first one that belongs
    /// to a key. When one of them is revoked, deleted or given another digest, the secret may match
    /// another key or none.
    ///
    /// The list is empty unless one secret was imported under several digests.
    #[must_use]
    pub fn others(&self) -> &[KeyId] {
        &self.others
    }

    /// Returns the stored digest.
    #[must_use]
    pub fn digest(&self) -> &KeyDigest {
        &self.digest
    }

    /// Returns the record.
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

/// The values that authenticators have compiled from one record: a short list that only grows. Each
/// entry is tagged with its authenticator, so that two authenticators that share a store never use
/// each other's values.
#[derive(Default)]
pub(crate) struct Compiled {
    first: OnceLock<CompiledFor>,
}

struct CompiledFor {
    tag: u64,
    value: Arc<dyn Any + Send + Sync>,
    /// The values of further authenticators.
    rest: OnceLock<Box<Compiled>>,
}

/// Beyond this number of authenticators per key, values are compiled on every request.
const MOST_COMPILED: usize = 8;

impl Compiled {
    /// Returns the value with this tag, or makes it.
    pub(crate) fn get_or_try_make<T: Send + Sync + 'static, E>(
        &self,
        tag: u64,
        make: impl FnOnce() -> Result<Arc<T>, E>,
    ) -> Result<Arc<T>, E> {
        let mut place = self;
        for _ in 0..MOST_COMPILED {
            let Some(entry) = place.first.get() else {
                let value = make()?;
                let entry = CompiledFor {
                    tag,
                    value: Arc::clone(&value) as _,
                    rest: OnceLock::new(),
                };
                // If another thread was faster, its entry stays and this value is used once.
                let _ = place.first.set(entry);
                return Ok(value);
            };
            if entry.tag == tag
                && let Ok(value) = Arc::clone(&entry.value).downcast::<T>()
            {
                return Ok(value);
            }
            place = entry.rest.get_or_init(Box::default);
        }
        make()
    }
}
