//! AllSign: FastAPI's `{"detail": …}`, with the texts of its documentation.

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
            // The same text for every failure of a well-formed key.
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

/// The metadata that AllSign logs for a request ("Request Metadata Logged").
///
/// Serializes to exactly `{"apiKeyOwner":…,"onBehalfOf":…,"scopes":[…],"mode":…}`, without
/// `onBehalfOf` if the key acts as its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RequestMetadata {
    /// The key owner's email address, or the user id if there is no address, or the tenant id.
    pub api_key_owner: String,
    /// The email address of the user on whose behalf the key acted, or the user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
    /// The scopes under which the request was made.
    pub scopes: Vec<String>,
    /// The mode in which the key acted.
    pub mode: ActorMode,
}

impl RequestMetadata {
    /// Returns the metadata of an audit event, or `None` if no valid key was presented.
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
        let on_behalf = matches!(mode, ActorMode::AppUser | ActorMode::Delegated);
        Some(Self {
            api_key_owner: owner.or_else(|| event.tenant_id.as_ref().map(ToString::to_string))?,
            on_behalf_of: event.subject.as_ref().filter(|_| on_behalf).and_then(name),
            scopes: event.scopes.clone(),
            mode,
        })
    }
}
