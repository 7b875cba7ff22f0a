//! The cells of the in-process limiter by bucket: ids that own their data.

use std::net::IpAddr;

use crate::lock::Mutex;

use super::cell::State;
use super::{BucketId, LimitBucket};
use crate::key::{KeyFamily, TenantId, UserId};

/// One bucket. The usual request reads only the beginning.
#[repr(C)]
pub(super) struct Cell {
    pub(super) state: Mutex<State>,
    name: Name,
}

/// The bucket that a cell is of.
enum Name {
    /// A key's, for requests of all classes: the usual one takes no more memory.
    Key(KeyFamily),
    Other(Box<(OwnedId, Option<Box<str>>)>),
}

impl Cell {
    pub(super) fn new(bucket: &LimitBucket<'_>, state: State) -> Self {
        let name = match (bucket.id, bucket.class) {
            (BucketId::Family(family), None) => Name::Key(family.clone()),
            (id, class) => Name::Other(Box::new((OwnedId::of(id), class.map(Into::into)))),
        };
        Self {
            state: Mutex::new(state),
            name,
        }
    }

    pub(super) fn id(&self) -> BucketId<'_> {
        match &self.name {
            Name::Key(family) => BucketId::Family(family),
            Name::Other(other) => other.0.as_id(),
        }
    }

    pub(super) fn class(&self) -> Option<&str> {
        match &self.name {
            Name::Key(_) => None,
            Name::Other(other) => other.1.as_deref(),
        }
    }

    pub(super) fn is_of(&self, bucket: &LimitBucket<'_>) -> bool {
        (self.id(), self.class()) == (bucket.id, bucket.class)
    }
}

/// A [`BucketId`] that owns its data.
enum OwnedId {
    Family(KeyFamily),
    User(TenantId, UserId),
    Tenant(TenantId),
    Address(Option<IpAddr>),
    Anonymous(Option<IpAddr>),
    Shared,
    AnonymousShared,
    Custom(Box<str>),
}

impl OwnedId {
    fn of(id: BucketId<'_>) -> Self {
        match id {
            BucketId::Family(family) => Self::Family(family.clone()),
            BucketId::User(tenant, user) => Self::User(tenant.clone(), user.clone()),
            BucketId::Tenant(tenant) => Self::Tenant(tenant.clone()),
            BucketId::Address(ip) => Self::Address(ip),
            BucketId::Anonymous(ip) => Self::Anonymous(ip),
            BucketId::Shared => Self::Shared,
            BucketId::AnonymousShared => Self::AnonymousShared,
            BucketId::Custom(name) => Self::Custom(name.into()),
        }
    }

    fn as_id(&self) -> BucketId<'_> {
        match self {
            Self::Family(family) => BucketId::Family(family),
            Self::User(tenant, user) => BucketId::User(tenant, user),
            Self::Tenant(tenant) => BucketId::Tenant(tenant),
            Self::Address(ip) => BucketId::Address(*ip),
            Self::Anonymous(ip) => BucketId::Anonymous(*ip),
            Self::Shared => BucketId::Shared,
            Self::AnonymousShared => BucketId::AnonymousShared,
            Self::Custom(name) => BucketId::Custom(name),
        }
    }
}

pub(super) const fn is_of_address(id: BucketId<'_>) -> bool {
    matches!(id, BucketId::Address(_) | BucketId::Anonymous(_))
}
