//! The one error of a request: a stable code, a sentence for the caller, and what a renderer needs
//! to say more.
//!
//! Codes never change their meaning; texts may. No error carries a secret, and none tells a reason
//! to somebody who did not present the real key.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

mod code;

pub use crate::text::ParseError;
pub(crate) use code::ChallengeError;
pub use code::ErrorCode;

use crate::key::{KeyId, KeyRecord, UserId};
use crate::limit::Decision;
use crate::scope::{ScopeRequirement, ScopeSet};

/// Why a request was refused.
///
/// Cheap to clone: adapters put it into the response's extensions, where outer middleware finds it.
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
    limits: Option<Decision>,
    source: Option<Arc<dyn Error + Send + Sync>>,
    /// The real key that was presented, for the audit.
    presented: Option<Presented>,
}

/// Whose key was refused, and whom it was to act for.
#[derive(Clone)]
pub(crate) struct Presented {
    pub(crate) record: Arc<KeyRecord>,
    pub(crate) named: Option<NamedUser>,
}

/// The user whom a refused request named.
#[derive(Clone)]
pub(crate) struct NamedUser {
    /// Whether the key was to act on behalf of the user, rather than as the user.
    pub(crate) on_behalf: bool,
    pub(crate) id: Option<UserId>,
    pub(crate) email: Option<String>,
}

/// What a refusal for want of a scope knows.
#[derive(Debug)]
#[non_exhaustive]
pub struct MissingScope {
    /// What the route requires.
    pub required: ScopeRequirement,
    /// What the key grants, by name.
    pub granted: Vec<String>,
}

impl fmt::Debug for Presented {
    /// Without whom it names: that is the caller's own text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented")
            .field("key_id", &self.record.id)
            .finish_non_exhaustive()
    }
}

impl AuthError {
    /// An error with the code's own sentence.
    #[must_use]
    pub const fn new(code: ErrorCode) -> Self {
        Self {
            code,
            detail: Cow::Borrowed(code.message()),
            more: None,
        }
    }

    /// An error with a sentence of its own. It must not carry a secret.
    #[must_use]
    pub fn with_detail(code: ErrorCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            detail: detail.into(),
            more: None,
        }
    }

    /// `INSUFFICIENT_SCOPE`, with what was required and what was there.
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

    /// An outage: the code with what caused it, for logs, and when to try again.
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

    /// `RATE_LIMITED`, with how the windows stand and when a retry passes.
    #[must_use]
    pub fn rate_limited(decision: Decision) -> Self {
        let detail = match decision.violated().as_slice() {
            [] => Cow::Borrowed(ErrorCode::RateLimited.message()),
            [name] => {
                format!("Too many requests with this API key: the quota {name} is used up").into()
            }
            names => format!(
                "Too many requests with this API key: the quotas {} are used up",
                names.join(" and ")
            )
            .into(),
        };
        let more = More {
            retry_after: decision.retry_after(),
            limits: Some(decision),
            ..More::default()
        };
        Self {
            code: ErrorCode::RateLimited,
            detail,
            more: Some(Arc::new(more)),
        }
    }

    /// `TOO_MANY_FAILURES`, with when a retry passes.
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

    /// The same error, of a caller who presented a real key.
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

    /// Whose key was refused.
    pub(crate) fn presented(&self) -> Option<&Presented> {
        self.more.as_ref()?.presented.as_ref()
    }

    /// The id of the real key that was refused, for logs: unknown where none was presented, and
    /// where a route refused a key that had been let through.
    #[must_use]
    pub fn key_id(&self) -> Option<&KeyId> {
        self.presented().map(|presented| &presented.record.id)
    }

    /// The same error with what caused it: a renderer may look for an error of the host's own.
    #[must_use]
    pub fn caused_by(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.with(|more| more.source = Some(Arc::from(source.into())))
    }

    /// The same error on a request that was counted: its answer tells how the windows stand.
    #[must_use]
    pub(crate) fn with_limits(self, decision: Option<Decision>) -> Self {
        if decision.is_some() {
            self.with(|more| more.limits = decision)
        } else {
            self
        }
    }

    /// How the windows stand, on a request that was counted.
    #[must_use]
    pub fn limits(&self) -> Option<&Decision> {
        self.more.as_ref().and_then(|more| more.limits.as_ref())
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        self.code
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.code.status()
    }

    /// A sentence for the caller.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// What was required and what was there, for `INSUFFICIENT_SCOPE`.
    #[must_use]
    pub fn missing_scope(&self) -> Option<&MissingScope> {
        self.more.as_ref().and_then(|more| more.missing.as_deref())
    }

    /// When a retry may succeed, where that is known.
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
