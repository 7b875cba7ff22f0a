//! Hosts that authenticate operators by a cookie, and record every write that arrives.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
    COOKIE, ORIGIN, SET_COOKIE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use portunus::key::{Alphabet, KeyFormat, KeyRecord, Owner, TenantId};
use portunus::manage::{KeyManager, NewKey, Operator, Role};
use portunus::store::{ListQuery, MemoryStore};
use portunus::{AuthError, ErrorCode};
use portunus_admin::{Admin, OperatorProof, Origin};
use portunus_test_support::Setup;

/// How long a write may take to arrive.
const PATIENCE: Duration = Duration::from_secs(20);

const SESSION: &str = "operator=olga";

fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

fn has_cookie(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(COOKIE).iter();
    let mut cookies = lines.flat_map(|line| line.to_str().unwrap().split("; "));
    cookies.any(|cookie| cookie == SESSION)
}

/// A proof that accepts a cookie, as on many hosts.
#[derive(Debug)]
struct Session;

#[async_trait]
impl OperatorProof for Session {
    async fn prove(&self, request: &Parts) -> Result<Operator, AuthError> {
        match has_cookie(&request.headers) {
            true => Ok(Operator::new(
                "olga".parse().unwrap(),
                tenant(),
                Role::Owner,
            )),
            false => Err(AuthError::new(ErrorCode::MissingKey)),
        }
    }
}

/// A write that arrived at the management API.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) status: u16,
    /// Whether it carried the operator's cookie.
    pub(crate) cookie: bool,
}

type PendingEvent = Arc<Mutex<Vec<Write>>>;

/// A host on its own port, stopped when the test ends.
pub(crate) struct Host {
    port: u16,
    manager: KeyManager,
    noted: PendingEvent,
}

impl Host {
    /// A host that trusts these origins.
    pub(crate) async fn start(trusted: &[&str]) -> Self {
        let format = KeyFormat::builder("acme_")
            .random(Alphabet::BASE62, 32)
            .build()
            .unwrap();
        let keys = Setup::on(MemoryStore::new()).bearer([format]).keys();
        let trusted = trusted
            .iter()
            .map(|origin| origin.parse::<Origin>().unwrap());
        let admin = Admin::new(&keys, Session).trusted_origins(trusted);
        let noted = PendingEvent::default();
        let app = Router::new()
            .nest("/admin", admin.into_router())
            .layer(from_fn_with_state(Arc::clone(&noted), note))
            .route(
                "/page",
                get(|| async { Html("<!doctype html><title>page</title>") }),
            )
            .route("/sign-in", get(sign_in));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            port,
            manager: keys.manager().clone(),
            noted,
        }
    }

    /// Returns its origin under this name of the machine.
    pub(crate) fn origin(&self, name: &str) -> String {
        format!("http://{name}:{}", self.port)
    }

    /// Issues a key and returns its id.
    pub(crate) async fn issue(&self) -> String {
        let new = NewKey::new("there before", Owner::tenant(tenant()));
        let issued = self.manager.issue(new).await.unwrap();
        issued.record.id.to_string()
    }

    /// Returns every key.
    pub(crate) async fn keys(&self) -> Vec<Arc<KeyRecord>> {
        let query = ListQuery::new(self.manager.now());
        let page = self.manager.list(query).await.unwrap();
        page.items.into_iter().map(|key| key.record).collect()
    }

    /// Returns the writes that arrived.
    pub(crate) fn writes(&self) -> Vec<Write> {
        self.noted.lock().unwrap().clone()
    }

    /// Clears the recorded writes.
    pub(crate) fn forget(&self) {
        self.noted.lock().unwrap().clear();
    }

    /// Waits until this many writes have arrived and were answered.
    pub(crate) async fn until_written(&self, count: usize) {
        let end = Instant::now() + PATIENCE;
        while self.writes().len() < count {
            assert!(Instant::now() < end, "no write: {:?}", self.writes());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn sign_in(RawQuery(attributes): RawQuery) -> impl IntoResponse {
    let attributes = attributes.unwrap_or_default().replace("%3B%20", "; ");
    let cookie = format!("{SESSION}; Path=/; HttpOnly{attributes}");
    (
        [(SET_COOKIE, cookie)],
        Html("<!doctype html><title>signed in</title>"),
    )
}

/// Records writes, and allows every origin to send anything and to read the responses.
async fn note(State(noted): State<PendingEvent>, request: Request, next: Next) -> Response {
    let asked = request.headers().clone();
    let (method, cookie) = (request.method().clone(), has_cookie(&asked));
    let preflight = method == Method::OPTIONS;
    let mut response = match preflight {
        true => ().into_response(),
        false => next.run(request).await,
    };
    if !preflight && !method.is_safe() {
        let status = response.status().as_u16();
        noted.lock().unwrap().push(Write { status, cookie });
    }
    let headers = response.headers_mut();
    for (said, answered) in [
        (ORIGIN, ACCESS_CONTROL_ALLOW_ORIGIN),
        (ACCESS_CONTROL_REQUEST_METHOD, ACCESS_CONTROL_ALLOW_METHODS),
        (ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_ALLOW_HEADERS),
    ] {
        if let Some(value) = asked.get(said) {
            headers.insert(answered, value.clone());
        }
    }
    headers.insert(
        ACCESS_CONTROL_ALLOW_CREDENTIALS,
        HeaderValue::from_static("true"),
    );
    response
}
