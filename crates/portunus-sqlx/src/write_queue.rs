//! The order of writes: a few at the same time, and one at a time on SQLite.
//!
//! A write that may narrow what a key may do takes precedence over all others, however long these
//! have waited. Within each class, tenants take turns, whatever another tenant has queued. Where
//! several writes run at the same time, neither the writes that cannot narrow nor those of a single
//! tenant ever hold all turns: slow writes do not delay another tenant's revocation.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::fault::{Fault, Refusal};

/// The longest time that a write waits for its turn.
const TURN_LIMIT: Duration = Duration::from_secs(30);

/// The class and the tenant of a write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lane {
    /// Whether it may narrow what a key may do.
    pub(crate) narrows: bool,
    /// The tenant that owns the keys; `None` for keys of several tenants, or of none.
    pub(crate) tenant: Option<String>,
}

/// Admits a few writes at a time.
#[derive(Debug, Clone)]
pub(crate) struct WriteQueue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    /// The largest number of concurrent writes that cannot narrow.
    most_others: usize,
    /// The largest number of concurrent writes of one tenant that may narrow.
    most_of_tenant: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    narrowing: Waiting,
    others: Waiting,
    /// The number of writes in progress: those that may narrow, by tenant, and the others.
    narrowing_now: BTreeMap<Option<String>, usize>,
    others_now: usize,
}

/// Waiting writes, in order of arrival for each tenant.
#[derive(Debug, Default)]
struct Waiting {
    by_tenant: BTreeMap<Option<String>, VecDeque<oneshot::Sender<Turn>>>,
    /// The tenants with waiting writes, in the order of their turns.
    order: VecDeque<Option<String>>,
}

/// A turn to write, which ends when this is dropped.
#[derive(Debug)]
#[must_use = "the turn ends when this is dropped"]
pub(crate) struct Turn {
    shared: Arc<Shared>,
    lane: Lane,
}

impl WriteQueue {
    /// Creates a queue with this many concurrent writes.
    pub(crate) fn new(at_once: usize) -> Self {
        let most = at_once.max(1);
        // Two fifths of the turns are reserved for narrowing writes, and one tenant may hold a
        // quarter: at least one turn is left for every other tenant.
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

    /// Grants the free turns to the next writes.
    fn give(shared: &Arc<Self>) {
        loop {
            // The lock is released before a turn is granted: a turn without a receiver is dropped
            // at once, which takes the lock again.
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

    /// The next write, which is counted from now on; `None` if none may start now.
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

    /// The first write of the first tenant that may have a turn; that tenant then moves to the end.
    /// Abandoned writes are skipped.
    fn pop(
        &mut self,
        may: impl Fn(&Option<String>) -> bool,
    ) -> Option<(Option<String>, oneshot::Sender<Turn>)> {
        let mut position = 0;
        while let Some(tenant) = self.order.get(position) {
            if !may(tenant) {
                position += 1;
                continue;
            }
            let tenant = self.order.remove(position)?;
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

    /// The order in which waiting writes are granted a single turn.
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
    async fn narrowing_writes_go_first_and_tenants_take_turns() {
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
                match poll_once(&mut turn).await {
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
        // Abandoned writes hold nothing.
        let all = [Lane::default(), Lane::default(), Lane::default()];
        let mut held = Vec::new();
        for lane in all.into_iter().chain(["a", "b"].map(narrowing)) {
            let turn = timeout(Duration::from_secs(5), turns.wait(lane)).await;
            held.push(turn.unwrap().unwrap());
        }
    }

    /// The output of a future that is ready.
    async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            done = future => Some(done),
            () = std::future::ready(()) => None,
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_abandoned_turn_is_given_to_the_next() {
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
