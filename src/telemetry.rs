//! Spans and metrics, where the host asked for them (features `tracing` and `metrics`); nothing
//! otherwise.
//!
//! # Metrics
//! What ends in `_total` is a counter, what ends in `_seconds` a histogram.
//!
//! | name | labels | meaning |
//! |---|---|---|
//! | `portunus_requests_total` | `outcome`: `OK` or the error's code | answers, also the routes' refusals |
//! | `portunus_store_seconds` | `result`: `found`, `missing`, `failed` | look-ups of keys |
//! | `portunus_limiter_seconds` | `result`: `admitted`, `refused`, `failed` | decisions of the limiter |
//! | `portunus_directory_seconds` | `result`: `found`, `missing`, `failed` | users and owners' standing |
//! | `portunus_verifier_seconds` | `result`: `found`, `missing`, `failed` | verifications of foreign tokens |
//! | `portunus_cache_total` | `cache`: `keys`, `directory`; `result`: `hit`, `miss` | answers from caches |
//! | `portunus_limiter_outages_total` | `mode`: `local`, `closed`, `open` | requests it gave no answer for |
//! | `portunus_audit_left_out_total` | `reason`: `queue_full`, `throttled`, `sink_failed` | events not kept |
//!
//! # Spans and events
//! Target `portunus`. What must be awaited runs in spans `store`, `limiter`, `directory`,
//! `owner_standing` and `verifier`, at level `DEBUG`, within `authenticate`. A refusal is an event
//! at `DEBUG` with `code` and, where a real key was presented, `key_id`; an outage one at `WARN`
//! with its cause. No secret, no digest and nothing else of the credentials is in any of them.

use std::future::Future;

#[cfg(any(feature = "actix-web", feature = "tower"))]
use crate::error::AuthError;

/// Whether anything listens.
#[cfg(any(feature = "actix-web", feature = "tower"))]
pub(crate) const ON: bool = cfg!(any(feature = "metrics", feature = "tracing"));

/// A part of the path that others answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Store,
    Limiter,
    Directory,
    OwnerStanding,
    Verifier,
}

/// Records how long a step took. Names and labels are literals, so that nothing is allocated for
/// them.
#[cfg(feature = "metrics")]
fn record(step: Step, told: &'static str, took: std::time::Duration) {
    macro_rules! by_result {
        ($name:literal, $($result:literal)*) => {
            match told {
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

/// How an answer is called in metrics.
pub(crate) trait Labeled {
    fn told(&self) -> &'static str;
}

impl<T, E> Labeled for Result<Option<T>, E> {
    fn told(&self) -> &'static str {
        match self {
            Ok(Some(_)) => "found",
            Ok(None) => "missing",
            Err(_) => "failed",
        }
    }
}

impl<E> Labeled for Result<crate::limit::Decision, E> {
    fn told(&self) -> &'static str {
        match self {
            Ok(decision) if decision.is_admitted() => "admitted",
            Ok(_) => "refused",
            Err(_) => "failed",
        }
    }
}

/// Measures an answer that is given at once.
pub(crate) fn timed<T: Labeled>(step: Step, ask: impl FnOnce() -> Option<T>) -> Option<T> {
    #[cfg(feature = "metrics")]
    {
        let began = std::time::Instant::now();
        let answer = ask();
        if let Some(answer) = &answer {
            record(step, answer.told(), began.elapsed());
        }
        answer
    }
    #[cfg(not(feature = "metrics"))]
    {
        let _ = step;
        ask()
    }
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
    let began = std::time::Instant::now();
    let answer = ask.await;
    #[cfg(feature = "metrics")]
    record(step, answer.told(), began.elapsed());
    let _ = (step, answer.told());
    answer
}

/// Nobody runs the periodic jobs.
pub(crate) fn jobs_are_not_run() {
    #[cfg(feature = "tracing")]
    tracing::error!(
        target: "portunus",
        "nobody runs the periodic jobs, so usage and audit events are lost with the process: spawn \
         `Portunus::run(shutdown)`, or call `Portunus::maintain()` at least once a second"
    );
}

/// A periodic job failed; it is tried again.
pub(crate) fn job_failed(job: &str, error: &(dyn std::error::Error + 'static)) {
    #[cfg(feature = "tracing")]
    tracing::warn!(target: "portunus", job, error, "a periodic job failed and is tried again");
    let _ = (job, error);
}

/// Something could not be kept until it was written.
pub(crate) fn lost(what: &'static str, count: u64) {
    #[cfg(feature = "tracing")]
    tracing::error!(target: "portunus", count, "{what} were lost: more waited than may be kept");
    let _ = (what, count);
}

/// A request has no client address: its failures cannot be counted.
pub(crate) fn no_client_address() {
    #[cfg(feature = "tracing")]
    tracing::warn!(
        target: "portunus",
        "a request has no client address: failures are not counted per client, and only the number of \
         look-ups in flight is bounded"
    );
}

/// A list has left out a row that cannot be read.
pub(crate) fn left_out(row: &str) {
    #[cfg(feature = "tracing")]
    tracing::error!(target: "portunus", row, "a stored row cannot be read and was left out of a list");
    let _ = row;
}

/// The rest of an attempt, in its span.
pub(crate) fn in_span<F: Future>(rest: F) -> impl Future<Output = F::Output> {
    #[cfg(feature = "tracing")]
    let rest = tracing::Instrument::instrument(
        rest,
        tracing::debug_span!(target: "portunus", "authenticate"),
    );
    rest
}

/// There is an answer, whoever made it.
#[cfg(any(feature = "actix-web", feature = "tower"))]
pub(crate) fn answered(error: Option<&AuthError>, key: Option<&crate::key::KeyId>) {
    #[cfg(feature = "metrics")]
    metrics::counter!(
        "portunus_requests_total",
        "outcome" => error.map_or("OK", |error| error.code().as_str())
    )
    .increment(1);
    #[cfg(feature = "tracing")]
    if let Some(error) = error {
        let key_id = key.or(error.key_id()).map(tracing::field::display);
        match std::error::Error::source(error).filter(|_| error.status() == 503) {
            Some(cause) => {
                tracing::warn!(target: "portunus", code = error.code().as_str(), key_id, cause, "refused");
            }
            None => {
                tracing::debug!(target: "portunus", code = error.code().as_str(), key_id, "refused");
            }
        }
    }
    let _ = (error, key);
}

/// What answers are remembered of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cache {
    Keys,
    Directory,
}

/// A cache was asked.
pub(crate) fn cache(which: Cache, hit: bool) {
    // Literals, so that nothing is allocated for them.
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

/// The limiter gave no answer.
pub(crate) fn limiter_outage(mode: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("portunus_limiter_outages_total", "mode" => mode).increment(1);
    let _ = mode;
}

/// Audit events were not kept.
pub(crate) fn audit_left_out(reason: &'static str, count: u64) {
    #[cfg(feature = "metrics")]
    if count > 0 {
        metrics::counter!("portunus_audit_left_out_total", "reason" => reason).increment(count);
    }
    let _ = (reason, count);
}
