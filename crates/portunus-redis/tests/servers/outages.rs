//! Servers that do not answer, or only late.

use std::time::{Duration, Instant};

use portunus::limit::{BucketId, LimitBucket, LimitRequest, LimiterError};
use portunus::{ErrorCode, RateLimiter};
use portunus_redis::Redis;
use portunus_test_support::redis::Redis as Server;
use portunus_test_support::{Fixture, Head};
use tokio::task::JoinSet;

use crate::common::{Took, ask, limiter, passed, quotas, recovers, redis};
use crate::network::{Failing, Network};

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_server_costs_a_request_one_deadline_and_later_ones_nothing() {
    let (server, quotas) = (Server::start(), quotas([(1000, 60)]));
    let limiter = redis(&server).limiter();
    recovers(&limiter).await;
    server.pause();
    let (paused, mut took) = (Instant::now(), Took::default());
    while paused.elapsed() < Duration::from_secs(3) {
        let began = Instant::now();
        let decided = ask(&limiter, "b", &quotas).await;
        took.note(began.elapsed());
        assert!(
            matches!(decided, Err(LimiterError::Unavailable(_))),
            "{decided:?}"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    took.assert_few_waits(4);
    assert!(took.count > 100, "{took:?}");
    server.resume();
    println!("recovered after {:?}", recovers(&limiter).await);
}

#[tokio::test]
async fn the_deadline_is_ours_and_not_the_clients() {
    let (server, quotas) = (Server::start(), quotas([(1000, 60)]));
    let limiter = redis(&server).deadline(Duration::from_secs(4)).limiter();
    limiter.check().await.unwrap();
    server.pause();
    let (began, asked) = (Instant::now(), ask(&limiter, "b", &quotas));
    // Longer than the 500 milliseconds and the second after which the client gives up by itself.
    let later = async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        server.resume();
    };
    let (decided, ()) = tokio::join!(asked, later);
    assert!(decided.unwrap().is_admitted());
    assert!(began.elapsed() >= Duration::from_millis(1_500));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_reach_a_server_after_their_deadline_are_not_counted() {
    let (server, quotas) = (Server::start(), quotas([(60, 600)]));
    let (limiter, patient) = (redis(&server).limiter(), limiter(&server));
    recovers(&limiter).await;
    assert_eq!(passed(&patient, "b", &quotas, 1).await, 1);
    for _ in 0..3 {
        server.pause();
        let mut requests = JoinSet::new();
        for _ in 0..100 {
            let (limiter, quotas) = (limiter.clone(), quotas.clone());
            requests.spawn(async move { ask(&limiter, "b", &quotas).await });
        }
        let all = requests.join_all().await;
        assert!(
            all.iter().all(Result::is_err),
            "nothing is admitted without an answer"
        );
        // The server now executes what is in its buffers.
        server.resume();
        recovers(&limiter).await;
    }
    assert_eq!(passed(&patient, "b", &quotas, 100).await, 59);
}

#[tokio::test]
async fn a_server_that_became_a_replica_is_left_and_used_again() {
    let (server, other, quotas) = (Server::start(), Server::start(), quotas([(5, 60)]));
    let limiter = limiter(&server);
    assert_eq!(passed(&limiter, "b", &quotas, 1).await, 1);
    let port = other.port().to_string();
    server.cli(&["replicaof", "127.0.0.1", &port]);
    // The connection is still open, and every write is refused.
    let refused = ask(&limiter, "b", &quotas).await.unwrap_err();
    assert!(
        matches!(refused, LimiterError::Unavailable(_)),
        "{refused:?}"
    );
    let why = limiter.check().await.unwrap_err().to_string();
    assert!(why.contains("is a replica"), "{why}");
    server.cli(&["replicaof", "no", "one"]);
    recovers(&limiter).await;
}

#[tokio::test]
async fn a_server_that_was_killed_is_used_again() {
    let (server, quotas) = (Server::start(), quotas([(1000, 60)]));
    let limiter = limiter(&server);
    assert_eq!(passed(&limiter, "b", &quotas, 1).await, 1);
    server.crash();
    assert!(ask(&limiter, "b", &quotas).await.is_err());
    // Nobody waits for a server that is known to be down.
    let bucket = [LimitBucket::new(BucketId::Custom("b"), &quotas)];
    let now = portunus_test_support::wait::eventually_async(async || {
        limiter.try_acquire(&LimitRequest::new(&bucket, 1))
    });
    assert!(now.await.expect("an answer without waiting").is_err());
    server.start_again();
    recovers(&limiter).await;
}

#[tokio::test]
async fn a_server_without_memory_is_no_answer_and_admits_nothing() {
    let (server, quotas) = (Server::start(), quotas([(5, 60)]));
    let limiter = limiter(&server);
    assert_eq!(passed(&limiter, "b", &quotas, 2).await, 2);
    server.cli(&["config", "set", "maxmemory", "1"]);
    let refused = ask(&limiter, "b", &quotas).await.unwrap_err();
    assert!(
        matches!(refused, LimiterError::Unavailable(_)),
        "{refused:?}"
    );
    server.cli(&["config", "set", "maxmemory", "0"]);
    assert_eq!(passed(&limiter, "b", &quotas, 9).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_server_costs_few_requests_a_deadline_and_most_nothing() {
    let (server, quotas) = (Server::start(), quotas([(100_000, 60)]));
    let network = Network::before(server.port());
    let limiter = Redis::single(&network.address()).unwrap().limiter();
    recovers(&limiter).await;
    network.fail(Failing::Slow(Duration::from_secs(2)));
    let (began, mut took) = (Instant::now(), Took::default());
    while began.elapsed() < Duration::from_secs(5) {
        let asked = Instant::now();
        let _ = ask(&limiter, "b", &quotas).await;
        took.note(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    took.assert_few_waits(6);
    assert!(took.count > 200, "{took:?}");
    network.heal();
    recovers(&limiter).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_cut_is_noticed_and_used_again_when_it_is_back() {
    let (server, quotas) = (Server::start(), quotas([(100_000, 60)]));
    let network = Network::before(server.port());
    let limiter = Redis::single(&network.address()).unwrap().limiter();
    recovers(&limiter).await;
    for failing in [Failing::Silent, Failing::Reset] {
        network.fail(failing);
        let (began, mut took) = (Instant::now(), Took::default());
        while began.elapsed() < Duration::from_secs(2) {
            let asked = Instant::now();
            assert!(ask(&limiter, "b", &quotas).await.is_err(), "{failing:?}");
            took.note(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        took.assert_few_waits(6);
        network.heal();
        recovers(&limiter).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_handles_an_outage_as_its_mode_says() {
    let server = Server::start();
    for (mode, passes) in [("closed", 0), ("open", 40), ("local", 20), ("local/4", 5)] {
        let limiter = limiter(&server);
        limiter.check().await.unwrap();
        let fixture = Fixture::new();
        let (key, _) = fixture.issue(&[]).await;
        let built = fixture
            .bearer()
            .limiter(limiter.clone())
            .quotas(quotas([(20, 60)]));
        let service = built
            .on_limiter_outage(mode.parse().unwrap())
            .build()
            .unwrap();
        let head = Head::bearer(&key);
        service.authenticate(&head).await.unwrap();
        server.crash();
        let mut passed = 0;
        for _ in 0..40 {
            match service.authenticate(&head).await {
                Ok(_) => passed += 1,
                Err(error) if mode == "closed" => {
                    assert_eq!(error.code(), ErrorCode::LimiterUnavailable);
                    assert_eq!(error.status(), 503);
                }
                Err(error) => assert_eq!(error.code(), ErrorCode::RateLimited),
            }
        }
        assert_eq!(passed, passes, "{mode}");
        assert_eq!(service.limiter_outages(), 40);
        server.start_again();
        recovers(&limiter).await;
        service.authenticate(&head).await.unwrap();
        assert_eq!(service.limiter_outages(), 40);
    }
}
