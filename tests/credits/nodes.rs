//! Services that share an account: blocks, refusals, outages, and nodes that stop or crash.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portunus::actor::{Directory, DirectoryError, User, UserRef};
use portunus::config::Actors;
use portunus::credit::{CreditAccounts, CreditError, Credits, NewGrant, Period};
use portunus::key::{Alphabet, Delegation, KeyFormat, Owner, TenantId};
use portunus::manage::NewKey;
use portunus::store::MemoryStore;
use portunus::testing::ManualClock;
use portunus::{AuthError, ErrorCode, Limits, Portunus, PortunusBuilder};
use portunus_test_support::Head;
use portunus_test_support::credits::FaultyCredits;

use crate::accounts::{DAY, account};

struct Fixture {
    remote: FaultyCredits,
    keys: Arc<MemoryStore>,
    clock: ManualClock,
    accounts: CreditAccounts,
    secret: String,
}

impl Fixture {
    async fn new() -> Self {
        let (remote, keys) = (FaultyCredits::default(), Arc::new(MemoryStore::new()));
        let clock = ManualClock::new();
        let accounts = CreditAccounts::new(remote.clone());
        let mut fixture = Self {
            accounts: accounts.with_clock(Arc::new(clock.clone())),
            remote,
            keys,
            clock,
            secret: String::new(),
        };
        let new = NewKey::new("first", Owner::tenant("acme".parse().unwrap()));
        let node = fixture.node(10);
        let new = new.with_delegation(Delegation::On);
        let issued = node.manager().issue(new).await.unwrap();
        fixture.secret = issued.key.reveal();
        fixture
    }

    fn credits(&self, block: u64) -> Credits {
        Credits::per_tenant(self.remote.clone())
            .block(block.try_into().unwrap())
            .cost(|head| match head.path() {
                "/free" => 0,
                "/report" => 5,
                _ => 1,
            })
    }

    fn builder(&self) -> PortunusBuilder {
        let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32);
        Portunus::builder(format.build().unwrap())
            .store(Arc::clone(&self.keys))
            .limits(Limits::none())
            .clock(self.clock.clone())
    }

    fn node(&self, block: u64) -> Portunus {
        let builder = self.builder().credits(self.credits(block));
        builder.build().unwrap()
    }

    async fn grant(&self, units: u64) {
        self.accounts
            .grant(&account(), NewGrant::new(units))
            .await
            .unwrap();
    }

    async fn available(&self) -> u64 {
        self.accounts.balance(&account()).await.unwrap().available
    }

    async fn ask(&self, node: &Portunus, head: Head) -> Result<(), AuthError> {
        node.authenticator().authenticate(&head).await.map(drop)
    }

    async fn request(&self, node: &Portunus) -> Result<(), AuthError> {
        self.ask(node, Head::bearer(&self.secret)).await
    }

    async fn on(&self, node: &Portunus, path: &str) -> Result<(), AuthError> {
        self.ask(node, Head::bearer(&self.secret).at(path)).await
    }

    /// Makes requests until one is refused. Returns how many passed.
    async fn exhaust(&self, node: &Portunus) -> u64 {
        let mut passed = 0;
        while self.request(node).await.is_ok() {
            passed += 1;
        }
        passed
    }

    /// Runs the periodic jobs half a second later.
    async fn report(&self, node: &Portunus) {
        self.clock.advance(Duration::from_millis(500));
        let failures = node.maintain().await.failures;
        assert!(failures.is_empty(), "{failures:?}");
    }
}

fn code(refused: Result<(), AuthError>) -> ErrorCode {
    refused.unwrap_err().code()
}

#[tokio::test]
async fn requests_are_paid_from_blocks_and_refused_once_nothing_is_left() {
    let fixture = Fixture::new().await;
    fixture.grant(25).await;
    let node = fixture.node(10);
    let before = fixture.remote.loads();
    assert_eq!(fixture.exhaust(&node).await, 25);
    // Three blocks, the last of which took everything that was left.
    assert_eq!(fixture.remote.loads() - before, 3);
    for _ in 0..100 {
        assert_eq!(
            code(fixture.request(&node).await),
            ErrorCode::CreditsExhausted
        );
    }
    assert_eq!(
        fixture.remote.loads() - before,
        3,
        "a refusal is known for a second"
    );
    assert!(fixture.on(&node, "/free").await.is_ok());
    fixture.grant(1).await;
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(fixture.exhaust(&node).await, 1);
}

