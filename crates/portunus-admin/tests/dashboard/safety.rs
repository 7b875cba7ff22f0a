//! Who may open pages and send forms.

use portunus::ErrorCode;
use portunus::audit::AuditOutcome;

use crate::browser::Page;
use crate::fixture::Fixture;

fn policy(page: &Page) -> &str {
    page.headers["content-security-policy"].to_str().unwrap()
}

#[tokio::test]
async fn without_an_operator_nothing_is_shown_and_the_failure_is_recorded() {
    let fixture = Fixture::new();
    let (id, _) = fixture.issue("hidden").await;
    let mut browser = fixture.browser();
    for session in [None, Some("nobody-1")] {
        browser.session = session.map(str::to_owned);
        for query in [
            "",
            "?page=issue",
            &format!("?page=key&id={id}"),
            "?page=nothing",
        ] {
            let page = browser.get(&format!("/keys{query}")).await.expect(401);
            assert!(page.headers.contains_key("www-authenticate"));
            assert!(
                !page.has("hidden") && !page.has("<form") && !page.has("<nav"),
                "{query}"
            );
        }
    }
    let refused = |code| AuditOutcome::Refused(code);
    let events = fixture.events().await;
    let count = |code| {
        events
            .iter()
            .filter(|event| event.outcome == refused(code))
            .count()
    };
    assert_eq!(
        (count(ErrorCode::MissingKey), count(ErrorCode::InvalidKey)),
        (4, 4)
    );
}

#[tokio::test]
async fn a_reader_is_sent_to_the_login_and_a_form_is_not() {
    let fixture = Fixture::new();
    let dashboard = fixture.admin().dashboard().login_at("/login?then=keys");
    let mut browser = fixture.at("/keys", dashboard.logout_at("/logout"));
    let page = browser.get("/keys?page=issue").await.expect(200);
    assert!(page.has("action=\"/logout\""));
    let form = page.form();
    browser.session = None;
    let answer = browser.get("/keys?page=issue").await.expect(303);
    assert_eq!(answer.headers["location"], "/login?then=keys");
    let refused = browser.post(&page, &form).await.expect(401);
    assert_eq!(refused.link("Sign in"), "/login?then=keys");
    let events = fixture.events().await;
    assert_eq!(
        events
            .iter()
            .filter(|event| event.outcome != AuditOutcome::Ok)
            .count(),
        2
    );
}

#[tokio::test]
async fn an_operator_who_manages_no_keys_is_refused_with_the_code() {
    let fixture = Fixture::new();
    let page = fixture
        .browser()
        .signed_in("member-1")
        .get("/keys")
        .await
        .expect(403);
    assert!(page.has("FORBIDDEN"));
}

#[tokio::test]
async fn forms_from_other_sites_are_refused_before_the_proof() {
    let fixture = Fixture::new();
    let browser = fixture.browser();
    let page = browser.get("/keys?page=issue").await;
    let form = page.form().enter("name", "forged");
    for (origin, site) in [
        ("https://evil.example", "cross-site"),
        ("https://keys.example:8443", "same-site"),
        ("null", "cross-site"),
    ] {
        let head = axum::http::Request::post("/keys?page=issue")
            .header("host", "keys.example")
            .header("cookie", "session=owner-1")
            .header("origin", origin)
            .header("sec-fetch-site", site)
            .header("content-type", "application/x-www-form-urlencoded");
        let refused = browser
            .request(head, "/keys", form.encoded())
            .await
            .expect(403);
        assert!(refused.has("CROSS_SITE"), "{origin}");
    }
    assert!(!browser.get("/keys").await.has("forged"));
}

#[tokio::test]
async fn a_form_needs_the_token_of_its_session() {
    let fixture = Fixture::new();
    let browser = fixture.browser();
    let page = browser.get("/keys?page=issue").await;
    let form = page.form().enter("name", "forged");
    let other = fixture
        .browser()
        .signed_in("owner-2")
        .get("/keys?page=issue")
        .await;
    let others = other.form().value("token").to_owned();
    let own = form.value("token").to_owned();
    assert_eq!(own.len(), 64);
    let longer = format!("{own}00");
    let wrong = ["", "x", &others, &own[..62], &longer, &"é".repeat(32)];
    for token in wrong {
        let refused = browser
            .post(&page, &form.clone().enter("token", token))
            .await
            .expect(403);
        assert!(refused.has("earlier session"), "{token}");
        let again = refused.form();
        assert_eq!(
            (again.value("name"), again.value("token")),
            ("forged", &*own)
        );
    }
    assert!(!browser.get("/keys").await.has("forged"));
    // A reload on another node, where nothing of this session is known.
    let node = fixture.browser();
    node.post(&page, &form).await.expect(200);
}

