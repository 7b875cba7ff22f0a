//! The error of a refused request: a stable code, a message for the caller, and details for
//! renderers.
//!
//! Codes never change their meaning; messages may. An error never carries a secret, and never
//! reveals the reason for a refusal to a caller who did not present the real key.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

mod code;

pub use crate::text::ParseError;
pub(crate) use code::ChallengeError;
pub use code::ErrorCode;

#[cfg(any(feature = "actix-web", feature = "tower"))]
use crate::key::PlanName;
use crate::key::{KeyId, KeyRecord, UserId};
use crate::limit::LimitReport;
use crate::scope::{ScopeRequirement, ScopeSet};

/// Error returned when a request is refused.
///
/// It is cheap to clone: adapters store it in the response's extensions for outer middleware.
#[derive(Debug, Clone)]
pub struct AuthError {
    code: ErrorCode,
    detail: Cow<'static, str>,
    more: Option<Arc<More>>,
}

#[derive(Debug, Clone, Default)]
struct More {
    missing: Option<Arc<MissingScope>>,
    retry_after: Option<Duration>,
    limits: Option<LimitReport>,
    /// The member of the request that is wrong.
    field: Option<&'static str>,
    /// Whether the status is 402 instead of the code's.
    payment_required: bool,
    source: Option<Arc<dyn Error + Send + Sync>>,
    /// The real key that was presented, for the audit event.
    presented: Option<Presented>,
}

/// The refused key, and the user that the request named.
#[derive(Clone)]
pub(crate) struct Presented {
    pub(crate) record: Arc<KeyRecord>,
    pub(crate) named: Option<NamedUser>,
}

/// The user that a refused request named.
#[derive(Clone)]
pub(crate) struct NamedUser {
    /// Whether the request asked to act on behalf of the user, rather than as the user.
    pub(crate) on_behalf: bool,
    pub(crate) id: Option<UserId>,
    pub(crate) email: Option<String>,
}

/// Details of an `INSUFFICIENT_SCOPE` error.
#[derive(Debug)]
#[non_exhaustive]
pub struct MissingScope {
    /// The scopes that the route requires.
    pub required: ScopeRequirement,
    /// The names of the scopes that the key grants.
    pub granted: Vec<String>,
}

impl fmt::Debug for Presented {
    /// Omits the named user, which is unverified input from the caller.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented")
            .field("key_id", &self.record.id)
            .finish_non_exhaustive()
    }
}

impl AuthError {
    /// Creates an error with the default message of the code.
    #[must_use]
    pub const fn new(code: ErrorCode) -> Self {
        Self {
            code,
            detail: Cow::Borrowed(code.message()),
            more: None,
        }
    }

