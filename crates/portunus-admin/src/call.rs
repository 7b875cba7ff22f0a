//! One call from its first line to the head of its answer: what is known of it, and that it is
//! noted where it is refused and nobody else has noted it.

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

/// What is known of a call.
pub(crate) struct Call {
    pub(crate) client_ip: Option<IpAddr>,
    pub(crate) request_id: Option<RequestId>,
    method: &'static str,
    /// What it asks for, and where that is. Nothing that the client wrote.
    action: Action,
    route: Option<&'static str>,
    /// The manager, acting for the proven operator.
    manager: OnceLock<KeyManager>,
}

impl Call {
    fn new(parts: &Parts, shared: &Shared) -> Self {
        let head = HttpHead::of_parts(parts, (shared.peer_of)(&parts.extensions));
        let (action, route) = what(&parts.method, parts.uri.path());
        Self {
            client_ip: shared.authenticator.client_ip(&head),
            request_id: shared.authenticator.request_id(&head),
            method: name_of(&parts.method),
            action,
            route,
            manager: OnceLock::new(),
        }
    }

    /// The call that is observed.
    pub(crate) fn of(parts: &Parts, shared: &Shared) -> Arc<Self> {
        let observed = parts.extensions.get::<Arc<Self>>().cloned();
        observed.unwrap_or_else(|| Arc::new(Self::new(parts, shared)))
    }

    /// Somebody is proven to make it.
    pub(crate) fn is_by(&self, manager: &KeyManager) {
        let _ = self.manager.set(manager.clone());
    }

    fn describe(&self, event: &mut AuditEvent, status: Option<u16>) {
        event.method = Some(self.method.to_owned());
        event.route = self.route.map(str::to_owned);
        event.status = status;
    }

    /// Notes how it ended, unless that is noted already.
    fn note(&self, shared: &Shared, outcome: AuditOutcome, status: Option<u16>) {
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

/// What a request asks for, by its path in this router.
fn what(method: &Method, path: &str) -> (Action, Option<&'static str>) {
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

/// A method that has a name (RFC 9110 §9.1, RFC 5789); any other may be anything.
fn name_of(method: &Method) -> &'static str {
    let known = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT",
    ];
    let found = known.into_iter().find(|name| *name == method.as_str());
    found.unwrap_or("another")
}

/// A call that was not answered yet.
struct Unanswered {
    shared: Shared,
    call: Arc<Call>,
    is_answered: bool,
}

impl Unanswered {
    fn answered(mut self, status: u16, error: Option<&AuthError>) {
        self.is_answered = true;
        if status >= 400 {
            // 405 has no code of its own: there is no such thing either.
            let code = error.map_or(ErrorCode::NotFound, AuthError::code);
            self.call
                .note(&self.shared, AuditOutcome::Refused(code), Some(status));
        }
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        // Who gives up reading has done nothing.
        let reads = self.call.manager.get().is_some() && matches!(self.call.method, "GET" | "HEAD");
        if !self.is_answered && !reads {
            self.call.note(&self.shared, AuditOutcome::Abandoned, None);
        }
    }
}

/// Sees to it that no refusal goes without an event.
pub(crate) async fn observe(
    State(shared): State<Shared>,
    mut request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let call = Arc::new(Call::new(&parts, &shared));
    request = Request::from_parts(parts, body);
    request.extensions_mut().insert(Arc::clone(&call));
    let unanswered = Unanswered {
        shared,
        call,
        is_answered: false,
    };
    let response = next.run(request).await;
    unanswered.answered(
        response.status().as_u16(),
        response.extensions().get::<AuthError>(),
    );
    response
}

/// The host's proof under the limits of the API, for other routes.
pub(crate) struct LimitedProof(pub(crate) Shared);

impl fmt::Debug for LimitedProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitedProof").finish_non_exhaustive()
    }
}

#[async_trait]
impl OperatorProof for LimitedProof {
    async fn prove(&self, request: &Parts) -> Result<Operator, AuthError> {
        let mut call = Call::new(request, &self.0);
        // The path is the host's, whatever it looks like.
        (call.action, call.route) = (Action::Manage, None);
        let call = Arc::new(call);
        let unanswered = Unanswered {
            shared: self.0.clone(),
            call: Arc::clone(&call),
            is_answered: false,
        };
        let proven = self.0.proofs.prove(request, call.client_ip).await;
        match &proven {
            Ok(_) => unanswered.answered(200, None),
            Err(error) => unanswered.answered(error.status(), Some(error)),
        }
        proven
    }

    fn credentials<'r>(&self, request: &'r Parts) -> Vec<&'r [u8]> {
        self.0.proofs.credentials(request)
    }
}
