//! Spans and metrics, enabled by the features `tracing` and `metrics`.
//!
//! # Metrics
//! Names that end in `_total` are counters, names that end in `_seconds` are histograms. They are
//! described to the recorder, with their units, when a service is built and again when its periodic jobs
//! begin: install the recorder before the later of the two.
//!
//! | name | labels | meaning |
//! |---|---|---|
//! | `portunus_requests_total` | `outcome`: `OK` or the error's code; `plan`, if [`Limits::plans_in_metrics`](crate::Limits::plans_in_metrics) is set | responses, including the routes' refusals |
//! | `portunus_store_seconds` | `result`: `found`, `missing`, `failed` | key lookups |
//! | `portunus_limiter_seconds` | `result`: `admitted`, `refused`, `failed` | rate limiter decisions |
//! | `portunus_directory_seconds` | `result`: `found`, `missing`, `failed` | lookups of users and of owner standing |
//! | `portunus_verifier_seconds` | `result`: `found`, `missing`, `failed` | verifications of external tokens |
//! | `portunus_cache_total` | `cache`: `keys`, `directory`; `result`: `hit`, `miss` | cache lookups |
//! | `portunus_limiter_outages_total` | `mode`: `local`, `closed`, `open` | requests to which the limiter did not respond |
//! | `portunus_limiter_mode_changes_total` | `mode`: `local`, `closed`, `open`, `normal` | begins and ends of the limiter's outages |
//! | `portunus_audit_left_out_total` | `reason`: `queue_full`, `throttled`, `sink_failed` | audit events that were not kept |
//!
//! # The span of the request
//! The key of a request is recorded on the span in which the layer or middleware is called: usually that
//! which the host opens for each request. The host declares the fields, as far as it wants them:
//!
//! | field | value |
//! |---|---|
//! | `key_id` | the id of the key, also if it is refused |
//! | `tenant_id` | the tenant of its owner |
//! | `plan` | the plan of the key, its own or else its tenant's |
//!
//! Everything that is logged within the span then has them: see the [guide](crate::guide::observability)
//! for tower-http and tracing-actix-web. Nothing is recorded for an anonymous request, or for a key that
//! does not exist.
//!
//! # Spans and events
//! The target is `portunus`. Steps that are awaited run in the spans `store`, `limiter`,
//! `directory`, `owner_standing` and `verifier`, at level `DEBUG`, within `authenticate`. A refusal
//! is an event at `DEBUG` with `code` and, if a real key was presented, `key_id`; a refusal due to
//! an outage is an event at `WARN` with its cause. A route that needs a key but has no layer that
//! authenticates its requests (which get 500 `INTERNAL_ERROR`) is an event at `ERROR`, once. When the
//! limiter no longer answers, and when it has answered for five seconds, there is one event with the
//! `mode`, at `WARN` and `INFO`. Spans and events contain no secret, no digest and no other part of
//! the credentials.

use std::future::Future;

#[cfg(any(feature = "actix-web", feature = "tower"))]
use crate::error::AuthError;
#[cfg(any(feature = "actix-web", feature = "tower"))]
use crate::key::{KeyId, KeyRecord, PlanName};

/// Whether metrics or tracing is enabled.
#[cfg(any(feature = "actix-web", feature = "tower"))]
pub(crate) const ON: bool = cfg!(any(feature = "metrics", feature = "tracing"));

/// Describes each metric to the recorder that is installed, with its unit.
pub(crate) fn describe() {
    #[cfg(feature = "metrics")]
    {
        for (name, meaning) in COUNTERS {
            metrics::describe_counter!(name, metrics::Unit::Count, meaning);
        }
        for (name, meaning) in HISTOGRAMS {
            metrics::describe_histogram!(name, metrics::Unit::Seconds, meaning);
        }
    }
}

#[cfg(feature = "metrics")]
const COUNTERS: [(&str, &str); 5] = [
    (
        "portunus_requests_total",
        "Responses, including the routes' refusals",
    ),
    ("portunus_cache_total", "Cache lookups"),
    (
        "portunus_limiter_outages_total",
        "Requests to which the limiter did not respond",
    ),
    (
        "portunus_limiter_mode_changes_total",
        "Begins and ends of the limiter's outages",
    ),
    (
        "portunus_audit_left_out_total",
        "Audit events that were not kept",
    ),
];

