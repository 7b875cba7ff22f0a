//! The books of one account: its grants, what was taken from them, and the entries that each change
//! adds to the ledger. Every store runs this code, on a text that it loads and saves.
//!
//! Units are in exactly one place: left in a grant, or in a holding (a block of a node, or a
//! reservation). What is taken leaves its grants at once, so spending never exceeds what was
//! granted, whatever happens to whoever took it. What is unused comes back when the holding ends,
//! to a grant that still has the same period, or that rolls over.

use std::time::Duration;

use super::grant::{MOST_UNITS, Terms, request_of};
use super::low::Low;
use super::state::{Grant, Holding, Part, State};
use super::view::{Balance, GrantBalance, LedgerEntry, LedgerKind, TakenUnits};
use super::{CreditError, CreditId, NewGrant, from_millis};
use crate::text::ParseError;

/// The maximum number of live grants, of holdings, and of ids of ended grants.
const MOST_GRANTS: usize = 100;
const MOST_HOLDINGS: usize = 1000;
const MOST_PAST: usize = 100;

/// How long a node spends from a block after the store last answered it.
pub(super) const LEASE: Duration = Duration::from_secs(60);

/// Units that were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) units: u64,
    /// The first instant at which some of them lapse.
    pub(super) until: u64,
    pub(super) standing: Standing,
}

/// What an account has, for whom it refuses and for response fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Standing {
    /// What is left of all grants.
    pub(super) available: u64,
    /// The units of all live grants, in a period if there are periods.
    pub(super) granted: u64,
    /// The next instant at which a period refills.
    pub(super) refills_at: Option<u64>,
}

/// An account's books at an instant.
#[derive(Debug)]
pub(super) struct Book {
    state: State,
    entries: Vec<LedgerEntry>,
    changed: bool,
}

impl Book {
    /// Opens the books of an account: the stored text, or `None` if there is none yet. What is due
    /// by now happens: reservations end, grants expire and are refilled.
    pub(super) fn open(stored: Option<&str>, now: u64) -> Result<Self, CreditError> {
        let state = match stored {
            None => State::default(),
            Some(text) => serde_json::from_str(text)
                .map_err(|error| CreditError::Unreadable(error.to_string()))?,
        };
        let mut book = Self {
            state,
            entries: Vec::new(),
            changed: false,
        };
        book.advance(now)?;
        Ok(book)
    }

    /// Returns the text to store and the entries to append; `None` if nothing changed.
    pub(super) fn close(mut self) -> Result<Option<(String, Vec<LedgerEntry>)>, CreditError> {
        if !self.changed {
            return Ok(None);
        }
        self.drop_what_is_over();
        let text = serde_json::to_string(&self.state)
            .map_err(|error| CreditError::Unreadable(error.to_string()))?;
        Ok(Some((text, self.entries)))
    }

    fn advance(&mut self, now: u64) -> Result<(), CreditError> {
        let now = self.state.now.max(now);
        self.state.now = now;
        let is_due = |holding: &Holding| holding.ends_at.is_some_and(|end| end <= now);
        let due: Vec<_> = self
            .state
            .holdings
            .iter()
            .filter(|one| is_due(one))
            .collect();
        for id in due
            .into_iter()
            .map(|one| one.id.clone())
            .collect::<Vec<_>>()
        {
            self.end(&id, 0)?;
        }
        for at in 0..self.state.grants.len() {
            let grant = &mut self.state.grants[at];
            let (id, left) = (grant.id.clone(), grant.left);
            if grant.terms.expires_at.is_some_and(|end| end <= now) {
                (grant.left, grant.terms.period) = (0, None);
                self.enter(&id, LedgerKind::Lapsed, left, None);
                continue;
            }
            let Some((number, _)) = grant.period.filter(|(_, end)| *end <= now) else {
                continue;
            };
            let current = current_period(&grant.terms, now)?;
            grant.period = current;
            let periods = current.map_or(0, |(current, _)| current.saturating_sub(number));
            let units = if grant.terms.rollover {
                let periods = u64::try_from(periods).unwrap_or(0);
                let most = MOST_UNITS - left;
                grant.terms.units.saturating_mul(periods).min(most)
            } else {
                grant.left = 0;
                grant.terms.units
            };
            grant.left += units;
            if !grant.terms.rollover {
                self.enter(&id, LedgerKind::Lapsed, left, None);
            }
            self.enter(&id, LedgerKind::Refilled, units, None);
        }
        self.drop_what_is_over();
        Ok(())
    }

