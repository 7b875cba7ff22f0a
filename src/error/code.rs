//! The stable codes of refusals.

use std::fmt;
use std::str::FromStr;

use crate::text::{ParseError, start};

/// Why a request is refused: stable, machine-readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ErrorCode {
    /// 400: credentials that are repeated, ambiguous or not well-formed by RFC 6750.
    InvalidRequest,
    /// 400: the route needs a user, and the key acts as an application.
    ActorRequired,
    /// 401: no credentials, or of a scheme that is not accepted.
    MissingKey,
    /// 401: not of the shape of any accepted key.
    InvalidFormat,
    /// 401: no such key.
    InvalidKey,
    /// 401: the real key, revoked.
    KeyRevoked,
    /// 401: the real key, at or past its expiry.
    KeyExpired,
    /// 401: the real key, switched off or not yet valid.
    KeyDisabled,
    /// 401: the real key, of another environment.
    WrongEnvironment,
    /// 403: the key lacks a scope.
    InsufficientScope,
    /// 403: the client's address is not on the key's allow-list.
    IpNotAllowed,
    /// 403: no such user, or none that this key may act for.
    UnknownActor,
    /// 403: a read-only key on a writing request.
    ReadOnlyKey,
    /// 403: a workspace that the key does not reach.
    WorkspaceForbidden,
    /// 403: the plan does not include this.
    PlanRequired,
    /// 403: the key's owner is suspended or lost the role.
    OwnerSuspended,
    /// 403: the connection is not as secure as demanded.
    InsecureTransport,
    /// 403: a write to the management API from a page of another site.
    CrossSite,
    /// 403: not allowed, for a reason that has no code of its own.
    Forbidden,
    /// 404: no such thing.
    NotFound,
    /// 409: it clashes with what is there.
    Conflict,
    /// 409: no more keys may be issued.
    QuotaExceeded,
    /// 412: it changed since it was read.
    PreconditionFailed,
    /// 413: a body that is longer than is read.
    TooLarge,
    /// 415: a body of a media type, charset or content coding that is not read.
    UnsupportedMediaType,
    /// 422: a body that cannot be accepted.
    InvalidBody,
    /// 429: too many requests with this key.
    RateLimited,
    /// 429: too many failed attempts from this address.
    TooManyFailures,
    /// 503: the key store gave no answer.
    StoreUnavailable,
    /// 503: the directory of users gave no answer.
    DirectoryUnavailable,
    /// 503: the token verifier gave no answer.
    VerifierUnavailable,
    /// 503: the rate limiter gave no answer.
    LimiterUnavailable,
}

/// The `error` parameter of a Bearer challenge (RFC 6750 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChallengeError {
    None,
    InvalidRequest,
    InvalidToken,
    InsufficientScope,
}

