//! Mutation tests of the limiter suites: a log of all admissions passes, and each incorrect variant
//! fails the check that names its fault.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use portunus::Clock;
use portunus::clock::SystemClock;
use portunus::limit::{Decision, LimitRequest, LimiterError, RateLimiter, WindowState};
use portunus::quota::Quota;
use portunus::testing::ManualClock;
use portunus_conformance::{self as conformance, Violation, Violations};

/// The fault of the log, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum How {
    Right,
    /// Times are whole milliseconds, as on many servers.
    RightInMilliseconds,
    FixedWindow,
    SlidingCounter,
    Gcra,
    CountsRefused,
    EachBucketAlone,
    EachWindowAlone,
    CostIsOne,
    ForgetsOnCost,
    NoCostError,
    FreeIsFree,
    WholeSeconds,
    TooLate,
    TooEarly,
    KeepsTooLong,
    ForgetsQuotas,
    ByNameOfQuota,
    ForgetsSoon,
    OneNamespace,
    IgnoresClasses,
    IgnoresOverdrafts,
    OverdrawsByOne,
    ChargesSixAtMost,
    TimeOfDay,
    LooksThenActs,
    TryIsApart,
    WrongRemaining,
    NoReset,
    OrderLost,
    NothingViolated,
    ReadingCounts,
    ReadsOneTooFew,
    ReadsWithoutClasses,
    ReadsWithCosts,
    ReadsTheLatest,
    ReadingRefreshes,
}

use How::*;

struct Log {
    how: How,
    clock: Arc<dyn Clock>,
    buckets: Mutex<HashMap<String, Vec<(Duration, u64)>>>,
    /// Admissions that only `try_acquire` counts.
    apart: Mutex<HashMap<String, Vec<(Duration, u64)>>>,
}

type Buckets = HashMap<String, Vec<(Duration, u64)>>;

impl Log {
    fn new(how: How, clock: impl Clock) -> Self {
        Self {
            how,
            clock: Arc::new(clock),
            buckets: Mutex::default(),
            apart: Mutex::default(),
        }
    }

    fn now(&self) -> Duration {
        let now = match self.how {
            TimeOfDay => self
                .clock
                .now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap(),
            _ => self.clock.monotonic(),
        };
        if self.how == RightInMilliseconds {
            Duration::from_millis(now.as_millis().try_into().unwrap())
        } else {
            now
        }
    }

    fn tick(&self) -> Duration {
        if self.how == RightInMilliseconds {
            Duration::from_millis(1)
        } else {
            Duration::from_nanos(1)
        }
    }

    /// The units that count in a window now.
    fn units(&self, log: &[(Duration, u64)], quota: &Quota, now: Duration) -> u64 {
        let window = quota.window();
        let since = |length: Duration| {
            log.iter()
                .filter(|(time, _)| *time + length >= now)
                .map(|(_, units)| units)
                .sum()
        };
        let number = |time: Duration| time.as_nanos() / window.as_nanos();
        match self.how {
            FixedWindow => log
                .iter()
                .filter(|(time, _)| number(*time) == number(now))
                .map(|(_, units)| units)
                .sum(),
            SlidingCounter => {
                let of = |n: u128| {
                    log.iter()
                        .filter(|(time, _)| number(*time) == n)
                        .map(|(_, u)| *u)
                        .sum::<u64>()
                };
                let gone = (now.as_nanos() % window.as_nanos()) as f64 / window.as_nanos() as f64;
                of(number(now)) + (of(number(now).wrapping_sub(1)) as f64 * (1.0 - gone)) as u64
            }
            // A bucket that leaks a unit every W/N.
            Gcra => {
                let (mut level, mut last) = (0.0_f64, Duration::ZERO);
                let rate = quota.limit() as f64 / window.as_secs_f64();
                for (time, units) in log.iter().chain(&[(now, 0)]) {
                    level = (level - (*time - last).as_secs_f64() * rate).max(0.0) + *units as f64;
                    last = *time;
                }
                (level - 1e-9).ceil().max(0.0) as u64
            }
            KeepsTooLong => since(window + window / 8),
            TooEarly => since(window - window / 300),
            ForgetsSoon => since(window.min(Duration::from_secs(600))),
            _ => since(window),
        }
    }

