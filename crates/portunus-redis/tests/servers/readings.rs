//! The limiter is read: what the server is asked, and what is not written.

use std::time::Instant;

use portunus::key::{KeyFamily, Owner, TenantId, UserId};
use portunus::limit::{
    BucketId, LimitBucket, LimitPolicy, LimitRequest, LimiterError, WindowState,
};
use portunus::manage::NewKey;
use portunus::quota::{Quota, Quotas};
use portunus::{Limits, RateLimiter};
use portunus_redis::RedisLimiter;
use portunus_test_support::redis::{Cluster, Redis as Server};
use portunus_test_support::{Fixture, Head, tenant, user};
use tokio::task::JoinSet;

use crate::cluster;
use crate::common::{PATIENT, Took, limiter, passed, quotas, recovers, redis};
use crate::start::logged;
use crate::together::calls;

/// The units left in each window of the bucket of this name.
pub(crate) async fn left(limiter: &RedisLimiter, name: &str, quotas: &Quotas) -> Vec<u64> {
    let bucket = [LimitBucket::new(BucketId::Custom(name), quotas)];
    let read = limiter.peek(&LimitRequest::new(&bucket, 1)).await;
    remaining(&read.unwrap().unwrap())
}

fn remaining(read: &[WindowState]) -> Vec<u64> {
    read.iter().map(WindowState::remaining).collect()
}

/// How many writes the server has done.
fn writes(server: &Server) -> u64 {
    let info = server.cli(&["info", "persistence"]);
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("rdb_changes_since_last_save:"));
    line.unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn a_reading_writes_nothing_whatever_is_stored() {
    let server = Server::start();
    let (limiter, key) = (limiter(&server), "portunus:{+b}:c:");
    let (minute, other) = (
        quotas([(3, 60), (100, 3600)]),
        quotas([(2, 30), (70, 7200)]),
    );
    let before = writes(&server);
    let read = async |limiter: &RedisLimiter, expected: [u64; 2]| {
        for _ in 0..50 {
            assert_eq!(left(limiter, "b", &minute).await, expected);
        }
    };
    read(&limiter, [3, 100]).await;
    assert_eq!((server.keys(), writes(&server)), (vec![], before));
    for (requests, expected) in [(2, [1, 98]), (5, [0, 97])] {
        passed(&limiter, "b", &minute, requests).await;
        let (before, expires) = (writes(&server), server.cli(&["pttl", key]));
        read(&limiter, expected).await;
        // Quotas of another plan, for which there are no recorders yet.
        for _ in 0..50 {
            let used = 3 - expected[0];
            let now = left(&limiter, "b", &other).await;
            assert_eq!(now, [2_u64.saturating_sub(used), 70 - used]);
        }
        assert_eq!(writes(&server), before);
        let expired: u64 = server.cli(&["pttl", key]).parse().unwrap();
        assert!(expired <= expires.parse().unwrap());
    }
    // Not even what a decision repairs.
    server.cli(&["persist", key]);
    let before = writes(&server);
    read(&limiter, [0, 97]).await;
    assert_eq!(
        (server.cli(&["pttl", key]), writes(&server)),
        ("-1".to_owned(), before)
    );
    for value in [&["set", key, "nonsense"][..], &["sadd", key, "x"]] {
        server.cli(&["del", key]);
        server.cli(value);
        let before = writes(&server);
        read(&limiter, [3, 100]).await;
        assert_eq!(writes(&server), before, "{value:?}");
        // Nor does the server know the script. To Redis 6.2, forgetting it is a write.
        server.cli(&["script", "flush"]);
        let before = writes(&server);
        read(&limiter, [3, 100]).await;
        assert_eq!(writes(&server), before, "{value:?}");
    }
}

/// Requests for some keys and for all of them share calls, while all of their buckets are read.
#[tokio::test(flavor = "multi_thread")]
async fn a_reading_finds_whole_requests_and_is_counted_nowhere() {
    const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let (server, own, all) = (Server::start(), quotas([(50, 600)]), quotas([(900, 600)]));
    let limiter = limiter(&server);
    limiter.check().await.unwrap();
    let before = calls(&server);
    let mut asking = JoinSet::new();
    for turn in 0..24 {
        let (limiter, own, all) = (limiter.clone(), own.clone(), all.clone());
        asking.spawn(async move {
            let own = LimitBucket::new(BucketId::Custom(NAMES[turn % 8]), &own);
            let buckets = [own, LimitBucket::new(BucketId::Custom("all"), &all)];
            let request = LimitRequest::new(&buckets, 1);
            let mut admitted = 0;
            for _ in 0..40 {
                let decided = limiter.acquire(&request).await.unwrap();
                admitted += u64::from(decided.is_admitted());
            }
            admitted
        });
    }
    let named = |name| LimitBucket::new(BucketId::Custom(name), &own);
    let mut buckets = NAMES.map(named).to_vec();
    buckets.push(LimitBucket::new(BucketId::Custom("all"), &all));
    let (mut readings, mut counted) = (0, vec![0]);
    // Eight keys with 50 units each.
    while counted.last() != Some(&400) {
        let read = limiter.peek(&LimitRequest::new(&buckets, 1)).await.unwrap();
        let left = remaining(&read.unwrap());
        let of_all = 900 - left[8];
        let of_each = left[..8].iter().map(|left| 50 - left);
        assert_eq!(of_each.sum::<u64>(), of_all, "{left:?}");
        assert!(
            Some(&of_all) >= counted.last(),
            "{left:?} after {counted:?}"
        );
        counted.push(of_all);
        readings += 1;
    }
    assert_eq!(asking.join_all().await.iter().sum::<u64>(), 400);
    counted.dedup();
    assert!(counted.len() > 5, "{counted:?}");
    let of_requests = calls(&server) - before - readings;
    assert!(of_requests < 24 * 40 / 2, "{of_requests} calls");
    for name in NAMES {
        assert_eq!(left(&limiter, name, &own).await, [0], "{name}");
    }
    assert_eq!(left(&limiter, "all", &all).await, [500]);
}

