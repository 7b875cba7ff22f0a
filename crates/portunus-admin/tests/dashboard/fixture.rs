//! A service with a dashboard, whose operators have sessions.

use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::http::header::COOKIE;
use axum::http::request::Parts;
use portunus::audit::{AuditEvent, AuditTrail, MemoryAudit};
use portunus::key::{
    Alphabet, DigestScheme, Environment, KeyDigest, KeyFormat, KeyId, KeyRecord, TenantId, UserId,
    WorkspaceId,
};
use portunus::manage::{IssueRules, Operator, Role, own_keys};
use portunus::scope::Vocabulary;
use portunus::store::{Change, KeyStore, UsageDelta, UsageStore, WriteBatch};
use portunus::testing::{FaultyStore, ManualClock};
use portunus::{AuthError, Clock, ErrorCode, Portunus, Scope};
use portunus_admin::{Admin, Dashboard, OperatorProof};
use portunus_test_support::Setup;

use crate::browser::{Browser, Page};

/// Where the dashboard is.
pub(crate) const MOUNT: &str = "/keys";

/// Sessions are named `operator-number`.
#[derive(Debug)]
pub(crate) struct Sessions;

#[async_trait]
impl OperatorProof for Sessions {
    async fn prove(&self, request: &Parts) -> Result<Operator, AuthError> {
        let missing = AuthError::new(ErrorCode::MissingKey);
        let cookie = request.headers.get(COOKIE).ok_or(missing.clone())?;
        let pairs = cookie.to_str().unwrap().split("; ");
        let mut sessions = pairs.filter_map(|pair| pair.strip_prefix("session="));
        let session = sessions.next().ok_or(missing)?;
        let (name, tenant) = match session.split('-').next().unwrap() {
            "host" => return Ok(Operator::host()),
            "outsider" => ("outsider", "theirs"),
            name @ ("owner" | "admin" | "ann" | "member") => (name, "ours"),
            _ => return Err(AuthError::new(ErrorCode::InvalidKey)),
        };
        let (user, tenant) = (UserId::new(name).unwrap(), TenantId::new(tenant).unwrap());
        let scope = |name| Scope::new(name).unwrap();
        Ok(match name {
            "admin" => Operator::new(user, tenant, Role::Admin)
                .with_authority([scope("document:read")])
                .in_workspaces([WorkspaceId::new("ws1").unwrap()]),
            "ann" | "member" => Operator::new(user, tenant, Role::Member)
                .with_email("ann@ours.example")
                .with_authority([scope("document:read")])
                .in_organization(),
            _ => Operator::new(user, tenant, Role::Owner)
                .with_authority([scope("*")])
                .in_organization(),
        })
    }
}

