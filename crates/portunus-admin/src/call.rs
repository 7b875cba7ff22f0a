//! Audit of a call: records an event for a refusal that the manager has not recorded itself.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use portunus::adapter::tower::HttpHead;
use portunus::audit::{Action, AuditEvent, AuditOutcome, RequestId};
use portunus::manage::{KeyManager, Operator};
use portunus::{AuthError, ErrorCode};

use crate::{OperatorProof, Shared};

/// The audit data of a call.
pub(crate) struct Call {
    pub(crate) client_ip: Option<IpAddr>,
    pub(crate) request_id: Option<RequestId>,
    method: &'static str,
    /// The action and the route template. Neither contains client input.
    action: Action,
    route: Option<&'static str>,
    /// The manager acting for the authenticated operator.
    manager: OnceLock<KeyManager>,
}

impl Call {
    fn new(parts: &Parts, shared: &Shared) -> Self {
        let (action, route) = action_and_route(&parts.method, parts.uri.path());
        Self::of_act(parts, shared, action, route)
    }

    /// Creates the data of a call that is not one of the JSON API.
    pub(crate) fn of_act(
        parts: &Parts,
        shared: &Shared,
        action: Action,
        route: Option<&'static str>,
    ) -> Self {
        let head = HttpHead::of_parts(parts, (shared.peer_of)(&parts.extensions));
        Self {
            client_ip: shared.authenticator.client_ip(&head),
            request_id: shared.authenticator.request_id(&head),
            method: method_name(&parts.method),
            action,
            route,
            manager: OnceLock::new(),
        }
    }

    /// Returns the call that [`observe`] stored in the request, or a new one.
    pub(crate) fn of(parts: &Parts, shared: &Shared) -> Arc<Self> {
        let observed = parts.extensions.get::<Arc<Self>>().cloned();
        observed.unwrap_or_else(|| Arc::new(Self::new(parts, shared)))
    }

    /// Sets the manager of the authenticated operator.
    pub(crate) fn set_manager(&self, manager: &KeyManager) {
        let _ = self.manager.set(manager.clone());
    }

    fn describe(&self, event: &mut AuditEvent, status: Option<u16>) {
        event.method = Some(self.method.to_owned());
        event.route = self.route.map(str::to_owned);
        event.status = status;
    }

    /// Records the outcome, unless the manager has already recorded an event.
    fn record(&self, shared: &Shared, outcome: AuditOutcome, status: Option<u16>) {
        match self.manager.get() {
            Some(manager) if manager.has_noted() => {}
            Some(manager) => {
                manager.note_call(self.action, outcome, |event| self.describe(event, status));
            }
            None => shared.manager.note_unproven(outcome, |event| {
                self.describe(event, status);
                event.client_ip = self.client_ip;
                event.request_id.clone_from(&self.request_id);
            }),
        }
    }
}

/// Returns the action and the route template of a request, by its path in this router.
fn action_and_route(method: &Method, path: &str) -> (Action, Option<&'static str>) {
    let segments: Vec<_> = path.trim_start_matches('/').split('/').collect();
    let method = match method.as_str() {
        "HEAD" => "GET",
        other => other,
    };
    let (route, acts): (_, &[(&str, Action)]) = match segments[..] {
        ["keys"] => (
            "/keys",
            &[("GET", Action::KeyRead), ("POST", Action::KeyIssue)],
        ),
        ["keys", "bulk"] => ("/keys/bulk", &[("POST", Action::KeyBulk)]),
        ["keys", "bulk", _] => ("/keys/bulk/{id}", &[("GET", Action::KeyRead)]),
        ["keys", _] => (
            "/keys/{id}",
            &[
                ("GET", Action::KeyRead),
                ("PATCH", Action::KeyUpdate),
                ("DELETE", Action::KeyDelete),
            ],
        ),
        ["keys", _, "revoke"] => ("/keys/{id}/revoke", &[("POST", Action::KeyRevoke)]),
        ["keys", _, "rotate"] => ("/keys/{id}/rotate", &[("POST", Action::KeyRotate)]),
        ["keys", _, "primary"] => ("/keys/{id}/primary", &[("POST", Action::KeyMakePrimary)]),
        ["keys", _, "usage"] => ("/keys/{id}/usage", &[("GET", Action::KeyRead)]),
        ["credits", _] => ("/credits/{id}", &[("GET", Action::CreditRead)]),
        ["credits", _, "ledger"] => ("/credits/{id}/ledger", &[("GET", Action::CreditRead)]),
        ["credits", _, "grants"] => ("/credits/{id}/grants", &[("POST", Action::CreditGrant)]),
        ["credits", _, "grants", _, "void"] => (
            "/credits/{id}/grants/{grant}/void",
            &[("POST", Action::CreditVoid)],
        ),
        ["credits", _, "blocks", _, "give_back"] => (
            "/credits/{id}/blocks/{block}/give_back",
            &[("POST", Action::CreditGiveBack)],
        ),
        ["import"] => ("/import", &[("POST", Action::KeyImport)]),
        ["verify"] => ("/verify", &[("POST", Action::KeyVerify)]),
        ["events"] => ("/events", &[]),
        ["openapi.json"] => ("/openapi.json", &[]),
        _ => return (Action::Manage, None),
    };
    let act = acts.iter().find(|(known, _)| *known == method);
    (
        act.map_or(Action::Manage, |(_, action)| *action),
        Some(route),
    )
}