#[tokio::test]
async fn a_refusal_says_what_is_left_and_when_a_period_refills() {
    let fixture = Fixture::new().await;
    let node = fixture.node(10);
    fixture.grant(3).await;
    let refused = fixture.on(&node, "/report").await.unwrap_err();
    assert_eq!(
        (refused.status(), refused.reason_phrase()),
        (429, "Too Many Requests")
    );
    assert!(
        refused.detail().ends_with("it costs 5, and 3 are left"),
        "{refused}"
    );
    assert_eq!(refused.retry_after(), None, "no period refills");
    assert!(
        fixture.request(&node).await.is_ok(),
        "a cheaper request passes"
    );

    let daily = NewGrant::new(4).refilled(Period::daily());
    fixture.accounts.grant(&account(), daily).await.unwrap();
    let node = fixture
        .builder()
        .credits(fixture.credits(10).payment_required());
    let node = node.build().unwrap();
    assert_eq!(fixture.exhaust(&node).await, 4);
    let refused = fixture.request(&node).await.unwrap_err();
    assert_eq!(
        (refused.status(), refused.reason_phrase()),
        (402, "Payment Required")
    );
    // The clock is at 08:00.
    assert_eq!(refused.retry_after(), Some(DAY * 2 / 3));
    fixture.clock.advance(DAY * 2 / 3);
    assert_eq!(fixture.exhaust(&node).await, 4);
}

#[tokio::test]
async fn response_fields_have_the_credits_without_a_window() {
    let fixture = Fixture::new().await;
    let node = fixture.node(10);
    let daily = NewGrant::new(7).refilled(Period::daily());
    fixture.accounts.grant(&account(), daily).await.unwrap();
    assert_eq!(fixture.exhaust(&node).await, 7);
    let refused = fixture.request(&node).await.unwrap_err();
    let head = Head::bearer(&fixture.secret);
    let answer = node.authenticator().responder().answer(&refused, &head);
    let field = |name: &str| {
        let found = answer.fields.iter().find(|(field, _)| *field == name);
        found.map(|(_, value)| value.to_string())
    };
    assert_eq!(field("ratelimit-policy").unwrap(), "\"credits\";q=7");
    assert_eq!(field("ratelimit").unwrap(), "\"credits\";r=0;t=57600");
    assert_eq!(field("retry-after").unwrap(), "57600");
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn response_fields_have_no_credits_before_the_store_has_answered() {
    use axum::body::Body;
    use axum::http::Request;
    use portunus::adapter::axum::get;
    use tower::ServiceExt;

    let fixture = Fixture::new().await;
    fixture.grant(30).await;
    let node = fixture.node(10);
    let route = || get(|| async {}).any_key();
    let routes = node.router().route("/free", route());
    let app: axum::Router = routes.route("/report", route()).into_router();
    for (path, expected) in [
        ("/free", None),
        ("/report", Some("\"credits\";q=30")),
        ("/free", Some("\"credits\";q=30")),
    ] {
        let bearer = format!("Bearer {}", fixture.secret);
        let request = Request::get(path).header("authorization", bearer);
        let answer = app.clone().oneshot(request.body(Body::empty()).unwrap());
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        let policy = answer.headers().get("ratelimit-policy");
        let policy = policy.map(|policy| policy.to_str().unwrap());
        assert_eq!(policy, expected, "{path}");
    }
}

#[tokio::test]
async fn nodes_never_spend_more_than_was_granted() {
    for (block, units) in [(1, 40), (7, 100), (1000, 100)] {
        let fixture = Arc::new(Fixture::new().await);
        fixture.grant(units).await;
        let nodes: Vec<_> = (0..4).map(|_| fixture.node(block)).collect();
        let mut tasks = tokio::task::JoinSet::new();
        for at in 0..12 {
            let (fixture, node) = (Arc::clone(&fixture), nodes[at % 4].clone());
            tasks.spawn(async move {
                let mut passed = 0;
                for _ in 0..units {
                    passed += u64::from(fixture.request(&node).await.is_ok());
                    tokio::task::yield_now().await;
                }
                passed
            });
        }
        let passed: u64 = tasks.join_all().await.into_iter().sum();
        assert_eq!(passed, units, "all of it is spent, and no unit twice");
    }
}

#[tokio::test]
async fn a_node_that_stops_gives_back_what_it_did_not_use() {
    let fixture = Fixture::new().await;
    fixture.grant(100).await;
    let node = fixture.node(60);
    for _ in 0..7 {
        fixture.request(&node).await.unwrap();
    }
    assert_eq!(fixture.available().await, 40);
    node.run(std::future::ready(())).await;
    assert_eq!(fixture.available().await, 93);
}

#[tokio::test]
async fn a_block_that_nobody_uses_is_given_back_after_half_a_minute() {
    let fixture = Fixture::new().await;
    fixture.grant(100).await;
    let node = fixture.node(60);
    fixture.request(&node).await.unwrap();
    fixture.report(&node).await;
    fixture.clock.advance(Duration::from_secs(29));
    fixture.report(&node).await;
    assert_eq!(fixture.available().await, 40);
    fixture.report(&node).await;
    assert_eq!(fixture.available().await, 99);
    assert!(fixture.request(&node).await.is_ok());
}

#[tokio::test]
async fn what_a_crashed_node_did_not_report_counts_as_used_until_an_operator_gives_it_back() {
    let fixture = Fixture::new().await;
    fixture.grant(100).await;
    let node = fixture.node(60);
    for _ in 0..5 {
        fixture.request(&node).await.unwrap();
    }
    fixture.report(&node).await;
    fixture.request(&node).await.unwrap();
    drop(node);
    assert_eq!(fixture.available().await, 40);
    let balance = fixture.accounts.balance(&account()).await.unwrap();
    let [block] = &balance.taken[..] else {
        panic!("{balance:?}");
    };
    assert_eq!((block.units, block.used), (60, 5));
    let early = fixture.accounts.give_back(&account(), &block.id).await;
    assert!(matches!(early, Err(CreditError::Conflict(_))), "{early:?}");
    fixture.clock.advance(Duration::from_secs(120));
    let back = fixture.accounts.give_back(&account(), &block.id).await;
    assert_eq!(back.unwrap(), 55);
    assert_eq!(fixture.available().await, 95);
}

#[tokio::test]
async fn a_node_without_its_store_spends_its_block_for_a_minute_and_then_refuses() {
    let fixture = Fixture::new().await;
    fixture.grant(100).await;
    let node = fixture.node(10);
    fixture.request(&node).await.unwrap();
    fixture.remote.fails(true);
    for _ in 0..8 {
        fixture.request(&node).await.unwrap();
    }
    fixture.clock.advance(Duration::from_secs(60));
    let refused = fixture.request(&node).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::StoreUnavailable);
    assert_eq!(refused.detail(), "Credits cannot be checked right now");
    // Its block may have been given back by now.
    fixture.remote.fails(false);
    fixture.clock.advance(Duration::from_secs(1));
    fixture.request(&node).await.unwrap();
    assert_eq!(fixture.available().await, 100 - 9 - 10);
}

