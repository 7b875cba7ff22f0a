//! A small site on either framework, whose dashboard can be anywhere, and whose clock the tests set. It has
//! the pages that the demo lacks, too: of the chain of events, for its host, and of a portal within a
//! page of the site.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use actix_web::{App, HttpServer};
use async_trait::async_trait;
use axum::extract::Path;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::request::Parts;
use axum::response::Html;
use axum::{Json, Router, routing};
use portunus::adapter::axum::{ProtectedRouter, get, post};
use portunus::audit::{AuditTrail, JsonLines, MemoryAudit};
use portunus::key::{
    Alphabet, DigestScheme, Environment, KeyDigest, KeyFormat, KeyId, KeyRecord, Owner, TenantId,
};
use portunus::manage::{IssueRules, NewKey, Operator, Role, own_keys};
use portunus::scope::Vocabulary;
use portunus::store::{Change, KeyStore, MemoryStore, WriteBatch};
use portunus::testing::ManualClock;
use portunus::{AuthError, ErrorCode, KeyPrincipal, Portunus, Principal, Requirement, Scope};
use portunus_admin::{ActixMount, Admin, Fragment, OperatorProof};
use portunus_test_support::Setup;
use portunus_test_support::browser::Browser;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::common::{Answer, Call, exchange, read_answer};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framework {
    Axum,
    Actix,
}

pub(crate) const FRAMEWORKS: [Framework; 2] = [Framework::Axum, Framework::Actix];

/// The value of the cookie is `host`, or the name of an owner of the tenant.
#[derive(Debug)]
struct Sessions;

#[async_trait]
impl OperatorProof for Sessions {
    async fn prove(&self, request: &Parts) -> Result<Operator, AuthError> {
        let cookie = request.headers.get(COOKIE);
        let cookie = cookie.and_then(|cookie| cookie.to_str().ok()?.strip_prefix("session="));
        if cookie == Some("host") {
            return Ok(Operator::host());
        }
        let user = cookie.and_then(|name| name.parse().ok());
        let user = user.ok_or(AuthError::new(ErrorCode::MissingKey))?;
        let scopes = [Scope::new("*").unwrap()];
        let operator = Operator::new(user, tenant(), Role::Owner).with_authority(scopes);
        Ok(operator.in_organization())
    }
}

fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    pub(crate) clock: ManualClock,
    mount: &'static str,
    store: MemoryStore,
    keys: Portunus,
    runtime: Runtime,
    _folder: TempDir,
}

impl Site {
    /// Serves the dashboard under this path.
    pub(crate) fn start(framework: Framework, mount: &'static str) -> Self {
        let (clock, store, log) = (
            ManualClock::new(),
            MemoryStore::new(),
            MemoryAudit::new(10_000),
        );
        let runtime = Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let chain = folder.path().join("audit.jsonl");
        let lines = JsonLines::open(&chain, None).unwrap();
        let trail = AuditTrail::builder().sink(log.clone()).sink(lines).build();
        let flushed = trail.clone();
        runtime.spawn(async move {
            loop {
                flushed.flush_requested().await;
                let _ = flushed.flush().await;
            }
        });
        let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32);
        let mut rules = IssueRules::default();
        rules.sign_events = true;
        let names = ["document:read", "document:write"];
        let vocabulary: Vocabulary = names.iter().map(|name| Scope::new(name).unwrap()).collect();
        let keys = Setup::on(store.clone())
            .bearer([format.build().unwrap()])
            .vocabulary(vocabulary)
            .rules(rules)
            .clock(clock.clone())
            .audit(trail)
            .keys();
        let admin = Admin::new(&keys, Sessions).events(log).cookie("session");
        let dashboard = admin.dashboard().audit_chain(chain, None);
        let dashboard = dashboard.into_router::<()>();
        let portal = Admin::new(&keys, Sessions).operators(own_keys());
        let portal = portal.cookie("session").dashboard().within(account);
        let site = Router::new()
            .route("/sign-in/{name}", routing::get(sign_in))
            .nest_service("/account/keys", portal.into_router::<()>())
            .merge(api(&keys));
        let site = match mount {
            "/" => site.fallback_service(dashboard),
            mount => site.nest_service(mount, dashboard),
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        match framework {
            Framework::Axum => on_axum(&runtime, listener, site),
            Framework::Actix => on_actix(listener, site),
        }
        Self {
            address,
            clock,
            mount,
            store,
            keys,
            runtime,
            _folder: folder,
        }
    }

