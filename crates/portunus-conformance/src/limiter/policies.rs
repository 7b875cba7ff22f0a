//! What a limiter promises about several policies of one request, plans that change, and
//! overdrafts.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::task::{JoinSet, yield_now};

use super::promises::{family, per_minute, tenant, user};
use super::tools::{Tried, agrees_with_itself, quotas, seconds, windows};
use crate::report::{Checked, Failure};
use portunus::key::{KeyFamily, TenantId, UserId};
use portunus::limit::{BucketId, LimitBucket, LimitRequest, WindowState};
use portunus::quota::Quotas;

/// The policies of an API with many: eight buckets for each request.
pub(super) async fn policies(tried: Tried) -> Checked {
    const TASKS: u64 = 8;
    const EACH: u64 = 20;
    let limits = [9, 12, 15, 31, 20, 24, 40, 33].map(per_minute);
    let limits = Arc::new(limits);
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (tried, limits) = (tried.clone(), Arc::clone(&limits));
        tasks.spawn(async move {
            let own = Own::of(task);
            let mut admitted = 0;
            for _ in 0..EACH {
                yield_now().await;
                let buckets = &own.buckets(&limits)[..Own::places(&tried)];
                let decision = tried.ask_for(&own.tenant, buckets, 1).await?;
                agrees_with_itself(&decision)?;
                admitted += u64::from(decision.is_admitted());
            }
            Ok::<_, Failure>((task, admitted))
        });
    }
    let mut admitted = [0; TASKS as usize];
    while let Some(done) = tasks.join_next().await {
        let (task, of_task) = done??;
        admitted[task as usize] = of_task;
    }
    // Each bucket has counted exactly the requests that were admitted, whatever refused the others.
    for task in 0..TASKS {
        let own = Own::of(task);
        let buckets = own.buckets(&limits).into_iter().take(Own::places(&tried));
        for (place, bucket) in buckets.enumerate() {
            let shares = |other: &u64| own.shares(place, *other);
            let counted: u64 = (0..TASKS)
                .filter(shares)
                .map(|of| admitted[of as usize])
                .sum();
            let limit = bucket.quotas.as_slice()[0].limit();
            ensure!(
                counted <= limit,
                "{counted} of {limit} were admitted in {bucket:?}"
            );
            // A cost of the whole limit is refused unless nothing was counted; nothing changes.
            let asked = tried.ask_for(&own.tenant, &[bucket], limit).await?;
            if counted == 0 {
                continue;
            }
            let left = windows(&asked).first().map(WindowState::remaining);
            ensure_eq!(left, Some(limit - counted), "units left in {bucket:?}");
        }
    }
    ensure!(
        admitted.iter().sum::<u64>() > 0,
        "no request was admitted under any policy"
    );
    Ok(())
}

/// Those counted by the requests of one task.
struct Own {
    task: u64,
    family: KeyFamily,
    user: UserId,
    tenant: TenantId,
    address: IpAddr,
}

impl Own {
    fn of(task: u64) -> Self {
        Self {
            task,
            family: family(&format!("f{task}")),
            user: user(&format!("u{}", task / 2)),
            tenant: tenant(&format!("t{}", task / 4)),
            address: IpAddr::from([192, 0, 2, task.to_le_bytes()[0] % 2]),
        }
    }

    fn buckets<'a>(&'a self, limits: &'a [Quotas; 8]) -> [LimitBucket<'a>; 8] {
        let ids = [
            (BucketId::Family(&self.family), None),
            (BucketId::Family(&self.family), Some("exports")),
            (BucketId::User(&self.tenant, &self.user), None),
            (BucketId::Tenant(&self.tenant), None),
            (BucketId::Tenant(&self.tenant), Some("exports")),
            (BucketId::Address(Some(self.address)), None),
            (BucketId::Shared, None),
            (BucketId::Shared, Some("exports")),
        ];
        std::array::from_fn(|place| {
            let (id, class) = ids[place];
            let mut bucket = LimitBucket::new(id, &limits[place]);
            bucket.class = class;
            bucket
        })
    }

    /// How many of the buckets the limiter counts in one request: it may keep addresses and shared
    /// buckets elsewhere.
    fn places(tried: &Tried) -> usize {
        if tried.limiter.counts_together() {
            8
        } else {
            5
        }
    }

    /// Whether a task counts in the same bucket.
    fn shares(&self, place: usize, other: u64) -> bool {
        match place {
            0 | 1 => self.task == other,
            2 => self.task / 2 == other / 2,
            3 | 4 => self.task / 4 == other / 4,
            5 => self.task % 2 == other % 2,
            _ => true,
        }
    }
}

pub(super) async fn two_plans(tried: Tried) -> Checked {
    let plans = [
        per_minute(30),
        quotas([(45, seconds(60)), (200, seconds(3600))]),
    ];
    let plans = Arc::new(plans);
    let mut tasks = JoinSet::new();
    for task in 0..6_usize {
        let (tried, plans) = (tried.clone(), Arc::clone(&plans));
        tasks.spawn(async move {
            let tenant = tenant("of-two-plans");
            let mut admitted = [0_u64; 2];
            for turn in 0..20 {
                yield_now().await;
                let plan = (task + turn) % 2;
                let bucket = LimitBucket::new(BucketId::Tenant(&tenant), &plans[plan]);
                let decision = tried.ask(&[bucket], 1).await?;
                admitted[plan] += u64::from(decision.is_admitted());
            }
            Ok::<_, Failure>(admitted)
        });
    }
    let (mut small, mut large) = (0, 0);
    while let Some(done) = tasks.join_next().await {
        let [of_small, of_large] = done??;
        (small, large) = (small + of_small, large + of_large);
    }
    ensure!(
        small <= 30,
        "{small} were admitted under a plan of 30 in a minute"
    );
    ensure_eq!(
        small + large,
        45,
        "how many of 120 requests were admitted under plans of 30 and 45 in a minute"
    );
    Ok(())
}

pub(super) async fn overdraft(tried: Tried) -> Checked {
    let (ten, tenant) = (per_minute(10), tenant("overdrawn"));
    let bucket = [LimitBucket::new(BucketId::Tenant(&tenant), &ten)];
    let mut admitted = tried.ask(&bucket, 4).await?.is_admitted();
    for (cost, remaining) in [(3, 3), (25, 0), (1, 0)] {
        let request = LimitRequest::new(&bucket, cost).overdrawing();
        let decision = tried.limiter.acquire(&request).await?;
        admitted &= decision.is_admitted();
        let left = windows(&decision).first().map(WindowState::remaining);
        ensure_eq!(
            left,
            Some(remaining),
            "units left after an overdraft of {cost}"
        );
    }
    ensure!(admitted, "an overdraft was refused");
    let refused = tried.ask(&bucket, 1).await?;
    ensure!(
        !refused.is_admitted(),
        "a request after an overdraft was admitted"
    );
    Ok(())
}
