//! How one node hears that another has changed a key: the trait, and the bus within one process.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{Change, WriteBatch};
use crate::key::{DigestScheme, KeyDigest, KeyId};
use crate::pointer::to_the_pointee;

/// What has changed, for caches to forget. It carries no digest and no secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Invalidation {
    /// Keys whose records or digests changed.
    pub keys: Vec<KeyId>,
    /// Fingerprints ([`fingerprint`](Self::fingerprint)) of digests that are a key's from now on, or
    /// no longer.
    pub known: Vec<u64>,
    /// Whether everything is to be forgotten, because nobody can tell what changed.
    pub everything: bool,
}

impl Invalidation {
    /// What a batch changes.
    #[must_use]
    pub fn of(batch: &WriteBatch) -> Self {
        let mut all = Self::default();
        for change in batch.changes() {
            match change {
                Change::Insert { digest, .. } => all.known.push(Self::fingerprint(digest)),
                Change::Replace(record) => all.keys.push(record.id.clone()),
                // Nobody remembers a signing state; but whoever writes one anew means the key.
                Change::SetSigning { id, .. } => all.keys.push(id.clone()),
                Change::Rehash { id, from, to } => {
                    all.keys.push(id.clone());
                    all.known.extend([from, to].map(Self::fingerprint));
                }
                Change::Delete(id) => all.keys.push(id.clone()),
                Change::SetPrimary { .. } | Change::PinPrimary { .. } => {}
            }
        }
        all
    }

    /// Everything.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            everything: true,
            ..Self::default()
        }
    }

    /// Whether nothing is to be forgotten.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.known.is_empty() && !self.everything
    }

    /// 64 bits that a digest is told apart by here: too few to be of use to anybody else.
    #[must_use]
    pub fn fingerprint(digest: &KeyDigest) -> u64 {
        let scheme = match digest.scheme() {
            DigestScheme::Sha256 => 0,
            DigestScheme::Sha512 => 1,
            DigestScheme::HmacSha256 { pepper } => 2 + u64::from(pepper),
        };
        let bytes = digest.to_bytes();
        // The same on every node, whatever it runs on.
        scheme.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ bytes.as_chunks::<8>().0.iter().fold(0_u64, |all, word| {
                all.rotate_left(7) ^ u64::from_le_bytes(*word)
            })
    }
}

/// Hears what changed: a cache.
pub trait InvalidationListener: Send + Sync + 'static {
    /// Something changed, here or on another node.
    fn invalidated(&self, what: &Invalidation);

    /// Everything that was published more than `age` ago has been heard: what is now known to be
    /// healthy stays so for the bus's own deadline. A bus says so again and again while it is, and
    /// proves it by a message of its own that came back; one that [never
    /// misses](InvalidationBus::is_lossless) anything, once.
    fn caught_up(&self, age: Duration);
}

/// Tells all nodes what changed. `Arc` and `Box` of a bus are buses.
///
/// # What an implementation promises
/// - Whatever was published, on any node, is heard by every listener, also on the node that
///   published it, or the bus stops saying [`caught_up`](InvalidationListener::caught_up) there.
/// - After messages may have been missed (a connection was made anew), listeners hear
///   [`Invalidation::everything`] before the next `caught_up`.
#[async_trait]
pub trait InvalidationBus: fmt::Debug + Send + Sync + 'static {
    /// Lets a listener hear from now on, until it is dropped. Where something may be missed before
    /// it hears, it hears [`Invalidation::everything`] first.
    fn subscribe(&self, listener: Weak<dyn InvalidationListener>);

    /// Tells every node. A bus whose store tells them in the transaction of the write itself has
    /// nothing to do here.
    ///
    /// # Errors
    /// Where it cannot be told; it must be tried again.
    async fn publish(&self, what: &Invalidation) -> Result<(), BusError>;

    /// Whether the store tells every node in the transaction of each write, so that nothing is
    /// published besides; `false` unless this is said.
    fn store_publishes(&self) -> bool {
        false
    }

    /// Whether nothing can ever be missed, so that one proof of health is enough for good; `false`
    /// unless this is said.
    fn is_lossless(&self) -> bool {
        false
    }
}

/// A bus could not tell.
#[derive(Debug, thiserror::Error)]
#[error("other nodes could not be told of a change")]
pub struct BusError(#[source] Box<dyn Error + Send + Sync>);

impl BusError {
    /// It could not, and why.
    pub fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

/// A bus for several caches in one process, where no other process writes. Cloning shares it.
#[derive(Clone, Default)]
pub struct LocalBus {
    listeners: Arc<Mutex<Vec<Weak<dyn InvalidationListener>>>>,
}

impl LocalBus {
    /// A bus that nobody listens to yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl InvalidationBus for LocalBus {
    fn subscribe(&self, listener: Weak<dyn InvalidationListener>) {
        if let Some(listener) = listener.upgrade() {
            // Within one process nothing is ever missed.
            listener.caught_up(Duration::ZERO);
        }
        let mut listeners = self.listeners.lock();
        listeners.retain(|known| known.strong_count() > 0);
        listeners.push(listener);
    }

    async fn publish(&self, what: &Invalidation) -> Result<(), BusError> {
        let listeners: Vec<_> = self
            .listeners
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        listeners
            .iter()
            .for_each(|listener| listener.invalidated(what));
        Ok(())
    }

    fn is_lossless(&self) -> bool {
        true
    }
}

impl fmt::Debug for LocalBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalBus({} listeners)", self.listeners.lock().len())
    }
}

to_the_pointee! {
    InvalidationBus {
        async fn publish(&self, what: &Invalidation) -> Result<(), BusError>;
        fn subscribe(&self, listener: Weak<dyn InvalidationListener>);
        fn store_publishes(&self) -> bool;
        fn is_lossless(&self) -> bool;
    }
}