    /// Returns an address of the site, as browsers see it.
    pub(crate) fn at(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns the address of the page that signs an operator in.
    pub(crate) fn sign_in(&self, name: &str) -> String {
        self.at(&format!("/sign-in/{name}"))
    }

    /// Returns the address of the dashboard.
    pub(crate) fn dashboard(&self) -> String {
        self.at(self.mount)
    }

    /// Issues a key of the tenant.
    pub(crate) fn issue(&self, name: &str) -> String {
        let new = NewKey::new(name, Owner::tenant(tenant()));
        let issued = self.runtime.block_on(self.keys.manager().issue(new));
        issued.unwrap().key.reveal()
    }

    /// Inserts a record of an earlier version, whose name is not checked.
    pub(crate) fn keep(&self, number: u8, name: &str) -> String {
        let id = KeyId::new(&format!("key_{number}")).unwrap();
        let (environment, owner) = (Environment::new("live").unwrap(), Owner::tenant(tenant()));
        let kind = portunus::key::KeyKind::App;
        let now = self.keys.manager().now();
        let mut record = KeyRecord::new(id.clone(), name, kind, environment, owner, now);
        record.description = Some(name.to_owned());
        let digest = KeyDigest::new(DigestScheme::Sha256, [number; 32]);
        let record = Box::new(record);
        let insert = WriteBatch::new().change(Change::Insert { digest, record });
        self.runtime.block_on(self.store.apply(&insert)).unwrap();
        id.to_string()
    }

    /// Calls the API with a key.
    fn call(&self, call: Call, secret: &str) -> Answer {
        let bytes = exchange(self.address, &call.bearer(secret).bytes());
        read_answer(&bytes, false).expect("an answer").0
    }

    /// Returns the status of a request with a key.
    pub(crate) fn status(&self, secret: &str) -> u16 {
        self.call(Call::get("/whoami"), secret).status
    }

    /// Returns an event that the service signs for the owner of a key.
    pub(crate) fn event(&self, secret: &str) -> Value {
        let answer = self.call(Call::post("/event"), secret);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }
}

/// A page of the site around a page of the portal.
fn account(page: &Fragment<'_>) -> String {
    let (title, html, nonce) = (page.title, page.html, page.nonce);
    format!(
        "<!doctype html><html lang=\"en\"><head><title>{title} – Acme</title>\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <style nonce=\"{nonce}\">:root {{ color-scheme: light dark }}\
         body {{ margin: 0; background: light-dark(#fff, #000); color: light-dark(#000, #fff) }}\
         .back {{ color: inherit; outline-offset: 0 }} .back:focus {{ outline: 2px solid }}</style></head>\
         <body><header><a class=\"back\" href=\"/account\">Account</a></header><main>{html}</main></body></html>"
    )
}

/// The pages that the demo lacks: who is signed in, the path, and the button that is pressed.
pub(crate) const MORE_PAGES: [(&str, &str, &str, &str); 4] = [
    ("chain", "host", "/keys?page=chain", ""),
    (
        "chain-intact",
        "host",
        "/keys?page=chain",
        "Verify from the first line",
    ),
    ("account-keys", "olga", "/account/keys", ""),
    ("account-issue", "olga", "/account/keys?page=issue", ""),
];

impl Site {
    /// Opens each of the pages that the demo lacks, and looks at it.
    pub(crate) fn walk(&self, browser: &Browser, look: impl Fn(&str)) {
        for (name, operator, path, button) in MORE_PAGES {
            browser.open(&self.sign_in(operator));
            browser.open(&self.at(path));
            if !button.is_empty() {
                browser.press(button);
            }
            look(name);
        }
    }
}

/// Follows the link on the page of a key to the page of an action.
pub(crate) fn act(browser: &Browser, page: &str) {
    let link = format!(".actions a[href^='?page={page}&']");
    browser.css(&link).leave();
}

async fn sign_in(
    Path(name): Path<String>,
) -> ([(axum::http::HeaderName, String); 1], Html<&'static str>) {
    let cookie = format!("session={name}; Path=/; HttpOnly; SameSite=Strict");
    // The title shows whether the browser runs scripts.
    let page = "<!doctype html><title>signed in</title><script>document.title = 'script'</script>";
    ([(SET_COOKIE, cookie)], Html(page))
}

/// The API that the keys are for.
fn api(keys: &Portunus) -> Router {
    let manager = keys.manager().clone();
    let event = post(move |caller: KeyPrincipal| {
        let manager = manager.clone();
        async move {
            let signed = manager.sign_event(caller.owner(), "confirmed").await;
            Json(serde_json::to_value(signed.unwrap()).unwrap())
        }
    });
    let whoami = get(|caller: KeyPrincipal| async move { caller.owner().tenant_id.to_string() });
    let router: ProtectedRouter<()> = keys.router();
    router
        .route("/whoami", whoami.require(Requirement::none()))
        .route("/event", event.require(Requirement::none()))
        .into_router()
}

fn on_axum(runtime: &Runtime, listener: TcpListener, site: Router) {
    listener.set_nonblocking(true).unwrap();
    let _context = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let site = site.into_make_service_with_connect_info::<SocketAddr>();
    runtime.spawn(async move { axum::serve(listener, site).await });
}

fn on_actix(listener: TcpListener, site: Router) {
    let mount = ActixMount::new(site, "/");
    thread::spawn(move || {
        let app = move || App::new().service(mount.clone());
        let server = HttpServer::new(app)
            .workers(2)
            .disable_signals()
            .listen(listener)
            .unwrap();
        actix_web::rt::System::new().block_on(server.run())
    });
}

/// Starts a proxy that removes a prefix from each path, and does not say so. Returns its address.
pub(crate) fn proxy(to: SocketAddr, prefix: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            // A browser closes connections at any time.
            thread::spawn(move || drop(forward(client, to, prefix)));
        }
    });
    address
}

/// Forwards one request and its response.
fn forward(mut client: TcpStream, to: SocketAddr, prefix: &str) -> std::io::Result<()> {
    let mut from_client = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from_client.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let length = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        let named = name.eq_ignore_ascii_case("content-length");
        named.then(|| value.parse::<u64>().unwrap())
    };
    let length = head.lines().find_map(length).unwrap_or(0);
    let (method, rest) = head.split_once(' ').unwrap();
    let Some(rest) = rest.strip_prefix(prefix) else {
        return Ok(());
    };
    let slash = if rest.starts_with('/') { "" } else { "/" };
    let head = format!("{method} {slash}{rest}");
    let head = head.replace("Connection: keep-alive", "Connection: close");
    let mut server = TcpStream::connect(to)?;
    server.write_all(head.as_bytes())?;
    std::io::copy(&mut from_client.take(length), &mut server)?;
    std::io::copy(&mut server, &mut client)?;
    client.shutdown(Shutdown::Both)
}
