//! What layers, extractors and handlers further in ask about a request: who makes it, whether a
//! requirement is met, and how a refusal is answered.

use std::borrow::Cow;

use super::carrier::{Anonymous, Carrier, Holds, Incoming, Inward, carries};
use super::exchange::ExchangeFuture;
use crate::error::{AuthError, ErrorCode};
use crate::policy::Requirement;
use crate::principal::KeyPrincipal;
use crate::request::RequestHead;
use crate::respond::{Answer, Responder};

/// The principal of a request, or the error that there is none.
pub(super) fn principal<C: Carrier>(carrier: &C) -> Result<Cow<'_, KeyPrincipal>, AuthError> {
    carrier.look().ok_or_else(|| {
        if carries::<Anonymous>(carrier) {
            AuthError::new(ErrorCode::MissingKey)
        } else {
            // Closed, and told apart for whoever forgot the layer.
            AuthError::with_detail(
                ErrorCode::MissingKey,
                "No authentication ran for this route, so nobody may use it",
            )
        }
    })
}

/// Whether a request has passed as nobody.
pub(super) fn is_nobody<C: Carrier>(carrier: &C) -> bool {
    !carries::<KeyPrincipal>(carrier) && carries::<Anonymous>(carrier)
}

/// Checks a requirement against the principal of a request. The carrier is free while it is looked
/// at: it may run the host's code.
pub(super) fn check<'c, C: Carrier>(
    requirement: &Requirement,
    carrier: &'c C,
    head: &dyn RequestHead,
) -> Result<Cow<'c, KeyPrincipal>, AuthError> {
    let principal = principal(carrier)?;
    requirement.check(&*principal, Some(head))?;
    Ok(principal)
}

/// Answers a refused request in the dialect of the authenticator that saw it.
pub(super) fn answer<C: Carrier>(error: &AuthError, carrier: &C, head: &dyn RequestHead) -> Answer {
    if let Some(principal) = Holds::<KeyPrincipal>::look(carrier) {
        return principal.responder().answer(error, head);
    }
    match Holds::<Anonymous>::look(carrier) {
        Some(anonymous) => anonymous.0.answer(error, head),
        None => Responder::default().answer(error, head),
    }
}

/// Passes a request on that was checked, or refuses it.
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
