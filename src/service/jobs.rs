//! The periodic jobs of a service: one call runs what is due.
//!
//! Jobs run concurrently, each with a time limit, so that a job that hangs does not block the
//! others. A job can be dropped at any await point without losing its work. A job never runs twice
//! at once: concurrent calls skip jobs that are running.

use std::collections::HashSet;
use std::error::Error;
use std::future::pending;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, SystemTime};

use crate::lock::Mutex;
use futures_timer::Delay;
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;

use super::maintenance::{Maintenance, Totals};
use super::notices::Notices;
use super::work::{Retention, Work};
use crate::audit::AuditTrail;
use crate::authenticator::Authenticator;
use crate::clock::within;
use crate::manage::KeyManager;
use crate::store::{CachedStore, UsageStore};
use crate::telemetry;
use crate::usage::UsageRecorder;

/// Time limit of one run of a job. The rest of its work is done in the next run.
const LIMIT: Duration = Duration::from_secs(5);

/// The pause after a write of uses, as a multiple of the time that it took; at most [`LONGEST_REST`]. Many
/// keys on a slow database would otherwise keep it busy all the time.
const REST: u32 = 20;
const LONGEST_REST: Duration = Duration::from_secs(5);

/// A write of uses ends after this time. The remaining keys follow after the pause.
const LONGEST_WRITE: Duration = Duration::from_millis(2500);

/// Interval at which due times are checked while jobs run.
const TICK: Duration = Duration::from_millis(100);

/// Time limit of the final round of [`Jobs::run`].
#[cfg(feature = "tokio")]
const LAST_ROUND: Duration = Duration::from_secs(10);

/// Minimum interval between log messages about the same problem.
const LOG_EVERY: Duration = Duration::from_secs(30);

type Failure = Box<dyn Error + Send + Sync>;

/// What the jobs work on. An absent part has no jobs.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The store to which usage is written.
    pub(crate) counts: Option<Arc<dyn UsageStore>>,
    /// How often it is written.
    pub(crate) counts_every: Duration,
    pub(crate) cache: Option<CachedStore>,
    /// Source of the usage, events and new digests to write, and owner of the limiter and directory
    /// to sweep.
    pub(crate) authenticator: Authenticator,
    pub(crate) retention: Retention,
    pub(crate) notices: Option<Notices>,
    /// Continues bulk operations.
    pub(crate) manager: KeyManager,
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
    /// Whether the service stops, so that credits are given back.
    stops: AtomicBool,
    /// Whether the metrics were described after the service was built: the host may have installed the
    /// recorder meanwhile.
    described: Once,
    /// The totals at the last report.
    reported: Mutex<Totals>,
    /// The totals when losses were last logged, and when that was.
    logged: Mutex<(Totals, Option<Duration>)>,
}

#[derive(Debug, Default)]
struct Deleted {
    hours: AtomicU64,
    events: AtomicU64,
}

#[derive(Debug)]
struct Job {
    work: Work,
    slot: Mutex<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    runs: bool,
    /// When the job is due, by the monotonic clock.
    due: Duration,
    /// When its failure was last logged.
    logged: Option<Duration>,
}

/// Marks a job as running until dropped.
struct Running<'a>(&'a Job);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.slot.lock().runs = false;
    }
}

/// Which jobs a round runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Due,
    /// All jobs whose work would be lost with the process, due or not.
    #[cfg(feature = "tokio")]
    Last,
}

