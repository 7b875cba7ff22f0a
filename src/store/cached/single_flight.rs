//! Look-ups that are on their way: whoever asks the same meanwhile waits for the same answer.
//!
//! The board holds no look-up alive: one that nobody waits for any more is given up, with whatever
//! it holds of the store.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use parking_lot::Mutex;

use super::answers::Mark;
use crate::key::KeyDigest;
use crate::store::{StoreError, StoredKey};

type Answer = Result<Option<Arc<StoredKey>>, Arc<StoreError>>;
type LookUp = Pin<Box<dyn Future<Output = Answer> + Send>>;
type Flight = Shared<LookUp>;
type InFlightMap = Mutex<HashMap<Box<[KeyDigest]>, Waiting>>;

#[derive(Default)]
pub(super) struct SingleFlight {
    under_way: Arc<InFlightMap>,
}

struct Waiting {
    mark: Mark,
    flight: WeakShared<LookUp>,
}

/// Takes a flight off the board when it has landed, crashed, or was given up.
struct InFlight {
    board: Arc<InFlightMap>,
    digests: Box<[KeyDigest]>,
    mark: Mark,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut board = self.board.lock();
        // Only itself: another one may have taken its place.
        if board
            .get(&self.digests)
            .is_some_and(|waiting| waiting.mark.number == self.mark.number)
        {
            board.remove(&self.digests);
        }
    }
}

impl SingleFlight {
    /// Joins the look-up of these digests, if `may_join` allows it by its mark, or begins one.
    /// `remembered` is asked again first: the answer may have come in between.
    pub(super) fn join<F>(
        &self,
        digests: &[KeyDigest],
        mark: Mark,
        may_join: impl FnOnce(Mark) -> bool,
        remembered: impl FnOnce() -> Option<Option<Arc<StoredKey>>>,
        begin: impl FnOnce() -> F,
    ) -> Joined
    where
        F: Future<Output = Result<Option<Arc<StoredKey>>, StoreError>> + Send + 'static,
    {
        let known;
        let joined = {
            let mut board = self.under_way.lock();
            if let Some(remembered) = remembered() {
                return Joined::Remembered(remembered);
            }
            // Dropped after the lock is given back: where it is the last, its landing needs the
            // board.
            known = board
                .get(digests)
                .and_then(|waiting| Some((waiting.mark, waiting.flight.upgrade()?)));
            match &known {
                Some((began, flight)) if may_join(*began) => flight.clone(),
                _ => {
                    let landing = InFlight {
                        board: Arc::clone(&self.under_way),
                        digests: digests.into(),
                        mark,
                    };
                    let look_up = AssertUnwindSafe(begin()).catch_unwind();
                    let whole: LookUp = Box::pin(async move {
                        let _landing = landing;
                        match look_up.await {
                            Ok(answer) => answer.map_err(Arc::new),
                            Err(_) => Err(Arc::new(StoreError::unavailable("the store panicked"))),
                        }
                    });
                    let flight = whole.shared();
                    if let Some(weak) = flight.downgrade() {
                        board.insert(digests.into(), Waiting { mark, flight: weak });
                    }
                    flight
                }
            }
        };
        drop(known);
        Joined::Waiting(joined)
    }
}

/// What asking has come to.
pub(super) enum Joined {
    Remembered(Option<Arc<StoredKey>>),
    Waiting(Flight),
}