    fn drop_what_is_over(&mut self) {
        let State {
            grants,
            holdings,
            past,
            now,
            ..
        } = &mut self.state;
        // What a node took and did not report counts as used once it cannot come back. A holding
        // that is not abandoned stays: its node reports its end.
        let returns = |part: &Part| grants.iter().any(|grant| grant.takes_back(part));
        let is_over = |one: &Holding| one.is_abandoned(*now) && !one.parts.iter().any(returns);
        holdings.retain(|one| !is_over(one));
        let over = |grant: &Grant| {
            let expired = grant.terms.expires_at.is_some_and(|end| end <= *now);
            expired || grant.is_over(holdings)
        };
        past.extend(
            grants
                .iter()
                .filter(|one| over(one))
                .map(|one| one.id.clone()),
        );
        grants.retain(|grant| !over(grant));
        let excess = past.len().saturating_sub(MOST_PAST);
        past.drain(..excess);
    }

    fn enter(&mut self, grant: &CreditId, kind: LedgerKind, units: u64, taken: Option<&CreditId>) {
        if units == 0 {
            return;
        }
        self.changed = true;
        self.state.entries += 1;
        if matches!(kind, LedgerKind::Granted | LedgerKind::Refilled) {
            self.state.raised = self.state.entries;
        }
        // At most 2^53 - 1 units.
        let units = i64::try_from(units).unwrap_or(i64::MAX);
        let adds = matches!(
            kind,
            LedgerKind::Granted | LedgerKind::Refilled | LedgerKind::GivenBack
        );
        self.entries.push(LedgerEntry {
            number: self.state.entries,
            at_ms: self.state.now,
            grant: grant.clone(),
            kind,
            change: if adds { units } else { -units },
            taken: taken.cloned(),
        });
    }

    /// Makes a grant. Returns `false` if it was made before.
    pub(super) fn grant(&mut self, id: &CreditId, new: &NewGrant) -> Result<bool, CreditError> {
        let State { grants, past, .. } = &self.state;
        if let Some(known) = grants.iter().find(|grant| grant.id == *id) {
            let other = CreditError::Conflict("a grant with this id has other terms");
            return (known.terms == new.terms).then_some(false).ok_or(other);
        }
        if past.contains(id) {
            return Ok(false);
        }
        let mut ids = grants.iter().map(|grant| &grant.id).chain(past);
        if let Some(request) = request_of(id)
            && ids.any(|known| request_of(known) == Some(request))
        {
            let why = "was used for a different request";
            return Err(ParseError::new("Idempotency-Key", why).into());
        }
        new.check(self.state.now)?;
        let period = current_period(&new.terms, self.state.now).map_err(|_| {
            let why = "the period is out of range, or this machine does not know its time zone";
            ParseError::new("grant", why)
        })?;
        if self.state.grants.len() >= MOST_GRANTS {
            return Err(CreditError::Conflict("the account has 100 grants"));
        }
        let total: u64 = self.state.grants.iter().map(|grant| grant.left).sum();
        if total + new.terms.units > MOST_UNITS {
            return Err(CreditError::Conflict(
                "the account would have too many units",
            ));
        }
        self.state.grants.push(Grant {
            id: id.clone(),
            left: new.terms.units,
            period,
            terms: new.terms.clone(),
            carried: 0,
        });
        self.enter(id, LedgerKind::Granted, new.terms.units, None);
        Ok(true)
    }

    /// Ends a grant. Returns what was left of it. What was taken from it does not come back.
    pub(super) fn void(&mut self, id: &CreditId) -> Result<u64, CreditError> {
        let grants = &mut self.state.grants;
        let at = grants.iter().position(|grant| grant.id == *id);
        let grant = grants.remove(at.ok_or(CreditError::NotFound("grant"))?);
        self.enter(id, LedgerKind::Voided, grant.left, None);
        self.state.past.push_back(grant.id);
        self.changed = true;
        Ok(grant.left)
    }

