//! What a limiter promises as time passes: every interval, exact waits, nothing forgotten early or
//! kept for long.

use std::time::Duration;

use super::readings::over_time as readings;
use super::tools::{TICK, Tried, late, quotas, seconds, wait, windows};
use crate::report::{Checked, Failure, valid};
use portunus::Clock;
use portunus::key::{KeyFamily, TenantId};
use portunus::limit::{BucketId, LimitBucket, WindowState};
use portunus::quota::Quotas;

checks!(CHECKS: Tried {
    "no interval of a window's length admits more than its limit, wherever it begins"
        => every_interval depends on [all_or_none],
    "all units are available again after an idle window"
        => quiet depends on [every_interval],
    "a burst followed by a flood admits exactly the limit in one window"
        => flood depends on [every_interval],
    "nothing is forgotten within a long window, whatever other requests are made"
        => long_memory depends on [quiet],
    "each unit becomes available again when it is older than the window"
        => one_by_one depends on [flood, quiet],
    "a lone retry is admitted when its wait is over, and not a millisecond earlier"
        => exact_wait depends on [flood, long_memory],
    "a refusal changes no window"
        => refusals depends on [exact_wait],
    "remaining units and reset times are correct"
        => reported depends on [exact_wait],
    "changes of the wall clock have no effect"
        => wall_clock depends on [quiet],
    "changed quotas see earlier admissions as far back as the old window reached"
        => quotas_over_time depends on [other_quotas, long_memory],
    "a plan that changes midway keeps the history of every policy"
        => plan_changes depends on [quotas_over_time, policies],
    "a reading is of the time at which it is made, and keeps nothing for longer"
        => readings depends on [reading, reported],
});

async fn every_interval(tried: Tried) -> Checked {
    let quotas = quotas([(10, seconds(60))]);
    // Wherever a limiter's windows begin.
    for offset in 0..60 {
        let name = format!("offset {offset}");
        ensure_eq!(
            tried.passed(&name, &quotas, 12).await?,
            10,
            "how many of 12 were admitted at once"
        );
        for later in [1, 29, 29] {
            tried.clock.advance(seconds(later));
            ensure_eq!(
                tried.passed(&name, &quotas, 2).await?,
                0,
                "how many more were admitted within the minute"
            );
        }
        tried.clock.advance(seconds(2));
    }
    Ok(())
}

async fn flood(tried: Tried) -> Checked {
    for limit in [3, 60, 100] {
        let (name, quotas) = (format!("flood {limit}"), quotas([(limit, seconds(60))]));
        let mut admitted = tried.passed(&name, &quotas, limit).await?;
        for _ in 0..600 {
            tried.clock.advance(Duration::from_millis(100));
            admitted += tried.passed(&name, &quotas, 1).await?;
        }
        ensure_eq!(
            admitted,
            limit,
            "how many were admitted in 60 seconds, both ends included"
        );
    }
    Ok(())
}

async fn refusals(tried: Tried) -> Checked {
    let quotas = quotas([(2, seconds(1)), (5, seconds(10))]);
    for expected in [2, 2, 1] {
        ensure_eq!(
            tried.passed("both", &quotas, 40).await?,
            expected,
            "how many of 40 were admitted in a second"
        );
        tried.clock.advance(Duration::from_millis(1_010));
    }
    // Repeated refusals do not postpone the retry either.
    let mut left = wait(&tried.one("both", &quotas).await?)?;
    while left > seconds(2) {
        let step = Duration::from_millis(left.as_secs() * 500).max(TICK);
        tried.clock.advance(step);
        left -= step;
        let again = wait(&tried.one("both", &quotas).await?)?;
        ensure_eq!(again, left, "the wait, after part of it had passed");
    }
    tried.clock.advance(left);
    ensure!(
        tried.one("both", &quotas).await?.is_admitted(),
        "refusals postponed the retry"
    );
    Ok(())
}

