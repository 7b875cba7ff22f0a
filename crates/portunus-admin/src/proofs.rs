//! Runs the host's proof with bounded concurrency and time, so that neither failing clients nor a
//! hanging proof prevent others from being authenticated. [`failures`](crate::failures) limits the
//! failures of a client.

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

/// Maximum number of concurrent proofs of credentials that were not recently proven: on this node,
/// for one client, and for all clients with recent failures or without an address.
const MAX_CONCURRENT: usize = 64;
const MAX_CONCURRENT_FOR_ONE: usize = 16;
const MAX_CONCURRENT_FOR_SUSPECTS: usize = 48;

/// Maximum time that a request waits for a permit.
const MAX_QUEUE_TIME: Duration = Duration::from_secs(1);

/// Timeout of a proof.
const PROOF_TIMEOUT: Duration = Duration::from_secs(10);

/// Minimum time for which proven credentials are remembered, and minimum number of them.
const KNOWN_FOR: Duration = Duration::from_secs(300);
const KNOWN_COUNT: usize = 10_000;

/// The host's proof with its limits.
pub(crate) struct Proofs {
    proof: Arc<dyn OperatorProof>,
    clock: Arc<dyn Clock>,
    failures: Option<Failures>,
    known: Known,
    limits: Arc<ProofLimits>,
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
            limits: Arc::default(),
        }
    }

    /// Creates a copy with another limit on failures.
    pub(crate) fn with_failures(&self, allowed: Option<&Quotas>) -> Self {
        Self {
            proof: Arc::clone(&self.proof),
            clock: Arc::clone(&self.clock),
            failures: allowed.map(|allowed| Failures::new(allowed, &self.clock)),
            known: Known::default(),
            limits: Arc::default(),
        }
    }

    /// Returns the credentials that this request presents.
    pub(crate) fn credentials<'r>(&self, parts: &'r Parts) -> Vec<&'r [u8]> {
        self.proof.credentials(parts)
    }

    /// Authenticates the operator of this request.
    ///
    /// # Errors
    /// Returns the error of the proof, or 429 instead if this client failed too often; 503 if too
    /// many proofs are running or this one times out.
    pub(crate) async fn prove(
        &self,
        parts: &Parts,
        client: Option<IpAddr>,
    ) -> Result<Operator, AuthError> {
        let hash = self.known.hash(&self.credentials(parts));
        let now = self.clock.monotonic();
        let permit = if hash.is_some_and(|hash| self.known.has(hash, now)) {
            None
        } else {
            Some(self.acquire(client).await?)
        };
        // A client that disconnects before its proof is decided counts as a failure.
        let attempt = Attempt {
            proofs: self,
            client,
            is_over: false,
        };
        let operator = in_time(self.proof.prove(parts)).await;
        drop(permit);
        match (&operator, hash) {
            (Ok(_), Some(hash)) => self.known.insert(hash, now),
            (Err(_), Some(hash)) => self.known.remove(hash),
            (_, None) => {}
        }
        attempt.ended(operator)
    }

    async fn acquire(&self, client: Option<IpAddr>) -> Result<ProofPermit, AuthError> {
        let mut suspect = client.is_none();
        if let (Some(failures), Some(client)) = (&self.failures, client) {
            failures
                .admit(client)
                .map_err(AuthError::too_many_failures)?;
            suspect = failures.suspects(client);
        }
        self.limits.take(client.map(narrowest), suspect).await
    }

    /// Counts a call of this client without an authenticated operator. Returns `error`, or 429 if
    /// there were too many.
    pub(crate) fn failed(&self, client: Option<IpAddr>, error: AuthError) -> AuthError {
        // Clients without an address are not counted, because they would share one count. A proof
        // that is unavailable (5xx) is not the client's failure.
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

/// A running proof. Dropping it before it is decided counts a failure.
struct Attempt<'a> {
    proofs: &'a Proofs,
    client: Option<IpAddr>,
    is_over: bool,
}

impl Attempt<'_> {
    fn ended(mut self, operator: Result<Operator, AuthError>) -> Result<Operator, AuthError> {
        self.is_over = true;
        operator.map_err(|error| self.proofs.failed(self.client, error))
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            let error = AuthError::new(ErrorCode::MissingKey);
            drop(self.proofs.failed(self.client, error));
        }
    }
}

