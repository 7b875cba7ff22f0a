//! Shared by inner layers, extractors and handlers: the principal of a request, the check of a
//! requirement, and the response to a refusal.
//!
//! A request that no layer authenticated is refused with a 500 that tells its sender nothing. The error's
//! cause names the route and the remedy; it is logged when the error is rendered, so that a handler
//! that can do without a principal logs nothing.

use std::borrow::Cow;

use super::carrier::{Anonymous, Carrier, Holds, Incoming, Inward, carries};
use crate::error::{AuthError, ErrorCode};
use crate::policy::Requirement;
use crate::principal::KeyPrincipal;
use crate::request::RequestHead;
use crate::respond::{Answer, Responder};
use crate::telemetry;

/// Returns the principal of a request, `MISSING_KEY` if the request passed as anonymous, or
/// [`not_authenticated`].
pub(super) fn principal<C: Carrier>(carrier: &C) -> Result<Cow<'_, KeyPrincipal>, AuthError> {
    carrier.look().ok_or_else(|| no_principal(carrier))
}

fn no_principal<C: Carrier>(carrier: &C) -> AuthError {
    if carries::<Anonymous>(carrier) {
        AuthError::new(ErrorCode::MissingKey)
    } else {
        not_authenticated()
    }
}

/// The error for a request that no layer authenticated. [`answer`] adds the cause.
pub(super) fn not_authenticated() -> AuthError {
    AuthError::new(ErrorCode::Internal)
}

/// The cause of that error.
fn no_layer(head: &dyn RequestHead) -> String {
    let route = match head.route() {
        Some(pattern) => format!("the route {pattern}"),
        // Not the path, which is the sender's and may contain anything.
        None => "a service without routes that are known here".to_owned(),
    };
    format!(
        "{route} needs a key, but no layer authenticates its requests: they are refused with 500. Add \
         the layer around the route: `.route_layer(keys.layer())` after the last route of an axum \
         router, `.wrap(keys.middleware())` on actix-web, `keys.layer()` outside of `require` with \
         tower; or add the route to `keys.router()`"
    )
}

/// Whether a request passed as anonymous. A principal takes precedence over the `Anonymous` marker,
/// which an outer layer of another API may have left.
pub(super) fn is_anonymous<C: Carrier>(carrier: &C) -> bool {
    !carries::<KeyPrincipal>(carrier) && carries::<Anonymous>(carrier)
}

/// Returns whether the service of a request that a layer let pass was declared to serve gRPC.
pub(super) fn serves_grpc<C: Carrier>(carrier: &C) -> bool {
    carrier.with(|principal: Option<&KeyPrincipal>| match principal {
        Some(principal) => principal.serves_grpc(),
        None => carrier.with(|one: Option<&Anonymous>| one.is_some_and(|one| one.grpc)),
    })
}

/// Checks a requirement against the principal of a request, which stays in the carrier: the host's
/// code that this may run sees only the principal and the head.
pub(super) fn check<Q: Incoming>(requirement: &Requirement, request: &Q) -> Result<(), AuthError> {
    let carrier = request.carrier();
    carrier.with(|principal: Option<&KeyPrincipal>| match principal {
        Some(principal) => {
            let head = request.head(None, None, principal.serves_grpc());
            requirement.check(principal, Some(&head))
        }
        None => Err(no_principal(carrier)),
    })
}

/// Renders a refusal with the responder of the authenticator that handled the request. Adds the cause
/// if none did.
pub(super) fn answer<C: Carrier>(
    error: AuthError,
    carrier: &C,
    head: &dyn RequestHead,
) -> (AuthError, Answer) {
    if let Some(principal) = Holds::<KeyPrincipal>::look(carrier) {
        let answer = principal.responder().answer(&error, head);
        return (error, answer);
    }
    match Holds::<Anonymous>::look(carrier) {
        Some(anonymous) => {
            let answer = anonymous.responder.answer(&error, head);
            (error, answer)
        }
        None => {
            let answer = Responder::default().answer(&error, head);
            (error.caused_by(no_layer(head)), answer)
        }
    }
}

/// Returns the response that refuses a request.
#[cold]
pub(super) fn refused<Q: Incoming, S: Inward<Q>>(
    request: Q,
    error: AuthError,
    serves_grpc: bool,
) -> S::Response {
    let head = request.head(None, None, serves_grpc);
    let (error, answer) = answer(error, request.carrier(), &head);
    drop(head);
    telemetry::set_up_incorrectly(&error);
    S::refused(request, answer, &error)
}
