//! Self-serve: an operator signs in at `/me/login` with its token, and manages its own keys at
//! `/me/api` in a session.
//!
//! A session is a random number in a cookie that pages cannot read and other sites cannot send. The
//! process keeps digests of these numbers only, and forgets them when it stops.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::extract::rejection::{FormRejection, JsonRejection};
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequest, Request, State};
use axum::http::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, LOCATION,
    SET_COOKIE,
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

/// The name of the session's cookie.
pub(crate) const COOKIE_NAME: &str = "esign_session";

/// How long a session lasts, in seconds.
const LIFETIME: u64 = 8 * 3600;

/// The most sessions that are kept. The oldest ones end first.
const MOST_SESSIONS: usize = 1000;

/// The longest body of a login, in bytes.
const LONGEST_LOGIN: usize = 4096;

/// The page loads and runs nothing, and no other page can frame it.
const POLICY: &str = "default-src 'none'; form-action 'self'; frame-ancestors 'none'";

const FORM: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Sign in</title>\
    <form method=\"post\"><label>Operator token <input type=\"password\" name=\"token\" required \
    autocomplete=\"current-password\"></label> <button>Sign in</button></form></html>";

/// The sessions of this process. Clones share them.
#[derive(Clone)]
pub(crate) struct Sessions {
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
    pub(crate) fn new(directory: DemoDirectory) -> Self {
        Self {
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
        open.truncate(MOST_SESSIONS - 1);
        open.push_front(session);
        Ok(id)
    }

    fn end(&self, headers: &HeaderMap) {
        if let Ok(id) = presented(headers) {
            let id = self.hasher.digest(id);
            self.open().retain(|session| session.id != id);
        }
    }
}

/// Returns the session id that a request presents. Two of them are refused: one may have been
/// planted by another host of the same site.
fn presented(headers: &HeaderMap) -> Result<&str, ErrorCode> {
    let lines = headers.get_all(COOKIE).iter();
    let pairs = lines.flat_map(|line| line.to_str().unwrap_or_default().split(';'));
    let named = pairs.filter_map(|pair| pair.trim().split_once('='));
    let mut values = named.filter_map(|(name, value)| (name == COOKIE_NAME).then_some(value));
    match (values.next(), values.next()) {
        (None, _) => Err(ErrorCode::MissingKey),
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => Err(ErrorCode::InvalidKey),
    }
}

#[async_trait]
impl OperatorProof for Sessions {
    async fn prove(&self, request: &Parts) -> Result<Operator, AuthError> {
        let refused = |code| AuthError::with_detail(code, "Sign in at /me/login");
        let id = self
            .hasher
            .digest(presented(&request.headers).map_err(refused)?);
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

/// The routes for signing in and out. `proof` checks operators' tokens and limits failures.
pub(crate) fn routes(proof: Arc<dyn OperatorProof>) -> Router<App> {
    let login = get(|| async {
        let fields = [
            (CACHE_CONTROL, "no-store"),
            (CONTENT_SECURITY_POLICY, POLICY),
        ];
        (fields, Html(FORM))
    });
    Router::new()
        .route("/me/login", login.post(log_in))
        .layer(DefaultBodyLimit::max(LONGEST_LOGIN))
        .layer(Extension(proof))
        .route("/me/logout", post(log_out))
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

/// `POST /me/login`: begins a session for the operator with this token.
async fn log_in(
    State(app): State<App>,
    Extension(proof): Extension<Arc<dyn OperatorProof>>,
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
    app.sessions.end(&asked.headers);
    let id = app.sessions.begin(operator)?;
    let cookie = cookie(&asked, &id, LIFETIME);
    Ok(continued(sent, "/me/api/keys", &cookie))
}

/// `POST /me/logout`: ends the session, if there is one.
async fn log_out(State(app): State<App>, request: Request) -> Result<Response, Fault> {
    let (parts, _) = request.into_parts();
    check_origin(&parts, &[])?;
    app.sessions.end(&parts.headers);
    let sent = media(&parts.headers).unwrap_or(Sent::Json);
    Ok(continued(sent, "/me/login", &cookie(&parts, "", 0)))
}

/// The value of `Set-Cookie`. The cookie is `Secure` where this server ends TLS.
fn cookie(request: &Parts, id: &str, seconds: u64) -> String {
    let peer = request.extensions.get::<ConnectInfo<Peer>>();
    let secure = peer.is_some_and(|ConnectInfo(peer)| peer.tls.is_some());
    let secure = if secure { "; Secure" } else { "" };
    format!("{COOKIE_NAME}={id}; Path=/me; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

/// Answers a program with 204, and sends a browser on from the form.
fn continued(sent: Sent, to: &'static str, cookie: &str) -> Response {
    let fields = [(SET_COOKIE, cookie), (CACHE_CONTROL, "no-store")];
    match sent {
        Sent::Json => (StatusCode::NO_CONTENT, fields).into_response(),
        Sent::Form => (StatusCode::SEE_OTHER, fields, [(LOCATION, to)]).into_response(),
    }
}
