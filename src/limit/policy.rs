//! A limit: who is counted, and the quotas.

use crate::quota::{Quota, Quotas};
use crate::text::ParseError;

/// Who is counted by a [`LimitPolicy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CountedBy {
    /// Each key, together with its successors by rotation.
    Key,
    /// Each user, by the owner of the key, over all keys of the user. Keys that belong to a tenant
    /// and not to a user are not counted.
    User,
    /// Each tenant, over all its keys.
    Tenant,
    /// Each client address: the IPv4 address, or the /64 of an IPv6 address.
    Address,
    /// All requests together.
    Shared,
}

/// A limit: who is counted, and how many requests are admitted in each window.
///
/// Which requests are counted is said where the policy is added: [`Limits`](crate::Limits) and
/// [`Plan`](super::Plan) take policies for all requests and for a class of requests. A request is
/// admitted by all policies that apply to it, or by none of them.
///
/// Requests are counted once their key is authenticated, or once they pass as anonymous; what is
/// refused before counts against the [lookup budget](super::LookupBudget) only.
///
/// Response fields and refusals show each quota by a name, made of the class, who is counted and the
/// window: `minute` for the quota per minute of a key, `tenant-minute`, `reports-hour`,
/// `reports-user-hour`, `anonymous-minute`. A name given to [`Quota::new`] other than `minute` and
/// `hour` is shown as it is. `unknown-` stands before the name of a quota per address if the address
/// is not known (`unknown-address-minute`).
#[derive(Debug, Clone)]
#[must_use = "a policy does nothing until it is added to Limits or a Plan"]
pub struct LimitPolicy {
    pub(super) counted: CountedBy,
    pub(super) anonymous: bool,
    /// `None` for no limit.
    pub(super) quotas: Option<Result<Quotas, ParseError>>,
    /// The quotas of requests without a known address, if they differ.
    pub(super) unknown: Option<Result<Quotas, ParseError>>,
}

type Given<'q> = &'q mut dyn Iterator<Item = Result<Quota, ParseError>>;

impl LimitPolicy {
    fn counting(counted: CountedBy, quotas: Given<'_>) -> Self {
        Self {
            counted,
            anonymous: false,
            quotas: Some(all(quotas)),
            unknown: None,
        }
    }

    /// Limits each key, together with its successors by rotation. An invalid quota is reported when
    /// the service is built; the same holds for the other constructors.
    pub fn per_key(quotas: impl IntoIterator<Item = Result<Quota, ParseError>>) -> Self {
        Self::counting(CountedBy::Key, &mut quotas.into_iter())
    }

    /// Limits each user, by the owner of the key, over all keys of the user.
    pub fn per_user(quotas: impl IntoIterator<Item = Result<Quota, ParseError>>) -> Self {
        Self::counting(CountedBy::User, &mut quotas.into_iter())
    }

    /// Limits each tenant, over all its keys.
    pub fn per_tenant(quotas: impl IntoIterator<Item = Result<Quota, ParseError>>) -> Self {
        Self::counting(CountedBy::Tenant, &mut quotas.into_iter())
    }

    /// Limits each client address, with or without a key: the IPv4 address, or the /64 of an IPv6
    /// address.
    ///
    /// Requests without a known address are counted together, as if they came from one address
    /// (`unknown-address-…`): with these quotas, or those of
    /// [`without_address`](Self::without_address).
    pub fn per_address(quotas: impl IntoIterator<Item = Result<Quota, ParseError>>) -> Self {
        Self::counting(CountedBy::Address, &mut quotas.into_iter())
    }

    /// Limits all requests together.
    pub fn shared(quotas: impl IntoIterator<Item = Result<Quota, ParseError>>) -> Self {
        Self::counting(CountedBy::Shared, &mut quotas.into_iter())
    }

    /// Says that there is no limit for those counted in this way. In a plan, it removes the limit
    /// that would apply without the plan.
    pub const fn unlimited(counted: CountedBy) -> Self {
        Self {
            counted,
            anonymous: false,
            quotas: None,
            unknown: None,
        }
    }

    /// Counts only requests without a key: those that pass as anonymous where a key is optional, and
    /// those to public routes of a `ProtectedRouter`. For policies per address and shared ones.
    pub const fn anonymous(mut self) -> Self {
        self.anonymous = true;
        self
    }

    /// Sets the quotas of all requests without a known address together, for a policy per address.
    pub fn without_address(
        mut self,
        quotas: impl IntoIterator<Item = Result<Quota, ParseError>>,
    ) -> Self {
        self.unknown = Some(all(&mut quotas.into_iter()));
        self
    }
}

pub(super) fn all(quotas: Given<'_>) -> Result<Quotas, ParseError> {
    Quotas::new(quotas.collect::<Result<Vec<_>, _>>()?)
}