#[tokio::test]
async fn only_forms_of_a_bounded_size_are_read() {
    let fixture = Fixture::new();
    let browser = fixture.browser();
    let page = browser.get("/keys?page=issue").await;
    let form = page.form();
    let head = || browser.head("POST", "/keys?page=issue");
    for media in [
        "application/json",
        "text/plain",
        "multipart/form-data; boundary=x",
    ] {
        let head = head().header("content-type", media);
        browser
            .request(head, "/keys", form.encoded())
            .await
            .expect(415);
    }
    let form_type = |head: axum::http::request::Builder| {
        head.header("content-type", "application/x-www-form-urlencoded")
    };
    let long = form.clone().enter("description", &"x".repeat(1_100_000));
    browser
        .request(form_type(head()), "/keys", long.encoded())
        .await
        .expect(413);
    browser
        .request(form_type(head()), "/keys", "a=1&".repeat(5000))
        .await
        .expect(400);
    let odd = "token=%ff%fe&name=%&=&&%3d=%00&page=key";
    browser
        .request(form_type(head()), "/keys", odd.to_owned())
        .await
        .expect(403);
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = browser
            .request(browser.head(method, "/keys"), "/keys", String::new())
            .await;
        assert_eq!(answer.expect(405).headers["allow"], "GET, HEAD, POST");
    }
}

#[tokio::test]
async fn every_page_has_a_strict_policy_with_a_new_nonce() {
    let fixture = Fixture::new();
    let (id, _) = fixture.issue("key").await;
    let browser = fixture.browser();
    let mut nonces = std::collections::BTreeSet::new();
    let pages = [
        "",
        "?page=issue",
        &format!("?page=key&id={id}"),
        "?page=key&id=x",
        "?page=none",
    ];
    for query in pages {
        let page = browser.get(&format!("/keys{query}")).await;
        let policy = policy(&page);
        for part in [
            "default-src 'none'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        let nonce = policy
            .split("'nonce-")
            .nth(1)
            .unwrap()
            .split('\'')
            .next()
            .unwrap();
        assert_eq!(page.body.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
        assert!(nonces.insert(nonce.to_owned()), "used before");
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            // With `no-referrer`, browsers send `Origin: null` with forms.
            ("referrer-policy", "same-origin"),
        ] {
            assert_eq!(page.headers[name], value);
        }
    }
}

#[tokio::test]
async fn the_host_sets_the_nonce_and_who_may_frame_the_pages() {
    let fixture = Fixture::new();
    let given = |nonce: &'static str| {
        let dashboard = fixture
            .admin()
            .dashboard()
            .nonce(move |_| Some(nonce.to_owned()));
        let site = "https://portal.example".parse().unwrap();
        fixture.at("/keys", dashboard.frame_ancestors([site]))
    };
    let page = given("aG9zdA==").get("/keys").await;
    assert!(
        policy(&page).contains("script-src 'nonce-aG9zdA=='") && page.has("nonce=\"aG9zdA==\"")
    );
    assert!(policy(&page).ends_with("frame-ancestors https://portal.example"));
    assert!(!page.headers.contains_key("x-frame-options"));
    for nonce in ["", "x' 'unsafe-inline", "a;b", "\"><script>"] {
        let page = given(nonce).get("/keys").await.expect(200);
        assert!(
            !policy(&page).contains("unsafe") && !page.has("<script>"),
            "{nonce}"
        );
        assert!(!policy(&page).contains("'nonce-'"));
    }
}

#[tokio::test]
async fn refused_actions_are_recorded_with_the_operator() {
    let fixture = Fixture::new();
    let (id, _) = fixture.issue("key").await;
    let browser = fixture.browser();
    let page = browser.action("revoke", &id).await;
    browser.post(&page, &page.form()).await.expect(422);
    let events = fixture.events().await;
    let last = events.last().unwrap();
    assert_eq!(last.action.as_str(), "key.revoke");
    assert_eq!(last.route.as_deref(), Some("/?page=revoke"));
    assert_eq!(last.outcome, AuditOutcome::Refused(ErrorCode::InvalidBody));
    assert_eq!(
        last.actor
            .as_ref()
            .unwrap()
            .user_id
            .as_ref()
            .unwrap()
            .as_str(),
        "owner"
    );
}
