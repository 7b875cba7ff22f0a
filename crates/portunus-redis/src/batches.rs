//! Requests that share a call are decided as they are one after the other: equal ones, and ones for
//! different keys, whatever is stored there.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation
)]

use std::time::Duration;

use portunus::limit::{
    BucketId, Decision, LimitBucket, LimitRequest, LimiterError, RateLimiter, WindowState,
};
use portunus::quota::{Quota, Quotas};
use portunus::testing::ManualClock;
use portunus_test_support::random::Random;
use portunus_test_support::redis::Redis as Server;

use crate::clocked::Clocked;
use crate::model::GENERAL;

/// Up to three windows, exact and in slots.
fn any_quotas(random: &mut Random) -> Quotas {
    let windows: Vec<_> = [2, 9, 60][..random.between(1, 3) as usize].to_vec();
    let quota = windows.into_iter().map(|seconds| {
        let limit = match random.below(3) {
            0 => random.between(1, 6),
            1 => random.between(20, 64),
            _ => random.between(65, 400),
        };
        let (name, window) = (format!("q{seconds}"), Duration::from_secs(seconds));
        Quota::new(&name, limit, window).unwrap()
    });
    Quotas::new(quota).unwrap()
}

/// One unit, or some that fit all quotas.
fn any_cost(random: &mut Random, buckets: &[LimitBucket<'_>]) -> u64 {
    let all = buckets.iter().flat_map(|bucket| bucket.quotas.as_slice());
    let least = all.map(Quota::limit).min().unwrap();
    if random.one_in(4) {
        random.between(1, least.min(5))
    } else {
        1
    }
}

/// How long the clock of the server is behind, now and then.
fn any_step_back(random: &mut Random) -> Duration {
    let is_back = random.one_in(10);
    Duration::from_millis(if is_back { random.below(3000) } else { 0 })
}

fn any_pause(random: &mut Random) -> Duration {
    Duration::from_millis(match random.below(4) {
        0 => 0,
        1 => random.below(20),
        2 => random.below(500),
        _ => random.below(4_000),
    })
}

/// What makes the script fail if it does anything but read.
const READS: (&str, &str) = (
    "redis.call, redis.pcall",
    "nil, function(name, key) if name ~= 'GET' then error(name) end return redis.pcall(name, key) end",
);

/// The units left, as a limiter reads them that can do nothing else.
async fn read(limiter: &Clocked, request: &LimitRequest<'_>) -> Vec<u64> {
    let states = limiter.peek(request).await.unwrap().unwrap();
    states.iter().map(WindowState::remaining).collect()
}

fn told(decision: &Decision) -> Vec<u64> {
    let windows = decision.windows().iter();
    windows.map(WindowState::remaining).collect()
}

fn all(decided: Vec<Result<Decision, LimiterError>>) -> Vec<Decision> {
    decided.into_iter().map(Result::unwrap).collect()
}

async fn one_by_one(limiter: &Clocked, requests: &[LimitRequest<'_>]) -> Vec<Decision> {
    let mut decided = Vec::new();
    for request in requests {
        decided.push(limiter.acquire(request).await.unwrap());
    }
    decided
}

/// Returns the buckets, by their names, that are not stored equally below `together` and `apart`.
fn differences(server: &Server) -> String {
    let script = "local differ = '' \
        for _, prefix in ipairs({ 'together', 'apart' }) do \
          for _, key in ipairs(redis.call('keys', prefix .. ':{*')) do \
            local other = key:gsub('^%a+', { together = 'apart', apart = 'together' }) \
            local is = redis.pcall('get', key) ~= redis.pcall('get', other) \
            local left = redis.call('pttl', key) - redis.call('pttl', other) \
            if is or math.abs(left) > 2000 then differ = differ .. ' ' .. key end \
          end \
        end return differ";
    server.cli(&["eval", script, "0"])
}

/// A random number of equal requests in one call, and as many one after the other at the same time:
/// what each is told, and what is stored. The one by one are decided by the general case of the script.
#[tokio::test]
async fn a_group_is_decided_as_its_requests_are_one_after_the_other() {
    let (server, clock) = (Server::start(), ManualClock::new());
    let together = Clocked::on(&server, "together", clock.clone());
    let reader = Clocked::with(&server, "together", clock.clone(), READS);
    let (mut refused_in_all, mut split) = (0, 0);
    for seed in 1..=40 {
        server.cli(&["flushall"]);
        let mut random = Random(seed);
        let apart = if random.one_in(2) { GENERAL } else { ("", "") };
        let apart = Clocked::with(&server, "apart", clock.clone(), apart);
        let mut quotas = [(); 3].map(|()| any_quotas(&mut random));
        for step in 0..40 {
            let names = ["a", "b", "c"];
            let buckets: Vec<_> = (0..random.between(1, 3) as usize)
                .map(|number| LimitBucket::new(BucketId::Custom(names[number]), &quotas[number]))
                .collect();
            let request = LimitRequest::new(&buckets, any_cost(&mut random, &buckets));
            let requests = if random.one_in(3) {
                1
            } else {
                random.between(2, 64) as usize
            };
            let equal = vec![request; requests];
            let behind = any_step_back(&mut random);
            let group = all(together.behind(behind).together(&equal).await);
            assert_eq!(
                read(&reader.behind(behind), &request).await,
                told(group.last().unwrap()),
                "seed {seed}, step {step}"
            );
            let singly = one_by_one(&apart.behind(behind), &equal).await;
            assert_eq!(
                group, singly,
                "seed {seed}, step {step}, {requests} of {request:?}"
            );
            let refused = group.iter().filter(|decision| !decision.is_admitted());
            let refused = refused.count();
            refused_in_all += refused;
            split += u32::from(refused > 0 && refused < group.len());
            clock.advance(any_pause(&mut random));
            if random.one_in(15) {
                quotas[random.index(3)] = any_quotas(&mut random);
            }
        }
        assert_eq!(differences(&server), "", "seed {seed}");
    }
    println!("{refused_in_all} refused, {split} groups with both");
    assert!(refused_in_all > 1_000 && split > 100);
}

/// What is done to a bucket: values that nobody can read, other types, and none.
const FOREIGN: [&str; 7] = [
    "redis.call('set', key, 'x')",
    "redis.call('set', key, ('x'):rep(200), 'px', 60000)",
    "redis.call('del', key) redis.call('rpush', key, 'x')",
    "redis.call('del', key)",
    // The newest slot is before the oldest one, and the expiry is lost.
    "if type(value) == 'string' and #value > 62 then \
       redis.call('set', key, value:sub(1, 34) .. struct.pack('<d', 5) .. value:sub(43)) end",
    "if type(value) == 'string' then redis.call('set', key, value:sub(1, -3), 'px', 60000) end",
    "if type(value) == 'string' then redis.call('set', key, value .. 'x', 'px', 60000) end",
];

const NAMES: [&str; 24] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s",
    "t", "u", "v", "w", "x",
];

/// Random requests for different buckets in one call, some of them equal, and the same ones one after
/// the other at the same time: what each is told, and what is stored.
#[tokio::test]
async fn requests_for_different_keys_are_decided_as_they_are_one_after_the_other() {
    let (server, clock) = (Server::start(), ManualClock::new());
    let together = Clocked::on(&server, "together", clock.clone());
    let reader = Clocked::with(&server, "together", clock.clone(), READS);
    let (mut refused_in_all, mut mixed) = (0, 0);
    for seed in 1..=20 {
        server.cli(&["flushall"]);
        let mut random = Random(seed);
        let apart = if random.one_in(2) { GENERAL } else { ("", "") };
        let apart = Clocked::with(&server, "apart", clock.clone(), apart);
        // Most ask the same of their bucket, as in a service with one plan.
        let plans = [(); 3].map(|()| any_quotas(&mut random));
        let mut of = NAMES.map(|_| plans[random.index(2)].clone());
        for step in 0..40 {
            if random.one_in(4) {
                let (name, change) = (random.pick(&NAMES), random.one(&FOREIGN));
                for prefix in ["together", "apart"] {
                    let script = format!(
                        "local key = '{prefix}:{{+{name}}}:c:' \
                         local value = redis.pcall('get', key) {change}"
                    );
                    server.cli(&["eval", &script, "0"]);
                }
            }
            let mut left = &NAMES[..];
            let mut buckets: Vec<Vec<LimitBucket<'_>>> = Vec::new();
            while !left.is_empty() {
                let most = if random.one_in(4) { 3 } else { 1 };
                let (these, others) = left.split_at(most.min(left.len()));
                let bucket = |name: &&'static str| {
                    let number = NAMES.iter().position(|other| other == name).unwrap();
                    LimitBucket::new(BucketId::Custom(name), &of[number])
                };
                buckets.push(these.iter().map(bucket).collect());
                left = others;
            }
            let mut requests = Vec::new();
            for buckets in &buckets {
                let request = LimitRequest::new(buckets, any_cost(&mut random, buckets));
                match random.below(12) {
                    0 => requests.push(LimitRequest::new(buckets, 90).overdrawing()),
                    1..4 => {}
                    4 => requests.extend(vec![request; random.between(2, 70) as usize]),
                    _ => requests.extend(vec![request; random.between(1, 3) as usize]),
                }
            }
            // Equal ones need not follow each other.
            for place in 0..requests.len() {
                requests.swap(place, random.index(place + 1));
            }
            let behind = any_step_back(&mut random);
            let reader = reader.behind(behind);
            let (first, last) = (requests[0], requests[requests.len() - 1]);
            // A reading of whatever is stored before, and one of what is stored after.
            let mut before = read(&reader, &first).await;
            let batch = all(together.behind(behind).together(&requests).await);
            if batch[0].is_admitted() {
                let after = |left: &mut u64| *left = left.saturating_sub(first.cost);
                before.iter_mut().for_each(after);
            }
            assert_eq!(before, told(&batch[0]), "seed {seed}, step {step}");
            let after = read(&reader, &last).await;
            assert_eq!(
                after,
                told(&batch[batch.len() - 1]),
                "seed {seed}, step {step}"
            );
            let singly = one_by_one(&apart.behind(behind), &requests).await;
            assert_eq!(batch, singly, "seed {seed}, step {step}: {requests:?}");
            let refused = batch.iter().filter(|decision| !decision.is_admitted());
            let refused = refused.count();
            refused_in_all += refused;
            mixed += u32::from(refused > 0 && refused < batch.len());
            clock.advance(any_pause(&mut random));
            if random.one_in(8) {
                of[random.index(NAMES.len())] = random.pick(&plans);
            }
        }
        assert_eq!(differences(&server), "", "seed {seed}");
    }
    println!("{refused_in_all} refused, {mixed} calls with both");
    assert!(refused_in_all > 1_000 && mixed > 300);
}

