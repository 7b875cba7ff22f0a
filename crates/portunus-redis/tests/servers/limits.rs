//! What a limiter promises on one server, whatever is done to the server's data.

use portunus::RateLimiter;
use portunus::key::{KeyFamily, TenantId, UserId};
use portunus::limit::{BucketId, LimitBucket, LimitRequest};
use portunus_test_support::redis::Redis as Server;
use tokio::task::JoinSet;

use crate::common::{PATIENT, ask, limiter, passed, quotas, recovers, redis};

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_requests_at_once_on_four_nodes_pass_sixty() {
    let server = Server::start();
    let nodes: Vec<_> = (0..4).map(|_| limiter(&server)).collect();
    for round in 0..5 {
        let mut requests = JoinSet::new();
        for turn in 0..200 {
            let node = nodes[turn % 4].clone();
            let quotas = quotas([(60, 60), (1000, 3600)]);
            let name = format!("round {round}");
            requests.spawn(async move { ask(&node, &name, &quotas).await.unwrap() });
        }
        let decisions = requests.join_all().await;
        let admitted = decisions.iter().filter(|decision| decision.is_admitted());
        assert_eq!(admitted.count(), 60);
    }
}

#[tokio::test]
async fn a_key_expires_when_it_is_full_again() {
    let server = Server::start();
    let limiter = limiter(&server);
    let quotas = quotas([(5, 10), (500, 100)]);
    assert_eq!(passed(&limiter, "b", &quotas, 2).await, 2);
    let [key] = &server.keys()[..] else {
        panic!("not one key: {:?}", server.keys());
    };
    let left: u64 = server.cli(&["pttl", key]).parse().unwrap();
    let (least, most) = (100_000 - 2_000, 100_000 + 100_000 / 256 + 1);
    assert!((least..=most).contains(&left), "{left} ms");
}

/// The expiry is set anew when units are in another slot, and otherwise kept.
#[tokio::test]
async fn a_key_never_expires_before_its_last_unit_is_gone() {
    let server = Server::start();
    let limiter = limiter(&server);
    let quotas = quotas([(100_000, 20), (200_000, 25)]);
    let time =
        "local time = redis.call('time') local now = time[1] * 1000 + math.ceil(time[2] / 1000)";
    let now = || -> u64 {
        server
            .cli(&["eval", &format!("{time} return now"), "0"])
            .parse()
            .unwrap()
    };
    let expires = || -> u64 {
        let script = format!("{time} return now + redis.call('pttl', KEYS[1])");
        server
            .cli(&["eval", &script, "1", "portunus:{+b}:c:"])
            .parse()
            .unwrap()
    };
    // For about twenty slots.
    let (start, mut different) = (now(), std::collections::BTreeSet::new());
    loop {
        let before = now();
        assert_eq!(passed(&limiter, "b", &quotas, 3).await, 3);
        let expires = expires();
        // Pauses of a script and whole milliseconds.
        assert!(
            (before + 24_900..before + 30_000).contains(&expires),
            "{before}: {expires}"
        );
        different.insert(expires);
        if before > start + 2_000 {
            break;
        }
    }
    assert!(different.len() > 10, "{different:?}");
}

#[tokio::test]
async fn a_key_that_lost_its_expiry_gets_it_again() {
    let server = Server::start();
    let limiter = limiter(&server);
    let (quotas, key) = (quotas([(2, 60)]), "portunus:{+b}:c:");
    let expires = || (50..=60).contains(&server.cli(&["ttl", key]).parse().unwrap());
    for admitted in [1, 1, 0, 0] {
        if server.cli(&["exists", key]) == "1" {
            assert_eq!(server.cli(&["persist", key]), "1");
        }
        // An admitted request sets it, and one in sixteen that are refused.
        let mut passed_in_all = passed(&limiter, "b", &quotas, 1).await;
        for _ in 0..500 {
            if expires() {
                break;
            }
            passed_in_all += passed(&limiter, "b", &quotas, 1).await;
        }
        assert!(expires());
        assert_eq!(passed_in_all, admitted);
    }
}

/// In slots, most of the requests that are admitted keep the expiry.
#[tokio::test]
async fn a_key_in_slots_that_lost_its_expiry_gets_it_again() {
    let server = Server::start();
    let limiter = limiter(&server);
    let (quotas, key) = (quotas([(100_000, 86_400)]), "portunus:{+b}:c:");
    assert_eq!(passed(&limiter, "b", &quotas, 1).await, 1);
    assert_eq!(server.cli(&["persist", key]), "1");
    let mut requests = 0;
    while server.cli(&["ttl", key]) == "-1" {
        // More units in a slot are packed anew, which sets the expiry, too.
        assert!(requests < 250, "it never expires");
        requests += 1;
        assert_eq!(passed(&limiter, "b", &quotas, 1).await, 1);
    }
}

