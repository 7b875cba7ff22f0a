//! Operations on accounts: each loads an account, changes it, and saves it unless another node was
//! faster, in which case it starts again.

use std::sync::Arc;
use std::time::Duration;

use super::book::Book;
use super::low::{Low, LowAccounts};
use super::{
    Balance, CreditAccount, CreditError, CreditId, CreditStore, CreditWrite, LedgerEntry, NewGrant,
    Reservation, StoredCredits, millis,
};
use crate::clock::{Clock, SystemClock, within};
use crate::lock::Mutex;
use crate::text::ParseError;

/// Time limit of an operation, however often it starts again.
const LIMIT: Duration = Duration::from_secs(5);

/// The maximum number of times that an operation starts. Of those that are concurrent, one ends each
/// time.
const MOST_ATTEMPTS: usize = 200;

/// The maximum length of a reservation, and of a page of the ledger.
const LONGEST: Duration = Duration::from_secs(31 * 24 * 60 * 60);
const MOST_ENTRIES: usize = 1000;

/// The accounts in a store: grants, balances and reservations, for a host's own code, such as a
/// billing job. Clones share the store.
///
/// Operators use [`KeyManager`](crate::manage::KeyManager) instead, which asks the operator policy
/// and records audit events.
///
/// ```
/// use portunus::credit::{CreditAccount, CreditAccounts, MemoryCreditStore, NewGrant, Period};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let accounts = CreditAccounts::new(MemoryCreditStore::new());
/// let tenant = CreditAccount::Tenant("acme".parse()?);
/// let allowance = NewGrant::new(10_000).refilled(Period::monthly());
/// accounts.grant(&tenant, allowance).await?;
///
/// // An answer whose cost is known only once it was computed:
/// let reserved = accounts.reserve(&tenant, 500, std::time::Duration::from_secs(60)).await?;
/// reserved.settle(120).await?;
/// assert_eq!(accounts.balance(&tenant).await?.available, 9_880);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct CreditAccounts {
    store: Arc<dyn CreditStore>,
    clock: Arc<dyn Clock>,
    /// The reservations that were dropped, with how many of their units were used.
    dropped: Arc<Mutex<Vec<Dropped>>>,
    /// Where accounts are recorded of which the host must be told.
    pub(super) low: Option<Arc<LowAccounts>>,
    /// Whether a change is checked and not saved.
    rehearses: bool,
}

type Dropped = (CreditAccount, CreditId, u64);

/// The maximum number of dropped reservations to remember. Others are released at their end.
const MOST_DROPPED: usize = 10_000;

impl CreditAccounts {
    /// Creates the accounts in a store, with the system's clock.
    pub fn new(store: impl CreditStore) -> Self {
        Self::of(Arc::new(store))
    }

    pub(super) fn of(store: Arc<dyn CreditStore>) -> Self {
        Self {
            store,
            clock: Arc::new(SystemClock::default()),
            dropped: Arc::default(),
            low: None,
            rehearses: false,
        }
    }

    /// Evaluates each changed account: whether the host must be told of it.
    pub(super) fn watching(mut self, percentages: Vec<u8>) -> Self {
        self.low = Some(Arc::new(LowAccounts::new(percentages)));
        self
    }

    /// Checks whether changes could be made, and saves none.
    pub(crate) fn rehearsing(&self) -> Self {
        Self {
            rehearses: true,
            ..self.clone()
        }
    }

    /// Returns some of the accounts of which the host must be told.
    pub(crate) fn low(&self, most: usize) -> Vec<(CreditAccount, Low)> {
        let low = self.low.as_ref();
        low.map_or_else(Vec::new, |accounts| accounts.due(most))
    }

    /// Records in an account that the host was told of it.
    pub(crate) async fn told(&self, account: &CreditAccount, low: Low) -> Result<(), CreditError> {
        let told = |book: &mut Book| {
            book.told(low);
            Ok(())
        };
        self.update(account, told).await
    }

