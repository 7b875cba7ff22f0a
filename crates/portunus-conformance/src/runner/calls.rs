//! The calls that a check makes to its subject: a call that hangs or panics ends the check and is
//! reported as the cause.

use std::any::Any;
use std::collections::HashMap;
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The time limit of a call.
const CALL_LIMIT: Duration = Duration::from_secs(15);
/// A call that was dropped this often is not made again: each further check that would make it ends
/// at once.
const MOST_HANGS: u32 = 2;

/// Why a call did not return.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// It was dropped after this time.
    Hangs(&'static str, Duration),
    /// It panicked with this message.
    Panics(&'static str, String),
}

impl Fault {
    /// The fault as a sentence.
    pub(super) fn seen(&self) -> String {
        match self {
            Self::Hangs(call, limit) => {
                format!("`{call}` did not answer within {} seconds", limit.as_secs())
            }
            Self::Panics(call, message) => format!("`{call}` panicked: {message}"),
        }
    }

    /// The fault as the reason why other checks are not judged.
    pub(super) fn ground(&self) -> String {
        match self {
            Self::Hangs(call, _) => format!("`{call}`, which does not answer"),
            Self::Panics(call, _) => format!("`{call}`, which panics"),
        }
    }
}

/// The number of times that each call has hung so far, in all checks of a suite.
#[derive(Debug, Clone, Default)]
pub(super) struct Hangs(Arc<Mutex<HashMap<&'static str, u32>>>);

impl Hangs {
    /// Counts a call that hung. Returns `false` if the call had been given up before, and so was
    /// not made.
    pub(super) fn count(&self, call: &'static str) -> bool {
        let mut hangs = self.0.lock();
        let hung = hangs.entry(call).or_default();
        *hung += 1;
        *hung <= MOST_HANGS
    }

    fn is_given_up(&self, call: &'static str) -> bool {
        self.0
            .lock()
            .get(call)
            .is_some_and(|hung| *hung >= MOST_HANGS)
    }
}

/// The calls of one check.
#[derive(Debug, Clone)]
pub(crate) struct Calls(Arc<State>);

#[derive(Debug)]
struct State {
    hangs: Hangs,
    fault: Mutex<Option<Fault>>,
    has_fault: Notify,
    /// Oldest first.
    running: Mutex<Vec<(&'static str, Instant)>>,
}

impl Calls {
    pub(super) fn new(hangs: &Hangs) -> Self {
        Self(Arc::new(State {
            hangs: hangs.clone(),
            fault: Mutex::default(),
            has_fault: Notify::new(),
            running: Mutex::default(),
        }))
    }

    /// Awaits a call. If it hangs or panics, this never returns: the check is dropped.
    pub(crate) async fn call<T>(&self, name: &'static str, call: impl Future<Output = T>) -> T {
        let call = self.free_call(name, caught(call));
        match tokio::time::timeout(CALL_LIMIT, call).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(panic)) => self.end(Fault::Panics(name, panic)).await,
            Err(_) => self.end(Fault::Hangs(name, CALL_LIMIT)).await,
        }
    }

    /// Awaits a call that may legitimately take as long as the check, or propagate a panic.
    pub(crate) async fn free_call<T>(
        &self,
        name: &'static str,
        call: impl Future<Output = T>,
    ) -> T {
        if self.0.hangs.is_given_up(name) {
            return self.end(Fault::Hangs(name, CALL_LIMIT)).await;
        }
        let _running = Running::new(&self.0, name);
        call.await
    }

    /// Makes a synchronous call; returns `None` if it panics.
    pub(crate) fn now<T>(&self, name: &'static str, call: impl FnOnce() -> T) -> Option<T> {
        if self.0.hangs.is_given_up(name) {
            self.record(Fault::Hangs(name, CALL_LIMIT));
            return None;
        }
        let _running = Running::new(&self.0, name);
        let answer = catch_unwind(AssertUnwindSafe(call));
        answer
            .map_err(|panic| self.record(Fault::Panics(name, message(&*panic))))
            .ok()
    }

    fn record(&self, fault: Fault) {
        self.0.fault.lock().get_or_insert(fault);
        self.0.has_fault.notify_one();
    }

    async fn end<T>(&self, fault: Fault) -> T {
        self.record(fault);
        pending().await
    }

    /// Waits for the first call that does not return.
    pub(super) async fn fault(&self) -> Fault {
        loop {
            if let Some(fault) = self.first_fault() {
                return fault;
            }
            self.0.has_fault.notified().await;
        }
    }

    pub(super) fn first_fault(&self) -> Option<Fault> {
        self.0.fault.lock().clone()
    }

    /// A call that has been running for the call limit, or for this long.
    pub(super) fn running(&self, longest: Duration) -> Option<&'static str> {
        let running = self.0.running.lock();
        let (name, since) = running.first()?;
        (since.elapsed() >= longest.min(CALL_LIMIT)).then_some(name)
    }
}

/// Registers a call while it runs.
struct Running<'a>(&'a State, &'static str, Instant);

impl<'a> Running<'a> {
    fn new(state: &'a State, name: &'static str) -> Self {
        let since = Instant::now();
        state.running.lock().push((name, since));
        Self(state, name, since)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut running = self.0.running.lock();
        if let Some(place) = running.iter().position(|call| *call == (self.1, self.2)) {
            running.remove(place);
        }
    }
}

/// The output of a future, or the message of its panic.
pub(super) async fn caught<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let mut future = pin!(future);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(message(&*panic))),
        }
    })
    .await
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no message").to_owned()
}
