//! A cluster of three: slots that move, nodes that are lost, and what cannot be counted there.

use std::time::{Duration, Instant};

use portunus::key::{KeyFamily, TenantId};
use portunus::limit::{
    BucketId, LimitBucket, LimitPolicy, LimitRequest, LimiterError, RateLimiter,
};
use portunus::quota::Quota;
use portunus::store::MemoryStore;
use portunus::{Limits, Portunus};
use portunus_redis::Redis;
use portunus_test_support::redis::{Cluster, Redis as Server};
use portunus_test_support::wait::eventually_async;

use crate::bus::Told;
use crate::common::{PATIENT, ask, passed, quotas};
use crate::conformance::passes_the_limiter_suite;
use crate::readings::left;

pub(crate) fn redis(cluster: &Cluster) -> Redis {
    let addresses = cluster.addresses();
    // One is enough to find the others.
    Redis::cluster([addresses[1].as_str()]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limiter_on_a_cluster_passes() {
    let cluster = Cluster::start();
    passes_the_limiter_suite(&redis(&cluster)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bus_on_a_cluster_passes() {
    let cluster = Cluster::start();
    let (near, far) = (redis(&cluster), redis(&cluster));
    crate::bus::passes_the_bus_suite_without_faults(&near, &far).await;
}

#[tokio::test]
async fn a_service_whose_requests_need_two_nodes_is_not_built() {
    let cluster = Cluster::start();
    let limiter = redis(&cluster).limiter();
    let per_minute = |limit| [Quota::per_minute(limit)];
    let built = |limits: Limits| {
        let format = portunus_test_support::format();
        let service = Portunus::builder(format).store(MemoryStore::new());
        service.limits(limits.limiter(limiter.clone())).build()
    };
    let key = || Limits::per_key(per_minute(60));
    for (policy, whose) in [
        (LimitPolicy::shared(per_minute(9)), "a shared policy"),
        (LimitPolicy::per_address(per_minute(9)), "its address"),
    ] {
        let error = built(key().policy(policy.clone())).unwrap_err().to_string();
        let why = format!("in the bucket of its key and in that of {whose}");
        assert!(
            error.contains(&why) && error.contains("Redis Cluster"),
            "{error}"
        );
        assert!(built(key().policy(policy.anonymous())).is_ok());
    }
    assert!(built(key().policy(LimitPolicy::per_tenant(per_minute(99)))).is_ok());
    // The limiter does not count such a request either.
    let (family, quotas) = (KeyFamily::new("f").unwrap(), quotas([(9, 60)]));
    let buckets = [
        LimitBucket::new(BucketId::Family(&family), &quotas),
        LimitBucket::new(BucketId::Shared, &quotas),
    ];
    let refused = limiter.acquire(&LimitRequest::new(&buckets, 1)).await;
    assert!(
        matches!(refused, Err(LimiterError::Unavailable(_))),
        "{refused:?}"
    );
}

/// Sets what a node knows of the slot of a key.
fn set_slot(node: &Server, key: &str, state: &str, of: &Server) {
    let slot = node.cli(&["cluster", "keyslot", key]);
    let of = of.cli(&["cluster", "myid"]);
    assert_eq!(node.cli(&["cluster", "setslot", &slot, state, &of]), "OK");
}

/// Begins to move the slot of a key, the only one with keys. Returns the node that has it, and the one
/// that gets it.
fn begin_to_move<'c>(cluster: &'c Cluster, key: &str) -> [&'c Server; 2] {
    let has = |node: &&Server| !node.keys().is_empty();
    let from = cluster.nodes.iter().find(has).unwrap();
    let other = |node: &&Server| node.port() != from.port();
    let to = cluster.nodes.iter().find(other).unwrap();
    set_slot(to, key, "importing", from);
    set_slot(from, key, "migrating", to);
    [from, to]
}

#[tokio::test]
async fn slots_that_move_to_another_node_keep_their_counts() {
    let cluster = Cluster::start();
    let limiter = redis(&cluster).deadline(PATIENT).limiter();
    let (quotas, key) = (quotas([(10, 60)]), "portunus:{+b}:c:");
    assert_eq!(passed(&limiter, "b", &quotas, 3).await, 3);
    let [from, to] = begin_to_move(&cluster, key);
    // The key is still where it was, then it is on the other node, which must be asked for it.
    assert_eq!(passed(&limiter, "b", &quotas, 1).await, 1);
    assert_eq!(left(&limiter, "b", &quotas).await, [6]);
    let port = to.port().to_string();
    let moved = from.cli(&["migrate", "127.0.0.1", &port, key, "0", "5000"]);
    assert_eq!(moved, "OK");
    assert_eq!(left(&limiter, "b", &quotas).await, [6]);
    assert_eq!(passed(&limiter, "b", &quotas, 2).await, 2);
    assert_eq!(left(&limiter, "b", &quotas).await, [4]);
    for node in [to, from] {
        set_slot(node, key, "node", to);
    }
    assert_eq!(passed(&limiter, "b", &quotas, 9).await, 4);
    assert_eq!(to.keys(), [key]);
}

/// A script with keys of a slot that is half moved is refused: different keys share no call.
#[tokio::test]
async fn keys_of_a_slot_that_is_half_moved_are_counted_at_the_same_time() {
    let cluster = Cluster::start();
    let limiter = redis(&cluster).deadline(PATIENT).limiter();
    let (quotas, tenant) = (quotas([(10, 60)]), TenantId::new("acme").unwrap());
    let families: Vec<_> = (0..20)
        .map(|number| KeyFamily::new(&format!("f{number}")).unwrap())
        .collect();
    let ask_for_all = async || {
        let asked = families.iter().map(async |family| {
            let bucket = [LimitBucket::new(BucketId::Family(family), &quotas)];
            let request = LimitRequest::new(&bucket, 1).of_tenant(Some(&tenant));
            let decided = limiter.acquire(&request).await.unwrap();
            decided.windows()[0].remaining()
        });
        futures_util::future::join_all(asked).await
    };
    assert_eq!(ask_for_all().await, [9; 20]);
    let [from, to] = begin_to_move(&cluster, "portunus:{acme}:k:f0");
    for number in 0..10 {
        let (port, key) = (
            to.port().to_string(),
            format!("portunus:{{acme}}:k:f{number}"),
        );
        let moved = from.cli(&["migrate", "127.0.0.1", &port, &key, "0", "5000"]);
        assert_eq!(moved, "OK");
    }
    assert_eq!(ask_for_all().await, [8; 20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loss_of_a_primary_costs_its_tenants_a_moment_and_others_nothing() {
    let cluster = Cluster::with_replicas(1);
    let (limiter, quotas) = (redis(&cluster).limiter(), quotas([(1_000_000, 60)]));
    let names: Vec<_> = (0..30).map(|number| format!("tenant{number}")).collect();
    let mut up = Vec::new();
    for name in &names {
        let family = KeyFamily::new(name).unwrap();
        up.push((family, TenantId::new(name).unwrap()));
    }
    let ask_for = async |(family, tenant): &(KeyFamily, TenantId)| {
        let bucket = [LimitBucket::new(BucketId::Family(family), &quotas)];
        let request = LimitRequest::new(&bucket, 1).of_tenant(Some(tenant));
        limiter.acquire(&request).await.is_ok()
    };
    for tenant in &up {
        // A cluster that was just made may take longer than a deadline.
        let asked = eventually_async(async || ask_for(tenant).await.then_some(()));
        asked.await.expect("an answer");
    }
    let lost = &cluster.nodes[0];
    let on_lost = lost.keys().len();
    assert!((1..30).contains(&on_lost), "{on_lost} of 30 tenants");
    lost.crash();
    let (killed, mut longest_outage, mut late) = (Instant::now(), Duration::ZERO, 0);
    loop {
        let mut failed = 0;
        for tenant in &up {
            let began = Instant::now();
            failed += usize::from(!ask_for(tenant).await);
            let took = began.elapsed();
            late += u32::from(took >= Duration::from_millis(250));
            // A busy machine delays some.
            let is_late = late > 4 || took >= Duration::from_secs(2);
            assert!(!is_late, "{late} requests waited, the last one {took:?}");
        }
        // While the cluster votes, it serves nobody.
        if failed == 0 {
            break;
        }
        longest_outage = killed.elapsed();
        assert!(
            longest_outage < Duration::from_secs(15),
            "{failed} of 30 fail"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("after {longest_outage:?} all tenants are served again");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bus_goes_on_after_the_loss_of_the_node_that_it_uses() {
    let cluster = Cluster::with_replicas(1);
    let (near, far) = (redis(&cluster).bus(), redis(&cluster).bus());
    near.check().await.unwrap();
    far.check().await.unwrap();
    let listener = Told::on(&far);
    portunus_test_support::wait::until_async("it is told", || listener.proofs() > 0).await;
    let has_key = |node: &&portunus_test_support::redis::Redis| {
        let info = node.cli(&["info", "replication"]);
        info.contains("role:master") && node.keys().iter().any(|key| key == "portunus:{bus}")
    };
    cluster.nodes.iter().find(has_key).unwrap().crash();
    let everything = listener.everythings();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let silent = listener.proofs();
    portunus_test_support::wait::until_async("it is told again", || listener.proofs() > silent)
        .await;
    assert!(listener.everythings() > everything);
    let mut what = portunus::store::Invalidation::default();
    what.known.push(7);
    use portunus::store::InvalidationBus;
    // The other one may still use the lost node.
    let published = eventually_async(async || near.publish(&what).await.ok());
    published.await.expect("a publication");
    portunus_test_support::wait::until_async("the change is told", || listener.was_told(&what))
        .await;
}

#[tokio::test]
async fn a_cluster_that_is_down_and_other_servers_are_reported_in_one_line() {
    let cluster = Cluster::start();
    let check = async |redis: Redis| redis.limiter().check().await.unwrap_err().to_string();
    // A node of it, as if it were alone.
    let alone = Redis::single(&cluster.nodes[0].address()).unwrap();
    let why = check(alone).await;
    assert!(
        why.contains("a node of a cluster: use Redis::cluster"),
        "{why}"
    );
    cluster.nodes[0].crash();
    let fails = || {
        cluster.nodes[1]
            .cli(&["cluster", "info"])
            .contains("cluster_state:fail")
    };
    portunus_test_support::wait::until_async("the cluster fails", fails).await;
    let down = redis(&cluster);
    let why = check(down.clone()).await;
    assert!(why.contains("the cluster is down"), "{why}");
    let decided = ask(&down.limiter(), "b", &quotas([(5, 60)])).await;
    assert!(
        matches!(decided, Err(LimiterError::Unavailable(_))),
        "{decided:?}"
    );
    let bus = down.bus().check().await.unwrap_err().to_string();
    assert!(bus.contains("the cluster is down"), "{bus}");
    for why in [why, bus] {
        assert!(!why.contains('\n'), "{why}");
    }
}

#[tokio::test]
async fn a_replica_that_is_dead_does_not_keep_scripts_from_being_known() {
    let cluster = Cluster::with_replicas(1);
    let limiter = redis(&cluster).deadline(PATIENT).limiter();
    limiter.check().await.unwrap();
    let is_replica = |node: &&portunus_test_support::redis::Redis| {
        node.cli(&["info", "replication"]).contains("role:slave")
    };
    cluster.nodes.iter().find(is_replica).unwrap().crash();
    for node in cluster.nodes.iter().filter(|node| node.answers()) {
        assert_eq!(node.cli(&["script", "flush"]), "OK");
    }
    for name in ["a", "b", "c", "d", "e", "f"] {
        assert_eq!(passed(&limiter, name, &quotas([(2, 60)]), 4).await, 2);
    }
}
