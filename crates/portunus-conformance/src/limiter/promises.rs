//! What a limiter promises at one instant: independent and combined buckets, costs, slots,
//! concurrency. No time passes in these checks, so that they also apply to limiters with their own
//! clock.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::{JoinSet, yield_now};

use super::policies::{overdraft, policies, two_plans};
use super::readings::reading;
use super::tools::{Tried, agrees_with_itself, quotas, seconds, windows};
use crate::report::{Checked, Failure, valid};
use portunus::key::{KeyFamily, TenantId, UserId};
use portunus::limit::{
    BucketId, LimitBucket, LimitRequest, LimiterError, LimiterSlot, WindowState,
};
use portunus::quota::{Quota, Quotas};

checks!(CHECKS: Tried {
    "a bucket admits exactly its limit"
        => limit,
    "a request is counted in all of its buckets or in none"
        => all_or_none depends on [limit],
    "buckets with different names, of different kinds or of different classes are independent"
        => apart depends on [limit],
    "a request consumes exactly as many units as it costs, or none"
        => costs depends on [all_or_none],
    "a cost of zero or above a quota is a cost error, and changes nothing"
        => cost_errors depends on [limit],
    "a decision reports every bucket and window in the order of the request"
        => order depends on [all_or_none],
    "exactly the limit is admitted among many concurrent requests"
        => concurrent depends on [all_or_none, apart],
    "admissions by try_acquire count for acquire, and vice versa"
        => either_way depends on [all_or_none],
    "a bucket counts the same with a slot, without one, and with one filled by another limiter"
        => slots depends on [all_or_none],
    "changed quotas see admissions made under the old ones"
        => other_quotas depends on [all_or_none],
    "many policies of a request are charged together or not at all, also concurrently"
        => policies depends on [concurrent, apart, costs],
    "requests of two plans share the history of a bucket, also concurrently"
        => two_plans depends on [concurrent, other_quotas],
    "an overdraft counts all its units, and refuses later requests"
        => overdraft depends on [costs],
    "reading the windows changes no count and agrees with the next decision"
        => reading depends on [order, concurrent, slots, other_quotas, apart],
});

pub(super) fn per_minute(limit: u64) -> Quotas {
    quotas([(limit, seconds(60))])
}

pub(super) fn family(name: &str) -> KeyFamily {
    valid(KeyFamily::new(name))
}

pub(super) fn user(name: &str) -> UserId {
    valid(UserId::new(name))
}

pub(super) fn tenant(name: &str) -> TenantId {
    valid(TenantId::new(name))
}

async fn limit(tried: Tried) -> Checked {
    for limit in [1, 2, 5, 64, 65, 300] {
        let (name, quotas) = (format!("limit {limit}"), per_minute(limit));
        ensure_eq!(
            tried.passed(&name, &quotas, limit + 10).await?,
            limit,
            "how many of {} requests were admitted",
            limit + 10
        );
        let refused = tried.one(&name, &quotas).await?;
        agrees_with_itself(&refused)?;
        let states: Vec<_> = windows(&refused)
            .iter()
            .map(|window| (window.remaining(), window.is_violated()))
            .collect();
        ensure_eq!(
            states,
            [(0, true)],
            "remaining units, and whether the window refused"
        );
    }
    Ok(())
}

async fn all_or_none(tried: Tried) -> Checked {
    let (one, three, tenant) = (per_minute(1), per_minute(3), tenant("t"));
    let ask = async |of: &str| -> Result<bool, Failure> {
        let family = family(of);
        let buckets = [
            LimitBucket::new(BucketId::Family(&family), &one),
            LimitBucket::new(BucketId::Tenant(&tenant), &three),
        ];
        let decision = tried.ask_for(&tenant, &buckets, 1).await?;
        agrees_with_itself(&decision)?;
        Ok(decision.is_admitted())
    };
    ensure!(ask("f1").await?, "the first request was refused");
    for _ in 0..10 {
        ensure!(!ask("f1").await?, "a family exceeded its limit");
    }
    ensure!(
        ask("f2").await? && ask("f3").await?,
        "requests that a family refused were counted against its tenant"
    );
    ensure!(!ask("f4").await?, "a tenant exceeded its limit");
    let family = family("f4");
    let alone = [LimitBucket::new(BucketId::Family(&family), &one)];
    let alone = tried.ask_for(&tenant, &alone, 1).await?;
    ensure!(
        alone.is_admitted(),
        "a request that the tenant refused was counted against its family: {alone:?}"
    );
    // Also in one bucket with two windows.
    let both = quotas([(2, seconds(1_000)), (5, seconds(2_000))]);
    ensure_eq!(
        tried.passed("both", &both, 50).await?,
        2,
        "how many the narrower of two windows admitted"
    );
    let remaining: Vec<_> = windows(&tried.one("both", &both).await?)
        .iter()
        .map(WindowState::remaining)
        .collect();
    ensure_eq!(
        remaining,
        [0, 3],
        "remaining units of both windows after 48 refusals"
    );
    Ok(())
}

