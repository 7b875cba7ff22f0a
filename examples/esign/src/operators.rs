//! The demo's operators: users of the directory who manage keys, and authenticate with a token that
//! is generated at each start.

use std::env::{self, VarError};
use std::fmt;

use async_trait::async_trait;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use portunus::audit::Action;
use portunus::credit::CreditAccount;
use portunus::key::{KeyDigest, KeyHasher, KeyRecord, TenantId, UserId, WorkspaceId};
use portunus::manage::{ByRole, Denied, Operator, OperatorPolicy, Role, Setting};
use portunus::store::ListQuery;
use portunus::{AuthError, ErrorCode, Scope, scope};
use portunus_admin::OperatorProof;
use portunus_profiles::Profile;
use rand::TryRng;
use rand::rngs::SysRng;

use crate::directory::{MEMBER, OUTSIDER, PLATFORM, USER};

/// All operators, with the digests of their tokens.
pub(crate) struct Operators {
    known: Vec<(KeyDigest, Operator)>,
    /// The tokens by name, for the ready line and the banner.
    pub(crate) tokens: Vec<(&'static str, String)>,
    hasher: KeyHasher,
}

/// The demo's tenant, and another one that must not see any of its data.
pub(crate) const TENANT: &str = "tenant_abc123";
pub(crate) const OTHER_TENANT: &str = "tenant_xyz789";

/// The workspaces of the demo's tenants, and the only one that the Admin belongs to.
pub(crate) const WORKSPACES: &[&str] = &["ws1", "ws2"];
pub(crate) const ADMINS_WORKSPACE: &str = "ws1";

/// The plans in ascending order, the plan of the demo's tenants, and the highest plan.
pub(crate) const PLANS: &[&str] = &["free", "standard", "enterprise"];
pub(crate) const TENANTS_PLAN: &str = "standard";
pub(crate) const HIGHEST_PLAN: &str = "enterprise";

impl Operators {
    /// Takes the tokens from `ESIGN_OPERATOR_*`, or generates them.
    pub(crate) fn from_env(profile: Profile) -> Result<Self, Box<dyn std::error::Error>> {
        let hasher = KeyHasher::sha256();
        let (mut known, mut tokens) = (Vec::new(), Vec::new());
        for (name, variable, role, user) in [
            ("owner", "ESIGN_OPERATOR_OWNER", Role::Owner, &USER),
            ("admin", "ESIGN_OPERATOR_ADMIN", Role::Admin, &PLATFORM),
            ("member", "ESIGN_OPERATOR_MEMBER", Role::Member, &MEMBER),
            (
                "outsider",
                "ESIGN_OPERATOR_OUTSIDER",
                Role::Owner,
                &OUTSIDER,
            ),
        ] {
            let token = match env::var(variable) {
                Ok(token)
                    if token.len() < 16
                        || !token.bytes().all(|b| b.is_ascii_graphic() && b != b',') =>
                {
                    return Err(format!(
                        "{variable} must be at least 16 visible ASCII characters, without commas"
                    )
                    .into());
                }
                Ok(token) => token,
                Err(VarError::NotPresent) => random_token()?,
                Err(error) => return Err(format!("{variable}: {error}").into()),
            };
            if tokens.iter().any(|(_, other)| *other == token) {
                return Err(
                    format!("{variable} must differ from the other operators' tokens").into(),
                );
            }
            let authority = match role {
                Role::Owner | Role::Admin => vec![scope!("*")],
                _ => reading(profile),
            };
            let (id, tenant) = (UserId::new(user.id)?, TenantId::new(user.tenant)?);
            let operator = Operator::new(id, tenant, role)
                .with_email(user.email)
                .with_authority(authority);
            let operator = match role {
                Role::Admin => operator.in_workspaces([WorkspaceId::new(ADMINS_WORKSPACE)?]),
                _ => operator.in_organization(),
            };
            known.push((hasher.digest(&token), operator));
            tokens.push((name, token));
        }
        Ok(Self {
            known,
            tokens,
            hasher,
        })
    }

