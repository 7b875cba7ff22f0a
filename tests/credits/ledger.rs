//! Random operations, against a ledger in which every unit is a token in one place.

use std::collections::BTreeMap;
use std::time::Duration;

use portunus::Clock;
use portunus::credit::{CreditId, NewGrant, Period, Reservation};
use proptest::prelude::*;

use crate::accounts::{account, accounts};

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

#[derive(Debug, Clone)]
enum Act {
    Grant {
        units: u64,
        priority: u8,
        hours: Option<u64>,
        daily: bool,
        rollover: bool,
    },
    Void(usize),
    Reserve {
        units: u64,
        hours: u64,
    },
    Settle {
        which: usize,
        used: u64,
    },
    Wait {
        hours: u64,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let hours = proptest::option::of(1_u64..80);
    let terms = (1_u64..20, 0_u8..3, hours, any::<bool>(), any::<bool>());
    let grant = terms.prop_map(|(units, priority, hours, daily, rollover)| Act::Grant {
        units,
        priority,
        hours,
        daily,
        rollover: rollover && daily,
    });
    prop_oneof![
        3 => grant,
        1 => (0_usize..20).prop_map(Act::Void),
        4 => (1_u64..30, 1_u64..40).prop_map(|(units, hours)| Act::Reserve { units, hours }),
        4 => (0_usize..20, 0_u64..30).prop_map(|(which, used)| Act::Settle { which, used }),
        4 => (1_u64..40).prop_map(|hours| Act::Wait { hours }),
    ]
}

/// One unit. A refill makes new ones.
#[derive(Debug, Clone)]
struct Token {
    grant: usize,
    /// The day for which it was made; of a grant that rolls over, and of one without days, 0.
    day: u64,
    holder: Holder,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Holder {
    Grant,
    Reservation(usize),
    Used,
}

#[derive(Debug)]
struct Terms {
    id: CreditId,
    units: u64,
    priority: u8,
    expires: u64,
    daily: bool,
    rollover: bool,
    refilled_on: u64,
    is_void: bool,
}

#[derive(Default)]
struct Model {
    now: u64,
    grants: Vec<Terms>,
    tokens: Vec<Token>,
    /// The id, the end, and whether it is open.
    reservations: Vec<(CreditId, u64, bool)>,
    /// The tokens of each reservation, in the order in which they were taken and are used.
    taken: Vec<Vec<usize>>,
}

impl Model {
    fn is_live(&self, token: &Token) -> bool {
        let of = &self.grants[token.grant];
        let today = !of.daily || of.rollover || token.day == self.now / DAY;
        !of.is_void && of.expires > self.now && today
    }

    fn available(&self) -> Vec<usize> {
        let mut free: Vec<_> = (0..self.tokens.len())
            .filter(|at| self.tokens[*at].holder == Holder::Grant)
            .filter(|at| self.is_live(&self.tokens[*at]))
            .collect();
        let lapses = |of: &Terms| {
            let end = if of.daily && !of.rollover {
                (self.now / DAY + 1) * DAY
            } else {
                u64::MAX
            };
            end.min(of.expires)
        };
        free.sort_by_key(|at| {
            let of = &self.grants[self.tokens[*at].grant];
            (of.priority, lapses(of), self.tokens[*at].grant)
        });
        free
    }

    fn make(&mut self, grant: usize, count: u64) {
        let of = &self.grants[grant];
        let day = if of.daily && !of.rollover {
            self.now / DAY
        } else {
            0
        };
        let holder = Holder::Grant;
        self.tokens
            .extend((0..count).map(|_| Token { grant, day, holder }));
    }

    /// Moves hour by hour, so that everything happens in its order.
    fn wait(&mut self, hours: u64) {
        for _ in 0..hours {
            self.now += HOUR;
            for at in 0..self.reservations.len() {
                if self.reservations[at].2 && self.reservations[at].1 <= self.now {
                    self.end(at, 0);
                }
            }
            for at in 0..self.grants.len() {
                let day = self.now / DAY;
                let of = &mut self.grants[at];
                if of.daily && of.refilled_on < day && !of.is_void && of.expires > self.now {
                    of.refilled_on = day;
                    let units = of.units;
                    self.make(at, units);
                }
            }
        }
    }

