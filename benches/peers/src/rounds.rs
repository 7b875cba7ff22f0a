//! Rounds in which all lanes take turns, so that a slow phase of the machine meets all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use crate::contender::{Client, Contender};
use crate::shape::mixed;

/// What is measured: a function that runs one round and returns the nanoseconds of a call.
pub type Lane = Box<dyn FnMut() -> f64>;

/// How many calls a round of one lane has.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Batches of a round, after one that is not timed.
    pub batches: usize,
    /// Calls of a batch. Its requests are built before, and should fit into the cache.
    pub calls: usize,
}

/// The keys of a round: in turn if they are few, at random otherwise.
struct Order {
    keys: usize,
    turn: u64,
}

impl Order {
    fn next(&mut self) -> usize {
        self.turn += 1;
        let number = if self.keys <= 100 {
            self.turn
        } else {
            mixed(self.turn)
        };
        usize::try_from(number % self.keys as u64).unwrap_or(0)
    }
}

fn prepare(client: &mut dyn Client, contender: &Contender, order: &mut Order, calls: usize) {
    for _ in 0..calls {
        client.prepare(&contender.credentials.good[order.next()]);
    }
}

/// The median, so that a batch during which something else ran does not count.
fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Uses each key once, because the first use of a key costs more than the others.
fn warm(contender: &Contender, size: Size) {
    let mut client = contender.connect();
    for good in contender.credentials.good.chunks(size.calls) {
        good.iter().for_each(|good| client.prepare(good));
        assert_eq!(
            client.send(),
            good.len(),
            "{} admits good keys",
            contender.name
        );
        contender.settle();
    }
}

/// One client that sends good keys.
pub fn lane(contender: Arc<Contender>, size: Size) -> Lane {
    warm(&contender, size);
    let mut client = contender.connect();
    let keys = contender.credentials.good.len();
    let mut order = Order { keys, turn: 0 };
    Box::new(move || {
        let mut batch = || {
            prepare(&mut *client, &contender, &mut order, size.calls);
            let start = Instant::now();
            let admitted = client.send();
            let took = start.elapsed().as_nanos();
            assert_eq!(admitted, size.calls, "{} admits good keys", contender.name);
            took as f64 / size.calls as f64
        };
        batch();
        let time = median((0..size.batches).map(|_| batch()).collect());
        contender.settle();
        time
    })
}

/// Several clients at once, each on its own thread; returns the mean time of a call.
pub fn threads(contender: Arc<Contender>, threads: usize, size: Size) -> Lane {
    warm(&contender, size);
    let calls = size.batches * size.calls;
    let mut round = 0;
    Box::new(move || {
        round += 1;
        let ready = AtomicUsize::new(0);
        let each = |thread: usize| {
            let mut client = contender.connect();
            let keys = contender.credentials.good.len();
            let turn = ((round * threads + thread) as u64) << 32;
            let mut order = Order { keys, turn };
            prepare(&mut *client, &contender, &mut order, size.calls);
            client.send();
            prepare(&mut *client, &contender, &mut order, calls);
            ready.fetch_add(1, Ordering::AcqRel);
            while ready.load(Ordering::Acquire) < threads {
                std::hint::spin_loop();
            }
            let start = Instant::now();
            let admitted = client.send();
            let took = start.elapsed().as_nanos();
            assert_eq!(admitted, calls, "{} admits good keys", contender.name);
            took as f64 / calls as f64
        };
        let total: f64 = thread::scope(|scope| {
            let each = &each;
            let running: Vec<_> = (0..threads)
                .map(|thread| scope.spawn(move || each(thread)))
                .collect();
            let times = running.into_iter().map(ScopedJoinHandle::join);
            times.map(|time| time.expect("no panic")).sum()
        });
        contender.settle();
        total / threads as f64
    })
}

/// A function of a key's number, without requests.
pub fn calls(keys: usize, size: Size, ask: impl Fn(usize) -> bool + 'static) -> Lane {
    let mut order = Order { keys, turn: 0 };
    Box::new(move || {
        let mut batch = || {
            let chosen: Vec<_> = (0..size.calls).map(|_| order.next()).collect();
            let start = Instant::now();
            let agreed = chosen.into_iter().filter(|key| ask(*key)).count();
            let took = start.elapsed().as_nanos();
            assert_eq!(agreed, size.calls, "each call has the expected result");
            took as f64 / size.calls as f64
        };
        batch();
        median((0..size.batches).map(|_| batch()).collect())
    })
}

/// Runs all lanes in each round, beginning with another one each time; returns the times by lane.
pub fn run(lanes: &mut [Lane], rounds: usize) -> Vec<Vec<f64>> {
    let mut times = vec![Vec::with_capacity(rounds); lanes.len()];
    for lane in lanes.iter_mut() {
        lane();
    }
    for round in 0..rounds {
        for step in 0..lanes.len() {
            let place = (round + step) % lanes.len();
            // Backwards every other time, so that a lane does not always follow the same one.
            let place = if round % 2 == 0 {
                place
            } else {
                lanes.len() - 1 - place
            };
            times[place].push(lanes[place]());
        }
    }
    times
}
