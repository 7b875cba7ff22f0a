//! Sessions: an operator signs in with its token, at `/me/login` to manage its own keys at `/me/keys`
//! and `/me/api`, at `/dashboard/login` to manage those of its tenant at `/dashboard`.
//!
//! A session is a random number in a cookie that pages cannot read and other sites cannot send. The
//! process keeps digests of these numbers only, and forgets them when it stops.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::extract::rejection::{FormRejection, JsonRejection};
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequest, Request};
use axum::http::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, LOCATION,
    RETRY_AFTER, SET_COOKIE, WWW_AUTHENTICATE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Form, Json, Router};
use portunus::actor::Standing;
use portunus::key::{KeyDigest, KeyHasher};
use portunus::manage::Operator;
use portunus::{AuthError, ErrorCode};
use portunus_admin::{Fault, OperatorProof, check_origin};
use serde::Deserialize;

use crate::app::App;
use crate::directory::DemoDirectory;
use crate::operators::random_hex;
use crate::tls::Peer;

/// A part of the site that has sessions.
#[derive(Debug)]
pub(crate) struct Area {
    /// The path that the cookie is sent to.
    path: &'static str,
    pub(crate) cookie: &'static str,
    pub(crate) login: &'static str,
    pub(crate) logout: &'static str,
    /// The page that a browser is sent to after it signed in.
    home: &'static str,
}

/// Self-serve.
pub(crate) const ME: &Area = &Area {
    path: "/me",
    cookie: "esign_session",
    login: "/me/login",
    logout: "/me/logout",
    home: "/me/keys",
};

/// The dashboard of the operators.
pub(crate) const DASHBOARD: &Area = &Area {
    path: "/dashboard",
    cookie: "esign_operator",
    login: "/dashboard/login",
    logout: "/dashboard/logout",
    home: "/dashboard",
};

/// How long a session lasts, in seconds.
const LIFETIME: u64 = 8 * 3600;

/// The most sessions of an operator. Its oldest ones end first.
const MOST_SESSIONS: usize = 100;

/// The longest body of a login, in bytes.
const LONGEST_LOGIN: usize = 4096;

/// The look of the form.
const STYLE: &str = "body{margin:0;font:1rem/1.5 system-ui,sans-serif;background:light-dark(#f7f8fa,#101217);\
    color:light-dark(#1b1d23,#eceef3)}main{box-sizing:border-box;max-width:24rem;margin:12vh auto;\
    padding:2rem;border-radius:12px;background:light-dark(#fff,#181b22);\
    border:1px solid light-dark(#d9dce3,#333844)}h1{margin:0 0 1rem;font-size:1.5rem}\
    label{font-weight:600}input,button{box-sizing:border-box;width:100%;min-height:2.75rem;font:inherit;\
    border-radius:8px;border:1px solid light-dark(#8b909c,#7d8494);padding:.5rem .75rem}\
    button{border:0;font-weight:600;background:light-dark(#3538cd,#a4bcfd);\
    color:light-dark(#fff,#10123a)}[role=alert]{color:light-dark(#b42318,#fda29b);font-weight:600}\
    :focus-visible{outline:3px solid light-dark(#3538cd,#a4bcfd);outline-offset:2px}";

/// The page with the form, and what is wrong with what was entered. It loads and runs nothing, and no
/// other page can frame it.
fn page(wrong: &str) -> Response {
    let Ok(nonce) = random_hex() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>Sign in</title>\
         <style nonce=\"{nonce}\">:root{{color-scheme:light dark}}{STYLE}</style></head>\
         <body><main><h1>Sign in</h1>{wrong}<form method=\"post\"><p><label>Operator token \
         <input type=\"password\" name=\"token\" required autocomplete=\"current-password\">\
         </label></p><p><button>Sign in</button></p></form></main></body></html>"
    );
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'"
    );
    let fields = [
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, policy.as_str()),
    ];
    (fields, Html(html)).into_response()
}

/// The sessions of an area in this process. Clones share them.
#[derive(Clone)]
pub(crate) struct Sessions {
    area: &'static Area,
    open: Arc<Mutex<VecDeque<Session>>>,
    hasher: KeyHasher,
    directory: DemoDirectory,
}

struct Session {
    id: KeyDigest,
    operator: Operator,
    ends: Instant,
}