#[tokio::test]
async fn without_a_block_at_hand_a_store_that_does_not_answer_refuses() {
    let fixture = Fixture::new().await;
    fixture.grant(100).await;
    let node = fixture.node(10);
    fixture.remote.fails(true);
    let before = fixture.remote.loads();
    for _ in 0..50 {
        assert_eq!(
            code(fixture.request(&node).await),
            ErrorCode::StoreUnavailable
        );
    }
    assert_eq!(
        fixture.remote.loads() - before,
        1,
        "an outage is not made worse"
    );
    fixture.remote.fails(false);
    fixture.clock.advance(Duration::from_millis(250));
    assert!(fixture.request(&node).await.is_ok());
}

#[tokio::test]
async fn a_block_whose_answer_was_lost_is_taken_once() {
    let fixture = Fixture::new().await;
    fixture.grant(100).await;
    let node = fixture.node(10);
    fixture.remote.forget_once();
    assert_eq!(
        code(fixture.request(&node).await),
        ErrorCode::StoreUnavailable
    );
    fixture.clock.advance(Duration::from_millis(250));
    assert!(fixture.request(&node).await.is_ok());
    assert_eq!(fixture.available().await, 90);
    // A lost block that is too small for a request is replaced.
    node.run(std::future::ready(())).await;
    assert_eq!(fixture.available().await, 99);
    let small = fixture.node(1);
    fixture.remote.forget_once();
    assert_eq!(
        code(fixture.request(&small).await),
        ErrorCode::StoreUnavailable
    );
    fixture.clock.advance(Duration::from_millis(250));
    assert!(fixture.on(&small, "/report").await.is_ok());
    assert_eq!(fixture.available().await, 94);
}