    /// Takes up to this many units for a holding; none if there are none, or fewer than `least`.
    /// If there is a holding with this id, it is returned: the call was repeated.
    pub(super) fn take(
        &mut self,
        id: &CreditId,
        (least, want): (u64, u64),
        ends_at: Option<u64>,
    ) -> Result<Taken, CreditError> {
        let known = self.state.holdings.iter().any(|one| one.id == *id);
        let want = if known || self.standing().available < least {
            0
        } else {
            want
        };
        if want > 0 {
            self.make_room()?;
        }
        let mut order: Vec<_> = (0..self.state.grants.len()).collect();
        let grants = &self.state.grants;
        order.sort_by_key(|at| (grants[*at].terms.priority, grants[*at].lapses_at()));
        let (mut parts, mut rest) = (Vec::new(), want);
        for at in order {
            let grant = &mut self.state.grants[at];
            let units = rest.min(grant.left);
            if units == 0 {
                continue;
            }
            (grant.left, rest) = (grant.left - units, rest - units);
            let (of, period) = (grant.id.clone(), grant.period.map(|(number, _)| number));
            self.enter(&of, LedgerKind::Taken, units, Some(id));
            parts.push(Part {
                grant: of,
                period,
                units,
            });
        }
        if !parts.is_empty() {
            self.state.holdings.push(Holding {
                id: id.clone(),
                parts,
                used: 0,
                taken_at: self.state.now,
                reported_at: self.state.now,
                ends_at,
            });
        }
        let holding = self.state.holdings.iter().find(|one| one.id == *id);
        Ok(Taken {
            units: holding.map_or(0, Holding::units),
            until: self.lapses_at(id).unwrap_or(0),
            standing: self.standing(),
        })
    }

    /// Returns the first instant at which units of a holding lapse; `None` if it has ended.
    pub(super) fn lapses_at(&self, id: &CreditId) -> Option<u64> {
        let lapses = |part: &Part| {
            let grant = self
                .state
                .grants
                .iter()
                .find(|grant| grant.takes_back(part));
            grant.map_or(0, Grant::lapses_at)
        };
        let holding = self.state.holdings.iter().find(|one| one.id == *id)?;
        holding.parts.iter().map(lapses).min()
    }

    /// Makes room for a holding. An abandoned one that is dropped counts as used.
    fn make_room(&mut self) -> Result<(), CreditError> {
        let State { holdings, now, .. } = &mut self.state;
        if holdings.len() >= MOST_HOLDINGS {
            let abandoned = holdings.iter().position(|one| one.is_abandoned(*now));
            let full = CreditError::Conflict("the account has 1000 blocks and reservations");
            holdings.remove(abandoned.ok_or(full)?);
        }
        Ok(())
    }

    /// Records how many units of a node's block are used so far. A block that has ended is ignored.
    pub(super) fn report(&mut self, id: &CreditId, used: u64) {
        let now = self.state.now;
        if let Some(holding) = self.state.holdings.iter_mut().find(|one| one.id == *id) {
            holding.used = used.min(holding.units());
            holding.reported_at = now;
            self.changed = true;
        }
    }

    /// Ends a holding of which this many units are used, and gives the rest back. Returns how many
    /// came back.
    pub(super) fn end(&mut self, id: &CreditId, used: u64) -> Result<u64, CreditError> {
        let holdings = &mut self.state.holdings;
        let at = holdings.iter().position(|one| one.id == *id);
        let at = at.ok_or(CreditError::NotFound("reservation or block"))?;
        let holding = holdings.remove(at);
        self.changed = true;
        let (mut used, mut back) = (used, 0);
        for part in &holding.parts {
            let of_part = used.min(part.units);
            used -= of_part;
            let grants = &mut self.state.grants;
            if let Some(grant) = grants.iter_mut().find(|grant| grant.takes_back(part)) {
                let units = (part.units - of_part).min(MOST_UNITS - grant.left);
                grant.left += units;
                back += units;
                self.enter(&part.grant, LedgerKind::GivenBack, units, Some(id));
            }
        }
        Ok(back)
    }

    /// Settles a reservation: this many of its units are used, the rest comes back. Returns how many
    /// came back.
    pub(super) fn settle(&mut self, id: &CreditId, used: u64) -> Result<u64, CreditError> {
        let mut holdings = self.state.holdings.iter();
        let found = holdings.find(|one| one.id == *id && one.ends_at.is_some());
        let holding = found.ok_or(CreditError::NotFound("reservation"))?;
        if used > holding.units() {
            let why = "more units are used than were reserved";
            return Err(CreditError::Conflict(why));
        }
        self.end(id, used)
    }

    /// Gives back what a node took and did not report. Returns how many units came back.
    pub(super) fn give_back(&mut self, id: &CreditId) -> Result<u64, CreditError> {
        let mut holdings = self.state.holdings.iter();
        let found = holdings.find(|one| one.id == *id && one.ends_at.is_none());
        let holding = found.ok_or(CreditError::NotFound("block"))?;
        if !holding.is_abandoned(self.state.now) {
            let why = "the block is in use: its node reported it less than two minutes ago";
            return Err(CreditError::Conflict(why));
        }
        let used = holding.used;
        self.end(id, used)
    }