impl Sessions {
    pub(crate) fn new(area: &'static Area, directory: DemoDirectory) -> Self {
        Self {
            area,
            open: Arc::default(),
            hasher: KeyHasher::sha256(),
            directory,
        }
    }

    fn open(&self) -> MutexGuard<'_, VecDeque<Session>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        open.retain(|session| session.ends > now);
        open
    }

    /// Begins a session, and returns its id.
    fn begin(&self, operator: Operator) -> Result<String, AuthError> {
        let id = random_hex()
            .map_err(|error| AuthError::unavailable(ErrorCode::StoreUnavailable, error))?;
        let session = Session {
            id: self.hasher.digest(&id),
            operator,
            ends: Instant::now() + Duration::from_secs(LIFETIME),
        };
        let mut open = self.open();
        let mut others = 1;
        open.retain(|other| {
            others += usize::from(other.operator.scope == session.operator.scope);
            other.operator.scope != session.operator.scope || others <= MOST_SESSIONS
        });
        open.push_front(session);
        Ok(id)
    }

    fn end(&self, headers: &HeaderMap) {
        if let Ok(id) = presented(self.area, headers) {
            let id = self.hasher.digest(id);
            self.open().retain(|session| session.id != id);
        }
    }
}

/// Returns the session id that a request presents. Two of them are refused: one may have been
/// planted by another host of the same site.
fn presented<'h>(area: &Area, headers: &'h HeaderMap) -> Result<&'h str, ErrorCode> {
    let lines = headers.get_all(COOKIE).iter();
    let pairs = lines.flat_map(|line| line.to_str().unwrap_or_default().split(';'));
    let named = pairs.filter_map(|pair| pair.trim().split_once('='));
    let mut values = named.filter_map(|(name, value)| (name == area.cookie).then_some(value));
    match (values.next(), values.next()) {
        (None, _) => Err(ErrorCode::MissingKey),
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => Err(ErrorCode::InvalidKey),
    }
}

#[async_trait]
impl OperatorProof for Sessions {
    async fn prove(&self, request: &Parts) -> Result<Operator, AuthError> {
        let login = self.area.login;
        let refused = |code| AuthError::with_detail(code, format!("Sign in at {login}"));
        let id = presented(self.area, &request.headers).map_err(refused)?;
        let id = self.hasher.digest(id);
        // Each comparison takes constant time.
        let found = self
            .open()
            .iter()
            .fold(None, |found, session| match session.id == id {
                true => Some(session.operator.clone()),
                false => found,
            });
        let operator = found.ok_or_else(|| refused(ErrorCode::InvalidKey))?;
        // As it is now, not as it was when the session began.
        match self.directory.standing_of(operator.user()) {
            Standing::Suspended => Err(AuthError::new(ErrorCode::OwnerSuspended)),
            _ => Ok(operator),
        }
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sessions({})", self.open().len())
    }
}

/// The routes for signing in to an area and out. `proof` checks operators' tokens and limits failures.
pub(crate) fn routes(sessions: &Sessions, proof: Arc<dyn OperatorProof>) -> Router<App> {
    let area = sessions.area;
    let login = get(|| async { page("") });
    Router::new()
        .route(area.login, login.post(log_in))
        .layer(DefaultBodyLimit::max(LONGEST_LOGIN))
        .layer(Extension(proof))
        .route(area.logout, post(log_out))
        .layer(Extension(sessions.clone()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    token: String,
}

/// How a client sends its token, and so how it wants to continue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Json,
    Form,
}

fn media(headers: &HeaderMap) -> Option<Sent> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next().unwrap_or_default().trim();
    match essence.to_ascii_lowercase().as_str() {
        "application/json" => Some(Sent::Json),
        "application/x-www-form-urlencoded" => Some(Sent::Form),
        _ => None,
    }
}