#[tokio::test]
async fn a_value_that_nobody_can_read_blocks_nobody() {
    let server = Server::start();
    let limiter = limiter(&server);
    let (quotas, key) = (quotas([(3, 60), (300, 60)]), "portunus:{+b}:c:");
    // Every prefix of a value with and without room, other bytes at every place, other types.
    let mut values = Vec::new();
    for used in [2, 3] {
        server.cli(&["del", key]);
        assert_eq!(passed(&limiter, "b", &quotas, used).await, used);
        let length: u64 = server.cli(&["strlen", key]).parse().unwrap();
        let whole = format!("whole{used}");
        server.cli(&["copy", key, &whole]);
        values.extend((0..length).map(|cut| (whole.clone(), cut)));
    }
    for (whole, cut) in values {
        server.cli(&["copy", &whole, key, "replace"]);
        let start = "local v = redis.call('get', KEYS[1]) ";
        let cut = cut.to_string();
        for change in [
            "v:sub(1, ARGV[1])",
            "v:sub(1, ARGV[1]) .. '\\255' .. v:sub(ARGV[1] + 2)",
            "v:sub(1, ARGV[1]) .. '\\127' .. v:sub(ARGV[1] + 2)",
            "v:sub(1, ARGV[1]) .. '\\1' .. v:sub(ARGV[1] + 2)",
            "v:sub(1, ARGV[1]) .. '\\0' .. v:sub(ARGV[1] + 2)",
        ] {
            let script = format!("{start} redis.call('set', KEYS[1], {change})");
            server.cli(&["eval", &script, "1", key, &cut]);
            let decided = ask(&limiter, "b", &quotas).await;
            assert!(decided.is_ok(), "{change} at {cut}: {decided:?}");
        }
    }
    for other in [
        &["sadd", key, "x"][..],
        &["hset", key, "x", "1"],
        &["set", key, "1"],
    ] {
        server.cli(&["del", key]);
        server.cli(other);
        assert_eq!(passed(&limiter, "b", &quotas, 5).await, 3, "{other:?}");
    }
}

#[tokio::test]
async fn all_keys_of_a_request_are_declared_and_have_the_tenant_as_their_tag() {
    let server = Server::start();
    let limiter = limiter(&server);
    let (family, user) = (KeyFamily::new("f").unwrap(), UserId::new("u:1").unwrap());
    let (tenant, quotas) = (TenantId::new("ac}me{").unwrap(), quotas([(9, 60)]));
    let buckets = [
        LimitBucket::new(BucketId::Family(&family), &quotas),
        LimitBucket::new(BucketId::User(&tenant, &user), &quotas),
        LimitBucket::new(BucketId::Tenant(&tenant), &quotas),
        LimitBucket::new(BucketId::Tenant(&tenant), &quotas).in_class("exports"),
    ];
    let request = LimitRequest::new(&buckets, 1).of_tenant(Some(&tenant));
    assert!(limiter.acquire(&request).await.unwrap().is_admitted());
    let mut keys = server.keys();
    keys.sort();
    let tag = "portunus:{ac%7Dme%7B}:";
    let expected = ["k:f", "t:", "t::exports", "u:u%3A1"].map(|key| format!("{tag}{key}"));
    assert_eq!(keys, expected);
}

#[tokio::test]
async fn scripts_are_known_again_after_they_were_flushed_and_after_a_restart() {
    let server = Server::start();
    let limiter = limiter(&server);
    let quotas = quotas([(5, 60)]);
    assert_eq!(passed(&limiter, "b", &quotas, 1).await, 1);
    assert_eq!(server.cli(&["script", "flush"]), "OK");
    assert_eq!(passed(&limiter, "b", &quotas, 10).await, 4);
    server.crash();
    server.start_again();
    recovers(&limiter).await;
    // Without persistence, the count begins anew.
    assert_eq!(passed(&limiter, "b", &quotas, 10).await, 5);
}

#[tokio::test]
async fn a_limiter_starts_while_its_server_is_down() {
    let server = Server::start();
    server.crash();
    let limiter = limiter(&server);
    let quotas = quotas([(5, 60)]);
    assert!(limiter.check().await.is_err());
    assert!(ask(&limiter, "b", &quotas).await.is_err());
    server.start_again();
    recovers(&limiter).await;
    assert_eq!(passed(&limiter, "b", &quotas, 10).await, 5);
}

#[tokio::test]
async fn services_with_different_prefixes_or_databases_count_apart() {
    let server = Server::start();
    let other = redis(&server).prefix("other").unwrap();
    let database = portunus_redis::Redis::single(&format!("{}/3", server.address())).unwrap();
    let quotas = quotas([(2, 60)]);
    for redis in [redis(&server), other, database] {
        let limiter = redis.deadline(PATIENT).limiter();
        assert_eq!(passed(&limiter, "b", &quotas, 5).await, 2);
    }
    for prefix in ["", "{a}", "a b", "é", &"a".repeat(65)] {
        let refused = redis(&server).prefix(prefix).unwrap_err().to_string();
        assert!(refused.contains("1 to 64 letters"), "{refused}");
    }
}
