//! The real router over a store that can fail, with operators of every role, and a client for it.

use portunus::store::UsageStore;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Request};
use http_body_util::BodyExt;
use portunus::actor::{Directory, DirectoryError, User, UserRef};
use portunus::audit::{
    AuditError, AuditEvent, AuditReader, AuditTrail, EventPage, EventQuery, MemoryAudit,
};
use portunus::credit::{CreditAccount, Credits};
use portunus::key::{
    Alphabet, DigestScheme, Environment, KeyDigest, KeyFormat, KeyId, KeyRecord, PlanName,
    TenantId, UserId, WorkspaceId,
};
use portunus::limit::Plan;
use portunus::manage::{ByRole, Denied, IssueRules, Operator, OperatorPolicy, Role, own_keys};
use portunus::quota::{Quota, Quotas};
use portunus::store::{Change, KeyStore, ListQuery, Rejected, StoreError, UsageDelta, WriteBatch};
use portunus::testing::{Call, FaultyStore, ManualClock, Point};
use portunus::{AuthError, ErrorCode, Limits, Scope};
use portunus_admin::{Admin, OperatorProof, Origin};
use portunus_test_support::credits::FaultyCredits;
use portunus_test_support::{Head, Setup};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::document::Document;

pub(crate) const NEST: &str = "/operators/keys-api";

/// The sites whose pages may write.
pub(crate) const TRUSTED: [&str; 2] = ["https://console.example", "http://[::1]:3000"];

/// The health of the store and the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    Well,
    /// The store is unavailable.
    Down,
    /// Every write loses against a concurrent one.
    Contended,
}

/// The audit log; it fails when unhealthy.
#[derive(Debug, Clone)]
struct Log {
    kept: MemoryAudit,
    down: Arc<AtomicBool>,
}

#[async_trait]
impl AuditReader for Log {
    async fn events(&self, query: &EventQuery) -> Result<EventPage, AuditError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(AuditError::unavailable("connection reset"));
        }
        self.kept.events(query).await
    }
}

/// The usual policy, except that owners change the credits of their tenant.
#[derive(Debug)]
struct OwnersGrant;

impl OperatorPolicy for OwnersGrant {
    fn admits(&self, operator: &Operator) -> Result<(), Denied> {
        ByRole::new().admits(operator)
    }

    fn allows(
        &self,
        operator: &Operator,
        action: portunus::audit::Action,
        key: &KeyRecord,
    ) -> Result<(), Denied> {
        ByRole::new().allows(operator, action, key)
    }

    fn lists(&self, operator: &Operator, query: ListQuery) -> Result<ListQuery, Denied> {
        ByRole::new().lists(operator, query)
    }

    fn allows_credits(
        &self,
        operator: &Operator,
        action: portunus::audit::Action,
        account: &CreditAccount,
    ) -> Result<(), Denied> {
        match operator.role() {
            Role::Owner => Ok(()),
            _ => ByRole::new().allows_credits(operator, action, account),
        }
    }
}

/// A proof that accepts names, and refuses with a code that is named.
#[derive(Debug)]
pub(crate) struct Names;

#[async_trait]
impl OperatorProof for Names {
    async fn prove(&self, request: &Parts) -> Result<Operator, AuthError> {
        let value = request
            .headers
            .get("authorization")
            .ok_or(AuthError::new(ErrorCode::MissingKey))?;
        let name = value
            .to_str()
            .ok()
            .and_then(|value| value.strip_prefix("Bearer "));
        let name = name.ok_or(AuthError::new(ErrorCode::InvalidRequest))?;
        if let Some(code) = name.strip_prefix("refused:") {
            return Err(AuthError::new(code.parse().unwrap()));
        }
        let ours = TenantId::new("tenant_ours").unwrap();
        let user = || UserId::new(name).unwrap();
        let operator = match name {
            "owner" => Operator::new(user(), ours, Role::Owner),
            "admin" => Operator::new(user(), ours, Role::Admin)
                .in_workspaces([WorkspaceId::new("ws1").unwrap()]),
            "member" => Operator::new(user(), ours, Role::Member),
            "outsider" => {
                Operator::new(user(), TenantId::new("tenant_theirs").unwrap(), Role::Owner)
            }
            "crowded" => Operator::new(
                user(),
                TenantId::new("tenant_crowded").unwrap(),
                Role::Owner,
            ),
            "host" => return Ok(Operator::host()),
            // A user of the directory, and one that it does not know.
            "u1" | "ann" => {
                return Ok(Operator::new(user(), ours, Role::Member)
                    .with_authority(["document:read", "user:*"].map(|s| Scope::new(s).unwrap()))
                    .with_email(format!("{name}@ours.example"))
                    .in_organization());
            }
            _ => return Err(AuthError::new(ErrorCode::InvalidKey)),
        };
        Ok(operator.with_authority([Scope::new("*").unwrap()]))
    }
}

