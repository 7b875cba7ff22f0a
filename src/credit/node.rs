//! Spending on this node: blocks of units are taken from the store and spent in memory.
//!
//! [`Purse::spend_now`] takes a lock of the account and changes a number. Only when the block is used
//! up does a request wait for the store, and the others of the account with it. A block that is
//! given back is never spent again: it is moved to `ending` first, and reported from there until the
//! store has confirmed it.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;

use super::book::{Book, LEASE, Standing};
use super::config::{Credits, Payer};
use super::walk::Walk;
use super::{CreditAccount, CreditAccounts, CreditError, CreditId, millis};
use crate::clock::Clock;
use crate::key::KeyRecord;
use crate::limit::CreditState;
use crate::lock::Mutex;

/// How long a node knows that an account has no more units, in milliseconds.
const EXHAUSTED_FOR: u64 = 1000;

/// How long the store is not asked again after it did not answer, in milliseconds.
const BACK_OFF: u64 = 250;

/// How long a block is kept without any use.
const IDLE: Duration = Duration::from_secs(30);

/// How many accounts are reported at once.
const AT_ONCE: usize = 16;

/// The credits of a service on this node.
pub(crate) struct Spending {
    pub(crate) settings: Credits,
    accounts: CreditAccounts,
    purses: Mutex<HashMap<CreditAccount, Arc<Purse>>>,
    pub(super) walk: Mutex<Walk>,
}

/// The units of one account on this node.
pub(crate) struct Purse {
    account: CreditAccount,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Held by who talks to the store about this account.
    turn: futures_util::lock::Mutex<()>,
}

#[derive(Default)]
struct State {
    block: Option<Block>,
    /// The blocks that are given back, with the units that are used of them.
    ending: Vec<(CreditId, u64)>,
    /// The id of a block that may have been taken.
    unconfirmed: Option<CreditId>,
    /// As of the last answer.
    standing: Standing,
    /// When the store last answered and when it last failed, in milliseconds since the Unix epoch.
    answered_at: Option<u64>,
    failed_at: Option<u64>,
    /// The number of answers to a request for a block so far.
    blocks: u64,
}

struct Block {
    id: CreditId,
    number: NonZeroU64,
    units: u64,
    used: u64,
    /// In milliseconds since the Unix epoch: when units lapse, or the lease ends.
    until: u64,
    /// When the lease ends, by the monotonic clock.
    lease: Duration,
    reported: u64,
    /// The use that the last report saw, and since when it is the same.
    idle: (u64, Duration),
}

/// Units that were spent, by which they can be given back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    block: NonZeroU64,
    units: u64,
}

/// Why nothing was spent.
#[derive(Debug)]
pub(crate) enum Unpaid {
    /// Too few units are left; with the time until a period refills.
    Exhausted {
        left: u64,
        refills_in: Option<Duration>,
    },
    Unavailable(CreditError),
}

impl State {
    fn left(&self) -> u64 {
        let block = self.block.as_ref();
        let left = block.map_or(0, |block| block.units - block.used);
        self.standing.available.saturating_add(left)
    }

    fn exhausted(&self, now: u64) -> Unpaid {
        let refills = self.standing.refills_at;
        Unpaid::Exhausted {
            left: self.left(),
            refills_in: refills.map(|at| Duration::from_millis(at.saturating_sub(now).max(1))),
        }
    }

    /// Spends from the block. `None` if it has too few units, or has ended.
    #[inline]
    fn spend(&mut self, now: u64, units: u64) -> Option<Spent> {
        let block = self.block.as_mut()?;
        if now >= block.until || units > block.units - block.used {
            return None;
        }
        block.used += units;
        let block = block.number;
        Some(Spent { block, units })
    }

    /// Returns why nothing can be spent. `None` if the store must be asked.
    #[cold]
    fn refuse(&self, now: u64, units: u64) -> Option<Unpaid> {
        // A time in the future was set before the clock went back.
        let within =
            |at: Option<u64>, length: u64| at.is_some_and(|at| at <= now && now - at < length);
        if within(self.failed_at, BACK_OFF) {
            let why = "the credit store did not answer a moment ago";
            return Some(Unpaid::Unavailable(CreditError::unavailable(why)));
        }
        let refilled = self.standing.refills_at.is_some_and(|at| at <= now);
        let known = within(self.answered_at, EXHAUSTED_FOR) && !refilled;
        (known && self.left() < units).then(|| self.exhausted(now))
    }

    /// Ends the block: from now on nothing is spent from it.
    fn end_block(&mut self) {
        if let Some(block) = self.block.take() {
            self.ending.push((block.id, block.used));
        }
    }