    /// The time until this many units fit: the first instant at which they do.
    fn wait(&self, log: &[(Duration, u64)], quota: &Quota, now: Duration, cost: u64) -> Duration {
        if self.units(log, quota, now) + cost <= quota.limit() {
            return Duration::ZERO;
        }
        let ends = log
            .iter()
            .map(|(time, _)| *time + quota.window() + self.tick())
            .filter(|end| *end > now);
        // The log is in chronological order.
        let fits = ends
            .into_iter()
            .find(|end| self.units(log, quota, *end) + cost <= quota.limit());
        match fits {
            Some(end) if self.how == WholeSeconds => Duration::from_secs((end - now).as_secs() + 1),
            Some(end) if self.how == TooLate => end - now + Duration::from_millis(5),
            Some(end) => end - now,
            None => quota.window(),
        }
    }

    fn state(&self, log: &[(Duration, u64)], quota: &Quota, now: Duration) -> WindowState {
        let units = self.units(log, quota, now);
        let oldest = log
            .iter()
            .map(|(time, _)| *time + quota.window() + self.tick())
            .find(|end| *end > now);
        let reset = oldest
            .filter(|_| units > 0 && self.how != NoReset)
            .map(|end| end - now);
        let remaining = quota.limit().saturating_sub(units) + u64::from(self.how == WrongRemaining);
        WindowState::new(remaining, reset)
    }

    fn read(&self, buckets: &mut Buckets, request: &LimitRequest<'_>) -> Vec<WindowState> {
        let mut states = Vec::new();
        for bucket in request.buckets {
            let class = bucket.class.filter(|_| self.how != ReadsWithoutClasses);
            let key = format!("{:?} {class:?}", bucket.id);
            let mut log = buckets.get(&key).cloned().unwrap_or_default();
            let mut now = self.now();
            match (self.how, log.last().copied()) {
                (ReadsTheLatest, Some((latest, _))) => now = latest,
                (ReadsOneTooFew, _) => log.push((now, 1)),
                (ReadingCounts, _) => buckets.entry(key).or_default().push((now, 1)),
                (ReadingRefreshes, Some((_, units))) => {
                    *buckets.get_mut(&key).unwrap().last_mut().unwrap() = (now, units);
                }
                _ => {}
            }
            let quotas = bucket.quotas.as_slice().iter();
            states.extend(quotas.map(|quota| self.state(&log, quota, now)));
        }
        states
    }

    fn decide(
        &self,
        buckets: &mut Buckets,
        request: &LimitRequest<'_>,
    ) -> Result<Decision, LimiterError> {
        let least = request
            .buckets
            .iter()
            .flat_map(|b| b.quotas.as_slice())
            .map(Quota::limit)
            .min()
            .unwrap();
        let free = request.cost == 0 && self.how != FreeIsFree;
        let overdraw = request.overdraw && self.how != IgnoresOverdrafts;
        if free || (request.cost > least && self.how != NoCostError && !overdraw) {
            return Err(LimiterError::Cost {
                cost: request.cost,
                limit: least,
            });
        }
        let (now, cost) = (
            self.now(),
            if self.how == CostIsOne {
                1
            } else {
                request.cost
            },
        );
        let mut keys = Vec::new();
        for bucket in request.buckets {
            for quota in bucket.quotas.as_slice() {
                let whole = format!("{:?} {:?}", bucket.id, bucket.class);
                let id = match self.how {
                    OneNamespace => whole
                        .split_once('(')
                        .map_or(&*whole, |(_, name)| name)
                        .replace("KeyFamily(", "")
                        .replace("TenantId(", "")
                        .replace(['"', ')'], ""),
                    IgnoresClasses => format!("{:?}", bucket.id),
                    _ => whole,
                };
                let key = match self.how {
                    ForgetsQuotas => format!("{id} {}", bucket.quotas),
                    ByNameOfQuota => format!("{id} {}", quota.name()),
                    EachWindowAlone => format!("{id} {:?}", quota.window()),
                    _ => id,
                };
                keys.push((key, quota));
            }
        }
        let log = |buckets: &Buckets, key: &str| buckets.get(key).cloned().unwrap_or_default();
        let waits: Vec<_> = keys
            .iter()
            .map(|(key, quota)| self.wait(&log(buckets, key), quota, now, cost))
            .collect();
        let wait = match waits.iter().copied().max().unwrap() {
            _ if overdraw => Duration::ZERO,
            wait => wait,
        };
        let most = match self.how {
            ChargesSixAtMost => 6,
            _ => usize::MAX,
        };
        let mut counted: Vec<&str> = Vec::new();
        for ((key, _), own) in keys.iter().zip(&waits) {
            let alone = matches!(self.how, EachBucketAlone | EachWindowAlone) && own.is_zero();
            if (wait.is_zero() || alone || self.how == CountsRefused)
                && !counted.contains(&key.as_str())
            {
                counted.push(key);
            }
        }
        let cost = match self.how {
            OverdrawsByOne if overdraw => cost.min(1),
            _ => cost,
        };
        for key in counted.into_iter().take(most) {
            let log = buckets.entry(key.to_owned()).or_default();
            if self.how == ForgetsOnCost && cost > 1 {
                log.clear();
            }
            log.push((now, cost));
        }
        let mut decision = if wait.is_zero() {
            Decision::admitted()
        } else {
            Decision::refused(wait)
        };
        let mut waits = waits.iter();
        let mut states = Vec::new();
        for bucket in request.buckets {
            let mut windows = Vec::new();
            for quota in bucket.quotas.as_slice() {
                let (key, _) = keys
                    .iter()
                    .find(|(key, other)| std::ptr::eq(*other, quota) && !key.is_empty())
                    .unwrap();
                let state = self.state(&log(buckets, key), quota, now);
                let waits = !waits.next().unwrap().is_zero();
                let refused = waits && !wait.is_zero() && self.how != NothingViolated;
                windows.push(if refused { state.violated() } else { state });
            }
            states.push(windows);
        }
        if self.how == OrderLost {
            states.reverse();
        }
        for windows in states {
            decision = decision.with_windows(windows);
        }
        Ok(decision)
    }
}