/// Users of the test tenant, and one of another tenant.
#[derive(Debug)]
struct People;

#[async_trait]
impl Directory for People {
    async fn resolve(
        &self,
        asking: &TenantId,
        named: &UserRef,
    ) -> Result<Option<Arc<User>>, DirectoryError> {
        let UserRef::Id(id) = named else {
            return Ok(None);
        };
        let of = match id.as_str() {
            "u1" | "two-keys" => "tenant_ours",
            "u9" => "tenant_theirs",
            _ => return Ok(None),
        };
        let user = User::new(id.clone(), TenantId::new(of).unwrap());
        Ok((of == asking.as_str()).then(|| Arc::new(user)))
    }

    /// Every tenant has the same plan.
    async fn plan(&self, _: &TenantId) -> Result<Option<PlanName>, DirectoryError> {
        Ok(Some(PlanName::new("standard_1").unwrap()))
    }
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: String,
    /// The path in the document.
    pub(crate) template: String,
    /// The requested path and query, below the nest.
    pub(crate) path: String,
    pub(crate) operator: Option<String>,
    pub(crate) headers: Vec<(&'static str, Vec<u8>)>,
    pub(crate) body: Option<Vec<u8>>,
}

impl Ask {
    /// A request by the owner.
    pub(crate) fn new(method: &str, template: &str) -> Self {
        Self {
            method: method.to_uppercase(),
            template: template.to_owned(),
            path: template.to_owned(),
            operator: Some("owner".to_owned()),
            headers: Vec::new(),
            body: None,
        }
    }

    pub(crate) fn by(mut self, operator: &str) -> Self {
        self.operator = Some(operator.to_owned());
        self
    }

    pub(crate) fn by_nobody(mut self) -> Self {
        self.operator = None;
        self
    }

    /// Sets the key's id, which is inserted into the path unchanged.
    pub(crate) fn of(mut self, id: &str) -> Self {
        self.path = self.template.replace("{id}", id);
        self
    }

    /// Sets the id of a grant or a block.
    pub(crate) fn part(mut self, id: &str) -> Self {
        let path = self.path.replace("{grant}", id);
        self.path = path.replace("{block}", id);
        self
    }

