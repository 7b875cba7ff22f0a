//! Requests at the same time, which share calls of the script: what each of them is told, and what
//! happens if some give up or fail.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use portunus::RateLimiter;
use portunus::limit::{BucketId, Decision, LimitBucket, LimitRequest, LimiterError, WindowState};
use portunus::quota::Quotas;
use portunus_redis::RedisLimiter;
use portunus_test_support::redis::Redis as Server;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::common::{PATIENT, ask, limiter, passed, quotas, recovers, redis};
use crate::start::logged;

/// The calls of scripts that a server has answered.
pub(crate) fn calls(server: &Server) -> u64 {
    let stats = server.cli(&["info", "commandstats"]);
    let of = |line: &str| {
        let (_, rest) = line.split_once("calls=")?;
        rest.split(',').next()?.parse::<u64>().ok()
    };
    let lines = stats
        .lines()
        .filter(|line| line.starts_with("cmdstat_eval"));
    lines.filter_map(of).sum()
}

async fn ask_at_once(
    limiter: &RedisLimiter,
    quotas: &Quotas,
    requests: usize,
) -> Vec<Result<Decision, LimiterError>> {
    join_all((0..requests).map(|_| ask(limiter, "b", quotas))).await
}

fn spawn(limiter: &RedisLimiter, quotas: &Quotas) -> JoinHandle<Result<Decision, LimiterError>> {
    let (limiter, quotas) = (limiter.clone(), quotas.clone());
    tokio::spawn(async move { ask(&limiter, "b", &quotas).await })
}

fn left(decision: &Decision) -> u64 {
    decision.windows()[0].remaining()
}

#[tokio::test]
async fn requests_at_once_share_calls_and_requests_one_after_the_other_do_not() {
    let (server, quotas) = (Server::start(), quotas([(100_000, 60)]));
    let limiter = limiter(&server);
    limiter.check().await.unwrap();
    let before = calls(&server);
    assert_eq!(passed(&limiter, "b", &quotas, 20).await, 20);
    assert_eq!(calls(&server) - before, 20);
    for round in 0..20 {
        let before = calls(&server);
        let decided = ask_at_once(&limiter, &quotas, 50).await;
        assert!(
            decided
                .iter()
                .all(|one| one.as_ref().unwrap().is_admitted())
        );
        // The first alone, and the others together; in several calls if the machine is busy.
        let calls = calls(&server) - before;
        assert!((1..=10).contains(&calls), "{calls} calls in round {round}");
    }
    let state = ask(&limiter, "b", &quotas).await.unwrap();
    assert_eq!(
        left(&state),
        100_000 - 20 - 20 * 50 - 1,
        "each was counted once"
    );
}

#[tokio::test]
async fn requests_are_decided_in_the_order_in_which_they_were_made() {
    let (server, quotas) = (Server::start(), quotas([(70, 60), (5, 3)]));
    let limiter = limiter(&server);
    limiter.check().await.unwrap();
    let decided = ask_at_once(&limiter, &quotas, 90).await;
    for (place, decision) in decided.into_iter().enumerate() {
        let decision = decision.unwrap();
        assert_eq!(decision.is_admitted(), place < 5, "{place}: {decision:?}");
        let left: Vec<_> = decision
            .windows()
            .iter()
            .map(WindowState::remaining)
            .collect();
        let before = u64::try_from(place.min(4)).unwrap() + 1;
        assert_eq!(left, [70 - before, 5 - before]);
        let wait = decision.retry_after().unwrap_or_default();
        let is_of_quota = (Duration::from_secs(2)..=Duration::from_millis(3_001)).contains(&wait);
        assert_eq!(is_of_quota, place >= 5, "{wait:?}");
    }
}

#[tokio::test]
async fn different_requests_for_one_key_share_a_call_and_are_all_counted() {
    let (server, quotas) = (Server::start(), quotas([(9, 60)]));
    let limiter = limiter(&server);
    limiter.check().await.unwrap();
    let bucket = |name: &'static str| [LimitBucket::new(BucketId::Custom(name), &quotas)];
    let (one, other) = (bucket("one"), bucket("other"));
    let both = [one[0], other[0]];
    let requests = [
        LimitRequest::new(&one, 1),
        LimitRequest::new(&one, 2),
        LimitRequest::new(&one, 1),
        LimitRequest::new(&both, 1),
        LimitRequest::new(&other, 1),
        LimitRequest::new(&one, 2),
        LimitRequest::new(&one, 1).overdrawing(),
    ];
    let before = calls(&server);
    let decided = join_all(requests.iter().map(|request| limiter.acquire(request))).await;
    let all = decided
        .iter()
        .all(|one| one.as_ref().unwrap().is_admitted());
    assert!(all, "{decided:?}");
    // The first alone, the overdraft alone, and the others together.
    let calls = calls(&server) - before;
    assert!((3..=5).contains(&calls), "{calls} calls");
    let state = limiter.acquire(&requests[3]).await.unwrap();
    let left: Vec<_> = state.windows().iter().map(WindowState::remaining).collect();
    assert_eq!(left, [9 - 1 - 2 - 1 - 1 - 2 - 1 - 1, 9 - 1 - 1 - 1]);
}

