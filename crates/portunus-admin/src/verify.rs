//! `POST /verify`: whether a secret is active, and what a request with it would get, in the manner of
//! RFC 7662. Of what a route requires, only scopes and the workspace can be named.

use std::time::SystemTime;

use axum::http::{Method, StatusCode};
use axum::response::Response;
use portunus::Requirement;
use portunus::authenticator::{Introspection, Verdict};
use portunus::key::{KeyId, UserId, WorkspaceId};
use portunus::manage::{ManageError, ManagedKey};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::{Object, Type};

use crate::body::{Secret, private, read};
use crate::content::Content;
use crate::issue::scopes;
use crate::record::KeyRecord;
use crate::{AuthenticatedOperator, Fault, terms};

/// The request that is asked about. What is left out is not evaluated, but a key with an allow-list
/// is not allowed without `ip`, and `explain` names the only workspaces that a key reaches. `require`
/// names scopes; a plan, a user or the organization, which a route may require too, cannot be asked
/// about.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyRequest {
    /// The secret.
    #[schema(value_type = String, format = Password)]
    key: Secret,
    #[schema(inline, nullable)]
    require: Option<OneOrMore>,
    #[schema(value_type = Option<terms::IpAddress>)]
    ip: Option<String>,
    /// The method of the request. Without it, whether the key may write is not evaluated.
    #[schema(pattern = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", max_length = 64)]
    method: Option<String>,
    #[schema(value_type = Option<terms::WorkspaceId>)]
    workspace: Option<String>,
}

/// The most scopes that a key can have.
const MOST_REQUIRED: usize = 256;
/// The longest method that is asked about; registered ones have 17 characters at most.
const LONGEST_METHOD: usize = 64;

/// One scope, or several that are all required.
#[derive(Deserialize, ToSchema)]
#[serde(untagged, expecting = "a scope, or a list of scopes")]
enum OneOrMore {
    One(terms::Scope),
    More(Scopes),
}

#[derive(Deserialize, ToSchema)]
#[schema(max_items = 256)]
struct Scopes(Vec<terms::Scope>);

/// The answer about a secret, in the manner of RFC 7662 §2.2.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Verified<'k> {
    Active(Box<VerifiedActive<'k>>),
    Inactive(VerifiedInactive),
}

/// A secret that is not active. The reason is not given.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifiedInactive {
    #[schema(schema_with = always::<false>)]
    active: bool,
}

/// An active key.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifiedActive<'k> {
    #[schema(schema_with = always::<true>)]
    active: bool,
    /// The scopes, separated by spaces.
    scope: String,
    #[schema(value_type = terms::KeyId)]
    client_id: &'k KeyId,
    #[schema(required, value_type = Option<terms::Id>)]
    sub: Option<&'k UserId>,
    #[schema(required, max_length = 1000)]
    username: Option<&'k str>,
    #[schema(pattern = "^api_key$")]
    token_type: &'static str,
    #[schema(required)]
    exp: Option<u64>,
    iat: u64,
    #[schema(required)]
    nbf: Option<u64>,
    /// Whether a request like the one asked about would pass.
    allowed: bool,
    /// The reasons, part by part.
    explain: String,
    record: KeyRecord<'k>,
}

fn always<const VALUE: bool>() -> Object {
    let mut only = Object::with_type(Type::Boolean);
    only.enum_values = Some(vec![VALUE.into()]);
    only
}

impl OneOrMore {
    fn into_requirement(self) -> Result<Requirement, Fault> {
        let names = match self {
            Self::One(terms::Scope(name)) => vec![name],
            Self::More(Scopes(names)) => names.into_iter().map(|scope| scope.0).collect(),
        };
        if names.len() > MOST_REQUIRED {
            let why = format!("at most {MOST_REQUIRED} scopes");
            return Err(Fault::invalid("require", why));
        }
        let mut each: Vec<_> = scopes(&names)?
            .into_iter()
            .map(Requirement::scope)
            .collect();
        Ok(match each.len() {
            1 => each.remove(0),
            _ => Requirement::all_of(each),
        })
    }
}

impl VerifyRequest {
    /// The key, and the request that is asked about.
    fn into_question(self) -> Result<(Secret, Introspection), Fault> {
        let mut asked = Introspection::new();
        if let Some(required) = self.require {
            asked = asked.with_requirement(required.into_requirement()?);
        }
        if let Some(ip) = self.ip {
            let ip = ip.parse().map_err(|error| Fault::invalid("ip", error))?;
            asked = asked.with_client_ip(ip);
        }
        if let Some(method) = self.method {
            if method.len() > LONGEST_METHOD || Method::from_bytes(method.as_bytes()).is_err() {
                let why = format!("a token of at most {LONGEST_METHOD} characters (RFC 9110 §9.1)");
                return Err(Fault::invalid("method", why));
            }
            asked = asked.with_method(method);
        }
        if let Some(name) = self.workspace {
            let id = WorkspaceId::new(&name).map_err(|error| Fault::invalid("workspace", error))?;
            asked = asked.with_workspace(id);
        }
        Ok((self.key, asked))
    }
}

pub(crate) async fn verify(
    operator: AuthenticatedOperator,
    body: Content,
) -> Result<Response, Fault> {
    let (Secret(key), asked) = read::<VerifyRequest>(body).await?.into_question()?;
    // The manager knows whose key it is, and whether this operator may see it; the authenticator,
    // which requests pass through, what the key may do.
    let verdict = match operator.manager.verify(&key).await? {
        Some(found) => {
            let verdict = operator.shared.authenticator.verify(&key, &asked).await?;
            verdict
                .filter(|verdict| *verdict.key_id() == found.record.id)
                .map(|verdict| (found, verdict))
        }
        None => None,
    };
    if verdict.is_none() {
        operator.shared.count_unknown(operator.operator())?;
    }
    if !operator.manager.precondition_holds(None) {
        return Err(ManageError::PreconditionFailed.into());
    }
    let answer = match &verdict {
        None => Verified::Inactive(VerifiedInactive { active: false }),
        Some((key, verdict)) => Verified::Active(Box::new(active(&operator, key, verdict))),
    };
    Ok(private(StatusCode::OK, &answer))
}

fn active<'k>(
    operator: &AuthenticatedOperator,
    key: &'k ManagedKey,
    verdict: &Verdict,
) -> VerifiedActive<'k> {
    let record = &key.record;
    let scopes: Vec<_> = record.scopes.iter().map(ToString::to_string).collect();
    let seconds = |at: SystemTime| {
        at.duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    };
    VerifiedActive {
        active: true,
        scope: scopes.join(" "),
        client_id: &record.id,
        sub: record.owner.user_id.as_ref(),
        username: record.owner.user_email.as_deref(),
        token_type: "api_key",
        exp: record.expires_at.map(seconds),
        iat: seconds(record.created_at),
        nbf: record.not_before.map(seconds),
        allowed: verdict.is_allowed(),
        explain: verdict.explanation().to_string(),
        record: operator.view(key),
    }
}