#[cfg(feature = "metrics")]
const HISTOGRAMS: [(&str, &str); 4] = [
    ("portunus_store_seconds", "Key lookups"),
    ("portunus_limiter_seconds", "Rate limiter decisions"),
    (
        "portunus_directory_seconds",
        "Lookups of users and of owner standing",
    ),
    (
        "portunus_verifier_seconds",
        "Verifications of external tokens",
    ),
];

/// A step of authentication that another component answers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Store,
    Limiter,
    Directory,
    OwnerStanding,
    Verifier,
}

/// Records how long a step took. Names and labels are literals, so that they need no allocation.
#[cfg(feature = "metrics")]
fn record(step: Step, label: &'static str, took: std::time::Duration) {
    macro_rules! by_result {
        ($name:literal, $($result:literal)*) => {
            match label {
                $($result => metrics::histogram!($name, "result" => $result).record(took),)*
                _ => metrics::histogram!($name, "result" => "failed").record(took),
            }
        };
    }
    match step {
        Step::Store => by_result!("portunus_store_seconds", "found" "missing"),
        Step::Limiter => by_result!("portunus_limiter_seconds", "admitted" "refused"),
        Step::Directory | Step::OwnerStanding => {
            by_result!("portunus_directory_seconds", "found" "missing");
        }
        Step::Verifier => by_result!("portunus_verifier_seconds", "found" "missing"),
    }
}

/// The label of an answer in metrics.
pub(crate) trait Labeled {
    fn label(&self) -> &'static str;
}

impl<T, E> Labeled for Result<Option<T>, E> {
    fn label(&self) -> &'static str {
        match self {
            Ok(Some(_)) => "found",
            Ok(None) => "missing",
            Err(_) => "failed",
        }
    }
}

impl<E> Labeled for Result<crate::limit::Decision, E> {
    fn label(&self) -> &'static str {
        match self {
            Ok(decision) if decision.is_admitted() => "admitted",
            Ok(_) => "refused",
            Err(_) => "failed",
        }
    }
}

/// When a step began, if a recorder is installed. Reading the clock costs more than the rest of a
/// measurement, and a recorder may be installed at any time, or for a thread.
#[cfg(feature = "metrics")]
fn begun() -> Option<std::time::Instant> {
    // The recorder that discards everything has no size. Another one without fields is asked.
    let records = |recorder: &dyn metrics::Recorder| size_of_val(recorder) > 0 || keeps(recorder);
    metrics::with_recorder(records).then(std::time::Instant::now)
}

/// Whether a recorder keeps the values of histograms: a value is read only if it does.
#[cfg(feature = "metrics")]
fn keeps(recorder: &dyn metrics::Recorder) -> bool {
    struct Read<'a>(&'a std::cell::Cell<bool>);
    impl metrics::IntoF64 for Read<'_> {
        fn into_f64(self) -> f64 {
            self.0.set(true);
            0.0
        }
    }
    static LABELS: [metrics::Label; 1] = [metrics::Label::from_static_parts("result", "found")];
    static KEY: metrics::Key = metrics::Key::from_static_parts("portunus_store_seconds", &LABELS);
    static METADATA: metrics::Metadata<'_> =
        metrics::Metadata::new(module_path!(), metrics::Level::INFO, None);
    let read = std::cell::Cell::new(false);
    let histogram = recorder.register_histogram(&KEY, &METADATA);
    histogram.record_many(Read(&read), 0);
    read.get()
}

/// Measures an answer that is available immediately.
pub(crate) fn timed<T: Labeled>(step: Step, ask: impl FnOnce() -> Option<T>) -> Option<T> {
    #[cfg(feature = "metrics")]
    let begun = begun();
    let answer = ask();
    #[cfg(feature = "metrics")]
    if let (Some(begun), Some(answer)) = (begun, &answer) {
        record(step, answer.label(), begun.elapsed());
    }
    let _ = step;
    answer
}

/// Measures an answer that is awaited.
pub(crate) async fn awaited<T: Labeled>(step: Step, ask: impl Future<Output = T>) -> T {
    #[cfg(feature = "tracing")]
    let ask = tracing::Instrument::instrument(
        ask,
        match step {
            Step::Store => tracing::debug_span!(target: "portunus", "store"),
            Step::Limiter => tracing::debug_span!(target: "portunus", "limiter"),
            Step::Directory => tracing::debug_span!(target: "portunus", "directory"),
            Step::OwnerStanding => tracing::debug_span!(target: "portunus", "owner_standing"),
            Step::Verifier => tracing::debug_span!(target: "portunus", "verifier"),
        },
    );
    #[cfg(feature = "metrics")]
    let begun = begun();
    let answer = ask.await;
    #[cfg(feature = "metrics")]
    if let Some(begun) = begun {
        record(step, answer.label(), begun.elapsed());
    }
    let _ = (step, answer.label());
    answer
}