    /// Records that the store has confirmed the end of these blocks.
    fn ended(&mut self, blocks: &[(CreditId, u64)]) {
        self.ending
            .retain(|(id, _)| !blocks.iter().any(|(ended, _)| ended == id));
    }

    fn is_empty(&self) -> bool {
        self.block.is_none() && self.ending.is_empty() && self.unconfirmed.is_none()
    }
}

impl Purse {
    /// Spends units without waiting. `None` if they are refused, or if the store must be asked.
    #[inline]
    pub(crate) fn spend_now(&self, now: u64, units: u64) -> Option<Spent> {
        self.state.lock().spend(now, units)
    }

    /// Returns why nothing can be spent. `None` if the store must be asked.
    #[cold]
    pub(crate) fn refuse_now(&self, now: u64, units: u64) -> Option<Unpaid> {
        self.state.lock().refuse(now, units)
    }

    /// Spends units or refuses them. `None` if the store must be asked.
    fn decide(&self, now: u64, units: u64) -> Option<Result<Spent, Unpaid>> {
        let mut state = self.state.lock();
        let spent = state.spend(now, units).map(Ok);
        spent.or_else(|| state.refuse(now, units).map(Err))
    }

    /// Gives units back that a request has not used after all. If their block has ended meanwhile
    /// and the store knows, they count as used.
    pub(crate) fn give_back(&self, spent: Spent) {
        let mut state = self.state.lock();
        if let Some(block) = state
            .block
            .as_mut()
            .filter(|block| block.number == spent.block)
        {
            block.used = block.used.saturating_sub(spent.units);
        }
    }

    /// Returns the state for response fields, as far as this node knows it. `None` until the store
    /// has answered once.
    pub(crate) fn shown(&self) -> Option<CreditState> {
        let now = millis(self.clock.recently());
        let state = self.state.lock();
        if state.blocks == 0 {
            return None;
        }
        let refills = state.standing.refills_at;
        Some(CreditState {
            granted: state.standing.granted,
            left: state.left(),
            refills_in: refills.map(|at| Duration::from_millis(at.saturating_sub(now))),
        })
    }
}

impl Spending {
    pub(crate) fn new(settings: Credits, clock: &Arc<dyn Clock>) -> Self {
        let accounts = CreditAccounts::of(Arc::clone(&settings.store));
        let accounts = accounts.with_clock(Arc::clone(clock));
        Self {
            accounts: match settings.notices.as_slice() {
                [] => accounts,
                percentages => accounts.watching(percentages.to_vec()),
            },
            settings,
            purses: Mutex::default(),
            walk: Mutex::default(),
        }
    }

    pub(crate) fn accounts(&self) -> &CreditAccounts {
        &self.accounts
    }

    /// Returns the account that pays for a key.
    pub(crate) fn account(&self, record: &KeyRecord) -> CreditAccount {
        match self.settings.payer {
            Payer::Key => CreditAccount::Key(record.family.clone()),
            Payer::User => CreditAccount::of_user(record),
            Payer::Tenant => CreditAccount::Tenant(record.owner.tenant_id.clone()),
        }
    }

    /// Returns the purse of the account that pays for a key.
    pub(crate) fn purse(&self, record: &KeyRecord) -> Arc<Purse> {
        let account = self.account(record);
        let mut purses = self.purses.lock();
        let purse = purses.entry(account).or_insert_with_key(|account| {
            Arc::new(Purse {
                account: account.clone(),
                clock: Arc::clone(self.accounts.clock()),
                state: Mutex::default(),
                turn: futures_util::lock::Mutex::new(()),
            })
        });
        Arc::clone(purse)
    }

    /// Spends units, after taking a new block if there are too few.
    pub(crate) async fn spend(&self, purse: &Purse, units: u64) -> Result<Spent, Unpaid> {
        let _turn = purse.turn.lock().await;
        // Twice, because a block that was taken without an answer may be too small.
        for _ in 0..2 {
            let now = millis(self.clock().now());
            if let Some(done) = purse.decide(now, units) {
                return done;
            }
            let taken = self.take(purse, now, units).await;
            if let Err(error) = taken {
                purse.state.lock().failed_at = Some(now);
                return Err(Unpaid::Unavailable(error));
            }
        }
        let now = millis(self.clock().now());
        let done = purse.decide(now, units);
        done.unwrap_or_else(|| Err(purse.state.lock().exhausted(now)))
    }