async fn exact_wait(tried: Tried) -> Checked {
    for (limit, window) in [(1, 1), (3, 60), (64, 60), (65, 60), (300, 3600)] {
        let (name, quotas) = (
            format!("{limit} per {window}"),
            quotas([(limit, seconds(window))]),
        );
        let bucket = [LimitBucket::new(BucketId::Custom(&name), &quotas)];
        for number in 0..limit {
            ensure!(
                tried.ask(&bucket, 1).await?.is_admitted(),
                "request {} of {limit} was refused",
                number + 1
            );
            tried.clock.advance(Duration::from_millis(number % 7));
        }
        for cost in [1, limit / 2 + 1] {
            let refused = tried.ask(&bucket, cost).await?;
            let wait = wait(&refused)?;
            tried.clock.advance(wait - TICK);
            let early = tried.ask(&bucket, cost).await?;
            ensure!(
                !early.is_admitted(),
                "a request of cost {cost} was admitted a millisecond before its wait of {wait:?}"
            );
            tried.clock.advance(TICK);
            let retry = tried.ask(&bucket, cost).await?;
            ensure!(
                retry.is_admitted(),
                "a request of cost {cost} was refused after its wait of {wait:?}: {retry:?}"
            );
            let longest = seconds(window) + late(seconds(window));
            ensure!(
                wait <= longest,
                "a wait of {wait:?} in a window of {window} seconds"
            );
            // The window is full again.
            let mut turns = 0;
            while tried.ask(&bucket, 1).await?.is_admitted() {
                turns += 1;
                ensure!(turns <= limit, "more than {limit} were admitted");
            }
        }
    }
    Ok(())
}

async fn reported(tried: Tried) -> Checked {
    let quotas = quotas([(5, seconds(60)), (100, seconds(3600))]);
    for (turn, remaining) in [4, 3, 2, 1, 0].into_iter().enumerate() {
        let decision = tried.one("reported", &quotas).await?;
        let states = windows(&decision);
        let all: Vec<_> = states.iter().map(WindowState::remaining).collect();
        ensure_eq!(
            all,
            [remaining, remaining + 95],
            "remaining units after request {}",
            turn + 1
        );
        // The first unit is released a window after the first request, which was a second ago for
        // each turn.
        for (state, window) in states.iter().zip([60, 3600]) {
            let due = seconds(window - turn as u64);
            let reset = state.reset().unwrap_or_default();
            let right = (due..=due + late(seconds(window))).contains(&reset);
            ensure!(
                right,
                "a reset of {reset:?} in a window of {window} seconds, {turn} seconds after the \
                 first request"
            );
        }
        tried.clock.advance(seconds(1));
    }
    Ok(())
}

async fn one_by_one(tried: Tried) -> Checked {
    let quotas = quotas([(6, seconds(60))]);
    for _ in 0..6 {
        ensure!(
            tried.one("steady", &quotas).await?.is_admitted(),
            "a request under the limit was refused"
        );
        tried.clock.advance(seconds(10));
    }
    // The first request is exactly a window old: it still counts in its interval.
    ensure_eq!(
        tried.passed("steady", &quotas, 1).await?,
        0,
        "how many were admitted exactly a window after the first"
    );
    tried.clock.advance(late(seconds(60)));
    for turn in 0..6 {
        ensure_eq!(
            tried.passed("steady", &quotas, 3).await?,
            1,
            "how many were admitted when unit {} was released",
            turn + 1
        );
        tried.clock.advance(seconds(10));
    }
    Ok(())
}

async fn quiet(tried: Tried) -> Checked {
    for (limit, window) in [(3, 1), (100, 60), (40, 3600)] {
        let (name, quotas) = (format!("quiet {limit}"), quotas([(limit, seconds(window))]));
        for _ in 0..3 {
            ensure_eq!(
                tried.passed(&name, &quotas, limit + 2).await?,
                limit,
                "how many of {} were admitted",
                limit + 2
            );
            tried.clock.advance(seconds(window) + late(seconds(window)));
        }
    }
    Ok(())
}

async fn long_memory(tried: Tried) -> Checked {
    let (hourly, minutely) = (quotas([(3, seconds(3600))]), quotas([(5, seconds(60))]));
    ensure_eq!(
        tried.passed("kept", &hourly, 5).await?,
        3,
        "how many of 5 were admitted"
    );
    for minute in 0..59 {
        for other in 0..20 {
            tried
                .passed(&format!("other {minute} {other}"), &minutely, 1)
                .await?;
        }
        tried.clock.advance(seconds(60));
    }
    ensure_eq!(
        tried.passed("kept", &hourly, 5).await?,
        0,
        "how many were admitted 59 minutes later under an hour's limit"
    );
    tried.clock.advance(seconds(60) + late(seconds(3600)));
    ensure_eq!(
        tried.passed("kept", &hourly, 5).await?,
        3,
        "how many were admitted when the hour was over"
    );
    Ok(())
}

