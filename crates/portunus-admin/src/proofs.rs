//! Asking the host's proof, so that neither those who fail nor a proof that hangs keeps anybody
//! else from being proven: what a client may fail is in [`failures`](crate::failures), how many
//! proofs are asked for at once is here.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::http::request::Parts;
use parking_lot::{Mutex, MutexGuard};
use portunus::manage::Operator;
use portunus::quota::{Quota, Quotas};
use portunus::{AuthError, Clock, ErrorCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::OperatorProof;
use crate::failures::{Failures, narrowest};

/// How many proofs are asked for at once, of credentials that were not proven lately: on this node,
/// for one client, and for all clients that failed lately or have no address.
const AT_ONCE: usize = 64;
const AT_ONCE_FOR_ONE: usize = 16;
const AT_ONCE_FOR_SUSPECTS: usize = 48;

/// How long a request waits for its turn.
const LONGEST_QUEUE: Duration = Duration::from_secs(1);

/// How long a proof may take.
const LONGEST_PROOF: Duration = Duration::from_secs(10);

/// How long credentials are known after they were proven, at least; and how many are, at least.
const KNOWN_FOR: Duration = Duration::from_secs(300);
const MOST_KNOWN: usize = 10_000;

/// The host's proof, and who has failed it.
pub(crate) struct Proofs {
    proof: Arc<dyn OperatorProof>,
    clock: Arc<dyn Clock>,
    failures: Option<Failures>,
    known: Known,
    places: Arc<Places>,
}

impl Proofs {
    pub(crate) fn new(proof: impl OperatorProof, clock: &Arc<dyn Clock>) -> Self {
        let per_minute = Quota::per_minute(100).and_then(|quota| Quotas::new([quota]));
        Self {
            proof: Arc::new(proof),
            clock: Arc::clone(clock),
            failures: per_minute
                .ok()
                .map(|allowed| Failures::new(&allowed, clock)),
            known: Known::default(),
            places: Arc::default(),
        }
    }

    /// The same with as many failures.
    pub(crate) fn with_failures(&self, allowed: Option<&Quotas>) -> Self {
        Self {
            proof: Arc::clone(&self.proof),
            clock: Arc::clone(&self.clock),
            failures: allowed.map(|allowed| Failures::new(allowed, &self.clock)),
            known: Known::default(),
            places: Arc::default(),
        }
    }

    /// What this request presents.
    pub(crate) fn credentials<'r>(&self, parts: &'r Parts) -> Vec<&'r [u8]> {
        self.proof.credentials(parts)
    }

    /// Who makes this request.
    ///
    /// # Errors
    /// The proof's, or 429 in its place where this client failed too often; 503 where too many
    /// proofs are asked for or this one takes too long.
    pub(crate) async fn prove(
        &self,
        parts: &Parts,
        client: Option<IpAddr>,
    ) -> Result<Operator, AuthError> {
        let mark = self.known.mark(&self.credentials(parts));
        let now = self.clock.monotonic();
        let place = if mark.is_some_and(|mark| self.known.has(mark, now)) {
            None
        } else {
            Some(self.turn(client).await?)
        };
        // A client that goes away before its proof is decided has failed.
        let attempt = Attempt {
            proofs: self,
            client,
            is_over: false,
        };
        let proven = in_time(self.proof.prove(parts)).await;
        drop(place);
        match (&proven, mark) {
            (Ok(_), Some(mark)) => self.known.insert(mark, now),
            (Err(_), Some(mark)) => self.known.remove(mark),
            (_, None) => {}
        }
        attempt.ended(proven)
    }

    async fn turn(&self, client: Option<IpAddr>) -> Result<Place, AuthError> {
        let mut suspect = client.is_none();
        if let (Some(failures), Some(client)) = (&self.failures, client) {
            failures
                .admit(client)
                .map_err(AuthError::too_many_failures)?;
            suspect = failures.suspects(client);
        }
        self.places.take(client.map(narrowest), suspect).await
    }

    /// Counts a call of this client's that nobody is proven to make, and says how it is answered:
    /// as it would be, or with 429 where there were too many.
    pub(crate) fn failed(&self, client: Option<IpAddr>, error: AuthError) -> AuthError {
        // Whoever cannot be told apart is not counted together; and for what the host's proof does
        // not answer, nobody else is to blame.
        let (Some(failures), Some(client)) = (&self.failures, client) else {
            return error;
        };
        if error.status() >= 500 {
            return error;
        }
        match failures.count(client) {
            Some(wait) => AuthError::too_many_failures(wait),
            None => error,
        }
    }
}

/// A proof that somebody waits for.
struct Attempt<'a> {
    proofs: &'a Proofs,
    client: Option<IpAddr>,
    is_over: bool,
}