pub(crate) struct Fixture {
    pub(crate) keys: Portunus,
    pub(crate) clock: ManualClock,
    pub(crate) log: MemoryAudit,
    pub(crate) store: FaultyStore,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with(Setup::keys)
    }

    /// A service that is configured further.
    pub(crate) fn with(build: impl FnOnce(Setup) -> Portunus) -> Self {
        let (clock, log, store) = (
            ManualClock::new(),
            MemoryAudit::new(100_000),
            FaultyStore::new(),
        );
        let trail = AuditTrail::builder().sink(log.clone()).build();
        let flushed = trail.clone();
        tokio::spawn(async move {
            loop {
                flushed.flush_requested().await;
                let _ = flushed.flush().await;
            }
        });
        let environments = ["live", "test"].map(|name| Environment::new(name).unwrap());
        let format = KeyFormat::builder("acme_")
            .environment("live", environments[0].clone())
            .environment("test", environments[1].clone())
            .random(Alphabet::BASE62, 32)
            .build()
            .unwrap();
        let mut rules = IssueRules::default();
        rules.rotate_every = Some(Duration::from_secs(90 * 86_400));
        let names = ["document:read", "document:write", "user:read"];
        let vocabulary: Vocabulary = names.iter().map(|name| Scope::new(name).unwrap()).collect();
        let setup = Setup::on(store.clone())
            .bearer([format])
            .environments(environments)
            .vocabulary(vocabulary)
            .rules(rules)
            .clock(clock.clone())
            .audit(trail);
        Self {
            keys: build(setup),
            clock,
            log,
            store,
        }
    }

    pub(crate) fn admin(&self) -> Admin {
        Admin::new(&self.keys, Sessions)
            .events(self.log.clone())
            .cookie("session")
    }

    pub(crate) fn at(&self, mount: &str, dashboard: Dashboard) -> Browser {
        let router = match mount {
            "/" => dashboard.into_router(),
            mount => Router::new().nest_service(mount, dashboard.into_router::<()>()),
        };
        Browser {
            router,
            session: Some("owner-1".to_owned()),
            stripped: "",
        }
    }

    pub(crate) fn browser(&self) -> Browser {
        self.at(MOUNT, self.admin().dashboard())
    }

    /// The portal, with the session of a user.
    pub(crate) fn portal(&self) -> Browser {
        let portal = self.admin().operators(own_keys()).dashboard();
        self.at(MOUNT, portal).signed_in("ann-1")
    }

    /// Issues a key on the dashboard; returns its id and secret.
    pub(crate) async fn issue(&self, name: &str) -> (String, String) {
        self.clock.advance(Duration::from_secs(1));
        let browser = self.browser();
        let page = browser.get("/keys?page=issue").await.expect(200);
        let form = page.form().enter("name", name);
        let issued = browser.submit(&page, &form).await.expect(200);
        (
            id_in(&issued.link("I have stored it")),
            issued.secret().unwrap(),
        )
    }

    /// Returns the record of a key.
    pub(crate) async fn record(&self, id: &str) -> KeyRecord {
        let id = KeyId::new(id).unwrap();
        (*self.store.get(&id).await.unwrap().unwrap()).clone()
    }

    /// Stores the record of a key with changes.
    pub(crate) async fn change(&self, id: &str, change: impl FnOnce(&mut KeyRecord)) {
        let mut record = self.record(id).await;
        change(&mut record);
        let update = WriteBatch::new().update(record);
        self.store.inner().apply(&update).await.unwrap();
    }

    /// Whether a request with the key passes.
    pub(crate) async fn works(&self, secret: &str) -> bool {
        let head = axum::http::Request::get("/")
            .header("authorization", format!("Bearer {secret}"))
            .body(())
            .unwrap();
        let head = portunus::adapter::tower::HttpHead::new(&head, None);
        self.keys.authenticator().authenticate(&head).await.is_ok()
    }

    /// Inserts a record of an earlier version into the store.
    pub(crate) async fn keep(&self, number: u8, record: KeyRecord) {
        let digest = KeyDigest::new(DigestScheme::Sha256, [number; 32]);
        let record = Box::new(record);
        let insert = WriteBatch::new().change(Change::Insert { digest, record });
        self.store.inner().apply(&insert).await.unwrap();
    }

    pub(crate) async fn used(&self, id: &str, times: u64) {
        let at = self.clock.now();
        let delta = UsageDelta::new(KeyId::new(id).unwrap(), times, at, None);
        self.store.record_usage(&[delta]).await.unwrap();
    }

    /// Returns all events that are recorded.
    pub(crate) async fn events(&self) -> Vec<AuditEvent> {
        self.keys
            .authenticator()
            .audit()
            .unwrap()
            .flush()
            .await
            .unwrap();
        self.log.all()
    }
}

impl Browser {
    pub(crate) fn signed_in(mut self, session: &str) -> Self {
        self.session = Some(session.to_owned());
        self
    }

    pub(crate) async fn key(&self, id: &str) -> Page {
        self.get(&format!("{MOUNT}?page=key&id={id}")).await
    }

    /// Opens the page of an action on a key.
    pub(crate) async fn action(&self, page: &str, id: &str) -> Page {
        self.get(&format!("{MOUNT}?page={page}&id={id}")).await
    }
}

/// Returns the id in a reference.
pub(crate) fn id_in(reference: &str) -> String {
    let (_, id) = reference.split_once("id=").expect("an id");
    id.split('&').next().unwrap().to_owned()
}
