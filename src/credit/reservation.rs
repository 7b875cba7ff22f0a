//! Reservations: units for a request whose cost is known only afterwards.

use super::{CreditAccount, CreditAccounts, CreditError, CreditId};

/// Units that are reserved for a request whose cost is known only afterwards.
///
/// A reservation that is dropped, because its handler failed or its client has gone, is released by
/// the service's periodic job within a second; one of [`CreditAccounts`] without a service, at its
/// end.
#[derive(Debug)]
#[must_use = "a dropped reservation is released"]
pub struct Reservation {
    accounts: CreditAccounts,
    account: CreditAccount,
    id: CreditId,
    /// How many units were used, as far as it is known: what a dropped reservation is settled with.
    used: Option<u64>,
}

impl Reservation {
    pub(super) const fn new(
        accounts: CreditAccounts,
        account: CreditAccount,
        id: CreditId,
    ) -> Self {
        Self {
            accounts,
            account,
            id,
            used: Some(0),
        }
    }

    /// Returns the id.
    #[must_use]
    pub const fn id(&self) -> &CreditId {
        &self.id
    }

    /// Settles the reservation: this many units were used, and the others come back. Returns how
    /// many came back. If the future is dropped, the periodic job settles it.
    ///
    /// # Errors
    /// As for [`CreditAccounts::settle`].
    pub async fn settle(mut self, used: u64) -> Result<u64, CreditError> {
        self.used = Some(used);
        let settled = self.accounts.settle(&self.account, &self.id, used).await;
        // A store that did not answer is asked again by the periodic job.
        if !matches!(settled, Err(CreditError::Unavailable(_))) {
            self.used = None;
        }
        settled
    }

    /// Keeps the reservation, to be settled by its id later, possibly on another node.
    #[must_use]
    pub fn into_id(mut self) -> CreditId {
        self.used = None;
        self.id.clone()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(used) = self.used {
            self.accounts.settle_later(&self.account, &self.id, used);
        }
    }
}
