//! Credits over HTTP: what is documented, and what others than the account's operators can do: nothing.

use portunus::audit::{Action, AuditOutcome};
use portunus::key::{KeyId, TenantId, UserId};
use portunus::store::MemoryStore;
use portunus_test_support::Setup;
use serde_json::{Value, json};

use crate::fixture::{Answer, Ask, Fixture, send};

const OURS: &str = "tenant:tenant_ours";

fn show(account: &str) -> Ask {
    Ask::new("GET", "/credits/{id}").of(account)
}

fn ledger(account: &str) -> Ask {
    Ask::new("GET", "/credits/{id}/ledger").of(account)
}

fn grant(account: &str, body: &Value) -> Ask {
    Ask::new("POST", "/credits/{id}/grants")
        .of(account)
        .json(body)
}

fn void(account: &str, id: &str) -> Ask {
    let ask = Ask::new("POST", "/credits/{id}/grants/{grant}/void");
    ask.of(account).part(id)
}

fn give_back(account: &str, id: &str) -> Ask {
    let ask = Ask::new("POST", "/credits/{id}/blocks/{block}/give_back");
    ask.of(account).part(id)
}

fn id_of(answer: &Answer) -> String {
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn available(fixture: &Fixture, account: &str) -> u64 {
    let shown = fixture.expect(200, show(account)).await.json();
    shown["available"].as_u64().unwrap()
}

pub(crate) async fn credits_are_granted_shown_and_ended(fixture: &Fixture) {
    let account = "user:11:tenant_ours:u1";
    let period = json!({
        "unit": "month", "count": 3, "anchor": "2026-01-31T12:00:00+01:00",
        "time_zone": "Europe/Paris",
    });
    let allowance =
        json!({ "id": "allowance", "units": 1000, "period": period, "rolls_over": true });
    fixture.expect(201, grant(account, &allowance)).await;
    let top_up = json!({ "id": "invoice-7", "units": 50.0, "priority": 9 });
    let made = fixture.expect(201, grant(account, &top_up)).await;
    assert_eq!(made.json(), json!({ "id": "invoice-7" }));
    fixture.expect(200, grant(account, &top_up)).await;
    let other = json!({ "id": "invoice-7", "units": 51, "priority": 9 });
    fixture.expect(409, grant(account, &other)).await;
    fixture
        .expect(422, grant(account, &json!({ "units": 0 })))
        .await;
    let gift = json!({ "units": 5, "expires_at": "9999-12-31T23:59:59.999Z" });
    let gift = id_of(&fixture.expect(201, grant(account, &gift)).await);

    let shown = fixture.expect(200, show(account)).await.json();
    assert_eq!(shown["available"], 1055);
    let grants = shown["grants"].as_array().unwrap();
    let ids: Vec<_> = grants
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, [gift.as_str(), "allowance", "invoice-7"]);
    let period = json!({
        "unit": "month", "count": 3, "anchor": "2026-01-31T11:00:00.000Z",
        "time_zone": "Europe/Paris",
    });
    assert_eq!(grants[1]["period"], period);
    assert_eq!(
        (
            &grants[1]["rolls_over"],
            &grants[2]["period"],
            &grants[2]["refills_at"]
        ),
        (&json!(true), &Value::Null, &Value::Null)
    );
    assert_eq!(grants[0]["expires_at"], "9999-12-31T23:59:59.999Z");

    let voided = fixture.expect(200, void(account, &gift)).await.json();
    assert_eq!(voided, json!({ "units": 5 }));
    fixture.expect(404, void(account, &gift)).await;
    let page = fixture.expect(200, ledger(account)).await.json();
    let kinds = page["items"].as_array().unwrap().iter();
    let kinds: Vec<_> = kinds
        .map(|entry| {
            (
                entry["kind"].as_str().unwrap(),
                entry["change"].as_i64().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("granted", 1000),
        ("granted", 50),
        ("granted", 5),
        ("voided", -5),
    ];
    assert_eq!(
        (kinds.as_slice(), &page["next_cursor"]),
        (&expected[..], &Value::Null)
    );

    let block = fixture.taken_block().await;
    fixture.expect(409, give_back(OURS, &block)).await;
    fixture.clock.advance(std::time::Duration::from_secs(121));
    let shown = fixture.expect(200, show(OURS)).await.json();
    let taken = shown["taken"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&taken["id"], &taken["units"], &taken["ends_at"]),
        (&json!(block), &json!(5), &Value::Null)
    );
    let before = available(fixture, OURS).await;
    // Its node had used one, and not reported it: it may be spent twice if an operator says so.
    let back = fixture.expect(200, give_back(OURS, &block)).await.json();
    assert_eq!(back, json!({ "units": 5 }));
    assert_eq!(available(fixture, OURS).await, before + 5);
    fixture.expect(404, give_back(OURS, &block)).await;
    let last = fixture
        .expect(200, ledger(OURS).query("limit=500"))
        .await
        .json();
    let last = last["items"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (&last["kind"], &last["taken"]),
        (&json!("given_back"), &json!(block))
    );
}

#[tokio::test]
async fn an_account_of_another_tenant_is_an_unknown_one_byte_for_byte() {
    let fixture = Fixture::new().await;
    let key = fixture.plain().await;
    let made = fixture
        .expect(201, grant(OURS, &json!({ "units": 7 })))
        .await;
    let body = json!({ "units": 1 });
    for account in [
        OURS.into(),
        "user:11:tenant_ours:u1".into(),
        format!("key:{key}"),
    ] {
        for ask in [
            show(&account),
            ledger(&account),
            grant(&account, &body),
            grant(&account, &json!({ "units": -1, "nonsense": 1 })),
            void(&account, &id_of(&made)),
            give_back(&account, "block_1"),
        ] {
            let unknown = ask.path.replace(&account, "key:key_unknown");
            let unknown = Ask {
                path: unknown,
                ..ask.clone()
            };
            let expected = send(&fixture.router, &unknown.by("outsider")).await;
            let answer = send(&fixture.router, &ask.clone().by("outsider")).await;
            assert_eq!((answer.status, expected.status), (404, 404), "{ask:?}");
            assert_eq!(answer.body, expected.body, "{ask:?}");
        }
    }
    assert_eq!(available(&fixture, OURS).await, 7);
    // Its tenant sees it, also by the family of a key that has been deleted.
    let rotated = fixture
        .expect(201, Ask::new("POST", "/keys/{id}/rotate").of(&key))
        .await;
    assert!(rotated.json()["record"]["id"].is_string());
    fixture
        .expect(204, Ask::new("DELETE", "/keys/{id}").of(&key))
        .await;
    fixture.expect(200, show(&format!("key:{key}"))).await;
    // The host sees all accounts, and names others than those of one tenant.
    let theirs = "user:13:tenant_theirs:u1";
    fixture.expect(201, grant(theirs, &body).by("host")).await;
    assert_eq!(send(&fixture.router, &show(theirs)).await.status, 404);
}

#[tokio::test]
async fn an_account_has_one_spelling_and_others_are_unknown() {
    let fixture = Fixture::new().await;
    for account in [
        "tenant",
        "tenant:",
        "Tenant:tenant_ours",
        "tenant:tenant%20ours",
        "tenant:tenant_ours%00",
        "tenant:%C3%A4",
        "key:",
        "family:tenant_ours",
        "user:tenant_ours:u1",
        "user:011:tenant_ours:u1",
        "user:+11:tenant_ours:u1",
        "user:10:tenant_ours:u1",
        "user:12:tenant_ours:u1",
        "user:11:tenant_ours",
        "user:11:tenant_ours:",
        "user:99999999999999999999:tenant_ours:u1",
        "user:0::u1",
        &format!("tenant:{}", "x".repeat(129)),
        &"x".repeat(5000),
    ] {
        for by in ["owner", "host"] {
            fixture.expect(404, show(account).by(by)).await;
            let body = json!({ "units": 1 });
            fixture.expect(404, grant(account, &body).by(by)).await;
        }
    }
    // A slash in an id is written as %2F.
    let account = CreditAccountText(r"tenant/x", r"a:b%c").text();
    let encoded = account.replace('%', "%25").replace('/', "%2F");
    let body = json!({ "units": 3 });
    fixture.expect(201, grant(&encoded, &body).by("host")).await;
    let shown = fixture.expect(200, show(&encoded).by("host")).await.json();
    assert_eq!(
        (&shown["account"], &shown["available"]),
        (&json!(account), &json!(3))
    );
}

/// A tenant and a user of it.
struct CreditAccountText<'t>(&'t str, &'t str);

impl CreditAccountText<'_> {
    fn text(&self) -> String {
        let (tenant, user) = (TenantId::new(self.0).unwrap(), UserId::new(self.1).unwrap());
        portunus::credit::CreditAccount::User(tenant, user).to_string()
    }
}