    /// Takes a block in the place of the current one. Called by who has the turn.
    async fn take(&self, purse: &Purse, now: u64, units: u64) -> Result<(), CreditError> {
        let monotonic = self.clock().monotonic();
        let (id, ending) = {
            let mut state = purse.state.lock();
            state.end_block();
            let id = match state.unconfirmed.clone() {
                Some(id) => id,
                None => CreditId::generate("block")?,
            };
            state.unconfirmed = Some(id.clone());
            (id, state.ending.clone())
        };
        let want = self.settings.block.get().max(units);
        let take = |book: &mut Book| {
            end_all(book, &ending);
            book.take(&id, (1, want), None)
        };
        let taken = self.accounts.update(&purse.account, take).await?;
        let mut state = purse.state.lock();
        state.ended(&ending);
        state.unconfirmed = None;
        (state.standing, state.answered_at, state.failed_at) = (taken.standing, Some(now), None);
        state.blocks += 1;
        let number = NonZeroU64::MIN.saturating_add(state.blocks);
        state.block = (taken.units > 0).then_some(Block {
            id,
            number,
            units: taken.units,
            used: 0,
            until: taken.until.min(leased(now)),
            lease: monotonic.saturating_add(LEASE),
            reported: 0,
            idle: (0, monotonic),
        });
        Ok(())
    }

    fn clock(&self) -> &dyn Clock {
        &**self.accounts.clock()
    }

    /// Forgets that an account had no units, because it has got some.
    pub(crate) fn granted(&self, account: &CreditAccount) {
        let purse = self.purses.lock().get(account).cloned();
        if let Some(purse) = purse {
            purse.state.lock().answered_at = None;
        }
    }

    /// Reports use to the store, and gives back blocks that are not used any more; all of them if
    /// the node stops. Returns the first error.
    pub(crate) async fn report(&self, stops: bool) -> Result<(), CreditError> {
        let purses: Vec<_> = self.purses.lock().values().cloned().collect();
        let reports =
            stream::iter(purses).map(|purse| async move { self.report_one(&purse, stops).await });
        let mut reports = reports.buffer_unordered(AT_ONCE);
        let mut done = self.accounts.settle_dropped().await;
        while let Some(one) = reports.next().await {
            done = done.and(one);
        }
        // A purse that no key refers to is made again when one does.
        let is_used =
            |purse: &mut Arc<Purse>| Arc::strong_count(purse) > 1 || !purse.state.lock().is_empty();
        self.purses.lock().retain(|_, purse| is_used(purse));
        done
    }

    async fn report_one(&self, purse: &Purse, stops: bool) -> Result<(), CreditError> {
        let _turn = purse.turn.lock().await;
        let (now, monotonic) = (millis(self.clock().now()), self.clock().monotonic());
        let (used, ending) = {
            let mut state = purse.state.lock();
            if let Some(block) = &mut state.block {
                if block.idle.0 != block.used {
                    block.idle = (block.used, monotonic);
                }
                let is_idle = monotonic.saturating_sub(block.idle.1) >= IDLE;
                if stops || is_idle || now >= block.until || monotonic >= block.lease {
                    state.end_block();
                }
            }
            if stops && let Some(id) = state.unconfirmed.take() {
                state.ending.push((id, 0));
            }
            let block = state.block.as_ref();
            let changed = block.filter(|block| block.used != block.reported);
            let used = changed.map(|block| (block.id.clone(), block.used));
            (used, state.ending.clone())
        };
        if used.is_none() && ending.is_empty() {
            return Ok(());
        }
        let report = |book: &mut Book| {
            end_all(book, &ending);
            if let Some((id, used)) = &used {
                book.report(id, *used);
            }
            Ok((
                used.as_ref().and_then(|(id, _)| book.lapses_at(id)),
                book.standing(),
            ))
        };
        let (until, standing) = self.accounts.update(&purse.account, report).await?;
        let mut state = purse.state.lock();
        state.ended(&ending);
        (state.standing, state.answered_at, state.failed_at) = (standing, Some(now), None);
        if let (Some(block), Some((_, used))) = (&mut state.block, used) {
            block.reported = used;
            block.lease = monotonic.saturating_add(LEASE);
            // A block that the store does not know any more is not spent.
            block.until = until.map_or(0, |until| until.min(leased(now)));
        }
        Ok(())
    }
}

/// Returns when a lease ends that begins now. The wall clock is checked by each request, because it
/// is read anyway; the monotonic clock by the periodic job, for when the other goes back.
fn leased(now: u64) -> u64 {
    now.saturating_add(u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX))
}

/// Ends the blocks of a node. One that has ended already is not changed again.
fn end_all(book: &mut Book, ending: &[(CreditId, u64)]) {
    for (id, used) in ending {
        let _ = book.end(id, *used);
    }
}

impl fmt::Debug for Spending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spending")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