/// Logs that the periodic jobs are not running.
pub(crate) fn jobs_are_not_run() {
    #[cfg(feature = "tracing")]
    tracing::error!(
        target: "portunus",
        "the periodic jobs are not running, so usage and audit events will be lost when the process \
         exits: spawn `Portunus::run(shutdown)`, or call `Portunus::maintain()` at least once per \
         second"
    );
}

/// Logs that a periodic job failed and will be retried.
pub(crate) fn job_failed(job: &str, error: &(dyn std::error::Error + 'static)) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: "portunus", job, error, "a periodic job failed and will be retried");
    let _ = (job, error);
}

/// Logs that data was lost before it was written.
pub(crate) fn lost(what: &'static str, count: u64) {
    #[cfg(feature = "tracing")]
    tracing::error!(target: "portunus", count, "{what} were lost: too many were waiting");
    let _ = (what, count);
}

/// Logs that a request has no client address, so that its failures cannot be counted.
pub(crate) fn no_client_address() {
    #[cfg(feature = "tracing")]
    tracing::warn!(
        target: "portunus",
        "a request has no client address: failures are not counted per client, and only the number of \
         lookups in flight is bounded. {NO_ADDRESS}"
    );
}

/// Logs that a request has no client address, although limits count by address.
pub(crate) fn no_address_to_count() {
    #[cfg(feature = "tracing")]
    tracing::warn!(
        target: "portunus",
        "a request has no client address: all such requests share the limit for unknown addresses. \
         {NO_ADDRESS}"
    );
}

#[cfg(feature = "tracing")]
const NO_ADDRESS: &str = "With axum, serve `into_make_service_with_connect_info::<SocketAddr>()`; \
    behind a proxy, set `Policy::client_ip`";

/// Logs that a list omitted an unreadable row.
pub(crate) fn left_out(row: &str) {
    #[cfg(feature = "tracing")]
    tracing::error!(target: "portunus", row, "a stored row cannot be read and was omitted from a list");
    let _ = row;
}

/// Logs that a key has a plan that is not declared.
pub(crate) fn undeclared_plan(plan: &str) {
    #[cfg(feature = "tracing")]
    tracing::error!(target: "portunus", plan, "keys have a plan that is not declared: requests with them get 503. Add the plan to Limits");
    let _ = plan;
}

/// Logs the cause of an error by which the service is set up incorrectly, once. The causes name routes,
/// not paths, so there are few; at most 100 are logged.
#[cfg(any(feature = "actix-web", feature = "tower"))]
pub(crate) fn set_up_incorrectly(error: &AuthError) {
    #[cfg(feature = "tracing")]
    if error.code() == crate::error::ErrorCode::Internal
        && let Some(cause) = std::error::Error::source(error)
        && tracing::enabled!(target: "portunus", tracing::Level::ERROR)
    {
        use crate::lock::Mutex;
        use std::collections::BTreeSet;
        static LOGGED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        let mut logged = LOGGED.lock();
        let is_new = logged.len() < 100 && logged.insert(cause.to_string());
        drop(logged);
        if is_new {
            tracing::error!(target: "portunus", "{cause}");
        }
    }
    let _ = error;
}

/// Runs the rest of an attempt in its span.
pub(crate) fn in_span<F: Future>(rest: F) -> impl Future<Output = F::Output> {
    #[cfg(feature = "tracing")]
    let rest = tracing::Instrument::instrument(
        rest,
        tracing::debug_span!(target: "portunus", "authenticate"),
    );
    rest
}

/// Whether refusals are logged.
#[cfg(any(feature = "actix-web", feature = "tower"))]
pub(crate) fn is_logged() -> bool {
    #[cfg(feature = "tracing")]
    return tracing::level_filters::LevelFilter::current() >= tracing::Level::WARN;
    #[cfg(not(feature = "tracing"))]
    false
}

/// Whether anybody may listen to spans.
#[cfg(any(feature = "actix-web", feature = "tower"))]
pub(crate) fn has_subscriber() -> bool {
    #[cfg(feature = "tracing")]
    return tracing::level_filters::LevelFilter::current()
        > tracing::level_filters::LevelFilter::OFF;
    #[cfg(not(feature = "tracing"))]
    false
}

/// Records the key of a request on the current span, as far as that has the fields.
#[cfg(any(feature = "actix-web", feature = "tower"))]
pub(crate) fn identify(key: &KeyRecord, plan: Option<&PlanName>) {
    #[cfg(feature = "tracing")]
    {
        let span = tracing::Span::current();
        span.record("key_id", key.id.as_str());
        span.record("tenant_id", key.owner.tenant_id.as_str());
        if let Some(plan) = plan {
            span.record("plan", plan.as_str());
        }
    }
    let _ = (key, plan);
}

/// The label `plan` of a response.
#[cfg(any(feature = "actix-web", feature = "tower"))]
#[derive(Debug, Clone)]
pub(crate) enum PlanLabel {
    /// Responses have no such label.
    Off,
    None,
    Plan(PlanName),
}

#[cfg(any(feature = "actix-web", feature = "tower"))]
impl PlanLabel {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Off => None,
            Self::None => Some("none"),
            Self::Plan(plan) => Some(plan.as_str()),
        }
    }
}

