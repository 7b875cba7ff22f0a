//! Stable, machine-readable error codes.

use std::fmt;
use std::str::FromStr;

use crate::text::{ParseError, start};

/// The reason why a request was refused, as a stable, machine-readable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ErrorCode {
    /// 400: the credentials are repeated, ambiguous or malformed (RFC 6750).
    InvalidRequest,
    /// 400: the route requires a user, and the key acts as an application.
    ActorRequired,
    /// 401: no credentials, or credentials of a scheme that is not accepted.
    MissingKey,
    /// 401: the credentials match no accepted key format.
    InvalidFormat,
    /// 401: the key does not exist.
    InvalidKey,
    /// 401: the key exists and is revoked.
    KeyRevoked,
    /// 401: the key exists and is at or past its expiry.
    KeyExpired,
    /// 401: the key exists and is disabled or not yet valid.
    KeyDisabled,
    /// 401: the key exists and belongs to another environment.
    WrongEnvironment,
    /// 403: the key lacks a required scope.
    InsufficientScope,
    /// 403: the client's address is not on the key's allow-list.
    IpNotAllowed,
    /// 403: the user does not exist, or the key is not allowed to act for the user.
    UnknownActor,
    /// 403: a read-only key was used for a write.
    ReadOnlyKey,
    /// 403: the key does not have access to the workspace.
    WorkspaceForbidden,
    /// 403: the owner's plan does not include the feature.
    PlanRequired,
    /// 403: the key's owner is suspended or no longer has the required role.
    OwnerSuspended,
    /// 403: the connection does not meet the transport requirements.
    InsecureTransport,
    /// 403: a cross-site write to the management API.
    CrossSite,
    /// 403: not allowed, for a reason without a code of its own.
    Forbidden,
    /// 404: the resource does not exist.
    NotFound,
    /// 409: the request conflicts with an existing resource.
    Conflict,
    /// 409: no more keys can be issued.
    QuotaExceeded,
    /// 412: the resource was modified since it was read.
    PreconditionFailed,
    /// 413: the request body is too large.
    TooLarge,
    /// 415: the media type, charset or content coding of the request body is not supported.
    UnsupportedMediaType,
    /// 422: the request body is invalid.
    InvalidBody,
    /// 429: too many requests with this key.
    RateLimited,
    /// 429: too many failed attempts from this address.
    TooManyFailures,
    /// 429, or 402 if the host chooses it: too few credits are left for the request.
    CreditsExhausted,
    /// 500: the service is set up incorrectly, for example without the layer that authenticates the
    /// requests of a route. The caller learns nothing else; the log names the route and the remedy.
    Internal,
    /// 503: the key store, or that of credits, did not answer.
    StoreUnavailable,
    /// 503: the user directory did not answer.
    DirectoryUnavailable,
    /// 503: the token verifier did not answer.
    VerifierUnavailable,
    /// 503: the rate limiter did not answer.
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
    /// All codes, in the order of their HTTP statuses.
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
        Self::CreditsExhausted,
        Self::Internal,
        Self::StoreUnavailable,
        Self::DirectoryUnavailable,
        Self::VerifierUnavailable,
        Self::LimiterUnavailable,
    ];

    /// Returns the code as a string, in SCREAMING_SNAKE_CASE.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// Returns the HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.row().1
    }

    /// Returns the reason phrase of the status (RFC 9110 §15; RFC 6585 §4 for 429): a title that is
    /// the same for every occurrence.
    #[must_use]
    pub const fn reason_phrase(self) -> &'static str {
        Self::phrase(self.status())
    }

    pub(super) const fn phrase(status: u16) -> &'static str {
        match status {
            400 => "Bad Request",
            401 => "Unauthorized",
            402 => "Payment Required",
            403 => "Forbidden",
            404 => "Not Found",
            409 => "Conflict",
            412 => "Precondition Failed",
            413 => "Content Too Large",
            415 => "Unsupported Media Type",
            422 => "Unprocessable Content",
            429 => "Too Many Requests",
            500 => "Internal Server Error",
            503 => "Service Unavailable",
            _ => "Error",
        }
    }

    /// Returns a sentence for the caller that fits every occurrence.
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
                "The request must name the user that the key acts for",
            ),
            Self::MissingKey => ("MISSING_KEY", 401, "No API key was presented"),
            Self::InvalidFormat => (
                "INVALID_FORMAT",
                401,
                "The credentials do not have the format of an API key",
            ),
            Self::InvalidKey => ("INVALID_KEY", 401, "The API key is not valid"),
            Self::KeyRevoked => ("KEY_REVOKED", 401, "The API key has been revoked"),
            Self::KeyExpired => ("KEY_EXPIRED", 401, "The API key has expired"),
            Self::KeyDisabled => ("KEY_DISABLED", 401, "The API key is disabled"),
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
                "The API key is not allowed to act for this user",
            ),
            Self::ReadOnlyKey => ("READ_ONLY_KEY", 403, "The API key is read-only"),
            Self::WorkspaceForbidden => (
                "WORKSPACE_FORBIDDEN",
                403,
                "The API key does not have access to this workspace",
            ),
            Self::PlanRequired => (
                "PLAN_REQUIRED",
                403,
                "The plan does not include this feature",
            ),
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
                "Cross-site requests must not change anything",
            ),
            Self::Forbidden => ("FORBIDDEN", 403, "The request is not allowed"),
            Self::NotFound => ("NOT_FOUND", 404, "Not found"),
            Self::Conflict => ("CONFLICT", 409, "Conflicts with an existing resource"),
            Self::QuotaExceeded => ("QUOTA_EXCEEDED", 409, "No more API keys can be issued"),
            Self::PreconditionFailed => (
                "PRECONDITION_FAILED",
                412,
                "The resource was modified since it was read",
            ),
            Self::TooLarge => ("TOO_LARGE", 413, "The request body is too large"),
            Self::UnsupportedMediaType => (
                "UNSUPPORTED_MEDIA_TYPE",
                415,
                "The media type or content coding of the request body is not supported",
            ),
            Self::InvalidBody => ("INVALID_BODY", 422, "The request body is invalid"),
            Self::RateLimited => ("RATE_LIMITED", 429, "Too many requests with this API key"),
            Self::TooManyFailures => ("TOO_MANY_FAILURES", 429, "Too many failed attempts"),
            Self::CreditsExhausted => (
                "CREDITS_EXHAUSTED",
                429,
                "There are not enough credits for this request",
            ),
            Self::Internal => ("INTERNAL_ERROR", 500, "An internal error occurred"),
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

    /// Returns the `error` parameter of the challenge, or `None` if the response carries no
    /// challenge.
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
                format!("unknown error code {:?}", start(text, 40)),
            )
        })
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