    /// Sets the clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Makes a grant. Returns its id, which is a random one unless it is set. A grant with the id of
    /// an earlier one is not made again.
    ///
    /// # Errors
    /// Returns an error if the terms are invalid, if a grant with this id has other terms, if the
    /// account would have more than 100 grants or 2^53 - 1 units, or if the store does not answer.
    /// Only a call with its own id can be repeated then.
    pub async fn grant(
        &self,
        account: &CreditAccount,
        grant: NewGrant,
    ) -> Result<CreditId, CreditError> {
        self.grant_once(account, &grant).await.map(|(id, _)| id)
    }

    /// As [`grant`](Self::grant). Returns also whether the grant was made now, and not before.
    pub(crate) async fn grant_once(
        &self,
        account: &CreditAccount,
        grant: &NewGrant,
    ) -> Result<(CreditId, bool), CreditError> {
        let id = match &grant.id {
            Some(id) => id.clone(),
            None => CreditId::generate("grant")?,
        };
        let made = self.update(account, |book| book.grant(&id, grant)).await?;
        Ok((id, made))
    }

    /// Ends a grant and returns how many units were left of it. Units that nodes have taken of it,
    /// one block at most each, and those that are reserved can still be used, but do not come back.
    ///
    /// # Errors
    /// Returns an error if there is no such grant or if the store does not answer.
    pub async fn void(
        &self,
        account: &CreditAccount,
        grant: &CreditId,
    ) -> Result<u64, CreditError> {
        self.update(account, |book| book.void(grant)).await
    }

    /// Returns the balance. It may be as old as the last report of each node: about a second.
    ///
    /// # Errors
    /// Returns an error if the store does not answer.
    pub async fn balance(&self, account: &CreditAccount) -> Result<Balance, CreditError> {
        let stored = self.timed(self.store.load(account)).await?;
        let state = stored.as_ref().map(|stored| stored.state.as_str());
        Ok(Book::open(state, self.now())?.balance())
    }

    /// Returns the entries of the ledger with a number greater than `after`, in ascending order, at
    /// most `most` and at most 1000. What happens at an instant, such as a refill, is entered when
    /// the account is changed for the first time afterwards.
    ///
    /// # Errors
    /// Returns an error if the store does not answer.
    pub async fn ledger(
        &self,
        account: &CreditAccount,
        after: u64,
        most: usize,
    ) -> Result<Vec<LedgerEntry>, CreditError> {
        let most = most.min(MOST_ENTRIES);
        self.timed(self.store.ledger(account, after, most)).await
    }

    /// Returns some of all accounts, from the one after this one on.
    pub(super) async fn page(
        &self,
        after: Option<&CreditAccount>,
        most: usize,
    ) -> Result<Vec<(CreditAccount, StoredCredits)>, CreditError> {
        self.timed(self.store.accounts(after, most)).await
    }

    /// Deletes some of the entries up to a number.
    pub(super) async fn delete_entries(
        &self,
        account: &CreditAccount,
        last: u64,
    ) -> Result<u64, CreditError> {
        self.timed(self.store.forget_entries(account, last)).await
    }

    /// Reserves units for a request whose cost is known only afterwards. The reservation has an id, by
    /// which it can be settled on any node. If it is neither settled nor dropped, it is released
    /// after `length`, at most 31 days.
    ///
    /// # Errors
    /// Returns an error if the account does not have as many units, or if the store does not answer.
    pub async fn reserve(
        &self,
        account: &CreditAccount,
        units: u64,
        length: Duration,
    ) -> Result<Reservation, CreditError> {
        if units == 0 || length.is_zero() || length > LONGEST {
            let why = "a reservation must have units, and end in at most 31 days";
            return Err(ParseError::new("reservation", why).into());
        }
        let id = CreditId::generate("reservation")?;
        let ends_at = Some(millis(self.clock.now() + length));
        let take = |book: &mut Book| match book.take(&id, (units, units), ends_at)?.units {
            0 => Err(CreditError::Exhausted),
            _ => Ok(()),
        };
        self.update(account, take).await?;
        Ok(Reservation::new(self.clone(), account.clone(), id))
    }