    pub(crate) fn query(mut self, query: &str) -> Self {
        self.path = format!("{}?{query}", self.path);
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name, value.as_ref().to_vec()));
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.raw(body.to_string())
    }

    pub(crate) fn raw(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(crate) struct Fixture {
    pub(crate) router: Router,
    /// A fixture for operators who have used up their failure quota.
    pub(crate) limited: Router,
    /// The API for self-serve.
    pub(crate) own: Router,
    pub(crate) document: Document,
    pub(crate) clock: ManualClock,
    pub(crate) log: MemoryAudit,
    store: FaultyStore,
    down: Arc<AtomicBool>,
    pub(crate) bank: FaultyCredits,
    pub(crate) keys: portunus::Portunus,
}

fn environments() -> [Environment; 2] {
    ["live", "test"].map(|name| Environment::new(name).unwrap())
}

pub(crate) fn format() -> KeyFormat {
    let [live, test] = environments();
    KeyFormat::builder("acme_")
        .environment("live", live)
        .environment("test", test)
        .random(Alphabet::BASE62, 32)
        .build()
        .unwrap()
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::limiting(Quotas::default()).await
    }

    /// A fixture whose keys have these default limits.
    pub(crate) async fn limiting(quotas: Quotas) -> Self {
        let (clock, log, store) = (
            ManualClock::new(),
            MemoryAudit::new(100_000),
            FaultyStore::new(),
        );
        store.answer_late(1);
        let trail = AuditTrail::builder().sink(log.clone()).build();
        let flushed = trail.clone();
        tokio::spawn(async move {
            loop {
                flushed.flush_requested().await;
                let _ = flushed.flush().await;
            }
        });
        let mut rules = IssueRules::default();
        rules.rotate_every = Some(Duration::from_secs(90 * 86_400));
        let keys = Setup::on(store.clone())
            .bearer([format()])
            .environments(environments())
            .policy(OwnersGrant)
            .rules(rules)
            .active_keys_of(|tenant| (tenant.as_str() == "tenant_crowded").then_some(2))
            .limits(Limits::from(quotas).plan(Plan::new("standard_1", [])))
            .directory(People)
            .clock(clock.clone())
            .audit(trail);
        let (kept, down) = (log.clone(), Arc::new(AtomicBool::new(false)));
        let bank = FaultyCredits::down_with(Arc::clone(&down));
        // The requests of these tests cost nothing.
        let credits = Credits::per_tenant(bank.clone()).cost(|_| 0);
        let keys = keys.builder().credits(credits).build().unwrap();
        let reader = Log {
            kept,
            down: Arc::clone(&down),
        };
        let admin = |quota: u64| {
            let quotas = Quotas::new([Quota::per_minute(quota).unwrap()]).unwrap();
            let trusted = TRUSTED.map(|origin| origin.parse::<Origin>().unwrap());
            Admin::new(&keys, Names)
                .trusted_origins(trusted)
                .events(reader.clone())
                .quotas(Some(quotas))
        };
        let router = Router::new().nest(NEST, admin(1_000_000).into_router());
        let limited = Router::new().nest(NEST, admin(1).into_router());
        let own = admin(1_000_000).operators(own_keys()).cookie("session");
        let own = Router::new().nest(NEST, own.into_router());
        let used_up = Ask::new("GET", "/keys");
        send(&limited, &used_up).await;
        let document = Document::new(
            send(&router, &Ask::new("GET", "/openapi.json"))
                .await
                .json(),
        );
        Self {
            router,
            limited,
            own,
            document,
            clock,
            log,
            store,
            down,
            bank,
            keys,
        }
    }

    /// Lets a node take 5 units of this tenant's credits, use 1, and crash; two minutes later, they
    /// may be given back. Returns the id of the block.
    pub(crate) async fn abandoned_block(&self) -> String {
        let block = self.taken_block().await;
        self.clock.advance(Duration::from_secs(121));
        block
    }

    /// Lets a node take 5 units, use 1, and crash.
    pub(crate) async fn taken_block(&self) -> String {
        let (_, secret) = self.key(json!({ "name": "pays" })).await;
        let account = CreditAccount::Tenant(TenantId::new("tenant_ours").unwrap());
        let grant = portunus::credit::NewGrant::new(5);
        let manager = self.keys.manager();
        manager.grant_credits(&account, grant).await.unwrap();
        let credits = Credits::per_tenant(self.bank.clone());
        let node = Setup::on(self.store.clone())
            .bearer([format()])
            .environments(environments())
            .clock(self.clock.clone())
            .builder()
            .credits(credits.block(5.try_into().unwrap()))
            .build()
            .unwrap();
        let request = node.authenticator();
        request.authenticate(&Head::bearer(&secret)).await.unwrap();
        let taken = manager.credits(&account).await.unwrap().taken;
        taken.last().unwrap().id.to_string()
    }

    /// Sets the health of the store.
    pub(crate) fn feel(&self, mood: Health) {
        self.store.recover();
        self.down.store(mood == Health::Down, Ordering::SeqCst);
        let id = KeyId::new("key_contended").unwrap();
        let (expected, stored) = (1, 2);
        match mood {
            Health::Well => {}
            Health::Down => self.store.fail_all(),
            Health::Contended => self.store.fail_with(Point::Before(Call::Apply), move || {
                let id = id.clone();
                StoreError::rejected(Rejected::Version {
                    id,
                    expected,
                    stored,
                })
            }),
        }
    }

    /// Sends a request, and asserts that the response is documented and has this status.
    pub(crate) async fn expect(&self, status: u16, ask: Ask) -> Answer {
        let answer = self.ask(&ask).await;
        let (asked, body) = (ask.body.as_deref().unwrap_or_default(), &answer.body);
        let (asked, body) = (
            String::from_utf8_lossy(asked),
            String::from_utf8_lossy(body),
        );
        assert_eq!(
            answer.status, status,
            "{} {} {asked}: {body}",
            ask.method, ask.path
        );
        answer
    }

    /// Sends a request, and asserts that the response is documented.
    pub(crate) async fn ask(&self, ask: &Ask) -> Answer {
        let answer = send(&self.router, ask).await;
        self.document.check(ask, &answer);
        answer
    }

    /// Issues a key of the test tenant, and returns its id and its secret.
    pub(crate) async fn key(&self, body: Value) -> (String, String) {
        self.clock.advance(Duration::from_secs(1));
        let answer = self
            .expect(201, Ask::new("POST", "/keys").json(&body))
            .await
            .json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&answer["record"]["id"]), text(&answer["key"]))
    }

    /// Issues a key with default settings, and returns its id.
    pub(crate) async fn plain(&self) -> String {
        self.key(json!({ "name": "plain" })).await.0
    }

    /// Returns every key of the test tenant as the host sees it.
    pub(crate) async fn keys(&self) -> Value {
        let all = Ask::new("GET", "/keys").query("limit=500");
        send(&self.router, &all).await.json()
    }

    pub(crate) async fn used(&self, id: &str, times: u64) {
        let ip = "2001:db8::7".parse().ok();
        let delta = UsageDelta::new(
            KeyId::new(id).unwrap(),
            times,
            portunus::Clock::now(&self.clock),
            ip,
        );
        self.store.record_usage(&[delta]).await.unwrap();
    }

    /// Returns the bulk operations that have not ended.
    pub(crate) async fn open_operations(&self) -> Vec<portunus::store::BulkOperation> {
        self.store.open_bulk_operations().await.unwrap()
    }

    /// Adds an event to the log.
    pub(crate) async fn note(&self, event: AuditEvent) {
        self.note_all(&[event]).await;
    }

    pub(crate) async fn note_all(&self, events: &[AuditEvent]) {
        portunus::audit::AuditSink::record(&self.log, events)
            .await
            .unwrap();
    }

    /// Makes the row of this key unreadable.
    pub(crate) fn spoil(&self, id: &str) {
        self.store.spoil(&KeyId::new(id).unwrap());
    }

    /// Inserts a key into the store.
    pub(crate) async fn keep(&self, number: u64, record: KeyRecord) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        let digest = KeyDigest::new(DigestScheme::Sha256, bytes);
        let record = Box::new(record);
        let insert = WriteBatch::new().change(Change::Insert { digest, record });
        self.store.inner().apply(&insert).await.unwrap();
    }
}

/// Sends a request to the router and returns the response.
pub(crate) async fn send(router: &Router, ask: &Ask) -> Answer {
    let mut request = Request::builder()
        .method(ask.method.as_str())
        .uri(format!("{NEST}{}", ask.path));
    if let Some(operator) = &ask.operator {
        request = request.header("authorization", format!("Bearer {operator}"));
    }
    let typed = ask.headers.iter().any(|(name, _)| *name == "content-type");
    if ask.body.is_some() && !typed {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in &ask.headers {
        request = request.header(*name, value.as_slice());
    }
    let request = request
        .body(ask.body.clone().map_or_else(Body::empty, Body::from))
        .unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
    }
}