#[async_trait]
impl RateLimiter for Log {
    async fn acquire(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError> {
        tokio::task::yield_now().await;
        if self.how == LooksThenActs {
            let decided = self.decide(&mut self.buckets.lock().unwrap().clone(), request)?;
            tokio::task::yield_now().await;
            if decided.is_admitted() {
                let mut buckets = self.buckets.lock().unwrap();
                for bucket in request.buckets {
                    buckets
                        .entry(format!("{:?} {:?}", bucket.id, bucket.class))
                        .or_default()
                        .push((self.now(), request.cost));
                }
            }
            return Ok(decided);
        }
        self.decide(&mut self.buckets.lock().unwrap(), request)
    }

    async fn peek(
        &self,
        request: &LimitRequest<'_>,
    ) -> Result<Option<Vec<WindowState>>, LimiterError> {
        match self.how {
            ReadsWithCosts if request.cost == 0 => Err(LimiterError::Cost { cost: 0, limit: 1 }),
            Right | RightInMilliseconds | ReadingCounts | ReadsOneTooFew | ReadsWithoutClasses
            | ReadsWithCosts | ReadsTheLatest | ReadingRefreshes => {
                Ok(Some(self.read(&mut self.buckets.lock().unwrap(), request)))
            }
            // These are wrong by their decisions alone.
            _ => Ok(None),
        }
    }

    fn try_acquire(&self, request: &LimitRequest<'_>) -> Option<Result<Decision, LimiterError>> {
        match self.how {
            TryIsApart => Some(self.decide(&mut self.apart.lock().unwrap(), request)),
            _ => None,
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Log({:?})", self.how)
    }
}

async fn violations(how: How) -> Violations {
    let made = |clock: ManualClock| async move { Log::new(how, clock) };
    conformance::rate_limiter(made)
        .await
        .expect_err(&format!("a limiter that is wrong by {how:?} passes"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_log_of_all_admissions_passes() {
    conformance::rate_limiter(|clock| async { Log::new(Right, clock) })
        .await
        .unwrap();
    conformance::rate_limiter(|clock| async { Log::new(RightInMilliseconds, clock) })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_incorrect_limiter_fails_exactly_one_check() {
    const INTERVAL: &str =
        "no interval of a window's length admits more than its limit, wherever it begins";
    const ALL_OR_NONE: &str = "a request is counted in all of its buckets or in none";
    const READING: &str = "reading the windows changes no count and agrees with the next decision";
    const READING_LATER: &str =
        "a reading is of the time at which it is made, and keeps nothing for longer";
    let cases = [
        (FixedWindow, INTERVAL),
        (SlidingCounter, INTERVAL),
        (Gcra, INTERVAL),
        (CountsRefused, ALL_OR_NONE),
        (EachBucketAlone, ALL_OR_NONE),
        (EachWindowAlone, ALL_OR_NONE),
        (
            CostIsOne,
            "a request consumes exactly as many units as it costs, or none",
        ),
        (
            ForgetsOnCost,
            "a request consumes exactly as many units as it costs, or none",
        ),
        (
            NoCostError,
            "a cost of zero or above a quota is a cost error, and changes nothing",
        ),
        (
            FreeIsFree,
            "a cost of zero or above a quota is a cost error, and changes nothing",
        ),
        (
            WholeSeconds,
            "a lone retry is admitted when its wait is over, and not a millisecond earlier",
        ),
        (
            TooLate,
            "a lone retry is admitted when its wait is over, and not a millisecond earlier",
        ),
        (
            TooEarly,
            "a burst followed by a flood admits exactly the limit in one window",
        ),
        (
            KeepsTooLong,
            "all units are available again after an idle window",
        ),
        (
            ForgetsQuotas,
            "changed quotas see admissions made under the old ones",
        ),
        (
            ByNameOfQuota,
            "changed quotas see admissions made under the old ones",
        ),
        (
            ForgetsSoon,
            "nothing is forgotten within a long window, whatever other requests are made",
        ),
        (
            OneNamespace,
            "buckets with different names, of different kinds or of different classes are \
             independent",
        ),
        (
            IgnoresClasses,
            "buckets with different names, of different kinds or of different classes are \
             independent",
        ),
        (
            IgnoresOverdrafts,
            "an overdraft counts all its units, and refuses later requests",
        ),
        (
            OverdrawsByOne,
            "an overdraft counts all its units, and refuses later requests",
        ),
        (
            ChargesSixAtMost,
            "many policies of a request are charged together or not at all, also concurrently",
        ),
        (TimeOfDay, "changes of the wall clock have no effect"),
        (
            LooksThenActs,
            "exactly the limit is admitted among many concurrent requests",
        ),
        (
            TryIsApart,
            "admissions by try_acquire count for acquire, and vice versa",
        ),
        (WrongRemaining, "a bucket admits exactly its limit"),
        (NoReset, "remaining units and reset times are correct"),
        (
            OrderLost,
            "a decision reports every bucket and window in the order of the request",
        ),
        (NothingViolated, "a bucket admits exactly its limit"),
        (ReadingCounts, READING),
        (ReadsOneTooFew, READING),
        (ReadsWithoutClasses, READING),
        (ReadsWithCosts, READING),
        (ReadsTheLatest, READING_LATER),
        (ReadingRefreshes, READING_LATER),
    ];
    let mut tasks = tokio::task::JoinSet::new();
    for (how, expected) in cases {
        tasks.spawn(async move { (how, expected, violations(how).await) });
    }
    let mut wrong = Vec::new();
    for (how, expected, violations) in tasks.join_all().await {
        let failed: Vec<_> = violations.iter().map(Violation::check).collect();
        if failed != [expected] {
            wrong.push(format!(
                "{how:?} had to fail by {expected:?} alone: {violations}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fixed_window_and_a_leaky_bucket_also_fail_in_real_time() {
    let mut tasks = tokio::task::JoinSet::new();
    for how in [FixedWindow, Gcra, Right] {
        tasks.spawn(async move {
            let made = || async move { Log::new(how, SystemClock::default()) };
            (how, conformance::rate_limiter_in_real_time(made).await)
        });
    }
    for (how, outcome) in tasks.join_all().await {
        let named = match how {
            Gcra => {
                "under a flood no second admits more than its limit, and no request is refused \
                 too early"
            }
            _ => {
                "bursts within a second admit its limit in total, wherever the limiter's windows \
                 begin"
            }
        };
        match outcome {
            Ok(()) => assert_eq!(how, Right),
            Err(violations) => {
                assert!(how != Right, "{violations}");
                assert!(
                    violations
                        .iter()
                        .any(|violation| violation.check() == named),
                    "{how:?}: {violations}"
                );
            }
        }
    }
}
