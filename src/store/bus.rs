//! Cache invalidation between nodes: the bus trait, and a bus for one process.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::lock::Mutex;
use async_trait::async_trait;

use super::{Change, WriteBatch};
use crate::key::{DigestScheme, KeyDigest, KeyId, TenantId};
use crate::pointer::to_the_pointee;

/// A change that caches must drop from their entries. It carries no digest and no secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Invalidation {
    /// Ids of the keys whose record or digest changed.
    pub keys: Vec<KeyId>,
    /// Fingerprints ([`fingerprint`](Self::fingerprint)) of digests that a key gained or lost.
    pub known: Vec<u64>,
    /// The tenants that changed ([`Portunus::tenant_changed`](crate::Portunus::tenant_changed)).
    pub tenants: Vec<TenantId>,
    /// Whether everything must be dropped, because what changed is unknown.
    pub everything: bool,
}

impl Invalidation {
    /// Returns the invalidation for a batch's changes.
    #[must_use]
    pub fn of(batch: &WriteBatch) -> Self {
        let mut all = Self::default();
        for change in batch.changes() {
            match change {
                Change::Insert { digest, .. } => all.known.push(Self::fingerprint(digest)),
                Change::Replace(record) => all.keys.push(record.id.clone()),
                // Signing states are not cached, but writing one is a change of the key.
                Change::SetSigning { id, .. } => all.keys.push(id.clone()),
                Change::Rehash { id, from, to } => {
                    all.keys.push(id.clone());
                    all.known.extend([from, to].map(Self::fingerprint));
                }
                Change::Delete(id) => all.keys.push(id.clone()),
                Change::SetPrimary { .. }
                | Change::PinPrimary { .. }
                | Change::AddUsage(_)
                | Change::Bulk(_) => {}
            }
        }
        all
    }

    /// Returns an invalidation of everything.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            everything: true,
            ..Self::default()
        }
    }

    /// Returns whether nothing is invalidated.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.known.is_empty() && self.tenants.is_empty() && !self.everything
    }

    /// Returns a 64-bit fingerprint of a digest. It identifies the digest to caches and is too
    /// short to be useful for anything else.
    #[must_use]
    pub fn fingerprint(digest: &KeyDigest) -> u64 {
        let scheme = match digest.scheme() {
            DigestScheme::Sha256 => 0,
            DigestScheme::Sha512 => 1,
            DigestScheme::HmacSha256 { pepper } => 2 + u64::from(pepper),
        };
        let bytes = digest.to_bytes();
        // Must be the same on every node, regardless of platform.
        scheme.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ bytes.as_chunks::<8>().0.iter().fold(0_u64, |all, word| {
                all.rotate_left(7) ^ u64::from_le_bytes(*word)
            })
    }
}

/// A listener for invalidations; implemented by caches.
pub trait InvalidationListener: Send + Sync + 'static {
    /// Called when something changed, on this node or on another one.
    fn invalidated(&self, what: &Invalidation);

    /// Called when everything that was published before the moment `as_of` has been delivered to
    /// this listener. The listener then counts as healthy until its own deadline, counted from that
    /// moment: usually the one at which the bus sent the message that has now come back.
    /// A bus calls this repeatedly while it is healthy, after a message of its own has come back. A
    /// [lossless](InvalidationBus::is_lossless) bus calls it once. Any other healthy bus
    /// calls it so often that each moment is covered within the staleness bound of the caches. Only
    /// the first call may take longer, because the bus may have to connect.
    fn caught_up(&self, as_of: Instant);
}

/// Publishes changes to all nodes. `Arc` and `Box` of a bus are buses.
///
/// # What an implementation promises
/// - Every listener, including those on the publishing node, receives everything that was published
///   on any node. If that cannot be guaranteed for a listener, the bus stops calling
///   [`caught_up`](InvalidationListener::caught_up) on it.
/// - After messages may have been missed (for example after a reconnect), listeners receive
///   [`Invalidation::everything`] before the next `caught_up`.
/// - A change arrives complete, however many keys and fingerprints it has: in one call, in several,
///   or as [`Invalidation::everything`]. No key or fingerprint arrives that was not published.
/// - A listener that panics does not make `caught_up` wrong for other listeners. The bus may stop
///   calling `caught_up` on them.
#[async_trait]
pub trait InvalidationBus: fmt::Debug + Send + Sync + 'static {
    /// Subscribes a listener until it is dropped. If messages may be missed before the subscription
    /// is active, the listener first receives [`Invalidation::everything`]. The bus does not keep
    /// the listener alive, and a listener that is dropped, even before this call, affects no other.
    fn subscribe(&self, listener: Weak<dyn InvalidationListener>);

    /// Publishes a change to every node. The cache does not call it for writes of a
    /// store that publishes in the transaction of the write itself
    /// ([`store_publishes`](Self::store_publishes)).
    ///
    /// # Errors
    /// Returns an error if the change could not be published; the caller must retry.
    async fn publish(&self, what: &Invalidation) -> Result<(), BusError>;

    /// Returns whether the store publishes each change in the transaction of the write, so that
    /// nothing else needs to be published. Defaults to `false`.
    fn store_publishes(&self) -> bool {
        false
    }

    /// Returns whether no message can ever be missed, so that one proof of health lasts for good.
    /// Defaults to `false`.
    fn is_lossless(&self) -> bool {
        false
    }
}

/// Error returned when a bus cannot publish a change.
#[derive(Debug, thiserror::Error)]
#[error("failed to publish a change to other nodes")]
pub struct BusError(#[source] Box<dyn Error + Send + Sync>);

impl BusError {
    /// Creates an error with its cause.
    pub fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

/// An [`InvalidationBus`] for the caches of one process, for use when no other process writes to
/// the store. Cloning shares the listeners.
#[derive(Clone, Default)]
pub struct LocalBus {
    listeners: Arc<Mutex<Vec<Weak<dyn InvalidationListener>>>>,
}

impl LocalBus {
    /// Creates a bus without listeners.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl InvalidationBus for LocalBus {
    fn subscribe(&self, listener: Weak<dyn InvalidationListener>) {
        if let Some(listener) = listener.upgrade() {
            // Delivery within one process is lossless.
            listener.caught_up(Instant::now());
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
