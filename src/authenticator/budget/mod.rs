//! The budget of look-ups for keys that are not known on this node: one component for the failures
//! of clients and for the look-ups in flight.
//!
//! A request that needs a look-up [enters](Budget::enter). It is refused where its client has
//! failed too often, else it gets a [`Place`], now or in its turn. A place that is dropped, with
//! the request or after the answer, goes to the next in the queue. Whether the client may look up at
//! all is decided when it gets the place, so that a burst is limited like a flood.
//!
//! Memory: failures are kept for a bounded number of prefixes; places and turns are those of
//! requests that are alive.

mod failures;
mod lookups;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_timer::Delay;
use futures_util::future::{Either, select};
use parking_lot::Mutex;

use self::failures::{Failures, Prefix};
use self::lookups::{Lookups, Ticket, Verdict};
use crate::clock::Clock;
use crate::limit::{LookupBudget, nanos};
use crate::telemetry;

/// Who may look up unknown keys, and when.
pub(super) struct Budget {
    shared: Arc<Shared>,
    longest_wait: Duration,
    /// Whether it was said that a request has no client address.
    said: AtomicBool,
}

struct Shared {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
}

struct State {
    failures: Failures,
    lookups: Lookups,
}

/// Why a request may not look up its key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Its client has failed too often; a retry passes after this time.
    Failures(Duration),
    /// Its turn did not come in time.
    Busy,
}

/// The permission for one look-up, until it is dropped.
pub(super) struct Place {
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
            said: AtomicBool::new(false),
        }
    }

    /// How long a client must wait that may not look up an unknown key now; it takes nothing.
    pub(super) fn refusal(&self, client: Option<IpAddr>) -> Option<Duration> {
        let client = client?;
        let (now, mut state) = (self.shared.now(), self.shared.state.lock());
        state.failures.wait(client, now)
    }

    /// The address of a request that has none: said once, for the host may have forgotten to tell
    /// peers' addresses.
    pub(super) fn nobodys(&self) -> Option<IpAddr> {
        if !self.said.load(Ordering::Relaxed) && !self.said.swap(true, Ordering::Relaxed) {
            telemetry::no_client_address();
        }
        None
    }

    /// Waits for a place.
    pub(super) async fn enter(&self, client: Option<IpAddr>) -> Result<Place, Refused> {
        let mut turn = Turn {
            shared: Arc::clone(&self.shared),
            ticket: Some(self.shared.queue(client)),
        };
        // Usually there is room, and no timer is needed.
        if let Some(decided) = turn.decided(Waker::noop()) {
            return decided;
        }
        match select(turn, Delay::new(self.longest_wait)).await {
            Either::Left((decided, _)) => decided,
            Either::Right(_) => Err(Refused::Busy),
        }
    }

    /// A look-up has found nothing: how long the client must wait where that was so too often
    /// already. Then it counts for nothing.
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

    /// Queues a request, and gives out what places there are.
    fn queue(&self, client: Option<IpAddr>) -> Ticket {
        self.change(|state, now| {
            let suspect = client.is_none_or(|ip| state.failures.is_suspect(ip, now));
            state.lookups.queue(client, suspect)
        })
    }

    /// Changes the state, gives out places, and wakes those who got one.
    fn change<R>(&self, change: impl FnOnce(&mut State, u64) -> R) -> R {
        let now = self.now();
        let (result, woken) = {
            let state = &mut *self.state.lock();
            let result = change(state, now);
            let failures = &mut state.failures;
            let may = |client: IpAddr| failures.admit(client, now);
            (result, state.lookups.give(may))
        };
        woken.into_iter().for_each(Waker::wake);
        result
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared
            .change(|state, _| state.lookups.leave(self.address, self.suspect));
    }
}

/// A request in the queue. Dropping it gives up its turn, or the place that it got meanwhile.
struct Turn {
    shared: Arc<Shared>,
    ticket: Option<Ticket>,
}

impl Turn {
    /// What has become of it; else the waker is woken then.
    fn decided(&mut self, waker: &Waker) -> Option<Result<Place, Refused>> {
        let ticket = self.ticket?;
        let verdict = self.shared.state.lock().lookups.poll(ticket, waker)?;
        self.ticket = None;
        Some(match verdict {
            Verdict::Admitted { suspect } => Ok(Place {
                shared: Arc::clone(&self.shared),
                address: ticket.address(),
                suspect,
            }),
            Verdict::Refused(wait) => Err(Refused::Failures(wait)),
        })
    }
}

impl Future for Turn {
    type Output = Result<Place, Refused>;

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