async fn apart(tried: Tried) -> Checked {
    let (quotas, family, user) = (per_minute(2), family("same"), user("same"));
    // The same text, divided differently.
    let (user_as_tenant, tenant_as_user) = (tenant("sam"), self::user("esame"));
    let tenant = tenant("same");
    let ids = [
        BucketId::Family(&family),
        BucketId::Tenant(&tenant),
        BucketId::Custom("same"),
        BucketId::Custom("Same"),
        BucketId::Custom("same "),
        BucketId::Custom("same:1"),
        BucketId::Custom("s\u{e4}me"),
        BucketId::Custom(""),
        BucketId::Custom("*"),
        BucketId::User(&tenant, &user),
        BucketId::User(&user_as_tenant, &tenant_as_user),
        BucketId::Address(None),
        BucketId::Address(Some(IpAddr::from([192, 0, 2, 1]))),
        BucketId::Address(Some(IpAddr::from([192, 0, 2, 2]))),
        BucketId::Address(Some(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, 0]))),
        BucketId::Address(Some(IpAddr::from([0x2001, 0xdb8, 0, 2, 0, 0, 0, 0]))),
        BucketId::Anonymous(None),
        BucketId::Anonymous(Some(IpAddr::from([192, 0, 2, 1]))),
        BucketId::Shared,
        BucketId::AnonymousShared,
    ];
    for class in [None, Some("a"), Some("b"), Some("same")] {
        for id in ids {
            for (turn, expected) in [(1, true), (2, true), (3, false)] {
                let mut bucket = LimitBucket::new(id, &quotas);
                bucket.class = class;
                let decision = tried.ask(&[bucket], 1).await?;
                ensure_eq!(
                    decision.is_admitted(),
                    expected,
                    "request {turn} on {id:?} of class {class:?}, after others on other buckets"
                );
            }
        }
    }
    Ok(())
}

async fn costs(tried: Tried) -> Checked {
    let quotas = per_minute(10);
    let bucket = [LimitBucket::new(BucketId::Custom("costs"), &quotas)];
    for (cost, passes, remaining) in [
        (7, true, 3),
        (4, false, 3),
        (10, false, 3),
        (3, true, 0),
        (1, false, 0),
    ] {
        let decision = tried.ask(&bucket, cost).await?;
        let reported = windows(&decision).first().map(WindowState::remaining);
        ensure_eq!(
            (decision.is_admitted(), reported),
            (passes, Some(remaining)),
            "a request of cost {cost}"
        );
    }
    Ok(())
}

async fn cost_errors(tried: Tried) -> Checked {
    let (ten, five, tenant) = (
        quotas([(20, seconds(60)), (10, seconds(3600))]),
        per_minute(5),
        tenant("t"),
    );
    let family = family("f");
    let one = [LimitBucket::new(BucketId::Family(&family), &ten)];
    let both = [one[0], LimitBucket::new(BucketId::Tenant(&tenant), &five)];
    for (buckets, cost) in [
        (&one[..], 0),
        (&one, 11),
        (&one, u64::MAX),
        (&both, 0),
        (&both, 6),
    ] {
        let request = LimitRequest::new(buckets, cost).of_tenant(Some(&tenant));
        let mut answers = vec![tried.limiter.acquire(&request).await];
        answers.extend(tried.limiter.try_acquire(&request));
        for answer in answers {
            let right = matches!(answer, Err(LimiterError::Cost { cost: at, .. }) if at == cost);
            ensure!(
                right,
                "a request of cost {cost} on {} buckets returned {answer:?}",
                buckets.len()
            );
        }
    }
    let whole = tried.ask_for(&tenant, &both, 5).await?;
    ensure!(
        whole.is_admitted(),
        "a request of all units was refused after errors: {whole:?}"
    );
    Ok(())
}

