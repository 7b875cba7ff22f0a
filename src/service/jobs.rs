//! The periodic jobs: one call does what is due.
//!
//! Jobs run beside each other, each within a limit of time, so that one that hangs stops no other.
//! Each can be dropped at any await: what it has not done stays where it was. A job never runs
//! twice at once, however many calls there are; a call passes over what another one is doing.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use futures_timer::Delay;
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;

use super::Maintenance;
use crate::audit::AuditTrail;
use crate::authenticator::Authenticator;
use crate::clock::within;
use crate::store::{CachedStore, UsageStore};
use crate::telemetry;
use crate::usage::UsageRecorder;

/// How long a job may take at once. What it has not done by then is done the next time.
const LIMIT: Duration = Duration::from_secs(5);

/// How often due times are looked at while something runs.
const TICK: Duration = Duration::from_millis(100);

/// How long the last round of [`Jobs::run`] may take.
#[cfg(feature = "tokio")]
const LAST_ROUND: Duration = Duration::from_secs(10);

/// A job that fails is logged this often.
const LOG_EVERY: Duration = Duration::from_secs(30);

type Failure = Box<dyn Error + Send + Sync>;

/// How long things are kept: 90 days unless set, for good where there is no time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// The counts of use by the hour.
    pub(crate) usage: Option<Duration>,
    /// Audit events.
    pub(crate) events: Option<Duration>,
}

impl Default for Retention {
    fn default() -> Self {
        let quarter = Duration::from_secs(90 * 24 * 60 * 60);
        Self {
            usage: Some(quarter),
            events: Some(quarter),
        }
    }
}

/// What the jobs are about. What is absent has no jobs.
#[derive(Debug)]
pub(crate) struct Parts {
    /// Where usage is written.
    pub(crate) counts: Option<Arc<dyn UsageStore>>,
    pub(crate) cache: Option<CachedStore>,
    /// Whose usage, events and new digests are written, and whose limiter and directory are swept.
    pub(crate) authenticator: Authenticator,
    pub(crate) retention: Retention,
}

impl Parts {
    fn usage(&self) -> &UsageRecorder {
        self.authenticator.usage()
    }
    fn trail(&self) -> Option<&AuditTrail> {
        self.authenticator.audit()
    }

    fn now(&self) -> Duration {
        self.authenticator.clock().monotonic()
    }
}

/// All periodic jobs of one service.
#[derive(Debug)]
pub(crate) struct Jobs {
    parts: Parts,
    jobs: Vec<Job>,
    deleted: Deleted,
    /// What somebody was told of.
    told: Mutex<Totals>,
    /// What the log says is lost, and since when.
    logged: Mutex<(Totals, Option<Duration>)>,
}

#[derive(Debug, Default)]
struct Deleted {
    hours: AtomicU64,
    events: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Usage,
    /// The events of one sink.
    Events(usize),
    Publish,
    Rehash,
    SweepLimiter,
    SweepCaches,
    DeleteUsage,
    DeleteEvents(usize),
}

impl Work {
    /// How long after one time the next is due, and how long after one that failed.
    const fn every(self) -> (Duration, Duration) {
        let (every, again) = match self {
            Self::Events(_) | Self::Publish | Self::Rehash => (200, 500),
            Self::Usage => (500, 500),
            Self::SweepLimiter => (30_000, 30_000),
            Self::SweepCaches => (60_000, 60_000),
            Self::DeleteUsage | Self::DeleteEvents(_) => (3_600_000, 10_000),
        };
        (Duration::from_millis(every), Duration::from_millis(again))
    }

    /// Whether something is lost with the process where this is not done.
    #[cfg(feature = "tokio")]
    const fn saves(self) -> bool {
        matches!(
            self,
            Self::Usage | Self::Events(_) | Self::Publish | Self::Rehash
        )
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage => f.write_str("write usage"),
            Self::Events(sink) => write!(f, "write the events of audit sink {}", sink + 1),
            Self::Publish => f.write_str("tell other nodes of changes"),
            Self::Rehash => f.write_str("write new digests"),
            Self::SweepLimiter => f.write_str("sweep the limiter"),
            Self::SweepCaches => f.write_str("sweep the caches"),
            Self::DeleteUsage => f.write_str("delete old usage"),
            Self::DeleteEvents(sink) => {
                write!(f, "delete the old events of audit sink {}", sink + 1)
            }
        }
    }
}

