//! The cells of the in-process limiter by bucket: ids that own their data.

use std::net::IpAddr;
use std::sync::Arc;

use super::BucketId;
use super::local::Cell;
use crate::key::{KeyFamily, TenantId, UserId};

/// A cell, and the bucket that it is of.
pub(super) struct Entry {
    pub(super) id: OwnedId,
    pub(super) class: Option<Box<str>>,
    pub(super) cell: Arc<Cell>,
}

/// A [`BucketId`] that owns its data.
pub(super) enum OwnedId {
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
    pub(super) fn of(id: BucketId<'_>) -> Self {
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

    pub(super) fn as_id(&self) -> BucketId<'_> {
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

impl Entry {
    /// What identifies the bucket.
    pub(super) fn key(&self) -> (BucketId<'_>, Option<&str>) {
        (self.id.as_id(), self.class.as_deref())
    }
}

pub(super) const fn is_of_address(id: BucketId<'_>) -> bool {
    matches!(id, BucketId::Address(_) | BucketId::Anonymous(_))
}