async fn order(tried: Tried) -> Checked {
    let named = |name, limit| valid(Quota::new(name, limit, seconds(60)));
    let first = valid(Quotas::new([named("z", 3), named("a", 1), named("m", 2)]));
    let second = valid(Quotas::new([named("z", 1)]));
    let (user, tenant) = (user("u"), tenant("order"));
    let buckets = [
        LimitBucket::new(BucketId::User(&tenant, &user), &second),
        LimitBucket::new(BucketId::Tenant(&tenant), &first),
    ];
    for (passes, violated) in [(true, [false; 4]), (false, [true, false, true, false])] {
        let decision = tried.ask_for(&tenant, &buckets, 1).await?;
        let remaining: Vec<_> = windows(&decision)
            .iter()
            .map(WindowState::remaining)
            .collect();
        ensure_eq!(
            (decision.is_admitted(), remaining),
            (passes, vec![0, 2, 0, 1]),
            "whether admitted, and remaining units"
        );
        let refused = decision.windows().iter().map(WindowState::is_violated);
        ensure_eq!(
            refused.collect::<Vec<_>>(),
            violated,
            "the windows that refused"
        );
    }
    Ok(())
}

async fn concurrent(tried: Tried) -> Checked {
    let (shared, own) = (per_minute(50), per_minute(20));
    for round in 0..4 {
        let passed = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for task in 0..8 {
            let (tried, passed, shared, own) = (
                tried.clone(),
                Arc::clone(&passed),
                shared.clone(),
                own.clone(),
            );
            tasks.spawn(async move {
                let (tenant, family) = (
                    tenant(&format!("shared{round}")),
                    family(&format!("f{round}-{task}")),
                );
                for _ in 0..25 {
                    yield_now().await;
                    let buckets = [
                        LimitBucket::new(BucketId::Family(&family), &own),
                        LimitBucket::new(BucketId::Tenant(&tenant), &shared),
                    ];
                    let decision = tried.ask_for(&tenant, &buckets, 1).await?;
                    passed.fetch_add(u64::from(decision.is_admitted()), Ordering::SeqCst);
                }
                Ok::<_, Failure>(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        ensure_eq!(
            passed.load(Ordering::SeqCst),
            50,
            "how many of 200 concurrent requests were admitted under a limit of 50"
        );
    }
    Ok(())
}

async fn either_way(tried: Tried) -> Checked {
    let quotas = per_minute(6);
    let bucket = [LimitBucket::new(BucketId::Custom("either"), &quotas)];
    let mut admitted = 0;
    for turn in 0..20 {
        let now = if turn % 2 == 0 {
            tried.limiter.try_acquire(&LimitRequest::new(&bucket, 1))
        } else {
            None
        };
        let decision = match now {
            Some(decision) => decision?,
            None => tried.ask(&bucket, 1).await?,
        };
        admitted += u64::from(decision.is_admitted());
    }
    ensure_eq!(
        admitted,
        6,
        "how many of 20 requests were admitted by both methods"
    );
    Ok(())
}

async fn slots(tried: Tried) -> Checked {
    let (quotas, own, foreign) = (per_minute(6), LimiterSlot::new(), LimiterSlot::new());
    foreign.fill(u64::MAX, Arc::new("another limiter's value"));
    let family = family("f");
    let bare = LimitBucket::new(BucketId::Family(&family), &quotas);
    let mut admitted = 0;
    for turn in 0..30 {
        let bucket = match turn % 3 {
            0 => bare.with_slot(&own),
            1 => bare,
            _ => bare.with_slot(&foreign),
        };
        admitted += u64::from(tried.ask(&[bucket], 1).await?.is_admitted());
    }
    ensure_eq!(
        admitted,
        6,
        "how many of 30 requests were admitted, with slots and without"
    );
    Ok(())
}

async fn other_quotas(tried: Tried) -> Checked {
    let three = per_minute(3);
    ensure_eq!(
        tried.passed("raised", &three, 10).await?,
        3,
        "under the first quotas"
    );
    ensure_eq!(
        tried.passed("raised", &per_minute(5), 10).await?,
        2,
        "after the limit was raised by 2"
    );
    ensure_eq!(
        tried.passed("raised", &per_minute(4), 10).await?,
        0,
        "after it was lowered"
    );
    let renamed = valid(Quotas::new([valid(Quota::new("renamed", 5, seconds(60)))]));
    ensure_eq!(
        tried.passed("raised", &renamed, 10).await?,
        0,
        "after the quota was renamed"
    );
    ensure_eq!(
        tried.passed("widened", &three, 10).await?,
        3,
        "under the first quotas"
    );
    let wider = quotas([(3, seconds(3600))]);
    ensure_eq!(
        tried.passed("widened", &wider, 10).await?,
        0,
        "after the window was widened"
    );
    ensure_eq!(
        tried.passed("second", &three, 2).await?,
        2,
        "under the first quotas"
    );
    let two = quotas([(100, seconds(60)), (3, seconds(600))]);
    ensure_eq!(
        tried.passed("second", &two, 10).await?,
        1,
        "after a second window was added"
    );
    Ok(())
}