    fn end(&mut self, reservation: usize, used: u64) {
        self.reservations[reservation].2 = false;
        for (at, number) in self.taken[reservation].iter().zip(0..) {
            let is_used = number < used;
            self.tokens[*at].holder = if is_used { Holder::Used } else { Holder::Grant };
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn balances_are_those_of_a_ledger_of_single_units(acts in proptest::collection::vec(act(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(walk(acts))?;
    }
}

async fn walk(acts: Vec<Act>) -> Result<(), TestCaseError> {
    let (accounts, clock) = accounts();
    let millis = clock
        .now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis();
    let mut model = Model {
        now: u64::try_from(millis).unwrap(),
        ..Model::default()
    };
    for act in acts {
        match act {
            Act::Grant {
                units,
                priority,
                hours,
                daily,
                rollover,
            } => {
                let mut grant = NewGrant::new(units).with_priority(priority);
                let after = |hours: u64| Duration::from_millis(hours * HOUR);
                if let Some(hours) = hours {
                    grant = grant.expiring_at(clock.now() + after(hours));
                }
                if daily {
                    grant = grant.refilled(Period::daily());
                }
                if rollover {
                    grant = grant.rolling_over();
                }
                let id = accounts.grant(&account(), grant).await.unwrap();
                model.grants.push(Terms {
                    id,
                    units,
                    priority,
                    expires: hours.map_or(u64::MAX, |hours| model.now + hours * HOUR),
                    daily,
                    rollover,
                    refilled_on: model.now / DAY,
                    is_void: false,
                });
                model.make(model.grants.len() - 1, units);
            }
            Act::Void(which) if which < model.grants.len() => {
                let _ = accounts.void(&account(), &model.grants[which].id).await;
                model.grants[which].is_void = true;
            }
            Act::Reserve { units, hours } => {
                let length = Duration::from_millis(hours * HOUR);
                let made = accounts.reserve(&account(), units, length).await;
                let made = made.map(Reservation::into_id);
                let free = model.available();
                let wanted = usize::try_from(units).unwrap();
                prop_assert_eq!(made.is_ok(), free.len() >= wanted);
                if let Ok(id) = made {
                    let number = model.reservations.len();
                    for at in &free[..wanted] {
                        model.tokens[*at].holder = Holder::Reservation(number);
                    }
                    model
                        .reservations
                        .push((id, model.now + hours * HOUR, true));
                    model.taken.push(free[..wanted].to_vec());
                }
            }
            Act::Settle { which, used } if which < model.reservations.len() => {
                let (id, _, open) = model.reservations[which].clone();
                let held = Holder::Reservation(which);
                let units = model
                    .tokens
                    .iter()
                    .filter(|token| token.holder == held)
                    .count();
                let settled = accounts.settle(&account(), &id, used).await;
                prop_assert_eq!(settled.is_ok(), open && used <= units as u64);
                if settled.is_ok() {
                    model.end(which, used);
                }
            }
            Act::Wait { hours } => {
                clock.advance(Duration::from_millis(hours * HOUR));
                model.wait(hours);
            }
            Act::Void(_) | Act::Settle { .. } => {}
        }
        let balance = accounts.balance(&account()).await.unwrap();
        prop_assert_eq!(balance.available, model.available().len() as u64);
    }
    explains_itself(&accounts).await
}

/// Asserts that the entries of the ledger add up to the balance of each grant.
async fn explains_itself(accounts: &portunus::credit::CreditAccounts) -> Result<(), TestCaseError> {
    // An operation that changes the account enters what is due.
    accounts.grant(&account(), NewGrant::new(1)).await.unwrap();
    let mut sums: BTreeMap<CreditId, i64> = BTreeMap::new();
    let entries = accounts.ledger(&account(), 0, 1000).await.unwrap();
    for (at, entry) in entries.iter().enumerate() {
        prop_assert_eq!(entry.number, at as u64 + 1);
        let sum = sums.entry(entry.grant.clone()).or_default();
        *sum += entry.change;
        prop_assert!(*sum >= 0, "{:?}", entry);
    }
    let balance = accounts.balance(&account()).await.unwrap();
    for grant in &balance.grants {
        let sum = sums.remove(&grant.id).unwrap_or(0);
        prop_assert_eq!(sum, i64::try_from(grant.left).unwrap());
    }
    prop_assert!(sums.values().all(|sum| *sum == 0), "{:?}", sums);
    Ok(())
}
