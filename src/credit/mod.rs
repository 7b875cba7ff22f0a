//! Credits: units that a key, a user or a tenant may spend.
//!
//! An account has [grants](NewGrant) side by side, such as a monthly allowance, a top-up and a gift.
//! They are spent in the order of their priority, then of their expiry. What is granted, refilled,
//! lapsed, voided and taken is in the account's [ledger](LedgerEntry), whose entries add up to the
//! [balance](Balance).
//!
//! [`Credits`] makes requests cost units. An application keeps its accounts in a [`CreditStore`].

mod accounts;
mod book;
mod config;
mod grant;
mod low;
mod node;
mod period;
mod reservation;
mod state;
mod store;
mod view;
mod walk;

use std::error::Error;
use std::time::{Duration, SystemTime};

pub use accounts::CreditAccounts;
pub use config::Credits;
pub use grant::{CreditAccount, CreditId, NewGrant};
pub(crate) use low::Low;
pub(crate) use node::{Purse, Spending, Spent, Unpaid};
pub use period::Period;
pub use reservation::Reservation;
pub use store::{CreditStore, CreditWrite, MemoryCreditStore, StoredCredits};
pub use view::{Balance, GrantBalance, LedgerEntry, LedgerKind, TakenUnits};

use crate::text::ParseError;

/// Error returned when credits cannot be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreditError {
    /// The store did not answer. Whether a change was made is not known; it can be repeated.
    #[error("the credit store did not answer")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// The stored account cannot be read, or was written by a newer version.
    #[error("the stored credits cannot be read: {0}")]
    Unreadable(String),
    /// The input is invalid.
    #[error(transparent)]
    Invalid(#[from] ParseError),
    /// The account does not have as many units.
    #[error("the account does not have enough credits")]
    Exhausted,
    /// There is no such grant, block or reservation: it never existed, or it has ended.
    #[error("there is no {0} with this id, or it has ended")]
    NotFound(&'static str),
    /// The operation is not possible now.
    #[error("{0}")]
    Conflict(&'static str),
}

impl CreditError {
    /// Creates an `Unavailable` error from its cause.
    pub fn unavailable(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable(source.into())
    }
}

/// Returns an instant in milliseconds since the Unix epoch; 0 for one before it.
fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

fn from_millis(millis: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}