impl Jobs {
    /// Creates the jobs of these parts, all of them due. The caller must run them from now on.
    pub(crate) fn new(parts: Parts) -> Self {
        let mut work = Vec::new();
        let mut add = |all: &mut dyn Iterator<Item = Work>| work.extend(all);
        let sinks = parts.trail().map_or(0, AuditTrail::sinks);
        add(&mut parts.counts.iter().map(|_| Work::Usage));
        add(&mut (0..sinks).map(Work::Events));
        add(&mut parts.cache.iter().map(|_| Work::Publish));
        work.extend(parts.notices.iter().map(|_| Work::Notices));
        work.extend([
            Work::Collect,
            Work::Release,
            Work::Rehash,
            Work::Bulk,
            Work::SweepLimiter,
            Work::SweepCaches,
        ]);
        if parts.authenticator.spending().is_some() {
            work.extend([Work::Credits, Work::Accounts]);
        }
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
            stops: AtomicBool::new(false),
            described: Once::new(),
            reported: Mutex::default(),
            logged: Mutex::default(),
        }
    }

    /// Runs what is due or was requested. Returns what all calls have done since the last report.
    ///
    /// Returns within ten seconds even if a job hangs, and skips jobs that another call is running.
    /// Dropping the future loses nothing: unfinished work is due at the next call.
    pub(crate) async fn maintain(&self) -> Maintenance {
        self.parts.usage().jobs_are_run();
        self.described.call_once(telemetry::describe);
        let mut failures = Vec::new();
        self.round(Which::Due, &mut HashSet::new(), &mut failures)
            .await;
        self.log_losses();
        // So that the report does not take the uses of many keys at once.
        self.parts.usage().collect().await;
        let mut reported = self.reported.lock();
        let since = std::mem::replace(&mut *reported, self.totals());
        drop(reported);
        self.report(since, failures)
    }

    /// Runs jobs when they are due until `shutdown` completes, then within ten seconds all work
    /// that would be lost otherwise. Returns what was done since the start; work still waiting is
    /// lost with the process.
    #[cfg(feature = "tokio")]
    pub(crate) async fn run(&self, shutdown: impl Future<Output = ()>) -> Maintenance {
        let (since, mut shutdown) = (self.totals(), pin!(shutdown));
        self.parts.usage().jobs_are_run();
        telemetry::describe();
        loop {
            let (seen, mut failures) = (self.flushes_requested(), Vec::new());
            let next = async {
                self.round(Which::Due, &mut HashSet::new(), &mut failures)
                    .await;
                self.log_losses();
                let asked = pin!(self.flush_requested_since(seen));
                select(pin!(tokio::time::sleep(TICK)), asked).await;
            };
            if let Either::Left(_) = select(&mut shutdown, pin!(next)).await {
                break;
            }
        }
        let (mut failed, mut failures) = (HashSet::new(), Vec::new());
        self.stops.store(true, Ordering::Relaxed);
        let last = async {
            loop {
                self.round(Which::Last, &mut failed, &mut failures).await;
                // A request that ends during shutdown may record an event while others are written.
                if !self.has_unsaved_work(&failed) {
                    return;
                }
                tokio::time::sleep(TICK / 10).await;
            }
        };
        if within(LAST_ROUND, last).await.is_none() {
            failures.push(("final round".to_owned(), timed_out(LAST_ROUND)));
        }
        // A host may start the jobs again.
        self.stops.store(false, Ordering::Relaxed);
        self.report(since, failures)
    }

    /// Runs jobs concurrently, except those that have failed. While the first ones run, jobs that become
    /// due again are run again. None is started after the first ones have ended.
    async fn round(
        &self,
        which: Which,
        failed: &mut HashSet<usize>,
        failures: &mut Vec<(String, Failure)>,
    ) {
        let mut running = FuturesUnordered::new();
        let mut first = HashSet::new();
        let mut begins = true;
        loop {
            let seen = self.flushes_requested();
            for (index, job) in self.jobs.iter().enumerate() {
                // The final round runs each job once: repeating jobs without work would keep this
                // task from yielding, and tokio withholds progress from a task that never yields.
                let again = which == Which::Due && !first.is_empty();
                let may_begin = (begins || again) && !failed.contains(&index);
                if let Some(job) = may_begin.then(|| self.begin(job, which)).flatten() {
                    if begins {
                        first.insert(index);
                    }
                    running.push(async move { (index, self.perform(job).await) });
                }
            }
            begins = false;
            let asked = pin!(self.flush_requested_since(seen));
            let passes = select(Delay::new(TICK), asked);
            match select(running.next(), passes).await {
                Either::Left((None, _)) => return,
                Either::Left((Some((index, done)), _)) => {
                    first.remove(&index);
                    if let Err(why) = done {
                        failed.insert(index);
                        failures.push((self.jobs[index].work.to_string(), why));
                    }
                }
                Either::Right(_) => {}
            }
        }
    }

    /// Marks a job as running if it is due or was requested, unless it is already running.
    fn begin<'a>(&self, job: &'a Job, which: Which) -> Option<Running<'a>> {
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
        begins.then(|| Running(job))
    }

    /// Runs a job within its time limit and sets when it is due again.
    async fn perform(&self, job: Running<'_>) -> Result<(), Failure> {
        let Job { work, slot } = job.0;
        let began = self.parts.now();
        let done = match (*work, self.parts.trail()) {
            // Callers that wait for a flush must learn that it was abandoned.
            (Work::Events(sink), Some(trail)) => {
                let flushed = trail.flush_sink(sink, LIMIT).await;
                let failed = |error: Option<_>| error.map_or_else(|| timed_out(LIMIT), Into::into);
                flushed.map(|()| work.every().0).map_err(failed)
            }
            _ => {
                let done = within(LIMIT, self.work(*work)).await;
                done.unwrap_or_else(|| Err(timed_out(LIMIT)))
            }
        };
        let now = self.parts.now();
        let mut slot = slot.lock();
        let pause = *done.as_ref().unwrap_or(&work.every().1);
        let rest = match work {
            Work::Usage => now.saturating_sub(began).saturating_mul(REST),
            _ => Duration::ZERO,
        };
        slot.due = now.saturating_add(pause.max(rest.min(LONGEST_REST)));
        let is_new = |at: Duration| now.saturating_sub(at) >= LOG_EVERY;
        match &done {
            Ok(_) => slot.logged = None,
            Err(why) if slot.logged.is_none_or(is_new) => {
                slot.logged = Some(now);
                telemetry::job_failed(&work.to_string(), &**why);
            }
            Err(_) => {}
        }
        drop(slot);
        done.map(drop)
    }

    /// Does the work of a job. Returns when it is due again.
    async fn work(&self, work: Work) -> Result<Duration, Failure> {
        let parts = &self.parts;
        let before = |kept: Option<Duration>| {
            let at = kept.and_then(|kept| parts.authenticator.clock().now().checked_sub(kept));
            at.unwrap_or(SystemTime::UNIX_EPOCH)
        };
        match work {
            Work::Collect => parts.usage().collect_many().await,
            Work::Release => parts.usage().collect().await,
            Work::Usage => {
                if let Some(store) = &parts.counts {
                    let all = self.stops.load(Ordering::Relaxed);
                    let usage = parts.usage();
                    let flush = usage.flush_for(&**store, all, LONGEST_WRITE, || parts.now());
                    if flush.await? {
                        return Ok(parts.counts_every);
                    }
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
            Work::Bulk => parts.manager.continue_bulk_operations().await?,
            Work::Credits => {
                if let Some(credits) = parts.authenticator.spending() {
                    credits.report(self.stops.load(Ordering::Relaxed)).await?;
                }
            }
            Work::Accounts => {
                if let Some(credits) = parts.authenticator.spending() {
                    credits.walk().await?;
                }
            }
            Work::SweepLimiter => parts.authenticator.sweep_limiter(),
            Work::SweepCaches => {
                parts.cache.iter().for_each(CachedStore::sweep);
                parts.authenticator.sweep_directory();
            }
            Work::Notices => {
                if let Some(notices) = &parts.notices {
                    let spending = parts.authenticator.spending();
                    let credits = spending.map(|credits| credits.accounts());
                    let clock = parts.authenticator.clock();
                    notices.run(&**clock, credits).await?;
                }
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
        Ok(work.every().0)
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

    /// Returns whether work is waiting that would be lost with the process, other than that of jobs that
    /// have failed.
    #[cfg(feature = "tokio")]
    fn has_unsaved_work(&self, failed: &HashSet<usize>) -> bool {
        let now = self.report(self.totals(), Vec::new());
        let fails = |of: fn(Work) -> bool| failed.iter().any(|job| of(self.jobs[*job].work));
        (now.uses_waiting > 0 && !fails(|work| work == Work::Usage))
            || (now.events_waiting > 0 && !fails(|work| matches!(work, Work::Events(_))))
            || (now.changes_waiting > 0 && !fails(|work| work == Work::Publish))
    }

    /// Logs how much was lost since the last such message.
    fn log_losses(&self) {
        let mut logged = self.logged.lock();
        let (totals, now) = (self.totals(), self.parts.now());
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

    /// Returns what was done since these totals, and what is waiting.
    fn report(&self, since: Totals, failures: Vec<(String, Failure)>) -> Maintenance {
        let parts = &self.parts;
        // Takes the last uses, and some may be lost then.
        let uses_waiting = parts.usage().pending();
        let now = self.totals();
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
            uses_waiting,
            events_waiting: count(parts.trail().map_or(0, AuditTrail::pending)),
            changes_waiting: count(parts.cache.as_ref().map_or(0, CachedStore::outbox_len)),
            failures,
        }
    }
}

fn timed_out(limit: Duration) -> Failure {
    format!("timed out after {limit:?}").into()
}