#[tokio::test]
async fn operators_change_credits_only_as_far_as_the_policy_says() {
    let fixture = Fixture::new().await;
    let made = fixture
        .expect(201, grant(OURS, &json!({ "units": 7 })))
        .await;
    let block = fixture.abandoned_block().await;
    let before = available(&fixture, OURS).await;
    for ask in [
        grant(OURS, &json!({ "units": 1_000_000 })),
        grant(OURS, &json!({ "units": 1 })).header("idempotency-key", "a"),
        void(OURS, &id_of(&made)),
        give_back(OURS, &block),
    ] {
        fixture.expect(403, ask.clone().by("admin")).await;
        fixture.expect(403, ask.by("member")).await;
    }
    assert_eq!(available(&fixture, OURS).await, before);
    fixture.expect(200, show(OURS).by("admin")).await;
    fixture.expect(403, show(OURS).by("member")).await;
}

#[tokio::test]
async fn a_user_of_the_self_serve_reads_its_own_account_and_that_of_its_keys() {
    let fixture = Fixture::new().await;
    let issue = |user: &str| {
        Ask::new("POST", "/keys")
            .by(user)
            .json(&json!({ "name": "mine" }))
    };
    let key_of = async |user: &str| {
        let issued = send(&fixture.own, &issue(user)).await.json();
        let id = issued["record"]["id"].as_str().unwrap();
        format!("key:{}", KeyId::new(id).unwrap())
    };
    let (own, other) = (key_of("u1").await, key_of("ann").await);
    let status = async |ask: Ask| send(&fixture.own, &ask.by("u1")).await.status;
    assert_eq!(status(show("user:11:tenant_ours:u1")).await, 200);
    assert_eq!(status(ledger("user:11:tenant_ours:u1")).await, 200);
    assert_eq!(status(show(&own)).await, 200);
    assert_eq!(status(show(OURS)).await, 403);
    assert_eq!(status(show("user:11:tenant_ours:ann")).await, 403);
    assert_eq!(status(show("user:13:tenant_theirs:u1")).await, 404);
    let unknown = send(&fixture.own, &show("key:key_unknown").by("u1")).await;
    let of_ann = send(&fixture.own, &show(&other).by("u1")).await;
    assert_eq!((of_ann.status, of_ann.body), (404, unknown.body));
    for account in ["user:11:tenant_ours:u1", OURS, &own] {
        let body = json!({ "units": 1 });
        assert_eq!(status(grant(account, &body)).await, 403, "{account}");
        assert_eq!(status(void(account, "grant_1")).await, 403, "{account}");
        assert_eq!(
            status(give_back(account, "block_1")).await,
            403,
            "{account}"
        );
        assert_eq!(available(&fixture, account).await, 0);
    }
}

