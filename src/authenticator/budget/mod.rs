//! The budget for lookups of keys that are not known on this node: failures per client, and lookups
//! in flight.
//!
//! A request that needs a lookup [enters](Budget::enter). It is refused if its client has failed
//! too often; otherwise it gets a [`Permit`], at once or after waiting for its turn. A dropped
//! permit goes to the next request in the queue. Whether the client has failed too often is checked
//! when the permit is granted, so that a burst is limited like a steady flood.
//!
//! Memory: failures are kept for a bounded number of prefixes; permits and tickets belong to
//! requests that are alive.

mod failures;
mod lookups;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::lock::Mutex;
use futures_timer::Delay;
use futures_util::future::{Either, select};

use self::failures::{Failures, Prefix};
use self::lookups::{Lookups, Ticket, Verdict};
use crate::clock::Clock;
use crate::limit::{LookupBudget, nanos};
use crate::telemetry;

/// Decides which requests may look up unknown keys, and when.
pub(super) struct Budget {
    shared: Arc<Shared>,
    longest_wait: Duration,
    /// Whether the warning about requests without a client address was logged.
    warned: AtomicBool,
}

struct Shared {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
}

struct State {
    failures: Failures,
    lookups: Lookups,
}

/// The reason why a request is not allowed to look up its key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Its client has failed too often; a retry passes after this time.
    Failures(Duration),
    /// It got no permit in time.
    Busy,
}

/// Permission for one lookup, until it is dropped.
pub(super) struct Permit {
    shared: Arc<Shared>,
    address: Option<Prefix>,
    suspect: bool,
}

impl Budget {
    pub(super) fn new(settings: &LookupBudget, clock: Arc<dyn Clock>) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    failures: Failures::new(settings),
                    lookups: Lookups::new(settings),
                }),
                clock,
            }),
            longest_wait: settings.longest_wait,
            warned: AtomicBool::new(false),
        }
    }

    /// Returns how long the client must wait, if it is not allowed to look up an unknown key now.
    /// Does not count a lookup.
    pub(super) fn refusal(&self, client: Option<IpAddr>) -> Option<Duration> {
        let client = client?;
        let (now, mut state) = (self.shared.now(), self.shared.state.lock());
        state.failures.wait(client, now)
    }

    /// Returns `None`, and logs a warning once: the host may have forgotten to provide the peers'
    /// addresses.
    pub(super) fn no_address(&self) -> Option<IpAddr> {
        if !self.warned.load(Ordering::Relaxed) && !self.warned.swap(true, Ordering::Relaxed) {
            telemetry::no_client_address();
        }
        None
    }

    /// Waits for a permit.
    pub(super) async fn enter(&self, client: Option<IpAddr>) -> Result<Permit, Refused> {
        let mut turn = Turn {
            shared: Arc::clone(&self.shared),
            ticket: Some(self.shared.queue(client)),
        };
        // Usually a permit is available, and no timer is needed.
        if let Some(decided) = turn.decided(Waker::noop()) {
            return decided;
        }
        match select(turn, Delay::new(self.longest_wait)).await {
            Either::Left((decided, _)) => decided,
            Either::Right(_) => Err(Refused::Busy),
        }
    }

    /// Counts a failed lookup. If the client has already failed too often, returns how long it must
    /// wait, and does not count it.
    pub(super) fn failed(&self, client: Option<IpAddr>) -> Option<Duration> {
        let client = client?;
        let (now, mut state) = (self.shared.now(), self.shared.state.lock());
        let wait = state.failures.exhausted(client, now);
        if wait.is_none() {
            state.failures.record(client, now);
            state.lookups.suspect(client);
        }
        wait
    }
}

impl Shared {
    fn now(&self) -> u64 {
        nanos(self.clock.monotonic())
    }

    /// Queues a request, and grants the permits that are available.
    fn queue(&self, client: Option<IpAddr>) -> Ticket {
        self.change(|state, now| {
            let suspect = client.is_none_or(|ip| state.failures.is_suspect(ip, now));
            state.lookups.queue(client, suspect)
        })
    }

    /// Changes the state, grants permits, and wakes the requests that were decided.
    fn change<R>(&self, change: impl FnOnce(&mut State, u64) -> R) -> R {
        let now = self.now();
        let (result, woken) = {
            let state = &mut *self.state.lock();
            let result = change(state, now);
            let failures = &mut state.failures;
            let may = |client: IpAddr| failures.admit(client, now);
            (result, state.lookups.dispatch(may))
        };
        woken.into_iter().for_each(Waker::wake);
        result
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared
            .change(|state, _| state.lookups.leave(self.address, self.suspect));
    }
}

/// A request in the queue. Dropping it releases its ticket, or the permit that it was granted.
struct Turn {
    shared: Arc<Shared>,
    ticket: Option<Ticket>,
}

impl Turn {
    /// Returns the decision, or registers the waker.
    fn decided(&mut self, waker: &Waker) -> Option<Result<Permit, Refused>> {
        let ticket = self.ticket?;
        let verdict = self.shared.state.lock().lookups.poll(ticket, waker)?;
        self.ticket = None;
        Some(match verdict {
            Verdict::Admitted { suspect } => Ok(Permit {
                shared: Arc::clone(&self.shared),
                address: ticket.address(),
                suspect,
            }),
            Verdict::Refused(wait) => Err(Refused::Failures(wait)),
        })
    }
}

impl Future for Turn {
    type Output = Result<Permit, Refused>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.decided(cx.waker()).map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.shared.change(|state, _| state.lookups.give_up(ticket));
        }
    }
}