#[derive(Debug)]
struct Job {
    work: Work,
    slot: Mutex<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    runs: bool,
    /// When it is due, by the monotonic clock.
    due: Duration,
    /// When its failure was logged.
    logged: Option<Duration>,
}

/// Held while a job runs.
struct Turn<'a>(&'a Job);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.slot.lock().runs = false;
    }
}

/// What was done and lost since the start.
#[derive(Debug, Default, Clone, Copy)]
struct Totals {
    uses: u64,
    events: u64,
    changes: u64,
    rehashes: u64,
    hours_deleted: u64,
    events_deleted: u64,
    uses_lost: u64,
    events_lost: u64,
    events_throttled: u64,
}

/// Which jobs a round does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Due,
    /// All whose work would be lost with the process, due or not.
    #[cfg(feature = "tokio")]
    Last,
}

impl Jobs {
    /// The jobs of these parts, all of them due. From now on somebody must run them.
    pub(crate) fn new(parts: Parts) -> Self {
        let mut work = Vec::new();
        let mut add = |all: &mut dyn Iterator<Item = Work>| work.extend(all);
        let sinks = parts.trail().map_or(0, AuditTrail::sinks);
        add(&mut parts.counts.iter().map(|_| Work::Usage));
        add(&mut (0..sinks).map(Work::Events));
        add(&mut parts.cache.iter().map(|_| Work::Publish));
        work.extend([Work::Rehash, Work::SweepLimiter, Work::SweepCaches]);
        if parts.counts.is_some() && parts.retention.usage.is_some() {
            work.push(Work::DeleteUsage);
        }
        if parts.retention.events.is_some() {
            work.extend((0..sinks).map(Work::DeleteEvents));
        }
        let job = |work| Job {
            work,
            slot: Mutex::default(),
        };
        parts.usage().await_jobs(parts.authenticator.clock());
        Self {
            jobs: work.into_iter().map(job).collect(),
            parts,
            deleted: Deleted::default(),
            told: Mutex::default(),
            logged: Mutex::default(),
        }
    }

    /// Does what is due, and what was asked for; returns what all calls have done since the last one
    /// that returned.
    ///
    /// It returns within ten seconds, whatever hangs, and passes over what another call is doing.
    /// Dropping the future loses nothing: what was not done is due at the next call.
    pub(crate) async fn maintain(&self) -> Maintenance {
        self.parts.usage().jobs_are_run();
        let mut failures = Vec::new();
        self.round(Which::Due, &mut failures).await;
        self.log_losses();
        let mut told = self.told.lock();
        let since = std::mem::replace(&mut *told, self.totals());
        drop(told);
        self.report(since, failures)
    }

    /// Does what is due when it is due until `shutdown` ends, then all that would be lost otherwise,
    /// within ten seconds. Returns what was done from the beginning; what still waits then is lost
    /// with the process.
    #[cfg(feature = "tokio")]
    pub(crate) async fn run(&self, shutdown: impl Future<Output = ()>) -> Maintenance {
        let (since, mut shutdown) = (self.totals(), pin!(shutdown));
        self.parts.usage().jobs_are_run();
        loop {
            let (seen, mut failures) = (self.flushes_requested(), Vec::new());
            let next = async {
                self.round(Which::Due, &mut failures).await;
                self.log_losses();
                let asked = pin!(self.flush_requested_since(seen));
                select(pin!(tokio::time::sleep(TICK)), asked).await;
            };
            if let Either::Left(_) = select(&mut shutdown, pin!(next)).await {
                break;
            }
        }
        let mut failures = Vec::new();
        let last = async {
            loop {
                self.round(Which::Last, &mut failures).await;
                // A request that was ended by the stop may be noted while the others are written.
                if !failures.is_empty() || !self.waits() {
                    return;
                }
                tokio::time::sleep(TICK / 10).await;
            }
        };
        if within(LAST_ROUND, last).await.is_none() {
            failures.push(("the last round".to_owned(), no_end(LAST_ROUND)));
        }
        self.report(since, failures)
    }

