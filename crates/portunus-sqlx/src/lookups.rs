//! Lookups share statements under load.
//!
//! A lookup of one digest runs at once while few others run. Otherwise it waits, and the first one
//! that ends runs all that wait, several in each statement: many misses of a cache then cost the
//! database a fraction of the statements. A statement starts after all lookups in it, so that each
//! sees every write that was acknowledged before it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portunus::key::KeyDigest;
use portunus::store::StoredKey;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::fault::{Fault, Refusal};
use crate::operation::{DIGESTS, Find, FindEach};
use crate::store::Database;

/// The key with a digest.
type Answer = Result<Option<Arc<StoredKey>>, Fault>;

/// The lookups of one database.
#[derive(Debug, Clone)]
pub(crate) struct Lookups(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The number of statements at the same time.
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    digest: KeyDigest,
    give: oneshot::Sender<Answer>,
}

impl Lookups {
    /// Lookups with this many statements at the same time.
    pub(crate) fn new(most: u32) -> Self {
        let most = usize::try_from(most).unwrap_or(1).max(1);
        let state = Mutex::default();
        Self(Arc::new(Shared { most, state }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a statement, or waits for one.
    fn start_or_wait(&self, digest: &KeyDigest) -> Option<oneshot::Receiver<Answer>> {
        let mut state = self.lock();
        if state.running < self.0.most {
            state.running += 1;
            return None;
        }
        let (give, given) = oneshot::channel();
        let digest = *digest;
        state.waiting.push_back(Waiting { digest, give });
        Some(given)
    }

    /// The next lookups that wait. If there are none, the turn ends.
    fn next(&self) -> Option<Vec<Waiting>> {
        let mut state = self.lock();
        let mut next = Vec::new();
        while next.len() < DIGESTS
            && let Some(waiting) = state.waiting.pop_front()
        {
            if !waiting.give.is_closed() {
                next.push(waiting);
            }
        }
        if next.is_empty() {
            state.running -= 1;
            return None;
        }
        Some(next)
    }

    /// Ends a turn although lookups may wait. If no other turn is left, they start again on their own.
    fn give_up(&self) {
        let mut state = self.lock();
        state.running -= 1;
        if state.running == 0 {
            state.waiting.clear();
        }
    }
}

/// Finds the key with this digest, possibly together with others.
pub(crate) async fn find<D: Database>(database: &D, digest: &KeyDigest) -> Answer {
    let Some(lookups) = database.lookups() else {
        return database.read(Find(&[*digest])).await;
    };
    let alone = async || {
        let _turn = Turn(database, lookups);
        database.read(Find(&[*digest])).await
    };
    // Usually at once, and then without a second timer: a statement has this limit itself.
    let Some(mut given) = lookups.start_or_wait(digest) else {
        return alone().await;
    };
    let answer = async {
        loop {
            if let Ok(answer) = given.await {
                return answer;
            }
            // The turn that would have answered has ended.
            match lookups.start_or_wait(digest) {
                Some(next) => given = next,
                None => return alone().await,
            }
        }
    };
    match timeout(D::LOOK_UP_LIMIT, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(Refusal::TooLong(D::LOOK_UP_LIMIT).into()),
    }
}

/// The turn of a lookup that runs on its own. When it ends, it is handed to those that wait.
struct Turn<'d, D: Database>(&'d D, &'d Lookups);

impl<D: Database> Drop for Turn<'_, D> {
    fn drop(&mut self) {
        let Self(database, lookups) = self;
        let is_last = {
            let mut state = lookups.lock();
            let is_last = state.waiting.is_empty();
            state.running -= usize::from(is_last);
            is_last
        };
        if is_last {
            return;
        }
        let shared = SharedTurn(Some((*lookups).clone()));
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(answer_all((*database).clone(), shared));
        }
    }
}

/// A turn that answers those that wait; `None` once it has ended.
struct SharedTurn(Option<Lookups>);

impl SharedTurn {
    fn next(&mut self) -> Option<Vec<Waiting>> {
        let next = self.0.as_ref()?.next();
        if next.is_none() {
            self.0 = None;
        }
        next
    }
}

impl Drop for SharedTurn {
    fn drop(&mut self) {
        if let Some(lookups) = self.0.take() {
            lookups.give_up();
        }
    }
}

/// Answers all lookups that wait, some at a time.
async fn answer_all<D: Database>(database: D, mut turn: SharedTurn) {
    while let Some(waiting) = turn.next() {
        let digests: Vec<_> = waiting.iter().map(|waiting| waiting.digest).collect();
        match database.read(FindEach(&digests)).await {
            Ok(answers) => {
                for (waiting, answer) in waiting.into_iter().zip(answers) {
                    let _ = waiting.give.send(answer.map_err(Fault::Corrupt));
                }
            }
            Err(fault) => {
                let causes = fault.causes();
                for waiting in waiting {
                    let shared = Refusal::Shared(causes.clone());
                    let _ = waiting.give.send(Err(shared.into()));
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use portunus::key::DigestScheme;

    use super::*;

    fn digest(number: u8) -> KeyDigest {
        KeyDigest::new(DigestScheme::Sha256, [number; 32])
    }

    #[test]
    fn those_that_wait_are_answered_in_order_and_without_those_that_left() {
        let lookups = Lookups::new(1);
        assert!(lookups.start_or_wait(&digest(0)).is_none());
        let mut given: Vec<_> = (1..=10)
            .map(|number| lookups.start_or_wait(&digest(number)).unwrap())
            .collect();
        drop(given.remove(1));
        let mut turn = SharedTurn(Some(lookups.clone()));
        let mut next = || {
            let next = turn.next().unwrap_or_default().into_iter();
            next.map(|waiting| waiting.digest).collect::<Vec<_>>()
        };
        assert_eq!(next(), [1, 3, 4, 5, 6, 7, 8, 9].map(digest));
        assert_eq!(next(), [digest(10)]);
        assert_eq!(next(), []);
        assert!(lookups.start_or_wait(&digest(0)).is_none(), "it has ended");
    }

    #[test]
    fn those_that_wait_for_a_turn_that_was_given_up_start_again() {
        let lookups = Lookups::new(1);
        assert!(lookups.start_or_wait(&digest(0)).is_none());
        let mut given = lookups.start_or_wait(&digest(1)).unwrap();
        assert!(given.try_recv().is_err());
        drop(SharedTurn(Some(lookups.clone())));
        let ended = given.try_recv().unwrap_err();
        assert_eq!(ended, oneshot::error::TryRecvError::Closed);
        assert!(lookups.start_or_wait(&digest(1)).is_none());
    }
}
