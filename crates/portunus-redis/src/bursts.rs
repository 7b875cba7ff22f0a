//! Random bursts of several nodes, decided by the server's own clock, against the definition of a
//! limit.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation
)]

use std::sync::Arc;
use std::time::Duration;

use portunus::limit::{BucketId, LimitBucket, LimitRequest};
use portunus::quota::{Quota, Quotas};
use portunus_test_support::redis::Redis as Server;

use crate::Redis;
use crate::request::Request;
use crate::sender::Sender;

/// When each request of a bucket was decided, by the server's clock, and whether it was admitted.
type Decided = Vec<(i64, bool)>;

/// Random bursts of many nodes on many keys, decided by the server's own clock.
async fn bursts(node: u64, redis: Redis, quotas: Quotas) -> Vec<Decided> {
    let sender = Arc::new(Sender::new(redis.connect()));
    let mut random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), node);
    let mut below = |most: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) % most
    };
    let mut all = vec![Vec::new(); KEYS];
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        let key = below(KEYS as u64) as usize;
        let name = format!("key{key}");
        let bucket = [LimitBucket::new(BucketId::Custom(&name), &quotas)];
        let request = LimitRequest::new(&bucket, 1);
        let prepared = Arc::new(Request::new(&request, "bursts", false).unwrap().unwrap());
        // One after the other, or at the same time.
        let (turns, at_once) = (below(4), below(12));
        for _ in 0..turns {
            let asked = (0..at_once).map(|_| sender.together(&prepared));
            for answer in futures_util::future::join_all(asked).await {
                let (reply, place) = answer.unwrap();
                let (decision, time) = reply.decision(&request, place).unwrap();
                all[key].push((time, decision.is_admitted()));
            }
        }
        tokio::time::sleep(Duration::from_millis(below(4))).await;
    }
    all
}

const KEYS: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn bursts_on_four_nodes_admit_the_limit_in_every_interval_and_refuse_none_too_early() {
    let server = Server::start();
    let redis = Redis::single(&server.address()).unwrap();
    let redis = redis.deadline(Duration::from_secs(5));
    // Exact, in slots, and both.
    for list in [&[(7, 1)][..], &[(90, 1)], &[(6, 1), (70, 2)]] {
        let quota = |&(limit, seconds): &(u64, u64)| {
            Quota::new(&format!("q{seconds}"), limit, Duration::from_secs(seconds)).unwrap()
        };
        let quotas = Quotas::new(list.iter().map(quota)).unwrap();
        server.cli(&["flushall"]);
        let nodes = (0..4).map(|node| tokio::spawn(bursts(node, redis.clone(), quotas.clone())));
        let mut all: Vec<Decided> = vec![Vec::new(); KEYS];
        for node in nodes.collect::<Vec<_>>() {
            for (key, decided) in node.await.unwrap().into_iter().enumerate() {
                all[key].extend(decided);
            }
        }
        let (mut admitted_in_all, mut refused_in_all) = (0, 0);
        for decided in all {
            let times = |is: bool| {
                let of = decided.iter().filter(move |(_, admitted)| *admitted == is);
                let mut times: Vec<i64> = of.map(|(time, _)| *time).collect();
                times.sort_unstable();
                times
            };
            let (admitted, refused) = (times(true), times(false));
            for &(limit, seconds) in list {
                let (limit, length) = (limit as usize, seconds as i64 * 1_000_000);
                for many in admitted.windows(limit + 1) {
                    assert!(
                        many[limit] - many[0] > length,
                        "{limit} in {seconds} s: {many:?}"
                    );
                }
            }
            for &time in &refused {
                let is_right = list.iter().any(|&(limit, seconds)| {
                    let length = seconds as i64 * 1_000_000;
                    let since = time - length - length / 250 - 1;
                    let within = admitted.iter().filter(|at| (since..=time).contains(at));
                    within.count() >= limit as usize
                });
                assert!(
                    is_right,
                    "{list:?}: refused at {time}, admitted at {admitted:?}"
                );
            }
            admitted_in_all += admitted.len();
            refused_in_all += refused.len();
        }
        println!("{list:?}: {admitted_in_all} admitted, {refused_in_all} refused");
        assert!(admitted_in_all > 200 && (list[0].0 > 64 || refused_in_all > 100));
    }
}