/// `POST …/login`: begins a session for the operator with this token. A browser gets the form again if
/// the token is wrong.
async fn log_in(
    Extension(sessions): Extension<Sessions>,
    Extension(proof): Extension<Arc<dyn OperatorProof>>,
    request: Request,
) -> Response {
    let is_form = media(request.headers()) == Some(Sent::Form);
    let accepts = request.headers().get(ACCEPT);
    let accepts = accepts
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let shows_form = is_form && accepts.contains("text/html");
    match try_log_in(&sessions, &proof, request).await {
        Ok(response) => response,
        Err(fault) if shows_form => {
            let refused = fault.into_response();
            let wrong = match refused.status() {
                StatusCode::UNAUTHORIZED => "This token is not valid.",
                StatusCode::TOO_MANY_REQUESTS => "Too many attempts: wait a minute.",
                _ => "You cannot sign in now.",
            };
            let mut response = page(&format!("<p role=\"alert\">{wrong}</p>"));
            *response.status_mut() = refused.status();
            for name in [WWW_AUTHENTICATE, RETRY_AFTER] {
                if let Some(value) = refused.headers().get(&name) {
                    response.headers_mut().insert(name, value.clone());
                }
            }
            response
        }
        Err(fault) => fault.into_response(),
    }
}

async fn try_log_in(
    sessions: &Sessions,
    proof: &Arc<dyn OperatorProof>,
    request: Request,
) -> Result<Response, Fault> {
    let (parts, body) = request.into_parts();
    check_origin(&parts, &[])?;
    let Some(sent) = media(&parts.headers) else {
        let why = "Expected application/json or application/x-www-form-urlencoded";
        let error = AuthError::with_detail(ErrorCode::UnsupportedMediaType, why);
        let accept = [(
            ACCEPT,
            "application/json, application/x-www-form-urlencoded",
        )];
        return Ok((accept, Fault::from(error)).into_response());
    };
    let mut asked = parts.clone();
    let request = Request::from_parts(parts, body);
    // The reasons of these rejections quote what was sent, which may be a token.
    let status = match sent {
        Sent::Json => Json::<Login>::from_request(request, &())
            .await
            .map(|Json(login)| login)
            .map_err(|rejection: JsonRejection| rejection.status()),
        Sent::Form => Form::<Login>::from_request(request, &())
            .await
            .map(|Form(login)| login)
            .map_err(|rejection: FormRejection| rejection.status()),
    };
    let login = status.map_err(|status| match status {
        StatusCode::PAYLOAD_TOO_LARGE => AuthError::new(ErrorCode::TooLarge),
        _ => AuthError::with_detail(ErrorCode::InvalidBody, "token: expected one text"),
    })?;
    let wrong = || AuthError::with_detail(ErrorCode::InvalidKey, "An operator token is required");
    let mut value =
        HeaderValue::from_str(&format!("Bearer {}", login.token)).map_err(|_| wrong())?;
    value.set_sensitive(true);
    asked.headers.insert(AUTHORIZATION, value);
    let operator = proof
        .prove(&asked)
        .await
        .map_err(|error| match error.status() {
            400 => wrong(),
            _ => error,
        })?;
    sessions.end(&asked.headers);
    let id = sessions.begin(operator)?;
    let cookie = cookie(sessions.area, &asked, &id, LIFETIME);
    Ok(continued(sent, sessions.area.home, &cookie))
}

/// `POST …/logout`: ends the session, if there is one.
async fn log_out(
    Extension(sessions): Extension<Sessions>,
    request: Request,
) -> Result<Response, Fault> {
    let (parts, _) = request.into_parts();
    check_origin(&parts, &[])?;
    sessions.end(&parts.headers);
    let sent = media(&parts.headers).unwrap_or(Sent::Json);
    let cookie = cookie(sessions.area, &parts, "", 0);
    Ok(continued(sent, sessions.area.login, &cookie))
}

/// The value of `Set-Cookie`. The cookie is `Secure` where this server ends TLS.
fn cookie(area: &Area, request: &Parts, id: &str, seconds: u64) -> String {
    let peer = request.extensions.get::<ConnectInfo<Peer>>();
    let secure = peer.is_some_and(|ConnectInfo(peer)| peer.tls.is_some());
    let secure = if secure { "; Secure" } else { "" };
    let (name, path) = (area.cookie, area.path);
    format!("{name}={id}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

/// Answers a program with 204, and sends a browser on from the form.
fn continued(sent: Sent, to: &'static str, cookie: &str) -> Response {
    let fields = [(SET_COOKIE, cookie), (CACHE_CONTROL, "no-store")];
    match sent {
        Sent::Json => (StatusCode::NO_CONTENT, fields).into_response(),
        Sent::Form => (StatusCode::SEE_OTHER, fields, [(LOCATION, to)]).into_response(),
    }
}