    pub(super) fn standing(&self) -> Standing {
        let grants = &self.state.grants;
        let sum = |units: fn(&Grant) -> u64| {
            let total = grants.iter().map(units).fold(0, u64::saturating_add);
            total.min(MOST_UNITS)
        };
        let ends = grants.iter().filter_map(|grant| grant.period);
        Standing {
            available: sum(|grant| grant.left),
            granted: sum(|grant| grant.terms.units),
            refills_at: ends.map(|(_, end)| end).min(),
        }
    }

    /// Returns the highest of these percentages that is used, unless the host was told of it since
    /// the last grant or refill. What nodes hold and have not reported is not used yet.
    pub(super) fn low(&self, percentages: &[u8]) -> Option<Low> {
        let Standing {
            available, granted, ..
        } = self.standing();
        let State { raised, told, .. } = self.state;
        let left = self.held_unused().saturating_add(available);
        let used = match granted {
            // Every grant has ended.
            0 if raised > 0 => 100,
            0 => 0,
            _ => granted.saturating_sub(left) * 100 / granted,
        };
        let reached = percentages.iter().copied();
        let percentage = reached.filter(|one| u64::from(*one) <= used).max()?;
        let is_told = told.is_some_and(|(since, most)| since == raised && most >= percentage);
        (!is_told).then_some(Low {
            percentage,
            since: raised,
            left,
            granted,
        })
    }

    /// Returns how many units are held, not used, and could still come back.
    fn held_unused(&self) -> u64 {
        let State { grants, now, .. } = &self.state;
        let returns = |part: &Part| grants.iter().any(|grant| grant.takes_back(part));
        let kept = self.state.holdings.iter();
        let mut unused: u64 = 0;
        for holding in kept.filter(|one| !one.is_abandoned(*now)) {
            let mut used = holding.used;
            for part in &holding.parts {
                let of_part = used.min(part.units);
                used -= of_part;
                if returns(part) {
                    unused = unused.saturating_add(part.units - of_part);
                }
            }
        }
        unused
    }

    /// Records that the host was told of this.
    pub(super) fn told(&mut self, low: Low) {
        if self.state.raised == low.since {
            self.state.told = Some((low.since, low.percentage));
            self.changed = true;
        }
    }

    /// Records that these entries, the oldest ones, may be deleted. Returns the number of the last one.
    pub(super) fn forget(&mut self, entries: &[LedgerEntry]) -> u64 {
        let before = self.state.forgotten;
        self.state.forget(entries);
        self.changed |= self.state.forgotten != before;
        self.state.forgotten
    }

    pub(super) fn balance(&self) -> Balance {
        let mut grants: Vec<_> = self.state.grants.iter().collect();
        grants.sort_by_key(|grant| (grant.terms.priority, grant.lapses_at()));
        let time = |at: u64| from_millis(at).unwrap_or(std::time::SystemTime::UNIX_EPOCH);
        let shown = |grant: &Grant| GrantBalance {
            id: grant.id.clone(),
            units: grant.terms.units,
            left: grant.left,
            priority: grant.terms.priority,
            expires_at: grant.terms.expires_at.and_then(from_millis),
            period: grant.terms.period.clone(),
            refills_at: grant.period.and_then(|(_, end)| from_millis(end)),
            rolls_over: grant.terms.rollover,
            carried_forward: grant.carried,
        };
        let held = |one: &Holding| TakenUnits {
            id: one.id.clone(),
            units: one.units(),
            used: one.used,
            taken_at: time(one.taken_at),
            reported_at: time(one.reported_at),
            ends_at: one.ends_at.map(time),
        };
        Balance {
            available: self.standing().available,
            grants: grants.into_iter().map(shown).collect(),
            taken: self.state.holdings.iter().map(held).collect(),
            forgotten: self.state.forgotten,
        }
    }
}

/// Returns the number of the period at an instant, and its end, if there are periods.
fn current_period(terms: &Terms, now: u64) -> Result<Option<(i64, u64)>, CreditError> {
    let Some(period) = &terms.period else {
        return Ok(None);
    };
    let index = period.index(now);
    let current = index.and_then(|index| Some((index, period.start(index + 1)?)));
    let unreadable = || CreditError::Unreadable(format!("the period {period} cannot be computed"));
    current.map(Some).ok_or_else(unreadable)
}
