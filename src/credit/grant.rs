//! Who has credits, and the terms on which they are granted.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use rand::TryRng;
use rand::rngs::SysRng;
use serde::{Deserialize, Serialize};

use super::{CreditError, Period, millis};
use crate::key::{KeyFamily, KeyRecord, TenantId, UserId};
use crate::text::ParseError;

/// The maximum number of units in an account, and of one grant: 2^53 - 1, which every JSON parser
/// reads exactly.
pub(super) const MOST_UNITS: u64 = (1 << 53) - 1;

/// Who has credits.
///
/// Its text form differs for any two accounts, so a store can use it as a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CreditAccount {
    /// A key and its successors by rotation.
    Key(KeyFamily),
    /// All keys of a user.
    User(TenantId, UserId),
    /// All keys of a tenant.
    Tenant(TenantId),
}

impl CreditAccount {
    /// Returns the user's account, or the tenant's for a key that belongs to no user.
    pub(crate) fn of_user(record: &KeyRecord) -> Self {
        let tenant = record.owner.tenant_id.clone();
        match &record.owner.user_id {
            Some(user) => Self::User(tenant, user.clone()),
            None => Self::Tenant(tenant),
        }
    }
}

/// Formats it as `key:FAMILY`, `tenant:TENANT` or `user:N:TENANT:USER`, where N is the length of
/// TENANT.
impl fmt::Display for CreditAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(family) => write!(f, "key:{family}"),
            Self::User(tenant, user) => {
                write!(f, "user:{}:{tenant}:{user}", tenant.as_str().len())
            }
            Self::Tenant(tenant) => write!(f, "tenant:{tenant}"),
        }
    }
}

/// Reads the text form. Each account has one: a length has no leading zeros.
impl FromStr for CreditAccount {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let why = "an account must be key:FAMILY, tenant:TENANT or user:N:TENANT:USER, where N is the \
                   length of TENANT";
        let account = account(text).filter(|account| account.to_string() == text);
        account.ok_or_else(|| ParseError::new("account", why))
    }
}

fn account(text: &str) -> Option<CreditAccount> {
    let (kind, rest) = text.split_once(':')?;
    Some(match kind {
        "key" => CreditAccount::Key(KeyFamily::new(rest).ok()?),
        "tenant" => CreditAccount::Tenant(TenantId::new(rest).ok()?),
        "user" => {
            let (length, rest) = rest.split_once(':')?;
            let (tenant, user) = rest.split_at_checked(length.parse().ok()?)?;
            let user = UserId::new(user.strip_prefix(':')?).ok()?;
            CreditAccount::User(TenantId::new(tenant).ok()?, user)
        }
        _ => return None,
    })
}

/// The id of a grant, of a block of units that a node has taken, or of a reservation: 1 to 64
/// letters, digits, `-`, `_` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CreditId(Arc<str>);

impl CreditId {
    /// Creates an id.
    ///
    /// # Errors
    /// Returns an error if the text is empty, too long or has other characters.
    pub fn new(text: &str) -> Result<Self, ParseError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if text.is_empty() || text.len() > 64 || !text.bytes().all(allowed) {
            let why = "an id of credits must be 1 to 64 letters, digits, '-', '_' and '.'";
            return Err(ParseError::new("identifier", why));
        }
        Ok(Self(text.into()))
    }

    /// Generates a random id of 128 bits, after a prefix.
    pub(super) fn generate(prefix: &str) -> Result<Self, CreditError> {
        let mut random = [0; 16];
        let filled = SysRng.try_fill_bytes(&mut random);
        filled.map_err(CreditError::unavailable)?;
        let random = u128::from_be_bytes(random);
        Ok(Self(format!("{prefix}_{random:032x}").into()))
    }

    /// Creates the id of a grant by a request that may be repeated, from the request's id and a
    /// fingerprint of its content.
    pub(crate) fn of_request(request: &str, fingerprint: &str) -> Result<Self, ParseError> {
        Self::new(&format!("{REQUEST}{request}.{fingerprint:.16}"))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The beginning of the ids of grants by requests that may be repeated.
const REQUEST: &str = "once_";

/// Returns the request that a grant's id is made of, without its content.
pub(super) fn request_of(id: &CreditId) -> Option<&str> {
    let (request, _) = id.as_str().strip_prefix(REQUEST)?.split_once('.')?;
    Some(request)
}

impl fmt::Display for CreditId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for CreditId {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::new(text)
    }
}

impl TryFrom<String> for CreditId {
    type Error = ParseError;
    fn try_from(text: String) -> Result<Self, ParseError> {
        Self::new(&text)
    }
}

impl From<CreditId> for String {
    fn from(id: CreditId) -> Self {
        id.0.as_ref().into()
    }
}

/// A grant to be made: units, and the terms on which they may be spent.
///
/// ```
/// use portunus::credit::{NewGrant, Period};
///
/// let allowance = NewGrant::new(10_000).refilled(Period::monthly());
/// let top_up = NewGrant::new(5_000).with_priority(10); // spent after the allowance
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a grant does nothing until it is given to a manager"]
pub struct NewGrant {
    pub(super) id: Option<CreditId>,
    pub(super) terms: Terms,
}

/// The terms of a grant. Times are in milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Terms {
    pub(super) units: u64,
    pub(super) priority: u8,
    pub(super) expires_at: Option<u64>,
    pub(super) period: Option<Period>,
    pub(super) rollover: bool,
}

impl NewGrant {
    /// Creates a grant of 1 to 2^53 - 1 units that never expires, of priority 0.
    pub const fn new(units: u64) -> Self {
        Self {
            id: None,
            terms: Terms {
                units,
                priority: 0,
                expires_at: None,
                period: None,
                rollover: false,
            },
        }
    }

    /// Sets the id, for example that of an invoice. A grant with the id of an earlier one of the
    /// account is not made again, so that a call can be repeated; other terms are an error. Earlier
    /// ids are known while their grant exists, and the last 100 of those that have ended, without
    /// their terms.
    pub fn with_id(mut self, id: CreditId) -> Self {
        self.id = Some(id);
        self
    }

    /// Sets the priority: the grant with the lowest is spent first; among equal ones, the grant
    /// whose units lapse first, then the older one.
    pub const fn with_priority(mut self, priority: u8) -> Self {
        self.terms.priority = priority;
        self
    }

    /// Sets the instant, in whole milliseconds, from which the units cannot be spent any more.
    pub fn expiring_at(mut self, at: SystemTime) -> Self {
        self.terms.expires_at = Some(millis(at));
        self
    }

    /// Grants the units again at the start of each period. What is left of them then lapses. The
    /// current period counts as a whole one.
    pub fn refilled(mut self, period: Period) -> Self {
        self.terms.period = Some(period);
        self
    }

    /// Keeps at the start of a period what is left of the periods before.
    pub const fn rolling_over(mut self) -> Self {
        self.terms.rollover = true;
        self
    }

    pub(crate) const fn units(&self) -> u64 {
        self.terms.units
    }

    pub(super) fn check(&self, now: u64) -> Result<(), CreditError> {
        let terms = &self.terms;
        let why = match terms.expires_at {
            _ if terms.units == 0 || terms.units > MOST_UNITS => {
                format!(
                    "a grant must have 1 to {MOST_UNITS} units, not {}",
                    terms.units
                )
            }
            Some(at) if at <= now => "a grant must expire in the future".to_owned(),
            _ if terms.rollover && terms.period.is_none() => {
                "only a grant that is refilled can roll over".to_owned()
            }
            _ => return Ok(()),
        };
        Err(CreditError::Invalid(ParseError::new("grant", why)))
    }
}