/// Runs a proof with a timeout. A proof that completes immediately needs no timer.
async fn in_time(
    proof: impl Future<Output = Result<Operator, AuthError>>,
) -> Result<Operator, AuthError> {
    let mut proof = pin!(proof);
    if let Poll::Ready(operator) =
        poll_fn(|context| Poll::Ready(proof.as_mut().poll(context))).await
    {
        return operator;
    }
    let late = |_| unavailable("operator authentication timed out");
    timeout(PROOF_TIMEOUT, proof).await.map_err(late)?
}

fn unavailable(why: &'static str) -> AuthError {
    AuthError::unavailable(ErrorCode::VerifierUnavailable, why)
}

/// Recently proven credentials, as keyed hashes that cannot be computed without this process's
/// secret. They only exempt a request from the limits; the proof still runs every time.
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
    fn hash(&self, credentials: &[&[u8]]) -> Option<u64> {
        (!credentials.is_empty()).then(|| self.hasher.hash_one(credentials))
    }

    fn at(&self, now: Duration) -> MutexGuard<'_, Generations> {
        let mut known = self.generations.lock();
        if now.saturating_sub(known.since) > KNOWN_FOR || known.current.len() >= KNOWN_COUNT {
            // After a long pause, even the current generation is outdated.
            let is_old = now.saturating_sub(known.since) > 2 * KNOWN_FOR;
            known.last = std::mem::take(&mut known.current);
            if is_old {
                known.last.clear();
            }
            known.since = now;
        }
        known
    }

    fn has(&self, hash: u64, now: Duration) -> bool {
        let known = self.at(now);
        known.current.contains(&hash) || known.last.contains(&hash)
    }

    fn insert(&self, hash: u64, now: Duration) {
        self.at(now).current.insert(hash);
    }

    fn remove(&self, hash: u64) {
        let mut known = self.generations.lock();
        known.current.remove(&hash);
        known.last.remove(&hash);
    }
}

/// Limits concurrent proofs.
struct ProofLimits {
    all: Arc<Semaphore>,
    suspects: Arc<Semaphore>,
    /// Semaphore of each client with running or waiting proofs, and their number.
    of_clients: Mutex<HashMap<String, (Arc<Semaphore>, usize)>>,
}

impl Default for ProofLimits {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(MAX_CONCURRENT)),
            suspects: Arc::new(Semaphore::new(MAX_CONCURRENT_FOR_SUSPECTS)),
            of_clients: Mutex::default(),
        }
    }
}

/// A permit for a proof, or a pending one.
struct ProofPermit {
    limits: Arc<ProofLimits>,
    client: Option<String>,
    acquired: Vec<OwnedSemaphorePermit>,
}

impl ProofLimits {
    async fn take(
        self: &Arc<Self>,
        client: Option<String>,
        suspect: bool,
    ) -> Result<ProofPermit, AuthError> {
        let mut semaphores = Vec::with_capacity(3);
        if let Some(client) = &client {
            let mut clients = self.of_clients.lock();
            let new = || (Arc::new(Semaphore::new(MAX_CONCURRENT_FOR_ONE)), 0);
            let (semaphore, users) = clients.entry(client.clone()).or_insert_with(new);
            *users += 1;
            semaphores.push(Arc::clone(semaphore));
        }
        if suspect {
            semaphores.push(Arc::clone(&self.suspects));
        }
        semaphores.push(Arc::clone(&self.all));
        let mut permit = ProofPermit {
            limits: Arc::clone(self),
            client,
            acquired: Vec::new(),
        };
        let mut semaphores = semaphores.into_iter().peekable();
        // No timer is needed as long as permits are available.
        while let Some(acquired) = semaphores
            .peek()
            .and_then(|semaphore| Arc::clone(semaphore).try_acquire_owned().ok())
        {
            permit.acquired.push(acquired);
            semaphores.next();
        }
        if semaphores.peek().is_some() {
            let waiting = async {
                for semaphore in semaphores {
                    permit.acquired.extend(semaphore.acquire_owned().await);
                }
            };
            let busy = |_| unavailable("too many concurrent operator authentications");
            timeout(MAX_QUEUE_TIME, waiting).await.map_err(busy)?;
        }
        Ok(permit)
    }
}

impl Drop for ProofPermit {
    fn drop(&mut self) {
        self.acquired.clear();
        let Some(client) = &self.client else {
            return;
        };
        let mut clients = self.limits.of_clients.lock();
        if let Some((_, users)) = clients.get_mut(client) {
            *users -= 1;
            if *users == 0 {
                clients.remove(client);
            }
        }
    }
}