    /// Runs jobs beside each other. While the first ones run, those that become due are run again;
    /// but none that has failed, and none after the first ones have ended.
    async fn round(&self, which: Which, failures: &mut Vec<(String, Failure)>) {
        let mut running = FuturesUnordered::new();
        let (mut first, mut failed) = (HashSet::new(), HashSet::new());
        let mut begins = true;
        loop {
            let seen = self.flushes_requested();
            for (place, job) in self.jobs.iter().enumerate() {
                // The last round does each job once: done again and again, those without work would
                // never let this task rest, and tokio gives a task that does not rest nothing more.
                let again = which == Which::Due && !first.is_empty() && !failed.contains(&place);
                let may = begins || again;
                if let Some(turn) = may.then(|| self.begin(job, which)).flatten() {
                    if begins {
                        first.insert(place);
                    }
                    running.push(async move { (place, self.perform(turn).await) });
                }
            }
            begins = false;
            let asked = pin!(self.flush_requested_since(seen));
            let passes = select(Delay::new(TICK), asked);
            match select(running.next(), passes).await {
                Either::Left((None, _)) => return,
                Either::Left((Some((place, done)), _)) => {
                    first.remove(&place);
                    if let Err(why) = done {
                        failed.insert(place);
                        failures.push((self.jobs[place].work.to_string(), why));
                    }
                }
                Either::Right(_) => {}
            }
        }
    }

