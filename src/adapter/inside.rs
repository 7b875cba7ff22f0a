//! Shared by inner layers, extractors and handlers: the principal of a request, the check of a
//! requirement, and the response to a refusal.

use std::borrow::Cow;

use super::carrier::{Anonymous, Carrier, Holds, Incoming, Inward, carries};
use super::exchange::ExchangeFuture;
use crate::error::{AuthError, ErrorCode};
use crate::policy::Requirement;
use crate::principal::KeyPrincipal;
use crate::request::RequestHead;
use crate::respond::{Answer, Responder};

/// Returns the principal of a request, or `MISSING_KEY` if there is none.
pub(super) fn principal<C: Carrier>(carrier: &C) -> Result<Cow<'_, KeyPrincipal>, AuthError> {
    carrier.look().ok_or_else(|| {
        if carries::<Anonymous>(carrier) {
            AuthError::new(ErrorCode::MissingKey)
        } else {
            not_authenticated()
        }
    })
}

/// The error for a request that no layer authenticated. Fails closed; the text tells a developer
/// that the layer is missing.
pub(super) fn not_authenticated() -> AuthError {
    AuthError::with_detail(
        ErrorCode::MissingKey,
        "No authentication ran for this route, so access is denied",
    )
}

/// Whether a request passed as anonymous. A principal takes precedence over the `Anonymous` marker,
/// which an outer layer of another API may have left.
pub(super) fn is_anonymous<C: Carrier>(carrier: &C) -> bool {
    !carries::<KeyPrincipal>(carrier) && carries::<Anonymous>(carrier)
}

/// Checks a requirement against the principal of a request. The carrier is not borrowed during the
/// check, which may run the host's code.
pub(super) fn check<'c, C: Carrier>(
    requirement: &Requirement,
    carrier: &'c C,
    head: &dyn RequestHead,
) -> Result<Cow<'c, KeyPrincipal>, AuthError> {
    let principal = principal(carrier)?;
    requirement.check(&*principal, Some(head))?;
    Ok(principal)
}

/// Renders a refusal with the responder of the authenticator that handled the request.
pub(super) fn answer<C: Carrier>(error: &AuthError, carrier: &C, head: &dyn RequestHead) -> Answer {
    if let Some(principal) = Holds::<KeyPrincipal>::look(carrier) {
        return principal.responder().answer(error, head);
    }
    match Holds::<Anonymous>::look(carrier) {
        Some(anonymous) => anonymous.responder.answer(error, head),
        None => Responder::default().answer(error, head),
    }
}

/// Forwards a checked request or refuses it.
pub(super) fn decided<Q: Incoming, S: Inward<Q>>(
    request: Q,
    service: &mut S,
    checked: Result<(), AuthError>,
) -> ExchangeFuture<S, Q> {
    match checked {
        Ok(()) => ExchangeFuture::passing(service.forward(request), None),
        Err(error) => {
            let answer = answer(&error, request.carrier(), &request.head_inside());
            ExchangeFuture::refusing(S::refused(request, answer, &error))
        }
    }
}
