//! Random acts of several nodes and operators on one account, some of them at once, compared with a
//! model in which each unit is spent once: from units that were there at that time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use portunus::config::Limits;
use portunus::credit::{
    CreditAccount, CreditAccounts, CreditError, CreditStore, Credits, LedgerKind, NewGrant, Period,
    Reservation,
};
use portunus::key::Owner;
use portunus::manage::NewKey;
use portunus::store::MemoryStore;
use portunus::testing::ManualClock;
use portunus::{Clock, ErrorCode, Portunus};
use portunus_test_support::postgres::Postgres;
use portunus_test_support::random::Random;
use portunus_test_support::{Head, format};
use tokio::task::JoinSet;

use super::credit_model::{Bucket, DAY, HOUR, Left, Taken, Terms, follow};
use crate::common::{Home, PostgresHome, SqliteHome, tenant};

const NODES: usize = 3;
const STEPS: usize = 25;

/// The number of walks; `scripts/measure credit-walks` sets more.
fn walks() -> u64 {
    let set = std::env::var("CREDIT_WALKS").ok();
    set.map_or(18, |walks| walks.parse().unwrap())
}

fn millis(clock: &ManualClock) -> u64 {
    let since = clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// What happened to an account.
#[derive(Debug, Default)]
struct Story {
    grants: Vec<Terms>,
    /// Units that were used, with the instant at which they were spent or reserved.
    spent: Vec<(u64, u64)>,
    /// The units that each node spent, and that it may not have reported.
    unreported: [u64; NODES],
    /// Units that an operator gave back although a node had spent them.
    twice: u64,
    open: Vec<(Reservation, u64, u64)>,
}

struct Walk {
    account: CreditAccount,
    accounts: CreditAccounts,
    clock: ManualClock,
    keys: Arc<MemoryStore>,
    stores: [Arc<dyn CreditStore>; NODES],
    secret: String,
    story: Mutex<Story>,
}

/// What can happen in a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing lapses, so that each unit that was taken was used or came back.
    Exact,
    /// Only grants lapse, so that hardly any unit is left to pay for one that was spent late.
    Expiring,
    /// Days pass, nodes crash, grants are voided, and blocks are given back.
    Wild,
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Request {
        node: usize,
        cost: u64,
    },
    Report(usize),
    Grant {
        units: u64,
        priority: u8,
        lasts: u64,
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
    GiveBack,
}

impl Act {
    fn any(random: &mut Random, kind: Kind) -> Self {
        let units = random.between(1, 25);
        match random.below(if kind == Kind::Wild { 24 } else { 20 }) {
            0..10 => Self::Request {
                node: random.index(NODES),
                cost: random.pick(&[1, 1, 2, 5]),
            },
            10..13 => Self::Report(random.index(NODES)),
            13..15 => Self::Grant {
                units,
                priority: u8::try_from(random.below(3)).unwrap(),
                lasts: match kind {
                    Kind::Exact => 0,
                    Kind::Expiring => random.pick(&[0, 20_000]),
                    Kind::Wild => random.pick(&[0, 0, 20_000, HOUR, 30 * HOUR]),
                },
                daily: random.one_in(2),
                rollover: random.one_in(2),
            },
            15..18 => Self::Reserve {
                units,
                hours: random.between(1, 40),
            },
            18..20 => Self::Settle {
                which: random.index(8),
                used: random.below(units + 1),
            },
            20..22 => Self::Void(random.index(6)),
            _ => Self::GiveBack,
        }
    }
}

impl Walk {
    fn node(&self, number: usize, block: u64) -> Portunus {
        let store = Arc::clone(&self.stores[number]);
        let credits = Credits::per_tenant(store)
            .block(block.try_into().unwrap())
            .cost(|head| head.path()[1..].parse().unwrap());
        let node = Portunus::builder(format())
            .store(Arc::clone(&self.keys))
            .limits(Limits::none())
            .clock(self.clock.clone())
            .credits(credits);
        node.build().unwrap()
    }

    fn story(&self) -> MutexGuard<'_, Story> {
        self.story.lock().unwrap()
    }

    async fn act(&self, nodes: &[Portunus; NODES], act: Act) {
        let now = millis(&self.clock);
        let of = &self.account;
        match act {
            Act::Request { node, cost } => {
                let head = Head::bearer(&self.secret).at(&format!("/{cost}"));
                let asked = nodes[node].authenticator().authenticate(&head).await;
                match asked {
                    Ok(_) => {
                        let mut story = self.story();
                        story.spent.push((now, cost));
                        story.unreported[node] += cost;
                    }
                    Err(error) => assert_eq!(error.code(), ErrorCode::CreditsExhausted),
                }
            }
            Act::Report(node) => {
                let done = nodes[node].maintain().await;
                assert!(done.failures.is_empty(), "{:?}", done.failures);
            }
            Act::Grant {
                units,
                priority,
                lasts,
                daily,
                rollover,
            } => {
                let rollover = rollover && daily;
                let mut grant = NewGrant::new(units).with_priority(priority);
                if lasts > 0 {
                    grant = grant.expiring_at(self.clock.now() + Duration::from_millis(lasts));
                }
                if daily {
                    grant = grant.refilled(Period::daily());
                }
                if rollover {
                    grant = grant.rolling_over();
                }
                let id = self.accounts.grant(of, grant).await.unwrap();
                let expires = if lasts > 0 { now + lasts } else { u64::MAX };
                self.story().grants.push(Terms {
                    id,
                    units,
                    priority,
                    made_at: now,
                    expires,
                    daily,
                    rollover,
                    voided: None,
                });
            }
            Act::Void(which) => {
                let known = self.story().grants.get(which).map(|grant| grant.id.clone());
                let Some(id) = known else { return };
                match self.accounts.void(of, &id).await {
                    Ok(left) => self.story().grants[which].voided = Some((now, left)),
                    Err(error) => assert!(matches!(error, CreditError::NotFound(_)), "{error:?}"),
                }
            }
            Act::Reserve { units, hours } => {
                let length = Duration::from_millis(hours * HOUR);
                match self.accounts.reserve(of, units, length).await {
                    Ok(made) => self.story().open.push((made, now, units)),
                    Err(error) => assert!(matches!(error, CreditError::Exhausted), "{error:?}"),
                }
            }
            Act::Settle { which, used } => {
                let open = {
                    let open = &mut self.story().open;
                    (which < open.len()).then(|| open.remove(which))
                };
                if let Some((open, at, units)) = open {
                    let used = used.min(units);
                    match open.settle(used).await {
                        Ok(_) => self.story().spent.push((at, used)),
                        Err(error) => {
                            assert!(matches!(error, CreditError::NotFound(_)), "{error:?}");
                        }
                    }
                }
            }
            Act::GiveBack => {
                let balance = self.accounts.balance(of).await.unwrap();
                for block in balance.taken.iter().filter(|one| one.ends_at.is_none()) {
                    if self.accounts.give_back(of, &block.id).await.is_ok() {
                        let mut story = self.story();
                        let unreported = std::mem::take(&mut story.unreported);
                        story.twice += unreported.iter().sum::<u64>();
                    }
                }
            }
        }
    }

    /// Asserts that there is a way to pay each unit that was spent with a unit that was there, each
    /// once: from those that lapse first.
    fn assert_paid(&self) {
        let mut story = self.story();
        let now = millis(&self.clock);
        let mut buckets: Vec<_> = story
            .grants
            .iter()
            .flat_map(|one| one.buckets(now))
            .collect();
        buckets.push(Bucket {
            start: 0,
            end: u64::MAX,
            units: story.twice,
        });
        buckets.sort_by_key(|bucket| bucket.end);
        story.spent.sort_unstable();
        for (at, units) in &story.spent {
            for _ in 0..*units {
                let is_there =
                    |one: &&mut Bucket| one.units > 0 && one.start <= *at && *at < one.end;
                let paying = buckets.iter_mut().find(is_there);
                paying
                    .unwrap_or_else(|| panic!("more was spent than granted: {story:?}"))
                    .units -= 1;
            }
        }
    }

    /// Asserts that the ledger follows the rules, entry by entry, and explains the balance. Returns
    /// how many units were taken and did not come back.
    async fn assert_explained(&self) -> u64 {
        let (mut left, mut taken) = (Left::new(), Taken::new());
        let mut gone = 0;
        let (mut number, mut at) = (0, 0);
        let terms: BTreeMap<_, _> = {
            let story = self.story();
            let each = story.grants.iter().map(|one| (one.id.clone(), one.clone()));
            each.collect()
        };
        loop {
            // Pages of an odd size.
            let page = self
                .accounts
                .ledger(&self.account, number, 7)
                .await
                .unwrap();
            for entry in &page {
                assert_eq!(entry.number, number + 1);
                assert!(entry.at_ms >= at, "{entry:?}");
                (number, at) = (entry.number, entry.at_ms);
                let units = entry.change.unsigned_abs();
                match entry.kind {
                    LedgerKind::Taken => gone += units,
                    LedgerKind::GivenBack => gone -= units,
                    _ => {}
                }
                follow(&terms, &mut left, &mut taken, entry);
            }
            if page.is_empty() {
                break;
            }
        }
        for grant in self.accounts.balance(&self.account).await.unwrap().grants {
            assert_eq!(left.remove(&grant.id).unwrap_or_default().0, grant.left);
        }
        assert!(left.values().all(|(units, _)| *units == 0), "{left:?}");
        gone
    }
}

