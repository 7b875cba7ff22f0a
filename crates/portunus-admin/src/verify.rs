//! `POST /verify`: whether a secret is active and whether a request with it would be allowed,
//! modelled on RFC 7662. Of a route's requirements, only scopes and the workspace can be given.

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

/// The request to evaluate. Omitted members are not evaluated, with two exceptions: a key with an
/// allow-list is not allowed without `ip`, and `explain` names the workspaces of a restricted key.
/// `require` lists scopes; other requirements of a route (a plan, a user, the organization) cannot
/// be evaluated.
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
    /// The method of the request. Without it, write access is not evaluated.
    #[schema(pattern = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", max_length = 64)]
    method: Option<String>,
    #[schema(value_type = Option<terms::WorkspaceId>)]
    workspace: Option<String>,
}

/// Maximum number of required scopes, which is that of a key's scopes.
const MOST_REQUIRED: usize = 256;
/// Maximum length of a method; registered ones have 17 characters at most.
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

/// The result of verifying a secret, modelled on RFC 7662 §2.2.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Verified<'k> {
    Active(Box<VerifiedActive<'k>>),
    Inactive(VerifiedInactive),
}

/// A secret that is not active. The reason is not disclosed.
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
    /// Whether the given request would be allowed.
    allowed: bool,
    /// Explanation of `allowed`, for each part of the requirement.
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
        let mut each = scopes(&names)?.into_iter().map(Requirement::scope);
        Ok(match (each.next(), each.len()) {
            (Some(one), 0) => one,
            // An empty list is a requirement that no key meets.
            (first, _) => Requirement::all_of_list(first.into_iter().chain(each))
                .unwrap_or(Requirement::any_of::<Requirement>([])),
        })
    }
}

impl VerifyRequest {
    /// Returns the key and the request to evaluate.
    fn into_introspection(self) -> Result<(Secret, Introspection), Fault> {
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
                let why = format!(
                    "expected a token of at most {LONGEST_METHOD} characters (RFC 9110 §9.1)"
                );
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
    let (Secret(key), asked) = read::<VerifyRequest>(body).await?.into_introspection()?;
    // The manager checks who owns the key and whether this operator can see it. The authenticator
    // applies the same rules as for a request.
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
