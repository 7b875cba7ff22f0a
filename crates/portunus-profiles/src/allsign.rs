//! AllSign: FastAPI's `{"detail": …}`, with the texts that its documentation prints.

use serde::Serialize;

use portunus::actor::ActorMode;
use portunus::audit::{AuditEvent, Party};
use portunus::error::MissingScope;
use portunus::request::RequestHead;
use portunus::respond::{ErrorBody, RejectionRenderer};
use portunus::scope;
use portunus::scope::Scope;
use portunus::{AuthError, ErrorCode};

pub(super) const SCOPES: &[Scope] = &[
    scope!("document:read"),
    scope!("document:write"),
    scope!("document:delete"),
    scope!("document:*"),
    scope!("signature:read"),
    scope!("signature:write"),
    scope!("signature:*"),
];

pub(super) struct Dialect;

impl RejectionRenderer for Dialect {
    fn render(&self, error: &AuthError, _: &dyn RequestHead) -> ErrorBody {
        let detail = match (error.code(), error.missing_scope()) {
            (ErrorCode::MissingKey, _) => {
                "Missing Authorization header. Use: Authorization: Bearer allsign_live_sk_xxx"
                    .into()
            }
            (ErrorCode::InvalidFormat, _) => {
                "Invalid API key format. Expected: allsign_{env}_{type}_{random}".into()
            }
            (ErrorCode::InsufficientScope, Some(missing)) => insufficient(missing),
            // One text for all that is wrong with a well-formed key.
            (code, _) if code.status() == 401 => "Invalid or expired API key".into(),
            (ErrorCode::NotFound, _) => "Not Found".into(),
            _ => error.detail().to_owned(),
        };
        ErrorBody::json(format!(r#"{{"detail": {}}}"#, super::json(&detail)))
    }
}

fn insufficient(missing: &MissingScope) -> String {
    let yours = match missing.granted.as_slice() {
        [] => "none".into(),
        granted => granted.join(", "),
    };
    let required = match (missing.required.single(), missing.required.alternatives()) {
        (Some(one), _) => match one.parent_wildcard() {
            Some(wildcard) if !one.is_wildcard() => format!("Required: {one} or {wildcard}"),
            _ => format!("Required: {one}"),
        },
        (None, Some(several)) => {
            let names: Vec<_> = several.iter().map(|scope| scope.as_str()).collect();
            format!("Requires ANY of these scopes: {}", names.join(", "))
        }
        (None, None) => format!("Required: {}", missing.required),
    };
    format!("Insufficient permissions. {required}. Your scopes: {yours}")
}

/// What AllSign logs of a request ("Request Metadata Logged"), as JSON exactly:
/// `{"apiKeyOwner":…,"onBehalfOf":…,"scopes":[…],"mode":…}`; without `onBehalfOf` where a key acts
/// as its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RequestMetadata {
    /// The e-mail address of the key's owner, else the id, else the tenant.
    pub api_key_owner: String,
    /// The e-mail address of the user that was acted for, else the id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
    /// The authority that it was done with.
    pub scopes: Vec<String>,
    /// In which way the key acted.
    pub mode: ActorMode,
}

impl RequestMetadata {
    /// That of an event; `None` where no real key was presented.
    #[must_use]
    pub fn of(event: &AuditEvent) -> Option<Self> {
        let mode = event.mode?;
        let name = |party: &Party| {
            party
                .user_email
                .clone()
                .or_else(|| party.user_id.as_ref().map(ToString::to_string))
        };
        let owner = event.actor.as_ref().and_then(name);
        let for_somebody = matches!(mode, ActorMode::AppUser | ActorMode::Delegated);
        Some(Self {
            api_key_owner: owner.or_else(|| event.tenant_id.as_ref().map(ToString::to_string))?,
            on_behalf_of: event
                .subject
                .as_ref()
                .filter(|_| for_somebody)
                .and_then(name),
            scopes: event.scopes.clone(),
            mode,
        })
    }
}
