//! The lookups in flight, and the queue of requests that wait for one.
//!
//! Each address has its own queue. The first request of each queue whose address may have another
//! lookup in flight is *ready*; the ready request that has waited longest is admitted next. So an
//! address at its limit does not block others, and admitting a request takes logarithmic time.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::task::Waker;
use std::time::Duration;

use super::failures::Prefix;
use crate::limit::LookupBudget;

/// A unique position in the queue, in the order of arrival.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    number: u64,
    address: Option<Prefix>,
}

impl Ticket {
    pub(super) fn address(self) -> Option<Prefix> {
        self.address
    }
}

/// The decision about a queued request.
pub(super) enum Verdict {
    Admitted {
        /// Whether it was admitted as a suspect, which never uses reserved capacity.
        suspect: bool,
    },
    Refused(Duration),
}

pub(super) struct Lookups {
    most: usize,
    most_of_suspects: usize,
    most_per_address: usize,
    in_flight: usize,
    /// The number of lookups in flight for suspects: addresses that failed, and unknown addresses.
    suspects: usize,
    addresses: HashMap<Option<Prefix>, Address>,
    /// The first in the queue of each address that may have another lookup in flight: of addresses
    /// without a failure, and of suspects.
    ready: [BTreeMap<u64, Option<Prefix>>; 2],
    verdicts: HashMap<u64, Verdict>,
    next: u64,
}

/// An address with lookups in flight or queued requests.
#[derive(Default)]
struct Address {
    in_flight: usize,
    suspect: bool,
    queue: BTreeMap<u64, Waiting>,
    /// The ticket number under which it is ready.
    ready: Option<u64>,
}

struct Waiting {
    client: Option<IpAddr>,
    waker: Option<Waker>,
}

impl Lookups {
    pub(super) fn new(settings: &LookupBudget) -> Self {
        let most = settings.in_flight.max(1);
        Self {
            most,
            most_of_suspects: most - settings.reserved.min(most - 1),
            most_per_address: settings.in_flight_per_address.max(1),
            in_flight: 0,
            suspects: 0,
            addresses: HashMap::new(),
            ready: Default::default(),
            verdicts: HashMap::new(),
            next: 0,
        }
    }

    /// Queues a request of a client.
    pub(super) fn queue(&mut self, client: Option<IpAddr>, suspect: bool) -> Ticket {
        let (number, address) = (self.next, client.map(Prefix::of));
        self.next += 1;
        let waiting = Waiting {
            client,
            waker: None,
        };
        let entry = self.addresses.entry(address).or_default();
        entry.queue.insert(number, waiting);
        // A ready address stays in its list, under its previous status.
        if entry.ready.is_none() {
            entry.suspect = suspect;
        }
        self.update(address);
        Ticket { number, address }
    }

    /// Marks an address as suspect after a failure.
    pub(super) fn suspect(&mut self, client: IpAddr) {
        let address = Some(Prefix::of(client));
        let Some(entry) = self.addresses.get_mut(&address) else {
            return;
        };
        if !entry.suspect {
            if let Some(number) = entry.ready.take() {
                self.ready[0].remove(&number);
            }
            entry.suspect = true;
            self.update(address);
        }
    }

    /// Returns the decision about a ticket, or registers the waker.
    pub(super) fn poll(&mut self, ticket: Ticket, waker: &Waker) -> Option<Verdict> {
        let verdict = self.verdicts.remove(&ticket.number);
        if verdict.is_none()
            && let Some(entry) = self.addresses.get_mut(&ticket.address)
            && let Some(waiting) = entry.queue.get_mut(&ticket.number)
        {
            match &mut waiting.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
        verdict
    }

    /// Removes the ticket of a request that was dropped.
    pub(super) fn give_up(&mut self, ticket: Ticket) {
        match self.verdicts.remove(&ticket.number) {
            Some(Verdict::Admitted { suspect }) => self.leave(ticket.address, suspect),
            Some(Verdict::Refused(_)) => {}
            None => {
                if let Some(entry) = self.addresses.get_mut(&ticket.address) {
                    entry.queue.remove(&ticket.number);
                }
                self.update(ticket.address);
            }
        }
    }

    /// Ends a lookup in flight.
    pub(super) fn leave(&mut self, address: Option<Prefix>, suspect: bool) {
        self.in_flight -= 1;
        self.suspects -= usize::from(suspect);
        if let Some(entry) = self.addresses.get_mut(&address) {
            entry.in_flight -= 1;
        }
        self.update(address);
    }

    /// Decides about queued requests while there is capacity. `may` admits or refuses each. Returns
    /// the wakers to wake.
    pub(super) fn dispatch(
        &mut self,
        mut may: impl FnMut(IpAddr) -> Result<(), Duration>,
    ) -> Vec<Waker> {
        let mut woken = Vec::new();
        while self.in_flight < self.most {
            let [clean, suspects] = &self.ready;
            let suspects = suspects
                .first_key_value()
                .filter(|_| self.suspects < self.most_of_suspects);
            let first = clean.first_key_value().into_iter().chain(suspects).min();
            let Some((&number, &address)) = first else {
                break;
            };
            let Some(entry) = self.addresses.get_mut(&address) else {
                break;
            };
            let suspect = entry.suspect;
            let Some(waiting) = entry.queue.remove(&number) else {
                break;
            };
            let verdict = match waiting.client.map_or(Ok(()), &mut may) {
                Ok(()) => {
                    entry.in_flight += 1;
                    self.in_flight += 1;
                    self.suspects += usize::from(suspect);
                    Verdict::Admitted { suspect }
                }
                Err(wait) => Verdict::Refused(wait),
            };
            self.verdicts.insert(number, verdict);
            woken.extend(waiting.waker);
            self.update(address);
        }
        woken
    }

    /// Updates whether an address is ready, under the first number in its queue, and removes an
    /// address without lookups and requests.
    fn update(&mut self, address: Option<Prefix>) {
        let Some(entry) = self.addresses.get_mut(&address) else {
            return;
        };
        let may = address.is_none() || entry.in_flight < self.most_per_address;
        let first = entry.queue.keys().next().copied().filter(|_| may);
        let ready = &mut self.ready[usize::from(entry.suspect)];
        if entry.ready != first {
            if let Some(number) = entry.ready {
                ready.remove(&number);
            }
            if let Some(number) = first {
                ready.insert(number, address);
            }
            entry.ready = first;
        }
        if entry.in_flight == 0 && entry.queue.is_empty() {
            self.addresses.remove(&address);
        }
    }
}