    /// Returns the operator whose token the request presents. Compares all tokens, each in constant
    /// time.
    ///
    /// # Errors
    /// The error code if the token is missing, malformed or unknown.
    fn prove_by(&self, headers: &HeaderMap) -> Result<&Operator, ErrorCode> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = values.next().ok_or(ErrorCode::MissingKey)?;
        if values.next().is_some() {
            return Err(ErrorCode::InvalidRequest);
        }
        let value = value.as_bytes().trim_ascii();
        let (scheme, token) = value.split_at(
            value
                .iter()
                .position(|&byte| byte == b' ')
                .unwrap_or(value.len()),
        );
        if !scheme.eq_ignore_ascii_case(b"bearer") {
            return Err(ErrorCode::MissingKey);
        }
        // A token is visible ASCII only; a comma or a space would separate two credentials.
        let token = str::from_utf8(token.trim_ascii()).map_err(|_| ErrorCode::InvalidRequest)?;
        if token.is_empty() || token.contains(|c: char| !c.is_ascii_graphic() || c == ',') {
            return Err(ErrorCode::InvalidRequest);
        }
        let presented = self.hasher.digest(token);
        let found = self.known.iter().fold(None, |found, (digest, operator)| {
            match *digest == presented {
                true => Some(operator),
                false => found,
            }
        });
        found.ok_or(ErrorCode::InvalidKey)
    }
}

#[async_trait]
impl OperatorProof for Operators {
    async fn prove(&self, request: &Parts) -> Result<Operator, AuthError> {
        let operator = self.prove_by(&request.headers);
        operator
            .cloned()
            .map_err(|code| AuthError::with_detail(code, "An operator token is required"))
    }
}

/// The read-only scopes of an API.
fn reading(profile: Profile) -> Vec<Scope> {
    let all = profile.vocabulary();
    let reads = |scope: &&Scope| {
        [":read", ".read"]
            .iter()
            .any(|end| scope.as_str().ends_with(end))
    };
    all.names().iter().filter(reads).cloned().collect()
}

/// Permissions beyond the library's table: the Owner and Admins may set any limits, and the Owner
/// may set any plan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DemoPolicy;

impl OperatorPolicy for DemoPolicy {
    fn admits(&self, operator: &Operator) -> Result<(), Denied> {
        ByRole::new().admits(operator)
    }

    fn allows(&self, operator: &Operator, action: Action, key: &KeyRecord) -> Result<(), Denied> {
        ByRole::new().allows(operator, action, key)
    }

    fn lists(&self, operator: &Operator, query: ListQuery) -> Result<ListQuery, Denied> {
        ByRole::new().lists(operator, query)
    }

    /// A service that sells credits does not let its customers grant them.
    fn allows_credits(
        &self,
        operator: &Operator,
        action: Action,
        account: &CreditAccount,
    ) -> Result<(), Denied> {
        match operator.role() {
            Role::Owner => Ok(()),
            _ => ByRole::new().allows_credits(operator, action, account),
        }
    }

    fn may_exceed(&self, operator: &Operator, setting: Setting) -> bool {
        match setting {
            Setting::Quotas => matches!(operator.role(), Role::Owner | Role::Admin),
            Setting::Plan => operator.role() == Role::Owner,
            _ => false,
        }
    }
}

fn random_token() -> Result<String, Box<dyn std::error::Error>> {
    Ok(format!("op_{}", random_hex()?))
}

/// Generates 256 bits of randomness from the operating system, as hexadecimal digits.
pub(crate) fn random_hex() -> Result<String, rand::rngs::SysError> {
    let mut bytes = [0_u8; 32];
    SysRng.try_fill_bytes(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl fmt::Debug for Operators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Operators({}, [redacted])", self.known.len())
    }
}