#[tokio::test]
async fn terms_that_make_no_sense_are_refused_with_the_name_of_the_member() {
    let fixture = Fixture::new().await;
    let (past, now) = ("2001-01-01T00:00:00Z", fixture.keys.manager().now());
    let now = portunus_admin::time_text(now);
    let of = |member: &str, value: Value| {
        let mut body = json!({ "units": 5 });
        body[member] = value;
        body
    };
    let month = |member: &str, value: Value| {
        let mut period = json!({ "unit": "month" });
        period[member] = value;
        json!({ "units": 5, "period": period })
    };
    for (body, field) in [
        (json!({}), "body"),
        (of("units", json!(-1)), "body"),
        (of("units", json!(0.5)), "body"),
        (of("units", json!("5")), "body"),
        (of("units", json!(1e300)), "body"),
        (of("units", json!(null)), "body"),
        (of("units", json!(true)), "body"),
        (of("units", json!(0)), "grant"),
        (of("units", json!(1_u64 << 53)), "grant"),
        (of("units", json!(u64::MAX)), "grant"),
        (of("priority", json!(256)), "priority"),
        (of("priority", json!(-1)), "body"),
        (of("id", json!("")), "id"),
        (of("id", json!("a b")), "id"),
        (of("id", json!("a\u{0}b")), "id"),
        (of("id", json!("a\u{202e}b")), "id"),
        (of("id", json!("x".repeat(65))), "id"),
        (of("expires_at", json!(past)), "grant"),
        (of("expires_at", json!(now)), "grant"),
        (of("expires_at", json!("tomorrow")), "expires_at"),
        (
            of("expires_at", json!("10000-01-01T00:00:00Z")),
            "expires_at",
        ),
        (of("expires_at", json!(1_800_000_000)), "body"),
        (of("rolls_over", json!(true)), "grant"),
        (of("rolls_over", json!("yes")), "body"),
        (of("nonsense", json!(1)), "body"),
        (of("account", json!("tenant:other")), "body"),
        (of("period", json!("month")), "body"),
        (of("period", json!(["month"])), "body"),
        (of("period", json!({})), "body"),
        (month("unit", json!("year")), "period.unit"),
        (month("count", json!(0)), "period.count"),
        (month("count", json!(65_536)), "period.count"),
        (month("anchor", json!("soon")), "period.anchor"),
        (month("anchor", json!("9999-12-31T23:59:59.999Z")), "grant"),
        (month("time_zone", json!("")), "period.time_zone"),
        (month("time_zone", json!("Mars/Base")), "period.time_zone"),
        (
            month("time_zone", json!("../../etc/passwd")),
            "period.time_zone",
        ),
        (
            month("time_zone", json!("Europe/Paris\u{0}")),
            "period.time_zone",
        ),
        (
            month("time_zone", json!("x".repeat(100_000))),
            "period.time_zone",
        ),
        (month("nonsense", json!(1)), "body"),
    ] {
        let answer = fixture.expect(422, grant(OURS, &body)).await.json();
        let detail = answer["detail"].as_str().unwrap();
        assert!(
            detail.starts_with(&format!("{field}: ")),
            "{body}: {detail}"
        );
        assert!(
            detail.len() < 300 && !detail.contains('\u{0}'),
            "{detail:?}"
        );
    }
    for raw in [
        r#"{"units":1,"units":2}"#,
        r#"{"units":36893488147419103232}"#,
        r#"{"units":-0.1}"#,
        r"[5]",
    ] {
        let ask = Ask::new("POST", "/credits/{id}/grants").of(OURS).raw(raw);
        fixture.expect(422, ask).await;
    }
    let cut = Ask::new("POST", "/credits/{id}/grants")
        .of(OURS)
        .raw(r#"{"units":1"#);
    fixture.expect(400, cut).await;
    let shown = fixture.expect(200, show(OURS)).await.json();
    assert_eq!(
        (&shown["available"], &shown["grants"]),
        (&json!(0), &json!([]))
    );
    // The extremes that make sense.
    let most = json!({ "units": 9_007_199_254_740_991_u64, "priority": 255, "id": "x".repeat(64) });
    fixture.expect(201, grant(OURS, &most)).await;
    let over = fixture
        .expect(409, grant(OURS, &json!({ "units": 1 })))
        .await
        .json();
    assert_eq!(over["detail"], "The account would have too many units");
}

#[tokio::test]
async fn a_request_that_is_repeated_grants_once() {
    let fixture = Fixture::new().await;
    let five = json!({ "units": 5 });
    let once =
        |account: &str, body: &Value| grant(account, body).header("idempotency-key", "pay-1");
    // Also when the repetitions are concurrent.
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (router, ask) = (fixture.router.clone(), once(OURS, &five));
        all.spawn(async move {
            let answer = send(&router, &ask).await;
            (answer.status, id_of(&answer))
        });
    }
    let mut answers = all.join_all().await;
    answers.sort();
    assert_eq!(
        (answers[0].0, answers[18].0, answers[19].0),
        (200, 200, 201)
    );
    assert!(answers.iter().all(|(_, id)| *id == answers[0].1));
    assert_eq!(available(&fixture, OURS).await, 5);
    for other in [json!({ "units": 6 }), json!({ "units": 5, "priority": 1 })] {
        let refused = fixture.expect(422, once(OURS, &other)).await.json();
        let detail = refused["detail"].as_str().unwrap();
        assert_eq!(detail, "Idempotency-Key: was used for a different request");
    }
    // Another account and another operator are unrelated, as in other calls.
    let user = "user:11:tenant_ours:u1";
    fixture.expect(201, once(user, &five)).await;
    fixture.expect(201, once(OURS, &five).by("host")).await;
    assert_eq!(available(&fixture, OURS).await, 10);
    // A repetition is recognized before the conditions, and after the grant has ended.
    fixture
        .expect(200, once(OURS, &five).header("if-match", "\"1\""))
        .await;
    fixture.expect(200, void(OURS, &answers[0].1)).await;
    fixture.expect(200, once(OURS, &five)).await;
    fixture
        .expect(422, once(OURS, &json!({ "units": 50 })))
        .await;
    assert_eq!(available(&fixture, OURS).await, 5);
    let both = json!({ "units": 5, "id": "invoice-1" });
    let refused = fixture.expect(422, once(OURS, &both)).await.json();
    assert_eq!(refused["detail"], "id: not together with Idempotency-Key");
    for bad in ["", "a b", "\u{e4}", &"x".repeat(256)] {
        let ask = grant(OURS, &five).header("idempotency-key", bad);
        let status = send(&fixture.router, &ask).await.status;
        assert!(matches!(status, 400 | 422), "{bad:?}: {status}");
    }
    assert_eq!(available(&fixture, OURS).await, 5);
    fixture.expect(200, Ask::new("GET", "/events")).await;
    let granted = fixture.log.all();
    let granted = granted
        .iter()
        .filter(|event| event.action == Action::CreditGrant && event.outcome == AuditOutcome::Ok);
    assert_eq!(
        granted.count(),
        3,
        "an event for each grant, none for a repetition"
    );
}