#[tokio::test]
async fn a_reading_is_not_logged_as_a_decision() {
    let (log, _guard) = logged();
    let (server, quotas) = (Server::start(), quotas([(3, 60)]));
    let limiter = limiter(&server);
    assert_eq!(passed(&limiter, "b", &quotas, 1).await, 1);
    assert_eq!(left(&limiter, "b", &quotas).await, [2]);
    assert_eq!(log.lines("decided time="), 1);
}

#[tokio::test]
async fn a_server_without_memory_is_read() {
    let (server, quotas) = (Server::start(), quotas([(9, 60)]));
    let limiter = limiter(&server);
    assert_eq!(passed(&limiter, "b", &quotas, 2).await, 2);
    server.cli(&["config", "set", "maxmemory", "1"]);
    let bucket = [LimitBucket::new(BucketId::Custom("b"), &quotas)];
    assert!(
        limiter
            .acquire(&LimitRequest::new(&bucket, 1))
            .await
            .is_err()
    );
    assert_eq!(left(&limiter, "b", &quotas).await, [7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_costs_a_reading_one_deadline_and_later_ones_nothing() {
    let (server, quotas) = (Server::start(), quotas([(9, 60)]));
    let limiter = redis(&server).limiter();
    recovers(&limiter).await;
    server.pause();
    let bucket = [LimitBucket::new(BucketId::Custom("b"), &quotas)];
    let request = LimitRequest::new(&bucket, 1);
    let mut took = Took::default();
    for _ in 0..50 {
        let began = Instant::now();
        let read = limiter.peek(&request).await;
        took.note(began.elapsed());
        assert!(
            matches!(read, Err(LimiterError::Unavailable(_))),
            "{read:?}"
        );
    }
    took.assert_few_waits(4);
    server.resume();
    let answers = async || limiter.peek(&request).await.ok().flatten();
    let read = portunus_test_support::wait::eventually_async(answers).await;
    assert_eq!(remaining(&read.unwrap()), [9]);
}

/// What operators see is what requests are told.
#[tokio::test]
async fn a_service_on_a_cluster_reads_what_its_requests_count() {
    let cluster = Cluster::start();
    let limiter = cluster::redis(&cluster).deadline(PATIENT).limiter();
    let limits = Limits::per_key([Quota::per_minute(60)])
        .policy(LimitPolicy::per_user([Quota::per_hour(500)]))
        .policy(LimitPolicy::per_tenant([Quota::per_hour(5000)]));
    let fixture = Fixture::new();
    let keys = fixture.bearer().limits(limits.limiter(limiter)).keys();
    for owner in ["ann", "bob", "eve"] {
        let owner = Owner::user(tenant(&format!("of-{owner}")), user(owner));
        let (key, record) = fixture.issue_new(NewKey::new("key", owner)).await;
        for used in 1..=5 {
            let passed = keys.authenticator().authenticate(&Head::bearer(&key)).await;
            let told = passed.unwrap().limits().unwrap();
            let told = told.quotas().map(|(_, state)| state.remaining());
            let states = keys.manager().limit_states(&record.id).await.unwrap();
            let read = states.iter().map(|(_, state)| state.unwrap().remaining());
            assert!(read.clone().eq(told), "{states:?}");
            assert!(read.eq([60 - used, 500 - used, 5000 - used]), "{states:?}");
        }
    }
}

#[tokio::test]
async fn a_cluster_is_read_where_the_tenant_is_counted() {
    let cluster = Cluster::start();
    let limiter = cluster::redis(&cluster).deadline(PATIENT).limiter();
    let (family, user) = (KeyFamily::new("f").unwrap(), UserId::new("u").unwrap());
    let quotas = quotas([(9, 60)]);
    for tenant in ["a", "b", "c", "d", "e"] {
        let tenant = TenantId::new(tenant).unwrap();
        let ids = [
            BucketId::Family(&family),
            BucketId::User(&tenant, &user),
            BucketId::Tenant(&tenant),
        ];
        let buckets = ids.map(|id| LimitBucket::new(id, &quotas));
        let request = LimitRequest::new(&buckets, 2).of_tenant(Some(&tenant));
        assert!(limiter.acquire(&request).await.unwrap().is_admitted());
        let read = limiter.peek(&request).await.unwrap().unwrap();
        assert_eq!(remaining(&read), [7, 7, 7]);
        // Each alone, as the service asks.
        for bucket in buckets {
            let alone = [bucket];
            let request = LimitRequest::new(&alone, 1).of_tenant(Some(&tenant));
            let read = limiter.peek(&request).await.unwrap().unwrap();
            assert_eq!(remaining(&read), [7]);
        }
        let apart = [buckets[0], LimitBucket::new(BucketId::Shared, &quotas)];
        let read = limiter.peek(&LimitRequest::new(&apart, 1)).await;
        assert!(
            matches!(read, Err(LimiterError::Unavailable(_))),
            "{read:?}"
        );
    }
    let none = limiter.peek(&LimitRequest::new(&[], 1)).await;
    assert_eq!(none.unwrap(), Some(Vec::new()));
}