#[tokio::test]
async fn a_block_is_not_spent_beyond_the_end_of_its_period_or_grant() {
    let fixture = Fixture::new().await;
    let daily = NewGrant::new(10).refilled(Period::daily());
    fixture.accounts.grant(&account(), daily).await.unwrap();
    let node = fixture.node(10);
    // One second before midnight, so that the lease is not over.
    fixture.clock.advance(DAY * 2 / 3 - Duration::from_secs(1));
    for _ in 0..4 {
        fixture.request(&node).await.unwrap();
    }
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(
        fixture.exhaust(&node).await,
        10,
        "the new day's, not also the old day's"
    );
}

#[tokio::test]
async fn a_voided_grant_is_not_spent_after_the_next_report() {
    let fixture = Fixture::new().await;
    let grant = fixture
        .accounts
        .grant(&account(), NewGrant::new(50))
        .await
        .unwrap();
    let node = fixture.node(50);
    fixture.request(&node).await.unwrap();
    assert_eq!(fixture.accounts.void(&account(), &grant).await.unwrap(), 0);
    fixture.report(&node).await;
    assert_eq!(
        code(fixture.request(&node).await),
        ErrorCode::CreditsExhausted
    );
}

/// Knows no user, and answers later or not at all.
#[derive(Debug)]
struct Nobody {
    hangs: bool,
}

#[async_trait]
impl Directory for Nobody {
    async fn resolve(
        &self,
        _: &TenantId,
        _: &UserRef,
    ) -> Result<Option<Arc<User>>, DirectoryError> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Ok(None)
    }
}

#[tokio::test]
async fn credits_are_given_back_if_a_later_step_refuses_or_the_client_has_gone() {
    let fixture = Fixture::new().await;
    fixture.grant(10).await;
    for hangs in [false, true] {
        let actors = Actors::new().directory(Nobody { hangs });
        let builder = fixture.builder().actors(actors);
        let node = builder.credits(fixture.credits(10)).build().unwrap();
        for _ in 0..50 {
            let head = Head::bearer(&fixture.secret).with("x-user-id", "ann");
            let request = node.authenticator().authenticate(&head);
            let limit = match hangs {
                true => Duration::from_millis(5),
                false => Duration::from_secs(60),
            };
            match tokio::time::timeout(limit, request).await {
                Ok(refused) => {
                    let refused = refused.map(drop);
                    assert_eq!(code(refused), ErrorCode::UnknownActor);
                }
                Err(_) => assert!(hangs),
            }
        }
        node.run(std::future::ready(())).await;
        assert_eq!(fixture.available().await, 10);
    }
}

#[tokio::test]
async fn a_verification_by_an_operator_takes_no_credits() {
    let fixture = Fixture::new().await;
    fixture.grant(1).await;
    let node = fixture.node(1);
    for _ in 0..5 {
        let verified = node.manager().verify(&fixture.secret).await;
        assert!(verified.unwrap().is_some());
    }
    assert_eq!(fixture.exhaust(&node).await, 1);
}

#[tokio::test]
async fn a_reservation_that_is_dropped_is_released_and_one_that_was_being_settled_is_settled() {
    let fixture = Fixture::new().await;
    fixture.grant(100).await;
    let node = fixture.node(10);
    let accounts = node.credits().unwrap();
    let minute = Duration::from_secs(60);
    drop(accounts.reserve(&account(), 30, minute).await.unwrap());
    let settled = accounts.reserve(&account(), 30, minute).await.unwrap();
    // The client goes while the store is asked.
    tokio::select! {
        biased;
        settled = settled.settle(20) => panic!("{settled:?}"),
        () = std::future::ready(()) => {}
    }
    let unanswered = accounts.reserve(&account(), 10, minute).await.unwrap();
    fixture.remote.fails(true);
    assert!(unanswered.settle(5).await.is_err());
    fixture.remote.fails(false);
    let kept = accounts
        .reserve(&account(), 10, minute)
        .await
        .unwrap()
        .into_id();
    assert_eq!(fixture.available().await, 20);
    fixture.report(&node).await;
    assert_eq!(fixture.available().await, 100 - 20 - 5 - 10);
    accounts.settle(&account(), &kept, 1).await.unwrap();
    assert_eq!(fixture.available().await, 100 - 20 - 5 - 1);
}