#[tokio::test]
async fn a_condition_that_does_not_hold_changes_nothing() {
    let fixture = Fixture::new().await;
    let made = fixture
        .expect(201, grant(OURS, &json!({ "units": 5 })))
        .await;
    let block = fixture.abandoned_block().await;
    let before = fixture.expect(200, show(OURS)).await.json();
    let stale = |ask: Ask| ask.header("if-match", "\"7\"");
    // What the node had taken is of this grant, and does not come back once it is voided.
    let calls = [
        grant(OURS, &json!({ "units": 5 })),
        give_back(OURS, &block),
        void(OURS, &id_of(&made)),
    ];
    for ask in &calls {
        fixture.expect(412, stale(ask.clone())).await;
    }
    // What would be refused anyway is refused for the same reason.
    fixture
        .expect(422, stale(grant(OURS, &json!({ "units": 0 }))))
        .await;
    fixture.expect(404, stale(void(OURS, "unknown"))).await;
    fixture.expect(404, stale(give_back(OURS, "unknown"))).await;
    fixture
        .expect(403, stale(calls[0].clone()).by("admin"))
        .await;
    assert_eq!(fixture.expect(200, show(OURS)).await.json(), before);
    for ask in calls {
        let done = fixture.ask(&ask.header("if-match", "*")).await;
        assert!(done.status < 300, "{}", done.status);
    }
}