/// The names of a hundred buckets.
fn names() -> Vec<String> {
    (0..100).map(|number| format!("name {number}")).collect()
}

async fn ask_for_all(
    limiter: &RedisLimiter,
    names: &[String],
    quotas: &Quotas,
) -> Vec<Result<Decision, LimiterError>> {
    join_all(names.iter().map(|name| ask(limiter, name, quotas))).await
}

#[tokio::test]
async fn requests_for_different_keys_share_calls_and_each_is_told_about_its_key() {
    let (log, _guard) = logged();
    let (server, names) = (Server::start(), names());
    let limiter = limiter(&server);
    limiter.check().await.unwrap();
    let logged_before = log.lines("decided time=");
    // Keys with another plan go in the same calls.
    let plans = [quotas([(3, 60)]), quotas([(2, 60), (90, 600)])];
    for turn in 0..5 {
        let before = calls(&server);
        let asked = names.iter().enumerate();
        let asked = asked.map(|(number, name)| ask(&limiter, name, &plans[number % 2]));
        for (number, decided) in join_all(asked).await.into_iter().enumerate() {
            let (decision, limit) = (decided.unwrap(), [3, 2][number % 2]);
            assert_eq!(decision.is_admitted(), turn < limit, "{number}");
            let left: Vec<_> = decision
                .windows()
                .iter()
                .map(WindowState::remaining)
                .collect();
            let passed = limit.min(turn + 1);
            let expected = [limit - passed, 90 - passed];
            assert_eq!(left, expected[..1 + number % 2], "{number}");
        }
        // Sixteen in a call, or fewer if the machine is busy.
        let calls = calls(&server) - before;
        assert!((7..=30).contains(&calls), "{calls} calls in turn {turn}");
    }
    assert_eq!(log.lines("decided time=") - logged_before, 500);
    let line = "admitted=true keys=\"portunus:{+name 7}:c:\"";
    assert_eq!(log.lines(line), 2);
}

#[tokio::test]
async fn requests_for_different_keys_that_came_too_late_are_not_counted() {
    let (server, names, quotas) = (Server::start(), names(), quotas([(3, 600)]));
    let limiter = redis(&server).limiter();
    recovers(&limiter).await;
    server.pause();
    let all = ask_for_all(&limiter, &names, &quotas).await;
    assert!(all.iter().all(Result::is_err), "{all:?}");
    // The server now executes what is in its buffers.
    server.resume();
    recovers(&limiter).await;
    let patient = crate::common::limiter(&server);
    for decided in ask_for_all(&patient, &names, &quotas).await {
        assert_eq!(left(&decided.unwrap()), 2);
    }
}

#[tokio::test]
async fn requests_for_different_keys_are_told_why_none_is_decided() {
    let (server, names, quotas) = (Server::start(), names(), quotas([(1, 600)]));
    let limiter = limiter(&server);
    assert!(ask(&limiter, &names[5], &quotas).await.is_ok());
    server.cli(&["config", "set", "maxmemory", "1"]);
    for (name, decided) in names
        .iter()
        .zip(ask_for_all(&limiter, &names, &quotas).await)
    {
        // A refusal writes nothing.
        if *name == names[5] {
            assert!(!decided.unwrap().is_admitted());
            continue;
        }
        let error = decided.unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let said = format!("{error} {}", cause.unwrap_or_default());
        assert!(said.contains("memory"), "{said}");
    }
    server.cli(&["config", "set", "maxmemory", "0"]);
    // As a replica, it is left, although a refusal goes on working there.
    let other = Server::start();
    server.cli(&["replicaof", "127.0.0.1", &other.port().to_string()]);
    let all = ask_for_all(&limiter, &names, &quotas).await;
    assert!(all.iter().any(Result::is_err), "{all:?}");
    let left = async || limiter.check().await.is_err().then_some(());
    let left = portunus_test_support::wait::eventually_async(left).await;
    assert!(left.is_some(), "a replica is used");
}

#[tokio::test]
async fn a_request_that_is_given_up_takes_no_other_with_it() {
    let (server, quotas) = (Server::start(), quotas([(60, 600)]));
    // Others wait for 625 milliseconds, and are then sent in any case.
    let limiter = redis(&server).deadline(Duration::from_secs(10)).limiter();
    limiter.check().await.unwrap();
    let mut best = Duration::MAX;
    for round in 0..3 {
        server.pause();
        let first = spawn(&limiter, &quotas);
        sleep(Duration::from_millis(20)).await;
        let others: Vec<_> = (0..9).map(|_| spawn(&limiter, &quotas)).collect();
        sleep(Duration::from_millis(20)).await;
        // One that waits is not sent; the first one was, and counts.
        others[4].abort();
        first.abort();
        server.resume();
        let began = Instant::now();
        let decided = join_all(others).await;
        best = best.min(began.elapsed());
        let decided: Vec<_> = decided.into_iter().flatten().collect();
        assert_eq!(decided.len(), 8);
        let last = decided.last().unwrap().as_ref().unwrap();
        assert_eq!(left(last), 60 - 9 * (round + 1), "round {round}");
    }
    assert!(best < Duration::from_millis(400), "{best:?}");
}

