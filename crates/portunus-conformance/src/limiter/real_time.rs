//! Limiters with their own clock, in windows of a second: what is certain regardless of network
//! delays.
//!
//! The instant of a decision is between the request and its answer. A check fails only if that
//! leaves no doubt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::tools::{Tried, late, quotas, seconds, wait};
use crate::report::{Checked, Failure};
use portunus::quota::Quotas;

checks!(CHECKS: Tried {
    "bursts within a second admit its limit in total, wherever the limiter's windows begin"
        => bursts depends on [limit],
    "under a flood no second admits more than its limit, and no request is refused too early"
        => real_flood depends on [limit],
    "a lone retry is admitted when its wait is over, and not much earlier"
        => real_wait depends on [real_flood],
    "a refusal changes no window"
        => real_refusals depends on [limit],
});

/// The precision to which the clocks of two computers agree about a second.
const DRIFT: Duration = Duration::from_millis(20);

/// A decision with the instants between which it was made.
#[derive(Debug, Clone, Copy)]
struct Asked {
    before: Instant,
    after: Instant,
    admitted: bool,
}

async fn ask(
    tried: &Tried,
    name: &str,
    quotas: &Quotas,
) -> Result<(Asked, Option<Duration>), Failure> {
    let before = Instant::now();
    let decision = tried.one(name, quotas).await?;
    let after = Instant::now();
    Ok((
        Asked {
            before,
            after,
            admitted: decision.is_admitted(),
        },
        decision.retry_after(),
    ))
}

async fn real_flood(tried: Tried) -> Checked {
    const LIMIT: usize = 5;
    let (quotas, window) = (quotas([(LIMIT as u64, seconds(1))]), seconds(1));
    let (all, end) = (
        Arc::new(Mutex::new(Vec::new())),
        Instant::now() + Duration::from_millis(3_500),
    );
    let mut tasks = JoinSet::new();
    for task in 0..4_u64 {
        let (tried, quotas, all) = (tried.clone(), quotas.clone(), Arc::clone(&all));
        tasks.spawn(async move {
            while Instant::now() < end {
                let (asked, _) = ask(&tried, "flood", &quotas).await?;
                all.lock().await.push(asked);
                sleep(Duration::from_millis(3 + task)).await;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let all = all.lock().await;
    let mut admitted: Vec<Asked> = all.iter().filter(|asked| asked.admitted).copied().collect();
    admitted.sort_by_key(|asked| asked.before);
    certainly_fewer_than(LIMIT + 1, &admitted)?;
    for refused in all.iter().filter(|asked| !asked.admitted) {
        // Everything that may have been admitted in the window before the decision.
        let may_count = admitted.iter().filter(|asked| {
            asked.before <= refused.after
                && asked.after + window + late(window) + DRIFT >= refused.before
        });
        let may_count = may_count.count();
        ensure!(
            may_count >= LIMIT,
            "a request was refused when at most {may_count} of {LIMIT} had been admitted"
        );
    }
    // Three and a half seconds contain three whole windows; a machine that stalls may lose one.
    ensure!(
        admitted.len() >= 2 * LIMIT,
        "only {} requests were admitted in 3.5 seconds",
        admitted.len()
    );
    Ok(())
}

async fn bursts(tried: Tried) -> Checked {
    let mut tasks = JoinSet::new();
    for phase in 0..4_u64 {
        let tried = tried.clone();
        tasks.spawn(async move {
            let (name, quotas) = (format!("bursts {phase}"), quotas([(10, seconds(1))]));
            sleep(Duration::from_millis(phase * 250)).await;
            let mut admitted = Vec::new();
            for _ in 0..4 {
                for _ in 0..10 {
                    let (asked, _) = ask(&tried, &name, &quotas).await?;
                    admitted.extend(asked.admitted.then_some(asked));
                }
                sleep(Duration::from_millis(280)).await;
            }
            certainly_fewer_than(11, &admitted)
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Fails if this many consecutive admissions certainly are within one second.
fn certainly_fewer_than(count: usize, admitted: &[Asked]) -> Checked {
    for many in admitted.windows(count) {
        let first = many.iter().map(|asked| asked.before).min();
        let last = many.iter().map(|asked| asked.after).max();
        let (Some(first), Some(last)) = (first, last) else {
            continue;
        };
        let time = last - first;
        ensure!(
            time + DRIFT > seconds(1),
            "{count} requests were admitted within {time:?}, under a limit of {} a second",
            count - 1
        );
    }
    Ok(())
}

async fn real_wait(tried: Tried) -> Checked {
    for (name, limit, window) in [("retry 1", 1, 1), ("retry 3", 3, 2), ("retry 70", 70, 1)] {
        let quotas = quotas([(limit, seconds(window))]);
        let begun = Instant::now();
        let passed = tried.passed(name, &quotas, limit).await?;
        ensure!(
            passed == limit,
            "only {passed} of {limit} requests were admitted"
        );
        let (asked, reported) = ask(&tried, name, &quotas).await?;
        if asked.after - begun + DRIFT > seconds(window) {
            // The window was over before it was full.
            continue;
        }
        let reported =
            reported.ok_or_else(|| Failure::new("one more than the limit was admitted"))?;
        ensure!(
            reported <= seconds(window) + late(seconds(window)),
            "a wait of {reported:?} in a window of {window} seconds"
        );
        if reported > Duration::from_millis(300) {
            sleep(reported - Duration::from_millis(200)).await;
            let (early, _) = ask(&tried, name, &quotas).await?;
            let surely_early = early.after + DRIFT < asked.before + reported;
            ensure!(
                !early.admitted || !surely_early,
                "a retry was admitted much earlier than its wait of {reported:?}"
            );
            if early.admitted {
                // It came late, and took the unit.
                continue;
            }
        }
        sleep((asked.after + reported + DRIFT).saturating_duration_since(Instant::now())).await;
        let (retry, _) = ask(&tried, name, &quotas).await?;
        ensure!(
            retry.admitted,
            "a lone retry was refused after its wait of {reported:?}"
        );
    }
    Ok(())
}

async fn real_refusals(tried: Tried) -> Checked {
    let quotas = quotas([(2, seconds(1)), (5, seconds(60))]);
    let mut passed = 0;
    for _ in 0..4 {
        passed += tried.passed("both", &quotas, 20).await?;
        sleep(seconds(1) + late(seconds(1)) + DRIFT).await;
    }
    ensure_eq!(
        passed,
        5,
        "how many both windows admitted, among refusals of the narrow one"
    );
    let longest = wait(&tried.one("both", &quotas).await?)?;
    ensure!(
        longest > seconds(40),
        "a wait of {longest:?} for the window of a minute, which is full"
    );
    Ok(())
}