impl ErrorCode {
    /// Every code, in the order of their statuses.
    pub const ALL: &'static [Self] = &[
        Self::InvalidRequest,
        Self::ActorRequired,
        Self::MissingKey,
        Self::InvalidFormat,
        Self::InvalidKey,
        Self::KeyRevoked,
        Self::KeyExpired,
        Self::KeyDisabled,
        Self::WrongEnvironment,
        Self::InsufficientScope,
        Self::IpNotAllowed,
        Self::UnknownActor,
        Self::ReadOnlyKey,
        Self::WorkspaceForbidden,
        Self::PlanRequired,
        Self::OwnerSuspended,
        Self::InsecureTransport,
        Self::CrossSite,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::QuotaExceeded,
        Self::PreconditionFailed,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::InvalidBody,
        Self::RateLimited,
        Self::TooManyFailures,
        Self::StoreUnavailable,
        Self::DirectoryUnavailable,
        Self::VerifierUnavailable,
        Self::LimiterUnavailable,
    ];

    /// The code as text, in SCREAMING_SNAKE.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.row().1
    }

    /// The reason phrase of its status (RFC 9110 §15; RFC 6585 §4 for 429): a title that never
    /// varies with the occurrence.
    #[must_use]
    pub const fn reason_phrase(self) -> &'static str {
        match self.status() {
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            409 => "Conflict",
            412 => "Precondition Failed",
            413 => "Content Too Large",
            415 => "Unsupported Media Type",
            422 => "Unprocessable Content",
            429 => "Too Many Requests",
            503 => "Service Unavailable",
            _ => "Error",
        }
    }

    /// A sentence for the caller that fits every occurrence.
    #[must_use]
    pub const fn message(self) -> &'static str {
        self.row().2
    }

    const fn row(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::InvalidRequest => (
                "INVALID_REQUEST",
                400,
                "The credentials are repeated, ambiguous or malformed",
            ),
            Self::ActorRequired => (
                "ACTOR_REQUIRED",
                400,
                "This route needs to know which user the key acts for",
            ),
            Self::MissingKey => ("MISSING_KEY", 401, "No API key was presented"),
            Self::InvalidFormat => (
                "INVALID_FORMAT",
                401,
                "The credentials do not have the shape of an API key",
            ),
            Self::InvalidKey => ("INVALID_KEY", 401, "The API key is not valid"),
            Self::KeyRevoked => ("KEY_REVOKED", 401, "The API key has been revoked"),
            Self::KeyExpired => ("KEY_EXPIRED", 401, "The API key has expired"),
            Self::KeyDisabled => ("KEY_DISABLED", 401, "The API key is not enabled"),
            Self::WrongEnvironment => (
                "WRONG_ENVIRONMENT",
                401,
                "The API key belongs to another environment",
            ),
            Self::InsufficientScope => (
                "INSUFFICIENT_SCOPE",
                403,
                "The API key lacks a required scope",
            ),
            Self::IpNotAllowed => (
                "IP_NOT_ALLOWED",
                403,
                "Access from this IP is not allowed for this API key",
            ),
            Self::UnknownActor => (
                "UNKNOWN_ACTOR",
                403,
                "The API key may not act for this user",
            ),
            Self::ReadOnlyKey => ("READ_ONLY_KEY", 403, "The API key is read-only"),
            Self::WorkspaceForbidden => (
                "WORKSPACE_FORBIDDEN",
                403,
                "The API key does not reach this workspace",
            ),
            Self::PlanRequired => ("PLAN_REQUIRED", 403, "The plan does not include this"),
            Self::OwnerSuspended => (
                "OWNER_SUSPENDED",
                403,
                "The owner of the API key is suspended",
            ),
            Self::InsecureTransport => (
                "INSECURE_TRANSPORT",
                403,
                "The connection is not secure enough",
            ),
            Self::CrossSite => (
                "CROSS_SITE",
                403,
                "Requests from pages of other sites may not change anything",
            ),
            Self::Forbidden => ("FORBIDDEN", 403, "This is not allowed"),
            Self::NotFound => ("NOT_FOUND", 404, "There is nothing here"),
            Self::Conflict => ("CONFLICT", 409, "This clashes with what is stored"),
            Self::QuotaExceeded => ("QUOTA_EXCEEDED", 409, "No more API keys may be issued"),
            Self::PreconditionFailed => (
                "PRECONDITION_FAILED",
                412,
                "It has changed since it was read",
            ),
            Self::TooLarge => ("TOO_LARGE", 413, "The body is too large"),
            Self::UnsupportedMediaType => (
                "UNSUPPORTED_MEDIA_TYPE",
                415,
                "The media type or content coding of the body is not supported",
            ),
            Self::InvalidBody => ("INVALID_BODY", 422, "The body cannot be accepted"),
            Self::RateLimited => ("RATE_LIMITED", 429, "Too many requests with this API key"),
            Self::TooManyFailures => ("TOO_MANY_FAILURES", 429, "Too many failed attempts"),
            Self::StoreUnavailable => (
                "STORE_UNAVAILABLE",
                503,
                "API keys cannot be checked right now",
            ),
            Self::DirectoryUnavailable => (
                "DIRECTORY_UNAVAILABLE",
                503,
                "Users cannot be looked up right now",
            ),
            Self::VerifierUnavailable => (
                "VERIFIER_UNAVAILABLE",
                503,
                "Tokens cannot be verified right now",
            ),
            Self::LimiterUnavailable => (
                "LIMITER_UNAVAILABLE",
                503,
                "Rate limits cannot be checked right now",
            ),
        }
    }

    /// What a Bearer challenge says, for answers that carry one.
    pub(crate) const fn challenge(self) -> Option<ChallengeError> {
        match self {
            Self::MissingKey => Some(ChallengeError::None),
            Self::InvalidRequest => Some(ChallengeError::InvalidRequest),
            Self::InsufficientScope => Some(ChallengeError::InsufficientScope),
            _ if self.status() == 401 => Some(ChallengeError::InvalidToken),
            _ => None,
        }
    }
}

impl FromStr for ErrorCode {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let found = Self::ALL.iter().find(|code| code.as_str() == text);
        found.copied().ok_or_else(|| {
            ParseError::new(
                "error code",
                format!("{:?} is no error code", start(text, 40)),
            )
        })
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
