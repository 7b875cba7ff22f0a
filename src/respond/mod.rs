//! From an error to an answer, the same in every framework.
//!
//! The answer's status and protocol fields (`WWW-Authenticate`, `Cache-Control`, `Retry-After`)
//! follow from the error alone and are made in one place; a [`RejectionRenderer`] chooses the words
//! of the body. A gRPC call has no body to put words in: it gets a [`GrpcStatus`].

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
use crate::limit::{Decision, LimitFields, whole_seconds};
use crate::request::RequestHead;

/// The body of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErrorBody {
    /// The media type.
    pub content_type: Cow<'static, str>,
    /// The bytes.
    pub bytes: Cow<'static, [u8]>,
}

impl ErrorBody {
    /// A body of this media type.
    pub fn new(
        content_type: impl Into<Cow<'static, str>>,
        bytes: impl Into<Cow<'static, [u8]>>,
    ) -> Self {
        Self {
            content_type: content_type.into(),
            bytes: bytes.into(),
        }
    }

    /// A body of type `application/json`.
    #[must_use]
    pub fn json(text: impl Into<String>) -> Self {
        Self::new("application/json", text.into().into_bytes())
    }

    /// A body of type `application/problem+json` (RFC 9457).
    #[must_use]
    pub fn problem_json(text: impl Into<String>) -> Self {
        Self::new("application/problem+json", text.into().into_bytes())
    }
}

/// Chooses the body of a refusal: the dialect of the host's API.
///
/// A closure that takes the error and the request is one; [`from_error`] makes one of a closure
/// that needs the error only.
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
    /// The body for this error. The request is at hand for its path or its `Accept-Language`;
    /// nothing of it may be echoed unescaped.
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

/// A renderer that looks at the error only.
pub fn from_error<F>(render: F) -> impl RejectionRenderer
where
    F: Fn(&AuthError) -> ErrorBody + Send + Sync + 'static,
{
    move |error: &AuthError, _: &dyn RequestHead| render(error)
}

/// A whole answer, for an adapter to turn into its framework's response.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The fields, names in lower case, in their order; a name may repeat.
    pub fields: Vec<(&'static str, Cow<'static, str>)>,
    /// The bytes of the body.
    pub body: Cow<'static, [u8]>,
}

/// WriteQueue errors into answers: the renderer for words, and what the protocol demands.
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

    /// Calls `add` with each field that tells how the windows stand, for the answer to a request
    /// that was counted.
    pub fn limit_fields(&self, limits: &Decision, add: &mut dyn FnMut(&'static str, String)) {
        self.limit_fields.each(limits, add);
    }

    /// The answer to a request that is refused for this error. Where the host declared that it
    /// [serves gRPC](RequestHead::serves_grpc), a gRPC call gets trailers only, under status 200.
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
                fields.push((name, Cow::Owned(value)));
            });
        }
        Answer {
            status,
            fields,
            body,
        }
    }

    /// The error as a status of gRPC, whose reasons are of the domain that the challenges have as
    /// their realm.
    #[must_use]
    pub fn grpc_status(&self, error: &AuthError) -> GrpcStatus {
        GrpcStatus::new(error, self.challenges.realm())
    }
}

/// Problem documents under the realm `api`: what answers where no authenticator is at hand.
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
