//! Look-ups that are on their way: whoever asks the same meanwhile waits for the same answer.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use futures_util::future::Shared;
use parking_lot::Mutex;

use super::Mark;
use crate::key::KeyDigest;
use crate::store::{StoreError, StoredKey};

type Answer = Result<Option<Arc<StoredKey>>, Arc<StoreError>>;
type Flight = Shared<Pin<Box<dyn Future<Output = Answer> + Send>>>;

#[derive(Default)]
pub(super) struct Flights {
    under_way: Arc<Mutex<HashMap<Box<[KeyDigest]>, Waiting>>>,
    numbers: AtomicU64,
}

struct Waiting {
    number: u64,
    epoch: u64,
    flight: Flight,
}

/// Takes a flight off the board when it has landed, or crashed.
struct Landing {
    board: Arc<Mutex<HashMap<Box<[KeyDigest]>, Waiting>>>,
    digests: Box<[KeyDigest]>,
    number: u64,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut board = self.board.lock();
        if board.get(&self.digests).is_some_and(|waiting| waiting.number == self.number) {
            board.remove(&self.digests);
        }
    }
}

impl Flights {
    /// Joins the look-up of these digests, or begins one. One that began before anything was invalidated is not joined:
    /// whoever asks now must not hear what was true then.
    pub(super) fn join<B, F>(
        &self,
        digests: &[KeyDigest],
        mark: Mark,
        begin: B,
    ) -> impl Future<Output = Result<Option<Arc<StoredKey>>, StoreError>> + Send + use<B, F>
    where
        B: FnOnce(Mark) -> F,
        F: Future<Output = Result<Option<Arc<StoredKey>>, StoreError>> + Send + 'static,
    {
        let mut board = self.under_way.lock();
        let flight = match board.get(digests) {
            Some(waiting) if waiting.epoch == mark.epoch => waiting.flight.clone(),
            _ => {
                let number = self.numbers.fetch_add(1, Ordering::Relaxed);
                let landing = Landing { board: Arc::clone(&self.under_way), digests: digests.into(), number };
                let look_up = begin(mark);
                let whole: Pin<Box<dyn Future<Output = Answer> + Send>> = Box::pin(async move {
                    let _landing = landing;
                    look_up.await.map_err(Arc::new)
                });
                let flight = whole.shared();
                let waiting = Waiting { number, epoch: mark.epoch, flight: flight.clone() };
                board.insert(digests.into(), waiting);
                flight
            }
        };
        drop(board);
        async move { flight.await.map_err(StoreError::shared) }
    }
}