/// Records the outcome of a request, whichever component produced the response. `key` is the one that
/// was admitted.
#[cfg(any(feature = "actix-web", feature = "tower"))]
pub(crate) fn answered(error: Option<&AuthError>, key: Option<&KeyId>, plan: &PlanLabel) {
    let plan = plan.text();
    #[cfg(feature = "metrics")]
    {
        let outcome = error.map_or("OK", |error| error.code().as_str());
        match (error, plan.map(str::to_owned)) {
            // Literals, so that the usual outcome needs no allocation.
            (None, None) => metrics::counter!("portunus_requests_total", "outcome" => "OK"),
            (Some(_), None) => metrics::counter!("portunus_requests_total", "outcome" => outcome),
            (_, Some(plan)) => {
                metrics::counter!("portunus_requests_total", "outcome" => outcome, "plan" => plan)
            }
        }
        .increment(1);
    }
    #[cfg(feature = "tracing")]
    if let Some(error) = error {
        let key_id = error.key_id().or(key).map(tracing::field::display);
        match std::error::Error::source(error).filter(|_| error.status() == 503) {
            Some(cause) => {
                tracing::warn!(target: "portunus", code = error.code().as_str(), key_id, cause, "refused");
            }
            None => {
                tracing::debug!(target: "portunus", code = error.code().as_str(), key_id, "refused");
            }
        }
    }
    let _ = (error, key, plan);
}

/// The caches that are measured.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cache {
    Keys,
    Directory,
}

/// Records a cache lookup.
pub(crate) fn cache(which: Cache, hit: bool) {
    // Literals, so that they need no allocation.
    #[cfg(feature = "metrics")]
    match (which, hit) {
        (Cache::Keys, true) => {
            metrics::counter!("portunus_cache_total", "cache" => "keys", "result" => "hit")
        }
        (Cache::Keys, false) => {
            metrics::counter!("portunus_cache_total", "cache" => "keys", "result" => "miss")
        }
        (Cache::Directory, true) => {
            metrics::counter!("portunus_cache_total", "cache" => "directory", "result" => "hit")
        }
        (Cache::Directory, false) => {
            metrics::counter!("portunus_cache_total", "cache" => "directory", "result" => "miss")
        }
    }
    .increment(1);
    let _ = (which, hit);
}

/// Records a request for which the limiter did not respond.
pub(crate) fn limiter_outage(mode: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("portunus_limiter_outages_total", "mode" => mode).increment(1);
    let _ = mode;
}

/// Records that an outage of the limiter began or ended (`normal`).
pub(crate) fn limiter_mode(mode: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("portunus_limiter_mode_changes_total", "mode" => mode).increment(1);
    #[cfg(feature = "tracing")]
    match mode {
        "normal" => tracing::info!(target: "portunus", mode, "the rate limiter answers again"),
        _ => tracing::warn!(target: "portunus", mode, "the rate limiter does not answer"),
    }
    let _ = mode;
}

/// Records audit events that were not kept.
pub(crate) fn audit_left_out(reason: &'static str, count: u64) {
    #[cfg(feature = "metrics")]
    if count > 0 {
        metrics::counter!("portunus_audit_left_out_total", "reason" => reason).increment(count);
    }
    let _ = (reason, count);
}
