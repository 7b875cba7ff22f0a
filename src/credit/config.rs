//! The builder's group for credits.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use super::CreditStore;
use crate::request::RequestHead;

pub(crate) type CreditCost = dyn Fn(&dyn RequestHead) -> u64 + Send + Sync;

/// Who pays for a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Payer {
    Key,
    User,
    Tenant,
}

/// Credits of a service: who pays for a request, and how much.
///
/// Each node takes units from the store in blocks, spends them in memory, and reports what it used
/// at least once a second ([`Portunus::run`](crate::Portunus)). Spending never exceeds what was
/// granted. Of a node that crashes, what it had taken and not reported counts as used: at most one
/// block of each account.
///
/// Units are taken after the rate limits admit the request, and given back if a later step refuses
/// it: the authenticator, a requirement of the route, or a handler that answers with an
/// [`AuthError`](crate::AuthError). A request that cannot be paid is refused with
/// `CREDITS_EXHAUSTED`. Requests without a key cost nothing.
///
/// ```
/// use portunus::Limits;
/// use portunus::credit::{Credits, MemoryCreditStore};
///
/// let credits = Credits::per_tenant(MemoryCreditStore::new())
///     .cost(|request| if request.path() == "/reports" { 10 } else { 1 })
///     .block(500.try_into()?);
/// # Ok::<(), std::num::TryFromIntError>(())
/// ```
#[derive(Clone)]
#[must_use = "credits do nothing until they are given to a builder"]
pub struct Credits {
    pub(super) store: Arc<dyn CreditStore>,
    pub(super) payer: Payer,
    pub(super) block: NonZeroU64,
    pub(crate) cost: Option<Arc<CreditCost>>,
    pub(crate) payment_required: bool,
    /// In percent.
    pub(crate) notices: Vec<u8>,
    pub(super) entries_kept: Option<Duration>,
}

impl Credits {
    fn new(payer: Payer, store: impl CreditStore) -> Self {
        const BLOCK: NonZeroU64 = NonZeroU64::new(100).unwrap();
        Self {
            store: Arc::new(store),
            payer,
            block: BLOCK,
            cost: None,
            payment_required: false,
            notices: vec![80],
            entries_kept: None,
        }
    }

    /// Each key pays for its requests, together with its successors by rotation.
    pub fn per_key(store: impl CreditStore) -> Self {
        Self::new(Payer::Key, store)
    }

    /// Each user pays for the requests of their keys. For a key that belongs to no user, the tenant
    /// pays.
    pub fn per_user(store: impl CreditStore) -> Self {
        Self::new(Payer::User, store)
    }

    /// Each tenant pays for the requests of its keys.
    pub fn per_tenant(store: impl CreditStore) -> Self {
        Self::new(Payer::Tenant, store)
    }

    /// Sets how many units a request costs. The default is 1; a request that costs 0 takes no
    /// units. The function runs for each request with a well-formed key, even an unknown one.
    pub fn cost(mut self, cost: impl Fn(&dyn RequestHead) -> u64 + Send + Sync + 'static) -> Self {
        self.cost = Some(Arc::new(cost));
        self
    }

    /// Sets how many units a node takes at once: 100 by default. A request waits for the store
    /// only when a block is used up. While a node has units of a block, they are not available to
    /// others; a block that is not used is given back after 30 seconds.
    pub const fn block(mut self, units: NonZeroU64) -> Self {
        self.block = units;
        self
    }

    /// Sets at which use of an account, in percent of its grants, the audit gets an event:
    /// [`Action::CreditLow`](crate::audit::Action::CreditLow). The default is 80; values must be 1 to
    /// 100, others never occur. After each grant and each refill, an event may occur once
    /// ([guide](crate::guide::notices)).
    pub fn notices(mut self, percentages: impl IntoIterator<Item = u8>) -> Self {
        let possible = |one: &u8| (1..=100).contains(one);
        self.notices = percentages.into_iter().filter(possible).collect();
        self
    }

    /// Sets how long the entries of ledgers are kept; forever by default. A periodic job deletes older
    /// ones within about an hour, after it has added them to the sums of their grants: the balance
    /// stays explained ([`Balance::forgotten`](super::Balance::forgotten)). What an account has is not
    /// changed.
    ///
    /// Set it once all nodes have a version that knows it: an account of which entries were deleted
    /// cannot be read by earlier ones. The store must support it, as those of this project do.
    pub const fn keep_entries(mut self, age: Duration) -> Self {
        self.entries_kept = Some(age);
        self
    }

    /// Refuses requests that cannot be paid with 402 (Payment Required) instead of 429.
    pub const fn payment_required(mut self) -> Self {
        self.payment_required = true;
        self
    }
}

impl fmt::Debug for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credits")
            .field("store", &self.store)
            .field("payer", &self.payer)
            .field("block", &self.block)
            .finish_non_exhaustive()
    }
}