/// Different requests may count in one bucket, as those of a tenant's keys do.
#[tokio::test]
async fn requests_of_a_call_that_count_in_one_bucket_find_the_units_of_each_other() {
    let (server, clock) = (Server::start(), ManualClock::new());
    let limiter = Clocked::on(&server, "shared", clock.clone());
    let quota = |limit| Quotas::new([Quota::new("q", limit, Duration::from_secs(60)).unwrap()]);
    let (own, shared) = (quota(5).unwrap(), quota(20).unwrap());
    let own = |number| LimitBucket::new(BucketId::Custom(NAMES[number]), &own);
    let buckets: Vec<_> = (0..10)
        .map(|number| {
            [
                own(number),
                LimitBucket::new(BucketId::Custom("all"), &shared),
            ]
        })
        .collect();
    let request = |buckets| [LimitRequest::new(buckets, 1), LimitRequest::new(buckets, 2)];
    let requests: Vec<_> = buckets.iter().flat_map(|both| request(both)).collect();
    let mut units = 0;
    for turn in 0..3 {
        let decided = all(limiter.together(&requests).await);
        let admitted = requests
            .iter()
            .zip(&decided)
            .filter(|(_, decision)| decision.is_admitted());
        units += admitted.map(|(request, _)| request.cost).sum::<u64>();
        assert!((19..=20).contains(&units), "{units} units in turn {turn}");
        clock.advance(Duration::from_millis(1));
    }
}