async fn wall_clock(tried: Tried) -> Checked {
    let (quotas, day) = (quotas([(3, seconds(60))]), seconds(24 * 3600));
    ensure_eq!(
        tried.passed("steps", &quotas, 5).await?,
        3,
        "how many of 5 were admitted"
    );
    for step in [
        tried.clock.now() + day,
        tried.clock.now() - day,
        tried.clock.now(),
    ] {
        tried.clock.step_to(step);
        ensure_eq!(
            tried.passed("steps", &quotas, 5).await?,
            0,
            "how many were admitted after the wall clock was changed"
        );
    }
    tried.clock.advance(seconds(60) + late(seconds(60)));
    tried.clock.step_to(tried.clock.now() - day);
    ensure_eq!(
        tried.passed("steps", &quotas, 5).await?,
        3,
        "how many were admitted when the window was over, with the wall clock a day back"
    );
    Ok(())
}

async fn quotas_over_time(tried: Tried) -> Checked {
    let (minute, second, hour) = (
        quotas([(3, seconds(60))]),
        quotas([(3, seconds(1))]),
        quotas([(3, seconds(3600))]),
    );
    // Admissions of 40 seconds ago count in the hour, since the old window reached back a minute.
    ensure_eq!(
        tried.passed("wider", &minute, 2).await?,
        2,
        "under a quota per minute"
    );
    tried.clock.advance(seconds(40));
    ensure_eq!(
        tried.passed("wider", &hour, 5).await?,
        1,
        "under a quota per hour, 40 seconds later"
    );
    // Admissions under a narrow window count when the wide one is restored.
    ensure_eq!(
        tried.passed("back", &second, 5).await?,
        3,
        "under a quota per second"
    );
    ensure_eq!(
        tried.passed("back", &minute, 5).await?,
        0,
        "under a quota per minute, at once"
    );
    tried.clock.advance(seconds(61) + late(seconds(60)));
    ensure_eq!(
        tried.passed("back", &minute, 5).await?,
        3,
        "under a quota per minute, when it was over"
    );
    // A bucket that was full stays full while its quotas alternate.
    for turn in 0..4 {
        let quotas = if turn % 2 == 0 { &hour } else { &minute };
        ensure_eq!(
            tried.passed("back", quotas, 5).await?,
            0,
            "turn {turn} of alternating quotas"
        );
    }
    Ok(())
}

/// A request with a policy per key, per tenant and per tenant for a class.
async fn plan_changes(tried: Tried) -> Checked {
    let (family, tenant) = (valid(KeyFamily::new("f")), valid(TenantId::new("t")));
    let ask = async |plan: &[Quotas; 3]| -> Result<bool, Failure> {
        let buckets = [
            LimitBucket::new(BucketId::Family(&family), &plan[0]),
            LimitBucket::new(BucketId::Tenant(&tenant), &plan[1]),
            LimitBucket::new(BucketId::Tenant(&tenant), &plan[2]).in_class("exports"),
        ];
        Ok(tried.ask_for(&tenant, &buckets, 1).await?.is_admitted())
    };
    let passed = async |plan: &[Quotas; 3], requests: u64| -> Result<u64, Failure> {
        let mut passed = 0;
        for _ in 0..requests {
            passed += u64::from(ask(plan).await?);
        }
        Ok(passed)
    };
    let of = |key, tenant, class| {
        [
            quotas([(key, seconds(60))]),
            quotas([(tenant, seconds(3600))]),
            quotas([(class, seconds(60))]),
        ]
    };
    let (free, paid) = (of(5, 12, 4), of(9, 100, 20));
    ensure_eq!(passed(&free, 10).await?, 4, "under the small plan");
    tried.clock.advance(seconds(30));
    ensure_eq!(
        passed(&paid, 20).await?,
        5,
        "after the plan was raised by 4 per key"
    );
    tried.clock.advance(seconds(30) + late(seconds(60)));
    // The first 4 are over a minute old. Of the class, 5 of 4 count; of the key, 5 of 5.
    ensure_eq!(
        passed(&free, 10).await?,
        0,
        "after the plan was lowered again"
    );
    tried.clock.advance(seconds(30) + late(seconds(60)));
    // The tenant's hour has counted 9 of 12 under both plans.
    ensure_eq!(passed(&free, 10).await?, 3, "of the tenant's hour");
    Ok(())
}