#[tokio::test]
async fn a_request_does_not_wait_for_one_that_gets_no_answer() {
    let (server, quotas) = (Server::start(), quotas([(60, 600)]));
    let limiter = redis(&server).deadline(Duration::from_secs(4)).limiter();
    limiter.check().await.unwrap();
    server.pause();
    let began = Instant::now();
    let first = spawn(&limiter, &quotas);
    sleep(Duration::from_millis(400)).await;
    let second = spawn(&limiter, &quotas);
    assert!(first.await.unwrap().is_err());
    let first_took = began.elapsed();
    let second = second.await.unwrap();
    let second_took = began.elapsed();
    assert!(second.is_err(), "{second:?}");
    // If its deadline began with the end of the first one's, the second would take eight seconds.
    let around =
        |millis: u64| Duration::from_millis(millis - 50)..Duration::from_millis(millis + 2_000);
    assert!(around(4_000).contains(&first_took), "{first_took:?}");
    assert!(around(4_400).contains(&second_took), "{second_took:?}");
    server.resume();
    recovers(&limiter).await;
    // Neither counts: both had given up.
    assert_eq!(passed(&limiter, "b", &quotas, 70).await, 60);
}

#[tokio::test]
async fn all_requests_that_share_a_call_are_told_its_error() {
    let (server, quotas) = (Server::start(), quotas([(60, 600)]));
    let limiter = limiter(&server);
    limiter.check().await.unwrap();
    server.cli(&["config", "set", "maxmemory", "1"]);
    for decided in ask_at_once(&limiter, &quotas, 200).await {
        let error = decided.unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let said = format!("{error} {}", cause.unwrap_or_default());
        assert!(said.contains("memory"), "{said}");
    }
    server.cli(&["config", "set", "maxmemory", "0"]);
    server.crash();
    let all = ask_at_once(&limiter, &quotas, 200).await;
    assert!(all.iter().all(Result::is_err), "{all:?}");
    server.start_again();
    recovers(&limiter).await;
    let decided = ask_at_once(&limiter, &quotas, 200).await;
    let admitted = decided
        .iter()
        .filter(|one| one.as_ref().unwrap().is_admitted());
    assert_eq!(admitted.count(), 60);
}

#[tokio::test]
async fn each_decision_is_logged() {
    let (log, _guard) = logged();
    let (server, quotas) = (Server::start(), quotas([(30, 60)]));
    let limiter = limiter(&server);
    ask_at_once(&limiter, &quotas, 40).await;
    assert_eq!(log.lines("decided time="), 40);
    assert_eq!(log.lines("admitted=true keys=\"portunus:{+b}:c:\""), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_waits_long_while_others_take_turns() {
    let (server, quotas) = (Server::start(), quotas([(1_000_000, 60)]));
    let limiter = limiter(&server);
    limiter.check().await.unwrap();
    let mut clients = JoinSet::new();
    for _ in 0..150 {
        let (limiter, quotas) = (limiter.clone(), quotas.clone());
        clients.spawn(async move {
            let (began, mut count) = (Instant::now(), 0_u64);
            while began.elapsed() < Duration::from_secs(2) {
                assert!(ask(&limiter, "b", &quotas).await.unwrap().is_admitted());
                count += 1;
            }
            count
        });
    }
    let counts = clients.join_all().await;
    let (sum, least) = (counts.iter().sum::<u64>(), counts.iter().min().unwrap());
    println!("{sum} requests, at least {least} of each of 150 clients");
    assert!(least * 150 * 3 > sum, "{counts:?}");
    let state = ask(&limiter, "b", &quotas).await.unwrap();
    assert_eq!(left(&state), 1_000_000 - sum - 1, "each was counted once");
}

#[test]
fn requests_do_not_hang_when_the_runtime_of_their_limiter_ends() {
    let runtime = || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(1).enable_all().build().unwrap()
    };
    let (server, quotas) = (Server::start(), quotas([(1_000_000, 60)]));
    let (home, other) = (runtime(), runtime());
    let limiter = home.block_on(async {
        let limiter = limiter(&server);
        limiter.check().await.unwrap();
        limiter
    });
    let asking = other.spawn({
        let (limiter, quotas) = (limiter.clone(), quotas.clone());
        async move {
            let began = Instant::now();
            loop {
                let all = ask_at_once(&limiter, &quotas, 40).await;
                if all.iter().any(Result::is_err) || began.elapsed() > PATIENT {
                    return all;
                }
            }
        }
    });
    std::thread::sleep(Duration::from_millis(300));
    home.shutdown_timeout(Duration::from_secs(1));
    let began = Instant::now();
    assert!(other.block_on(asking).unwrap().iter().any(Result::is_err));
    let later = other.block_on(ask_at_once(&limiter, &quotas, 40));
    assert!(later.iter().all(Result::is_err), "{later:?}");
    let took = began.elapsed();
    assert!(took < PATIENT, "{took:?}");
}