/// Without this, an error of one key would be one of all that are sent with it.
#[tokio::test]
async fn an_error_of_one_key_is_told_to_its_requests_only() {
    let (server, clock) = (Server::start(), ManualClock::new());
    // A command for this key fails: the one that writes in the usual case, and the one that reads in the
    // general case, so that there never is a bucket.
    let commands = [("'SET', keys[first + b]", 1), ("'GET', key)", 0)];
    for (turn, (command, fails_from)) in commands.into_iter().enumerate() {
        let key = command.split_once(", ").unwrap().1.trim_end_matches(')');
        let failing = format!("string.find({key}, '+c}}', 1, true) and 'NONE' or {command}");
        let prefix = format!("error{turn}");
        let change = (command, failing.as_str());
        let limiter = Clocked::with(&server, &prefix, clock.clone(), change);
        let quotas = Quotas::new([Quota::per_minute(3).unwrap()]).unwrap();
        let buckets =
            ["a", "b", "c", "d"].map(|name| [LimitBucket::new(BucketId::Custom(name), &quotas)]);
        let requests = buckets
            .each_ref()
            .map(|bucket| LimitRequest::new(bucket, 1));
        for before in 0..5 {
            for (name, decided) in NAMES.iter().zip(limiter.together(&requests).await) {
                if *name != "c" || before < fails_from {
                    let decision = decided.unwrap();
                    assert_eq!(decision.is_admitted(), before < 3, "{name}");
                    continue;
                }
                let error = decided.unwrap_err();
                let cause = std::error::Error::source(&error).unwrap().to_string();
                // Valkey leaves out the name of Redis.
                assert!(cause.contains("command called from"), "{cause}");
            }
        }
    }
}
