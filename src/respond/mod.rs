//! Conversion of errors into responses, the same for every framework.
//!
//! The status and the protocol fields (`WWW-Authenticate`, `Cache-Control`, `Retry-After`) follow
//! from the error alone and are generated in one place. A [`RejectionRenderer`] produces the body.
//! A gRPC call gets a [`GrpcStatus`] instead of a body.

mod challenge;
mod grpc;
mod problem;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

pub(crate) use challenge::Challenges;
pub use grpc::GrpcStatus;
pub use problem::ProblemDetails;

use crate::error::AuthError;
use crate::limit::{FieldValue, LimitFields, LimitReport, LimitState, whole_seconds};
use crate::request::RequestHead;

/// The body of an error response.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErrorBody {
    /// The media type.
    pub content_type: Cow<'static, str>,
    /// The encoded body.
    pub bytes: Cow<'static, [u8]>,
}

impl ErrorBody {
    /// Creates a body of this media type.
    pub fn new(
        content_type: impl Into<Cow<'static, str>>,
        bytes: impl Into<Cow<'static, [u8]>>,
    ) -> Self {
        Self {
            content_type: content_type.into(),
            bytes: bytes.into(),
        }
    }

    /// Creates a body of type `application/json`.
    #[must_use]
    pub fn json(text: impl Into<String>) -> Self {
        Self::new("application/json", text.into().into_bytes())
    }

    /// Creates a body of type `application/problem+json` (RFC 9457).
    #[must_use]
    pub fn problem_json(text: impl Into<String>) -> Self {
        Self::new("application/problem+json", text.into().into_bytes())
    }
}

/// Renders the body of an error response, in the error format of the host's API.
///
/// It is implemented for closures that take the error and the request. [`from_error`] adapts a
/// closure that takes the error only.
///
/// ```
/// use portunus::AuthError;
/// use portunus::respond::{ErrorBody, RejectionRenderer, from_error};
///
/// let renderer = from_error(|error: &AuthError| {
///     ErrorBody::json(format!(r#"{{"error":"{}"}}"#, error.code()))
/// });
/// # fn takes(_: impl RejectionRenderer) {}
/// # takes(renderer);
/// ```
pub trait RejectionRenderer: Send + Sync + 'static {
    /// Returns the body for an error. The request is passed for its path or its `Accept-Language`;
    /// escape whatever is copied from it.
    fn render(&self, error: &AuthError, request: &dyn RequestHead) -> ErrorBody;
}

impl<F> RejectionRenderer for F
where
    F: Fn(&AuthError, &dyn RequestHead) -> ErrorBody + Send + Sync + 'static,
{
    fn render(&self, error: &AuthError, request: &dyn RequestHead) -> ErrorBody {
        self(error, request)
    }
}

impl RejectionRenderer for Arc<dyn RejectionRenderer> {
    fn render(&self, error: &AuthError, request: &dyn RequestHead) -> ErrorBody {
        (**self).render(error, request)
    }
}

/// Creates a renderer from a closure that takes the error only.
pub fn from_error<F>(render: F) -> impl RejectionRenderer
where
    F: Fn(&AuthError) -> ErrorBody + Send + Sync + 'static,
{
    move |error: &AuthError, _: &dyn RequestHead| render(error)
}

/// A complete response, which an adapter converts into its framework's type.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The header fields in order, with names in lower case. A name may occur more than once.
    pub fields: Vec<(&'static str, Cow<'static, str>)>,
    /// The body.
    pub body: Cow<'static, [u8]>,
}

/// Converts errors into responses: the renderer's body and the fields that the protocol requires.
pub struct Responder {
    renderer: Arc<dyn RejectionRenderer>,
    challenges: Challenges,
    limit_fields: LimitFields,
}

impl Responder {
    pub(crate) fn new(
        renderer: Arc<dyn RejectionRenderer>,
        challenges: Challenges,
        limit_fields: LimitFields,
    ) -> Self {
        Self {
            renderer,
            challenges,
            limit_fields,
        }
    }

    /// Returns whether responses carry rate-limit fields.
    #[cfg(any(feature = "actix-web", feature = "tower"))]
    pub(crate) fn reports_limits(&self) -> bool {
        self.limit_fields != LimitFields::Off
    }

    /// Calls `add` with each rate-limit field, for the response to a request that was counted.
    pub fn limit_fields(&self, limits: &LimitReport, add: &mut dyn FnMut(&'static str, String)) {
        self.fields_of(limits.state(), &mut |name, value| {
            add(name, String::from_utf8_lossy(value.as_bytes()).into_owned());
        });
    }

    /// Like [`limit_fields`](Self::limit_fields), without an allocation in the usual case.
    pub(crate) fn fields_of(
        &self,
        limits: LimitState<'_>,
        add: &mut dyn FnMut(&'static str, FieldValue<'_>),
    ) {
        self.limit_fields.each(limits, add);
    }

    /// Returns the response to a request that is refused with this error. If the host declared that
    /// it [serves gRPC](RequestHead::serves_grpc), a gRPC call gets a trailers-only response with
    /// status 200.
    #[must_use]
    pub fn answer(&self, error: &AuthError, request: &dyn RequestHead) -> Answer {
        let is_call = grpc::is_call(request);
        let (status, mut fields, body) = if is_call {
            (
                200,
                self.grpc_status(error).fields(error),
                Cow::Borrowed(&[][..]),
            )
        } else {
            let body = self.renderer.render(error, request);
            let fields = vec![
                ("content-type", body.content_type),
                ("cache-control", Cow::Borrowed("no-store")),
            ];
            (error.status(), fields, body.bytes)
        };
        fields.extend(
            self.challenges
                .of(error)
                .map(|line| ("www-authenticate", Cow::Owned(line))),
        );
        if let Some(wait) = error.retry_after().filter(|_| !is_call) {
            fields.push(("retry-after", Cow::Owned(whole_seconds(wait).to_string())));
        }
        if let Some(limits) = error.limits() {
            self.limit_fields(limits, &mut |name, value| {
                fields.push((name, value.into()));
            });
        }
        Answer {
            status,
            fields,
            body,
        }
    }

    /// Returns the error as a gRPC status. The realm of the challenges is the `domain` of its
    /// `ErrorInfo`.
    #[must_use]
    pub fn grpc_status(&self, error: &AuthError) -> GrpcStatus {
        GrpcStatus::new(error, self.challenges.realm())
    }
}

/// Renders problem details with the realm `api`: used where no authenticator is available.
impl Default for Responder {
    fn default() -> Self {
        Self::new(
            Arc::new(ProblemDetails::new()),
            Challenges::new("api", &[]),
            LimitFields::default(),
        )
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder")
            .field("challenges", &self.challenges)
            .finish_non_exhaustive()
    }
}
