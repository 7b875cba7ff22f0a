//! Whose turn it is to write: a few writes at once, and one on SQLite.
//!
//! A write that may narrow what a key may do goes before all that cannot, however long these have
//! waited. Among those of one kind each tenant has its turn, whatever another tenant has waiting.
//! Where several write at once, writes that cannot narrow never hold all the turns, nor does one
//! tenant: what is slow in the database keeps nobody else's revocation waiting.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::fault::{Fault, Refusal};

/// The longest that a write waits for its turn.
const TURN_LIMIT: Duration = Duration::from_secs(30);

/// Where a write waits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lane {
    /// Whether it may narrow what a key may do.
    pub(crate) narrows: bool,
    /// Whose keys it is about; `None` where it is about those of several, or of none.
    pub(crate) tenant: Option<String>,
}

/// Lets a few writers in at a time.
#[derive(Debug, Clone)]
pub(crate) struct WriteQueue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    /// The most that write at once and cannot narrow.
    most_others: usize,
    /// The most of one tenant that write at once and may narrow.
    most_of_tenant: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    narrowing: Waiting,
    others: Waiting,
    /// How many write now: those that may narrow by tenant, and the others.
    narrowing_now: BTreeMap<Option<String>, usize>,
    others_now: usize,
}

/// Those who wait, each tenant's in the order in which they came.
#[derive(Debug, Default)]
struct Waiting {
    by_tenant: BTreeMap<Option<String>, VecDeque<oneshot::Sender<Turn>>>,
    /// The tenants of whom any wait, in the order of their turns.
    order: VecDeque<Option<String>>,
}

/// A turn to write, until this is dropped.
#[derive(Debug)]
#[must_use = "the turn is over when this is dropped"]
pub(crate) struct Turn {
    shared: Arc<Shared>,
    lane: Lane,
}

impl WriteQueue {
    /// So many write at once.
    pub(crate) fn new(at_once: usize) -> Self {
        let most = at_once.max(1);
        // Of five turns two are kept free, and a tenant has one: there is one for everybody else.
        let kept = if most > 1 { (most * 2 / 5).max(1) } else { 0 };
        Self(Arc::new(Shared {
            most,
            most_others: most - kept,
            most_of_tenant: (most / 4).max(1),
            state: Mutex::default(),
        }))
    }

    pub(crate) async fn wait(&self, lane: Lane) -> Result<Turn, Fault> {
        let (give, given) = oneshot::channel();
        self.0.lock().waiting(lane.narrows).push(lane.tenant, give);
        Shared::give(&self.0);
        match timeout(TURN_LIMIT, given).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Refusal::NoTurn(TURN_LIMIT).into()),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the turns that are free to those who are next.
    fn give(shared: &Arc<Self>) {
        loop {
            // The lock is free again before a turn is given: one that nobody takes ends at once.
            let next = shared.lock().next(shared);
            let Some((lane, give)) = next else { return };
            let turn = Turn {
                shared: Arc::clone(shared),
                lane,
            };
            drop(give.send(turn));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.shared.lock().ended(&self.lane);
        Shared::give(&self.shared);
    }
}

impl State {
    fn waiting(&mut self, narrows: bool) -> &mut Waiting {
        if narrows {
            &mut self.narrowing
        } else {
            &mut self.others
        }
    }

    /// Who is next, and is counted from now on; `None` where nobody may write now.
    fn next(&mut self, shared: &Shared) -> Option<(Lane, oneshot::Sender<Turn>)> {
        let now = self.others_now + self.narrowing_now.values().sum::<usize>();
        if now >= shared.most {
            return None;
        }
        let narrowing_now = &self.narrowing_now;
        let may = |tenant: &Option<String>| {
            narrowing_now.get(tenant).copied().unwrap_or(0) < shared.most_of_tenant
        };
        if let Some((tenant, give)) = self.narrowing.pop(may) {
            *self.narrowing_now.entry(tenant.clone()).or_default() += 1;
            let narrows = true;
            return Some((Lane { narrows, tenant }, give));
        }
        if self.others_now >= shared.most_others {
            return None;
        }
        let (tenant, give) = self.others.pop(|_| true)?;
        self.others_now += 1;
        let narrows = false;
        Some((Lane { narrows, tenant }, give))
    }

    fn ended(&mut self, lane: &Lane) {
        if !lane.narrows {
            self.others_now -= 1;
        } else if let Some(count) = self.narrowing_now.get_mut(&lane.tenant) {
            *count -= 1;
            if *count == 0 {
                self.narrowing_now.remove(&lane.tenant);
            }
        }
    }
}

impl Waiting {
    fn push(&mut self, tenant: Option<String>, give: oneshot::Sender<Turn>) {
        let all = self.by_tenant.entry(tenant.clone()).or_default();
        if all.is_empty() {
            self.order.push_back(tenant);
        }
        all.push_back(give);
    }