async fn walk(stores: &[Arc<dyn CreditStore>; NODES], seed: u64) {
    let mut random = Random(seed);
    let kind = match seed % 3 {
        0 => Kind::Exact,
        1 => Kind::Expiring,
        _ => Kind::Wild,
    };
    let name = format!("walk{seed}");
    let clock = ManualClock::new();
    if kind == Kind::Wild {
        // Midnight is within the first leases of blocks.
        clock.advance(Duration::from_millis(16 * HOUR - 30_000));
    }
    let accounts = CreditAccounts::new(Arc::clone(&stores[0]));
    let mut walk = Walk {
        account: CreditAccount::Tenant(tenant(&name)),
        accounts: accounts.with_clock(Arc::new(clock.clone())),
        clock,
        keys: Arc::default(),
        stores: stores.clone(),
        secret: String::new(),
        story: Mutex::default(),
    };
    let block = random.between(1, 12);
    let mut nodes = [0, 1, 2].map(|number| walk.node(number, block));
    let new = NewKey::new("first", Owner::tenant(tenant(&name)));
    let issued = nodes[0].manager().issue(new).await.unwrap();
    walk.secret = issued.key.reveal();
    let walk = Arc::new(walk);
    for _ in 0..STEPS {
        let mut tasks = JoinSet::new();
        for _ in 0..random.between(1, 5) {
            let act = Act::any(&mut random, kind);
            let (walk, nodes) = (Arc::clone(&walk), nodes.clone());
            tasks.spawn(async move { walk.act(&nodes, act).await });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let at = random.index(NODES);
        match random.below(8) {
            0 => {
                nodes[at].run(std::future::ready(())).await;
                nodes[at] = walk.node(at, block);
                walk.story().unreported[at] = 0;
            }
            1 if kind == Kind::Wild => {
                // It crashes. What it did not report is lost, unless it is given back.
                nodes[at] = walk.node(at, block);
            }
            _ => {}
        }
        let wait = match random.below(6) {
            0 if kind == Kind::Wild => random.pick(&[HOUR, 5 * HOUR, DAY, 3 * DAY]),
            1 if kind == Kind::Wild => 120_000,
            2 => 31_000,
            _ => random.below(1_500),
        };
        walk.clock.advance(Duration::from_millis(wait));
    }
    for node in nodes {
        node.run(std::future::ready(())).await;
    }
    let open = std::mem::take(&mut walk.story().open);
    for (reserved, _, _) in open {
        let _ = reserved.settle(0).await;
    }
    // Enters what is due.
    let last = Act::Grant {
        units: 1,
        priority: 2,
        lasts: 0,
        daily: false,
        rollover: false,
    };
    let none = [0, 1, 2].map(|number| walk.node(number, 1));
    walk.act(&none, last).await;
    // What is left is spent too, so that nothing else can pay for what was spent wrongly.
    let left = walk
        .accounts
        .balance(&walk.account)
        .await
        .unwrap()
        .available;
    let (units, used) = (left, left);
    walk.act(&none, Act::Reserve { units, hours: 1 }).await;
    walk.act(&none, Act::Settle { which: 0, used }).await;
    walk.assert_paid();
    let gone = walk.assert_explained().await;
    let story = walk.story();
    let spent: u64 = story.spent.iter().map(|(_, units)| units).sum();
    assert!(
        spent <= gone + story.twice,
        "{spent} spent, {gone} taken: {story:?}"
    );
    assert!(
        kind != Kind::Exact || spent == gone,
        "{spent} spent, {gone} taken: {story:?}"
    );
}

async fn walk_on<H: Home>(home: &H)
where
    H::Store: CreditStore,
{
    let (one, other) = (Arc::new(home.open().await), Arc::new(home.open().await));
    let stores: [Arc<dyn CreditStore>; NODES] = [one.clone(), other, one];
    let first: u64 = std::env::var("CREDIT_SEED").map_or(0, |seed| seed.parse().unwrap());
    for seed in first..first + walks() {
        println!("walk {seed}");
        walk(&stores, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_spend_what_was_granted_in_any_interleaving_on_sqlite() {
    walk_on(&SqliteHome::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_spend_what_was_granted_in_any_interleaving_on_postgresql() {
    walk_on(&PostgresHome::new(&Arc::new(Postgres::start()))).await;
}