    /// Settles a reservation by its id: this many units were used, and the others come back. Returns how many
    /// came back; none to a grant that has ended or begun a new period without rolling over. The
    /// first settlement wins; 0 releases the reservation.
    ///
    /// # Errors
    /// Returns an error if the reservation has been settled or released or has ended, if more units
    /// were used than were reserved, or if the store does not answer.
    pub async fn settle(
        &self,
        account: &CreditAccount,
        reservation: &CreditId,
        used: u64,
    ) -> Result<u64, CreditError> {
        let settle = |book: &mut Book| book.settle(reservation, used);
        self.update(account, settle).await
    }

    /// Gives back the units that a crashed node had taken, except those whose use it had reported.
    /// Until then they count as used. Returns how many came back.
    ///
    /// # Errors
    /// Returns an error if there is no such block, if its node took or reported it less than two
    /// minutes ago, or if the store does not answer.
    pub async fn give_back(
        &self,
        account: &CreditAccount,
        block: &CreditId,
    ) -> Result<u64, CreditError> {
        self.update(account, |book| book.give_back(block)).await
    }

    /// Remembers a reservation that was dropped.
    pub(super) fn settle_later(&self, account: &CreditAccount, id: &CreditId, used: u64) {
        let mut dropped = self.dropped.lock();
        if dropped.len() < MOST_DROPPED {
            dropped.push((account.clone(), id.clone(), used));
        }
    }

    /// Settles the reservations that were dropped.
    pub(super) async fn settle_dropped(&self) -> Result<(), CreditError> {
        let pending = self.dropped.lock().clone();
        for (account, id, used) in &pending {
            match self.settle(account, id, *used).await {
                // It was settled before its future was dropped, or it has ended.
                Ok(_) | Err(CreditError::NotFound(_) | CreditError::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
            self.dropped.lock().retain(|(_, settled, _)| settled != id);
        }
        Ok(())
    }

    fn now(&self) -> u64 {
        millis(self.clock.now())
    }

    async fn timed<T>(
        &self,
        work: impl Future<Output = Result<T, CreditError>>,
    ) -> Result<T, CreditError> {
        let done = within(LIMIT, work).await;
        done.unwrap_or_else(|| Err(CreditError::unavailable("it took longer than 5 seconds")))
    }

    /// Changes an account. The change may be made several times, on what was loaded each time.
    pub(super) async fn update<T>(
        &self,
        account: &CreditAccount,
        change: impl FnMut(&mut Book) -> Result<T, CreditError>,
    ) -> Result<T, CreditError> {
        self.timed(self.try_to_update(account, change)).await
    }

    async fn try_to_update<T>(
        &self,
        account: &CreditAccount,
        mut change: impl FnMut(&mut Book) -> Result<T, CreditError>,
    ) -> Result<T, CreditError> {
        for _ in 0..MOST_ATTEMPTS {
            let stored = self.store.load(account).await?;
            let state = stored.as_ref().map(|stored| stored.state.as_str());
            let mut book = Book::open(state, self.now())?;
            let done = change(&mut book)?;
            if self.rehearses {
                return Ok(done);
            }
            let watched = self.low.as_ref();
            let low = watched.map(|watched| (watched, book.low(&watched.percentages)));
            let found = || low.iter().for_each(|(all, low)| all.found(account, *low));
            let Some((state, entries)) = book.close()? else {
                found();
                return Ok(done);
            };
            let expected = stored.map_or(0, |stored| stored.version);
            let write = CreditWrite::new(expected, state, entries);
            if self.store.save(account, &write).await? {
                found();
                return Ok(done);
            }
        }
        let why = "the account was changed by others each time";
        Err(CreditError::unavailable(why))
    }
}