    /// The first of the first tenant that may have a turn, who is the last one then. Those who do
    /// not wait any more are passed over.
    fn pop(
        &mut self,
        may: impl Fn(&Option<String>) -> bool,
    ) -> Option<(Option<String>, oneshot::Sender<Turn>)> {
        let mut place = 0;
        while let Some(tenant) = self.order.get(place) {
            if !may(tenant) {
                place += 1;
                continue;
            }
            let tenant = self.order.remove(place)?;
            let all = self.by_tenant.get_mut(&tenant)?;
            let mut next = None;
            while let Some(give) = all.pop_front() {
                if !give.is_closed() {
                    next = Some(give);
                    break;
                }
            }
            if all.is_empty() {
                self.by_tenant.remove(&tenant);
            } else {
                self.order.push_back(tenant.clone());
            }
            if let Some(give) = next {
                return Some((tenant, give));
            }
        }
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn narrowing(tenant: &str) -> Lane {
        Lane {
            narrows: true,
            tenant: Some(tenant.into()),
        }
    }

    fn other(tenant: &str) -> Lane {
        Lane {
            narrows: false,
            tenant: Some(tenant.into()),
        }
    }

    /// In which order those who wait have their turns, of which there is one.
    async fn order(lanes: Vec<(&'static str, Lane)>) -> Vec<&'static str> {
        let turns = WriteQueue::new(1);
        let first = turns.wait(Lane::default()).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for (name, lane) in lanes {
            let (turns, order) = (turns.clone(), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let _turn = turns.wait(lane).await.unwrap();
                order.lock().unwrap().push(name);
            }));
            tokio::task::yield_now().await;
        }
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        Arc::try_unwrap(order).unwrap().into_inner().unwrap()
    }

    #[tokio::test]
    async fn what_narrows_goes_first_and_each_tenant_has_its_turn() {
        let waiting = vec![
            ("usage", Lane::default()),
            ("issue 1", other("a")),
            ("issue 2", other("a")),
            ("issue 3", other("b")),
            ("revoke 1", narrowing("a")),
            ("revoke 2", narrowing("a")),
            ("revoke 3", narrowing("a")),
            ("revoke 4", narrowing("b")),
            ("audit", Lane::default()),
        ];
        let expected = [
            "revoke 1", "revoke 4", "revoke 2", "revoke 3", "usage", "issue 1", "issue 3", "audit",
            "issue 2",
        ];
        assert_eq!(order(waiting).await, expected);
    }

    #[tokio::test]
    async fn neither_others_nor_one_tenant_hold_all_turns() {
        let turns = WriteQueue::new(5);
        let mut held = Vec::new();
        let mut waiting = Vec::new();
        for lane in [Lane::default(), other("a"), narrowing("a")] {
            for _ in 0..20 {
                let mut turn = Box::pin(turns.wait(lane.clone()));
                match futures_poll(&mut turn).await {
                    Some(turn) => held.push(turn.unwrap()),
                    None => waiting.push(turn),
                }
            }
        }
        assert_eq!(held.len(), 4, "three others, one of tenant a");
        let turn = timeout(Duration::from_secs(5), turns.wait(narrowing("b"))).await;
        drop(turn.unwrap().unwrap());
        drop(waiting);
        drop(held);
        // Those who went away hold nothing.
        let all = [Lane::default(), Lane::default(), Lane::default()];
        let mut held = Vec::new();
        for lane in all.into_iter().chain(["a", "b"].map(narrowing)) {
            let turn = timeout(Duration::from_secs(5), turns.wait(lane)).await;
            held.push(turn.unwrap().unwrap());
        }
    }

    /// What a future comes to at once.
    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            done = future => Some(done),
            () = std::future::ready(()) => None,
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_turn_that_nobody_takes_any_more_is_given_to_the_next() {
        let turns = WriteQueue::new(1);
        for round in 0_u64..200 {
            let first = turns.wait(Lane::default()).await.unwrap();
            let limit = Duration::from_micros(round);
            let waiting: Vec<_> = (0..8)
                .map(|_| {
                    let turns = turns.clone();
                    tokio::spawn(async move {
                        let _ = timeout(limit, turns.wait(narrowing("a"))).await;
                    })
                })
                .collect();
            tokio::task::yield_now().await;
            drop(first);
            for task in waiting {
                task.await.unwrap();
            }
        }
        assert!(turns.wait(Lane::default()).await.is_ok());
    }
}
