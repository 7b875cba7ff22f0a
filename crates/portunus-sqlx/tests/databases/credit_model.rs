//! A plain model of credits: what each grant allows at which time, and the rules that the entries of
//! a ledger follow.

use std::collections::BTreeMap;

use portunus::credit::{CreditId, LedgerEntry, LedgerKind};

pub(crate) const HOUR: u64 = 60 * 60 * 1000;
pub(crate) const DAY: u64 = 24 * HOUR;

/// The terms of a grant.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) id: CreditId,
    pub(crate) units: u64,
    pub(crate) priority: u8,
    pub(crate) made_at: u64,
    pub(crate) expires: u64,
    pub(crate) daily: bool,
    pub(crate) rollover: bool,
    /// When it was voided, and what was left of it then.
    pub(crate) voided: Option<(u64, u64)>,
}

/// Units that can be spent from one instant to another, as granted.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) units: u64,
}

impl Terms {
    /// What is granted by an instant.
    pub(crate) fn buckets(&self, now: u64) -> Vec<Bucket> {
        let last = self.voided.map_or(now, |(at, _)| at.min(now));
        let (mut start, mut all) = (self.made_at, Vec::new());
        while start <= last && start < self.expires {
            let next = if self.daily {
                (start / DAY + 1) * DAY
            } else {
                u64::MAX
            };
            let end = if self.rollover { u64::MAX } else { next };
            let end = end.min(self.expires);
            let units = self.units;
            all.push(Bucket { start, end, units });
            start = next;
        }
        // What was left when it was voided is never spent, whichever day it was of.
        let mut left = self.voided.map_or(0, |(_, left)| left);
        for bucket in all.iter_mut().rev() {
            let gone = left.min(bucket.units);
            (left, bucket.units) = (left - gone, bucket.units - gone);
        }
        all
    }

    fn lapses_at(&self, now: u64) -> u64 {
        let day = self.daily && !self.rollover;
        let end = if day { (now / DAY + 1) * DAY } else { u64::MAX };
        end.min(self.expires)
    }
}

/// What is left of a grant, and the day of its last refill.
pub(crate) type Left = BTreeMap<CreditId, (u64, u64)>;
/// What holdings have of a grant, and the day of which it is.
pub(crate) type Taken = BTreeMap<(CreditId, CreditId), (u64, u64)>;

/// Applies an entry of the ledger.
pub(crate) fn follow(
    terms: &BTreeMap<CreditId, Terms>,
    left: &mut Left,
    taken: &mut Taken,
    entry: &LedgerEntry,
) {
    let (of, units) = (&terms[&entry.grant], entry.change.unsigned_abs());
    let adds = entry.change > 0;
    let day = entry.at_ms / DAY;
    let before = left.get(&entry.grant).copied();
    let (now, filled) = before.unwrap_or_default();
    let is_alive = of.expires > entry.at_ms && (!of.daily || filled == day);
    let after = if adds { now + units } else { now - units };
    let holding = || (entry.taken.clone().unwrap(), entry.grant.clone());
    match entry.kind {
        LedgerKind::Granted => {
            assert!(before.is_none() && adds && units == of.units, "{entry:?}");
            left.insert(entry.grant.clone(), (after, day));
        }
        LedgerKind::Refilled => {
            let days = if of.rollover { day - filled } else { 1 };
            assert!(of.daily && day > filled && adds, "{entry:?}");
            assert!(of.rollover || now == 0, "{entry:?}: the rest did not lapse");
            assert_eq!(units, of.units * days, "{entry:?}");
            left.insert(entry.grant.clone(), (after, day));
        }
        LedgerKind::Lapsed => {
            let ends = of.daily && !of.rollover && day > filled;
            assert!(of.expires <= entry.at_ms || ends, "{entry:?} of {of:?}");
            assert!(!adds && after == 0, "{entry:?}");
            left.insert(entry.grant.clone(), (0, filled));
        }
        LedgerKind::Voided => {
            assert!(of.voided.is_some_and(|(_, rest)| rest == units) && after == 0);
            left.insert(entry.grant.clone(), (0, filled));
        }
        LedgerKind::Taken => {
            assert!(is_alive && !adds, "{entry:?} of {of:?}");
            let place = |of: &Terms| (of.priority, of.lapses_at(entry.at_ms));
            for (other, (rest, filled)) in &*left {
                let other = &terms[other];
                let is_alive = other.expires > entry.at_ms && (!other.daily || *filled == day);
                let is_later = *rest == 0 || !is_alive || place(other) >= place(of);
                assert!(is_later, "{entry:?} before {other:?}");
            }
            left.insert(entry.grant.clone(), (after, filled));
            taken.insert(holding(), (units, filled));
        }
        LedgerKind::GivenBack => {
            let (held, since) = taken.remove(&holding()).unwrap();
            assert!(units <= held && adds, "{entry:?}");
            // What has ended before the day or the grant comes back before it lapses.
            let same = !of.daily || of.rollover || since == filled;
            assert!(same, "{entry:?} of an earlier day");
            left.insert(entry.grant.clone(), (after, filled));
        }
        _ => panic!("{entry:?}"),
    }
}