#[tokio::test]
async fn ids_in_paths_are_of_this_account_or_unknown() {
    let fixture = Fixture::new().await;
    let made = id_of(
        &fixture
            .expect(201, grant(OURS, &json!({ "units": 5 })))
            .await,
    );
    let user = "user:11:tenant_ours:u1";
    fixture.expect(404, void(user, &made)).await;
    // A grant is no block, and a block is no grant.
    fixture.expect(404, give_back(OURS, &made)).await;
    let block = fixture.abandoned_block().await;
    fixture.expect(404, void(OURS, &block)).await;
    for id in ["%00", "a%2Fb", "%C3%A4", "%0D%0A", "..", &"x".repeat(65)] {
        fixture.expect(404, void(OURS, id)).await;
        fixture.expect(404, give_back(OURS, id)).await;
    }
    // A reservation of a request is settled by its handler, not by an operator.
    let accounts = fixture.keys.credits().unwrap();
    let account = OURS.parse().unwrap();
    let length = std::time::Duration::from_secs(600);
    let reserved = accounts.reserve(&account, 1, length).await.unwrap();
    fixture.clock.advance(std::time::Duration::from_secs(300));
    let id = reserved.id().to_string();
    fixture.expect(404, give_back(OURS, &id)).await;
    reserved.settle(1).await.unwrap();
}

