//! A key as lookups return it, with what authenticators compile from its record: what a request with
//! a known key reads, in as few places of memory as possible.

#[cfg(any(test, feature = "testing"))]
mod bare;
mod compiled;
mod limits;
mod settings;
mod usage;

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use crate::key::{KeyDigest, KeyId, KeyRecord};
use crate::limit::{PlanLimits, PolicySource};

pub(crate) use compiled::KeyEntry;
use limits::Rare;
pub(crate) use limits::{Charge, Charger, Counted};
pub(crate) use settings::{Common, CompiledSettings, KeyFacts, SharedSettings};
use usage::UsageCell;

/// A key as a store returns it to the authenticator: its record and the digest under which it was
/// found.
///
/// A store that keeps keys in memory should return the same `Arc` until the key changes, because
/// values compiled from the record are cached inside.
pub struct StoredKey {
    digest: KeyDigest,
    record: Arc<KeyRecord>,
    /// What the first authenticator that used the key has compiled. It is here, and not elsewhere in
    /// memory, because each request reads it.
    compiled: OnceLock<KeyEntry>,
    beside: Option<Box<Beside>>,
}

/// The dependencies of a key that few keys have.
struct Beside {
    others: Box<[KeyId]>,
    /// The same key without others; it holds the compiled values.
    alone: Option<Arc<StoredKey>>,
}

/// Beyond this number of authenticators per key, values are compiled on every request.
const MOST_COMPILED: usize = 8;

impl StoredKey {
    /// Creates a key with its stored digest.
    #[must_use]
    pub fn new(digest: KeyDigest, record: impl Into<Arc<KeyRecord>>) -> Self {
        Self {
            digest,
            record: record.into(),
            compiled: OnceLock::new(),
            beside: None,
        }
    }

    /// Sets the other keys that the secret's match depends on. For stores that do not end their
    /// lookups with [`of_one_secret`](Self::of_one_secret).
    #[must_use]
    pub fn with_others(self, others: impl Into<Box<[KeyId]>>) -> Self {
        let others = others.into();
        let beside = Beside {
            others,
            alone: None,
        };
        Self {
            beside: Some(Box::new(beside)),
            ..self
        }
    }

    pub(crate) fn beside(key: &Arc<Self>, others: Vec<KeyId>) -> Self {
        let beside = Beside {
            others: others.into(),
            alone: Some(Arc::clone(key.alone())),
        };
        Self {
            beside: Some(Box::new(beside)),
            ..Self::new(key.digest, Arc::clone(&key.record))
        }
    }

    fn alone(self: &Arc<Self>) -> &Arc<Self> {
        let beside = self.beside.as_ref();
        beside
            .and_then(|beside| beside.alone.as_ref())
            .unwrap_or(self)
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
        self.beside.as_ref().map_or(&[], |beside| &beside.others)
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

    /// Returns the key with the values of an authenticator, which are compiled at its first use.
    #[inline]
    pub(crate) fn compiled<E>(
        self: Arc<Self>,
        by: &Arc<Common>,
        compile: impl Fn(&Self) -> Result<KeyEntry, E>,
    ) -> Result<Entry, (E, Arc<Self>)> {
        // The usual case takes no further reference.
        if self.beside.is_none() && self.compiled.get().is_some_and(|entry| entry.is_by(by)) {
            return Ok(Entry(self));
        }
        let entry = self.place_of(by, compile);
        entry.map_err(|error| (error, self))
    }

    /// Returns the copy of the key that holds the values of an authenticator, or makes it.
    fn place_of<E>(
        self: &Arc<Self>,
        by: &Arc<Common>,
        compile: impl Fn(&Self) -> Result<KeyEntry, E>,
    ) -> Result<Entry, E> {
        let mut place = self.alone();
        for _ in 0..MOST_COMPILED {
            let compiled = match place.compiled.get() {
                Some(compiled) => compiled,
                None => {
                    // If another thread was faster, its values stay.
                    let compiled = compile(place)?;
                    place.compiled.get_or_init(|| compiled)
                }
            };
            if compiled.is_by(by) {
                return Ok(Entry(Arc::clone(place)));
            }
            place = compiled.next().get_or_init(|| Arc::new(place.again()));
        }
        Ok(Entry::new(place.again(), compile(place)?))
    }

    fn again(&self) -> Self {
        Self::new(self.digest, Arc::clone(&self.record))
    }
}

impl PolicySource for StoredKey {
    fn limits(&self) -> &PlanLimits {
        match self.compiled.get() {
            Some(compiled) => compiled.limits(),
            None => PlanLimits::none(),
        }
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

/// A key with the values that an authenticator has compiled from its record.
#[derive(Debug, Clone)]
pub(crate) struct Entry(Arc<StoredKey>);

impl Entry {
    pub(crate) fn new(key: StoredKey, compiled: KeyEntry) -> Self {
        let compiled = OnceLock::from(compiled);
        Self(Arc::new(StoredKey { compiled, ..key }))
    }

    pub(crate) fn key(&self) -> &StoredKey {
        &self.0
    }

    /// Returns the source of the limits in the entry.
    pub(crate) fn policies(&self) -> Arc<dyn PolicySource> {
        Arc::clone(&self.0) as _
    }
}

impl Deref for Entry {
    type Target = KeyEntry;

    #[inline]
    fn deref(&self) -> &KeyEntry {
        match self.0.compiled.get() {
            Some(compiled) => compiled,
            None => unreachable!("an entry is only made of a key with compiled values"),
        }
    }
}