/// Returns the name of a standard method (RFC 9110 §9.1, RFC 5789). Other methods are client input
/// and are recorded as `another`.
fn method_name(method: &Method) -> &'static str {
    let known = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT",
    ];
    let found = known.into_iter().find(|name| *name == method.as_str());
    found.unwrap_or("another")
}

/// A call without a response yet. Dropping it records the call as abandoned.
struct PendingCall {
    shared: Shared,
    call: Arc<Call>,
    is_answered: bool,
}

impl PendingCall {
    fn answered(mut self, status: u16, error: Option<&AuthError>) {
        self.is_answered = true;
        // The dashboard refuses with a redirection to the login, too.
        if status >= 400 || error.is_some() {
            // 405 is no `AuthError`, and is recorded as not found.
            let code = error.map_or(ErrorCode::NotFound, AuthError::code);
            self.call
                .record(&self.shared, AuditOutcome::Refused(code), Some(status));
        }
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        // An abandoned read has no effect.
        let reads = self.call.manager.get().is_some() && matches!(self.call.method, "GET" | "HEAD");
        if !self.is_answered && !reads {
            self.call
                .record(&self.shared, AuditOutcome::Abandoned, None);
        }
    }
}

/// Middleware that records an audit event for every refusal.
pub(crate) async fn observe(
    State(shared): State<Shared>,
    mut request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let call = Arc::new(Call::new(&parts, &shared));
    request = Request::from_parts(parts, body);
    request.extensions_mut().insert(Arc::clone(&call));
    observed(shared, call, next.run(request)).await
}

/// Waits for the response to a call, and records an audit event if it is a refusal.
pub(crate) async fn observed(
    shared: Shared,
    call: Arc<Call>,
    response: impl Future<Output = Response>,
) -> Response {
    let pending = PendingCall {
        shared,
        call,
        is_answered: false,
    };
    let response = response.await;
    pending.answered(
        response.status().as_u16(),
        response.extensions().get::<AuthError>(),
    );
    response
}

/// The host's proof under the limits of the API, for the host's own routes.
pub(crate) struct LimitedProof(pub(crate) Shared);

impl fmt::Debug for LimitedProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitedProof").finish_non_exhaustive()
    }
}

#[async_trait]
impl OperatorProof for LimitedProof {
    async fn prove(&self, request: &Parts) -> Result<Operator, AuthError> {
        // The path belongs to the host, even if it looks like one of this API.
        let call = Arc::new(Call::of_act(request, &self.0, Action::Manage, None));
        let pending = PendingCall {
            shared: self.0.clone(),
            call: Arc::clone(&call),
            is_answered: false,
        };
        let operator = self.0.proofs.prove(request, call.client_ip).await;
        match &operator {
            Ok(_) => pending.answered(200, None),
            Err(error) => pending.answered(error.status(), Some(error)),
        }
        operator
    }

    fn credentials<'r>(&self, request: &'r Parts) -> Vec<&'r [u8]> {
        self.0.proofs.credentials(request)
    }
}