    /// Creates an error with a custom message, which must not contain a secret.
    #[must_use]
    pub fn with_detail(code: ErrorCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            detail: detail.into(),
            more: None,
        }
    }

    /// Creates an `INSUFFICIENT_SCOPE` error from the required and the granted scopes.
    #[must_use]
    pub fn insufficient_scope(required: &ScopeRequirement, granted: &dyn ScopeSet) -> Self {
        let detail = format!(
            "The API key lacks a required scope: {}",
            required.explain(granted)
        );
        let missing = MissingScope {
            required: required.clone(),
            granted: granted.names(),
        };
        Self {
            code: ErrorCode::InsufficientScope,
            detail: detail.into(),
            more: Some(Arc::new(More {
                missing: Some(Arc::new(missing)),
                ..More::default()
            })),
        }
    }

    /// Creates an error for an outage, with its cause (for logs) and a retry delay of one second.
    #[must_use]
    pub fn unavailable(code: ErrorCode, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let more = More {
            retry_after: Some(Duration::from_secs(1)),
            source: Some(Arc::from(source.into())),
            ..More::default()
        };
        Self {
            code,
            detail: code.message().into(),
            more: Some(Arc::new(more)),
        }
    }

    /// Replaces the message for the caller.
    #[must_use]
    pub(crate) fn saying(mut self, detail: &'static str) -> Self {
        self.detail = detail.into();
        self
    }

    /// Creates a `RATE_LIMITED` error with the state of the limits and the retry delay.
    #[must_use]
    pub fn rate_limited(limits: LimitReport) -> Self {
        let who = match limits.is_with_key() {
            true => ErrorCode::RateLimited.message(),
            false => "Too many requests",
        };
        let detail = match limits.violated().as_slice() {
            [] => Cow::Borrowed(who),
            [name] => format!("{who}: the quota {name} is used up").into(),
            names => format!("{who}: the quotas {} are used up", names.join(" and ")).into(),
        };
        let more = More {
            retry_after: limits.retry_after(),
            limits: Some(limits),
            ..More::default()
        };
        Self {
            code: ErrorCode::RateLimited,
            detail,
            more: Some(Arc::new(more)),
        }
    }

    /// Creates a `CREDITS_EXHAUSTED` error: what the request costs, what is left, and the time until a
    /// period refills, if there are periods.
    #[must_use]
    pub(crate) fn credits_exhausted(
        (cost, left): (u64, u64),
        refills_in: Option<Duration>,
        payment_required: bool,
    ) -> Self {
        let code = ErrorCode::CreditsExhausted;
        let detail = format!("{}: it costs {cost}, and {left} are left", code.message());
        let more = More {
            retry_after: refills_in,
            payment_required,
            ..More::default()
        };
        Self {
            code,
            detail: detail.into(),
            more: Some(Arc::new(more)),
        }
    }

    /// Creates a `TOO_MANY_FAILURES` error with the retry delay.
    #[must_use]
    pub fn too_many_failures(retry_after: Duration) -> Self {
        let more = More {
            retry_after: Some(retry_after),
            ..More::default()
        };
        Self {
            code: ErrorCode::TooManyFailures,
            detail: ErrorCode::TooManyFailures.message().into(),
            more: Some(Arc::new(more)),
        }
    }

    /// Attaches the real key that was presented and the user that the request named.
    #[must_use]
    pub(crate) fn presenting(self, record: &Arc<KeyRecord>, named: Option<NamedUser>) -> Self {
        let presented = Presented {
            record: Arc::clone(record),
            named,
        };
        self.with(|more| more.presented = Some(presented))
    }

    fn with(mut self, change: impl FnOnce(&mut More)) -> Self {
        change(Arc::make_mut(self.more.get_or_insert_default()));
        self
    }

    /// Returns the refused key, if the caller presented a real one.
    pub(crate) fn presented(&self) -> Option<&Presented> {
        self.more.as_ref()?.presented.as_ref()
    }

    /// Returns the id of the real key that was refused, for logs. `None` if no real key was
    /// presented, or if a route refused a key that had already been authenticated.
    #[must_use]
    pub fn key_id(&self) -> Option<&KeyId> {
        self.presented().map(|presented| &presented.record.id)
    }

    /// Returns the plan of the refused key, as far as it is known.
    #[cfg(any(feature = "actix-web", feature = "tower"))]
    pub(crate) fn plan(&self) -> Option<&PlanName> {
        let counted = self
            .limits()
            .and_then(|limits| limits.state().limits.name.as_ref());
        counted.or_else(|| self.presented()?.record.plan.as_ref())
    }

    /// Attaches the cause of the error. A renderer can look for one of the host's own errors in it.
    #[must_use]
    pub fn caused_by(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.with(|more| more.source = Some(Arc::from(source.into())))
    }

    /// Names the member of the request that is wrong, such as `owner.user_id`. A form shows the error
    /// beside it.
    #[must_use]
    pub fn about(self, field: &'static str) -> Self {
        self.with(|more| more.field = Some(field))
    }

    /// Attaches the state of the limits, for a request that was counted.
    #[must_use]
    pub(crate) fn with_limits(self, limits: Option<LimitReport>) -> Self {
        if limits.is_some() {
            self.with(|more| more.limits = limits)
        } else {
            self
        }
    }

    /// Returns the limits that apply to the request with their state, if it was counted.
    #[must_use]
    pub fn limits(&self) -> Option<&LimitReport> {
        self.more.as_ref().and_then(|more| more.limits.as_ref())
    }

    /// Returns the stable code.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        self.code
    }

    /// Returns the HTTP status: that of the code, or 402 for `CREDITS_EXHAUSTED` if the host
    /// [chose it](crate::credit::Credits::payment_required).
    #[must_use]
    pub fn status(&self) -> u16 {
        match &self.more {
            Some(more) if more.payment_required => 402,
            _ => self.code.status(),
        }
    }

    /// Returns the reason phrase of the status.
    #[must_use]
    pub fn reason_phrase(&self) -> &'static str {
        ErrorCode::phrase(self.status())
    }

    /// Returns the message for the caller.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Returns the member of the request that is wrong, if the error is about one.
    #[must_use]
    pub fn field(&self) -> Option<&'static str> {
        self.more.as_ref().and_then(|more| more.field)
    }

    /// Returns the required and the granted scopes, for `INSUFFICIENT_SCOPE`.
    #[must_use]
    pub fn missing_scope(&self) -> Option<&MissingScope> {
        self.more.as_ref().and_then(|more| more.missing.as_deref())
    }

    /// Returns the time after which a retry may succeed, if known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.more.as_ref().and_then(|more| more.retry_after)
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl Error for AuthError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.more
            .as_ref()?
            .source
            .as_deref()
            .map(|source| source as _)
    }
}
