//! What a limiter is asked: the buckets of a request, with their quotas.

use std::any::Any;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use super::entry::Cell;
use crate::key::{KeyFamily, TenantId, UserId};
use crate::quota::Quotas;

/// A request to a limiter.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LimitRequest<'a> {
    /// The buckets that the request counts in, with their quotas: at most one of each kind and
    /// class, in the order of the kinds of [`BucketId`], then of the classes.
    pub buckets: &'a [LimitBucket<'a>],
    /// The number of units that the request takes, at least 1.
    pub cost: u64,
    /// Whether the units are counted even if they do not fit: the decision then admits, and the
    /// windows have 0 units left. `false` by default.
    pub overdraw: bool,
    /// The tenant of the key. A limiter on several servers keeps the buckets of a tenant together,
    /// so this must be set for every request of a [family](BucketId::Family), or for none. `None` by
    /// default; other limiters need not look at it.
    pub tenant: Option<&'a TenantId>,
}

impl<'a> LimitRequest<'a> {
    /// Creates a request.
    #[must_use]
    pub const fn new(buckets: &'a [LimitBucket<'a>], cost: u64) -> Self {
        Self {
            buckets,
            cost,
            overdraw: false,
            tenant: None,
        }
    }

    /// Sets the tenant of the key.
    #[must_use]
    pub const fn of_tenant(mut self, tenant: Option<&'a TenantId>) -> Self {
        self.tenant = tenant;
        self
    }

    /// Counts the units even if they do not fit.
    #[must_use]
    pub const fn overdrawing(mut self) -> Self {
        self.overdraw = true;
        self
    }
}

/// A bucket with its current quotas.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LimitBucket<'a> {
    /// Who is counted.
    pub id: BucketId<'a>,
    /// The class of requests that are counted, by name; `None` if all are.
    pub class: Option<&'a str>,
    /// The quotas. They may differ from the last request; units admitted before still count, at
    /// least as far back as the windows of the former quotas reached, whatever the quotas' names.
    pub quotas: &'a Quotas,
    /// A slot in which an in-process limiter can store a pointer to its cell. It does not affect
    /// decisions: the bucket is the same without a slot, or with one that another limiter filled.
    pub slot: Option<&'a LimiterSlot>,
}

impl<'a> LimitBucket<'a> {
    /// Creates a bucket without a class or a slot.
    #[must_use]
    pub const fn new(id: BucketId<'a>, quotas: &'a Quotas) -> Self {
        Self {
            id,
            class: None,
            quotas,
            slot: None,
        }
    }

    /// Sets the class.
    #[must_use]
    pub const fn in_class(mut self, class: &'a str) -> Self {
        self.class = Some(class);
        self
    }

    /// Sets the slot.
    #[must_use]
    pub const fn with_slot(mut self, slot: &'a LimiterSlot) -> Self {
        self.slot = Some(slot);
        self
    }
}

/// Who is counted in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum BucketId<'a> {
    /// A key and its successors by rotation.
    Family(&'a KeyFamily),
    /// All keys of a user.
    User(&'a TenantId, &'a UserId),
    /// All keys of a tenant.
    Tenant(&'a TenantId),
    /// All requests from an IPv4 address or an IPv6 /64, whose other bits are zero. `None` for the
    /// requests without a known address, which are counted together.
    Address(Option<IpAddr>),
    /// Like [`Address`](Self::Address), but only requests without a key.
    Anonymous(Option<IpAddr>),
    /// All requests.
    Shared,
    /// All requests without a key.
    AnonymousShared,
    /// A name chosen by the host, for its own use of a limiter.
    Custom(&'a str),
}

impl BucketId<'_> {
    /// Returns the place of the kind in the order of a request's buckets.
    pub(super) const fn kind(&self) -> u8 {
        match self {
            Self::Family(_) => 0,
            Self::User(..) => 1,
            Self::Tenant(_) => 2,
            Self::Address(_) => 3,
            Self::Anonymous(_) => 4,
            Self::Shared => 5,
            Self::AnonymousShared => 6,
            Self::Custom(_) => 7,
        }
    }
}

/// A slot in the cache entry of a key in which a limiter can store a pointer to its cell, which
/// saves a lookup per request. It holds the pointer of the first limiter that fills it; other
/// limiters have to look up their cells.
#[derive(Default)]
pub struct LimiterSlot {
    filled: OnceLock<(u64, Stored)>,
}

/// What a limiter stores. A cell of the limiter in this crate needs no comparison of types.
enum Stored {
    Cell(Arc<Cell>),
    Other(Arc<dyn Any + Send + Sync>),
}

impl LimiterSlot {
    /// Creates an empty slot.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            filled: OnceLock::new(),
        }
    }

    /// Returns the value that the limiter with this number has stored.
    #[inline]
    #[must_use]
    pub fn get<T: 'static>(&self, limiter: u64) -> Option<&T> {
        match self.filled.get()? {
            (owner, Stored::Other(value)) if *owner == limiter => value.downcast_ref(),
            _ => None,
        }
    }

    /// Returns the cell that the in-process limiter with this number has stored.
    #[inline]
    pub(super) fn cell(&self, limiter: u64) -> Option<&Cell> {
        match self.filled.get()? {
            (owner, Stored::Cell(cell)) if *owner == limiter => Some(cell),
            _ => None,
        }
    }

    /// Stores a pointer, unless the slot is filled. `limiter` is a number that no other limiter in
    /// the process uses.
    pub fn fill(&self, limiter: u64, value: Arc<dyn Any + Send + Sync>) {
        let _ = self.filled.set((limiter, Stored::Other(value)));
    }

    /// Stores a cell, unless the slot is filled.
    pub(super) fn fill_with_cell(&self, limiter: u64, cell: Arc<Cell>) {
        let _ = self.filled.set((limiter, Stored::Cell(cell)));
    }
}

impl fmt::Debug for LimiterSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LimiterSlot(filled: {})", self.filled.get().is_some())
    }
}