impl Attempt<'_> {
    fn ended(mut self, proven: Result<Operator, AuthError>) -> Result<Operator, AuthError> {
        self.is_over = true;
        proven.map_err(|error| self.proofs.failed(self.client, error))
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            let unproven = AuthError::new(ErrorCode::MissingKey);
            drop(self.proofs.failed(self.client, unproven));
        }
    }
}

/// The proof, unless it takes too long. One that answers at once needs no timer.
async fn in_time(
    proof: impl Future<Output = Result<Operator, AuthError>>,
) -> Result<Operator, AuthError> {
    let mut proof = pin!(proof);
    if let Poll::Ready(proven) = poll_fn(|context| Poll::Ready(proof.as_mut().poll(context))).await
    {
        return proven;
    }
    let late = |_| unavailable("the proof of the operator took too long");
    timeout(LONGEST_PROOF, proof).await.map_err(late)?
}

fn unavailable(why: &'static str) -> AuthError {
    AuthError::unavailable(ErrorCode::VerifierUnavailable, why)
}

/// Credentials that were proven lately: numbers that cannot be made by whoever does not know this
/// process's secret. It only says whose turn it is; the proof is asked each time.
#[derive(Default)]
struct Known {
    hasher: RandomState,
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    since: Duration,
    current: HashSet<u64>,
    last: HashSet<u64>,
}

impl Known {
    fn mark(&self, credentials: &[&[u8]]) -> Option<u64> {
        (!credentials.is_empty()).then(|| self.hasher.hash_one(credentials))
    }

    fn at(&self, now: Duration) -> MutexGuard<'_, Generations> {
        let mut known = self.generations.lock();
        if now.saturating_sub(known.since) > KNOWN_FOR || known.current.len() >= MOST_KNOWN {
            // Nothing was asked for so long that even the current ones are old.
            let is_old = now.saturating_sub(known.since) > 2 * KNOWN_FOR;
            known.last = std::mem::take(&mut known.current);
            if is_old {
                known.last.clear();
            }
            known.since = now;
        }
        known
    }

    fn has(&self, mark: u64, now: Duration) -> bool {
        let known = self.at(now);
        known.current.contains(&mark) || known.last.contains(&mark)
    }

    fn insert(&self, mark: u64, now: Duration) {
        self.at(now).current.insert(mark);
    }

    fn remove(&self, mark: u64) {
        let mut known = self.generations.lock();
        known.current.remove(&mark);
        known.last.remove(&mark);
    }
}

/// Whose proofs are asked for at the moment.
struct Places {
    all: Arc<Semaphore>,
    suspects: Arc<Semaphore>,
    /// Of each client with somebody in it or before it, and how many these are.
    of_clients: Mutex<HashMap<String, (Arc<Semaphore>, usize)>>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(AT_ONCE)),
            suspects: Arc::new(Semaphore::new(AT_ONCE_FOR_SUSPECTS)),
            of_clients: Mutex::default(),
        }
    }
}

/// A place, or one in the queue.
struct Place {
    places: Arc<Places>,
    client: Option<String>,
    taken: Vec<OwnedSemaphorePermit>,
}

impl Places {
    async fn take(
        self: &Arc<Self>,
        client: Option<String>,
        suspect: bool,
    ) -> Result<Place, AuthError> {
        let mut rooms = Vec::with_capacity(3);
        if let Some(client) = &client {
            let mut clients = self.of_clients.lock();
            let new = || (Arc::new(Semaphore::new(AT_ONCE_FOR_ONE)), 0);
            let (room, users) = clients.entry(client.clone()).or_insert_with(new);
            *users += 1;
            rooms.push(Arc::clone(room));
        }
        if suspect {
            rooms.push(Arc::clone(&self.suspects));
        }
        rooms.push(Arc::clone(&self.all));
        let mut place = Place {
            places: Arc::clone(self),
            client,
            taken: Vec::new(),
        };
        let mut rooms = rooms.into_iter().peekable();
        // Without a timer as long as there is nothing to wait for.
        while let Some(taken) = rooms
            .peek()
            .and_then(|room| Arc::clone(room).try_acquire_owned().ok())
        {
            place.taken.push(taken);
            rooms.next();
        }
        if rooms.peek().is_some() {
            let waiting = async {
                for room in rooms {
                    place.taken.extend(room.acquire_owned().await);
                }
            };
            let busy = |_| unavailable("too many operators are being proven");
            timeout(LONGEST_QUEUE, waiting).await.map_err(busy)?;
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.clear();
        let Some(client) = &self.client else {
            return;
        };
        let mut clients = self.places.of_clients.lock();
        if let Some((_, users)) = clients.get_mut(client) {
            *users -= 1;
            if *users == 0 {
                clients.remove(client);
            }
        }
    }
}