#[tokio::test]
async fn the_ledger_is_paged_and_takes_no_foreign_cursor() {
    let fixture = Fixture::new().await;
    for _ in 0..60 {
        let made = fixture
            .expect(201, grant(OURS, &json!({ "units": 2 })))
            .await;
        fixture.expect(200, void(OURS, &id_of(&made))).await;
    }
    let (mut numbers, mut sum, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let query = format!("limit=50&cursor={cursor}");
        let page = fixture.expect(200, ledger(OURS).query(&query)).await.json();
        for entry in page["items"].as_array().unwrap() {
            numbers.push(entry["number"].as_u64().unwrap());
            sum += entry["change"].as_i64().unwrap();
        }
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(numbers, (1..=120).collect::<Vec<_>>());
    assert_eq!((sum, cursor.as_str()), (0, "100"));
    for exact in [
        "limit=120",
        "limit=20&cursor=100",
        "cursor=120",
        "cursor=999999999999999999",
    ] {
        let page = fixture.expect(200, ledger(OURS).query(exact)).await.json();
        assert_eq!(page["next_cursor"], Value::Null, "{exact}");
    }
    let keys = fixture.plain().await;
    fixture.plain().await;
    let of_keys = Ask::new("GET", "/keys").query("limit=1");
    let of_keys = fixture.expect(200, of_keys).await.json();
    let of_keys = of_keys["next_cursor"].as_str().unwrap().to_owned();
    for bad in [
        "-1",
        "1.5",
        "1e3",
        "%2B1",
        "0x10",
        "99999999999999999999",
        "9999999999999999999",
        "%00",
        &of_keys,
        &keys,
    ] {
        let ask = ledger(OURS).query(&format!("cursor={bad}"));
        fixture.expect(400, ask).await;
    }
    for bad in [
        "limit=0",
        "limit=501",
        "limit=-1",
        "after=3",
        "limit=5&limit=6",
    ] {
        fixture.expect(400, ledger(OURS).query(bad)).await;
    }
}

#[tokio::test]
async fn every_change_and_every_refusal_is_an_event() {
    let fixture = Fixture::new().await;
    let made = fixture
        .expect(201, grant(OURS, &json!({ "units": 5 })))
        .await;
    fixture.expect(200, void(OURS, &id_of(&made))).await;
    fixture.expect(404, void(OURS, &id_of(&made))).await;
    fixture.expect(404, show(OURS).by("outsider")).await;
    fixture
        .expect(403, grant(OURS, &json!({ "units": 5 })).by("admin"))
        .await;
    fixture
        .expect(422, grant(OURS, &json!({ "units": "five" })))
        .await;
    fixture.expect(200, show(OURS)).await;
    fixture.expect(200, Ask::new("GET", "/events")).await;
    let events = fixture.log.all();
    let seen = events
        .iter()
        .filter(|event| event.action.as_str().starts_with("credit."));
    let seen: Vec<_> = seen
        .map(|event| (event.action.as_str(), event.outcome.as_str()))
        .collect();
    let expected = [
        ("credit.grant", "OK"),
        ("credit.void", "OK"),
        ("credit.void", "NOT_FOUND"),
        ("credit.read", "NOT_FOUND"),
        ("credit.grant", "FORBIDDEN"),
        ("credit.grant", "INVALID_BODY"),
    ];
    assert_eq!(seen, expected);
    let first = events
        .iter()
        .find(|event| event.action == Action::CreditGrant);
    let detail = first.unwrap().detail.as_deref().unwrap();
    assert!(
        detail.starts_with("5 units to tenant:tenant_ours (grant_"),
        "{detail}"
    );
}

#[tokio::test]
async fn a_store_of_credits_that_does_not_answer_is_503_and_grants_nothing() {
    let fixture = Fixture::new().await;
    fixture.bank.fails(true);
    for ask in [
        show(OURS),
        ledger(OURS),
        grant(OURS, &json!({ "units": 5 })),
        void(OURS, "grant_1"),
        give_back(OURS, "block_1"),
    ] {
        let answer = fixture.expect(503, ask).await;
        assert!(answer.headers.contains_key("retry-after"));
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(!body.contains("connection reset"), "{body}");
    }
    fixture.bank.fails(false);
    assert_eq!(available(&fixture, OURS).await, 0);
}

#[tokio::test]
async fn a_service_without_credits_has_no_such_paths() {
    let keys = Setup::on(MemoryStore::new())
        .bearer([crate::fixture::format()])
        .keys();
    let admin = portunus_admin::Admin::new(&keys, crate::fixture::Names);
    let router = axum::Router::new().nest(crate::fixture::NEST, admin.into_router());
    for ask in [
        show(OURS),
        ledger(OURS),
        grant(OURS, &json!({ "units": 5 })),
        void(OURS, "grant_1"),
        give_back(OURS, "block_1"),
    ] {
        let answer = send(&router, &ask).await;
        let problem = answer.json();
        assert_eq!(
            (answer.status, &problem["code"]),
            (404, &json!("NOT_FOUND")),
            "{ask:?}"
        );
    }
}

/// What a schema cannot express is left out: names of time zones, an end in the future, and that
/// only a grant that is refilled rolls over.
#[tokio::test]
async fn the_document_allows_a_grant_exactly_if_the_server_accepts_it() {
    let fixture = Fixture::new().await;
    let numbers = || {
        [
            json!(0),
            json!(1),
            json!(1.0),
            json!(1.5),
            json!(-1),
            json!(255),
            json!(256),
            json!(65_535),
            json!(65_536),
            json!(9_007_199_254_740_991_u64),
            json!(9_007_199_254_740_992_u64),
            json!(u64::MAX),
            json!(1e300),
            json!("1"),
            json!(true),
            json!([1]),
            Value::Null,
        ]
    };
    let ids = ["", "a", "a.b_C-9", "a b", "a/b", "ä", "a\u{0}"].map(|id| json!(id));
    let long = [64, 65].map(|length| json!("x".repeat(length)));
    let times = [
        "2099-01-01T00:00:00Z",
        "2099-01-01t00:00:00.5+23:59",
        "9999-12-31T23:59:59.999Z",
        "2099-02-30T00:00:00Z",
        "2099-01-01",
        "2099-01-01T00:00:00",
        "2099-01-01T24:00:00Z",
        "10000-01-01T00:00:00Z",
        "",
    ];
    let times = times.map(|time| json!(time));
    let units = ["month", "week", "day", "year", "MONTH", ""].map(|unit| json!(unit));
    let flags = [json!(false), json!("no"), json!(0), Value::Null];
    let mut bodies = vec![json!({}), json!({ "units": 1, "unit": "month" })];
    for (member, values) in [
        ("units", numbers().to_vec()),
        ("priority", numbers().to_vec()),
        ("id", [&ids[..], &long].concat()),
        ("expires_at", times.to_vec()),
        ("rolls_over", flags.to_vec()),
    ] {
        for value in values {
            let mut body = json!({ "units": 1 });
            body[member] = value;
            bodies.push(body);
        }
    }
    for (member, values) in [
        ("unit", [&units[..], &numbers()].concat()),
        ("count", numbers().to_vec()),
        ("anchor", times[..2].to_vec()),
        ("nonsense", vec![json!(1)]),
    ] {
        for value in values {
            let mut period = json!({ "unit": "day" });
            period[member] = value;
            bodies.push(json!({ "units": 1, "period": period }));
        }
    }
    let operation = fixture.document.operation("POST", "/credits/{id}/grants");
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    let mut accepted = 0;
    for (number, body) in bodies.iter().enumerate() {
        let account = format!("tenant:bounds-{number}");
        let answer = send(&fixture.router, &grant(&account, body).by("host")).await;
        assert!(matches!(answer.status, 201 | 422), "{body}");
        let faults = fixture.document.faults(schema, body);
        assert_eq!(
            answer.status == 201,
            faults.is_empty(),
            "{body}: {faults:?}"
        );
        accepted += usize::from(answer.status == 201);
    }
    assert!(accepted > 25 && bodies.len() - accepted > 40, "{accepted}");
}