    /// Takes the turn of a job that is due, or that was asked for, unless it runs.
    fn begin<'a>(&self, job: &'a Job, which: Which) -> Option<Turn<'a>> {
        let wanted = match job.work {
            Work::Events(sink) => {
                let wanted = |trail: &AuditTrail| trail.is_flush_wanted(sink);
                self.parts.trail().is_some_and(wanted)
            }
            _ => false,
        };
        let mut slot = job.slot.lock();
        let due = match which {
            Which::Due => wanted || slot.due <= self.parts.now(),
            #[cfg(feature = "tokio")]
            Which::Last => job.work.saves(),
        };
        let begins = due && !slot.runs;
        slot.runs |= begins;
        begins.then(|| Turn(job))
    }

    /// Does a job within its limit of time, and says when it is due again.
    async fn perform(&self, turn: Turn<'_>) -> Result<(), Failure> {
        let Job { work, slot } = turn.0;
        let done = match (*work, self.parts.trail()) {
            // Who waits for a flush must be told that it was given up.
            (Work::Events(sink), Some(trail)) => {
                let flushed = trail.flush_sink(sink, LIMIT).await;
                flushed.map_err(|error| error.map_or_else(|| no_end(LIMIT), Into::into))
            }
            _ => {
                let done = within(LIMIT, self.work(*work)).await;
                done.unwrap_or_else(|| Err(no_end(LIMIT)))
            }
        };
        let now = self.parts.now();
        let (every, again) = work.every();
        let mut slot = slot.lock();
        slot.due = now.saturating_add(if done.is_ok() { every } else { again });
        let is_new = |at: Duration| now.saturating_sub(at) >= LOG_EVERY;
        match &done {
            Ok(()) => slot.logged = None,
            Err(why) if slot.logged.is_none_or(is_new) => {
                slot.logged = Some(now);
                telemetry::job_failed(&work.to_string(), &**why);
            }
            Err(_) => {}
        }
        drop(slot);
        done
    }

    async fn work(&self, work: Work) -> Result<(), Failure> {
        let parts = &self.parts;
        let before = |kept: Option<Duration>| {
            let at = kept.and_then(|kept| parts.authenticator.clock().now().checked_sub(kept));
            at.unwrap_or(SystemTime::UNIX_EPOCH)
        };
        match work {
            Work::Usage => {
                if let Some(store) = &parts.counts {
                    parts.usage().flush(&**store).await?;
                }
            }
            Work::Publish => {
                if let Some(cache) = &parts.cache {
                    cache.publish_outbox().await?;
                }
            }
            Work::Rehash => {
                parts.authenticator.try_write_rehashes().await?;
            }
            Work::SweepLimiter => parts.authenticator.sweep_limiter(),
            Work::SweepCaches => {
                parts.cache.iter().for_each(CachedStore::sweep);
                parts.authenticator.sweep_directory();
            }
            Work::DeleteUsage => {
                if let Some(store) = &parts.counts {
                    let before = before(parts.retention.usage);
                    let deleted = store.forget_usage_before(before).await?;
                    self.deleted.hours.fetch_add(deleted, Ordering::Relaxed);
                }
            }
            Work::DeleteEvents(sink) => {
                if let Some(trail) = parts.trail() {
                    let before = before(parts.retention.events);
                    let deleted = trail.forget_before(sink, before).await?;
                    self.deleted.events.fetch_add(deleted, Ordering::Relaxed);
                }
            }
            Work::Events(_) => {}
        }
        Ok(())
    }

    fn flushes_requested(&self) -> u64 {
        let trail = self.parts.trail();
        trail.map_or(0, AuditTrail::flushes_requested)
    }

    async fn flush_requested_since(&self, requests: u64) {
        match self.parts.trail() {
            Some(trail) => trail.flush_requested_since(requests).await,
            None => pending().await,
        }
    }

    /// Whether something waits that is lost with the process.
    #[cfg(feature = "tokio")]
    fn waits(&self) -> bool {
        let now = self.report(self.totals(), Vec::new());
        now.uses_waiting + now.events_waiting + now.changes_waiting > 0
    }

    /// Says in the log how much was lost since it said so.
    fn log_losses(&self) {
        let (totals, now) = (self.totals(), self.parts.now());
        let mut logged = self.logged.lock();
        let (before, at) = *logged;
        let losses = [
            ("audit events", totals.events_lost - before.events_lost),
            ("uses of keys", totals.uses_lost - before.uses_lost),
        ];
        let is_new = at.is_none_or(|at| now.saturating_sub(at) >= LOG_EVERY);
        if is_new && losses.iter().any(|(_, count)| *count > 0) {
            *logged = (totals, Some(now));
            let losses = losses.into_iter().filter(|(_, count)| *count > 0);
            losses.for_each(|(what, count)| telemetry::lost(what, count));
        }
    }

    fn totals(&self) -> Totals {
        let parts = &self.parts;
        let of_trail = |count: fn(&AuditTrail) -> u64| parts.trail().map_or(0, count);
        Totals {
            uses: parts.usage().flushed(),
            events: of_trail(AuditTrail::written),
            changes: parts.cache.as_ref().map_or(0, CachedStore::told),
            rehashes: parts.authenticator.written_rehashes(),
            hours_deleted: self.deleted.hours.load(Ordering::Relaxed),
            events_deleted: self.deleted.events.load(Ordering::Relaxed),
            uses_lost: parts.usage().lost(),
            events_lost: of_trail(AuditTrail::dropped),
            events_throttled: of_trail(AuditTrail::throttled),
        }
    }

    /// What was done since then, and what waits.
    fn report(&self, since: Totals, failures: Vec<(String, Failure)>) -> Maintenance {
        let (parts, now) = (&self.parts, self.totals());
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        Maintenance {
            uses_written: now.uses - since.uses,
            events_written: now.events - since.events,
            changes_published: now.changes - since.changes,
            rehashes_written: now.rehashes - since.rehashes,
            hours_deleted: now.hours_deleted - since.hours_deleted,
            events_deleted: now.events_deleted - since.events_deleted,
            uses_lost: now.uses_lost - since.uses_lost,
            events_lost: now.events_lost - since.events_lost,
            events_throttled: now.events_throttled - since.events_throttled,
            uses_waiting: parts.usage().pending(),
            events_waiting: count(parts.trail().map_or(0, AuditTrail::pending)),
            changes_waiting: count(parts.cache.as_ref().map_or(0, CachedStore::outbox_len)),
            failures,
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("it had not ended after {0:?}")]
struct NoEnd(Duration);

fn no_end(limit: Duration) -> Failure {
    Box::new(NoEnd(limit))
}
