//! `POST /verify`: whether a secret is active and whether a request with it would be allowed,
//! modelled on RFC 7662. Of a route's requirements, only scopes and the workspace can be given.

use std::time::SystemTime;

use axum::http::{Method, StatusCode};
use axum::response::Response;
use portunus::authenticator::{Introspection, Verdict};
use portunus::key::{KeyId, UserId, WorkspaceId};
use portunus::manage::{ManageError, ManagedKey};
use portunus::{ErrorCode, Requirement, Scope};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::{Object, Type};

use crate::body::{self, Secret, private};
use crate::content::Content;
use crate::query::{Wrong, read};
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
    fn into_names(self) -> Vec<String> {
        match self {
            Self::One(terms::Scope(name)) => vec![name],
            Self::More(Scopes(names)) => names.into_iter().map(|scope| scope.0).collect(),
        }
    }
}

/// The request to evaluate, as it was written.
pub(crate) struct Asked {
    pub(crate) require: Option<Vec<String>>,
    pub(crate) ip: Option<String>,
    pub(crate) method: Option<String>,
    pub(crate) workspace: Option<String>,
}

impl Asked {
    /// Returns the request to evaluate, or what is wrong with each member.
    pub(crate) fn into_introspection(self) -> Result<Introspection, Wrong> {
        let mut asked = Introspection::new();
        let mut wrong = Wrong::new();
        if let Some(required) = read("require", self.require.as_deref(), &mut wrong, requirement) {
            asked = asked.with_requirement(required);
        }
        if let Some(ip) = read("ip", self.ip.as_deref(), &mut wrong, str::parse) {
            asked = asked.with_client_ip(ip);
        }
        if let Some(method) = read("method", self.method, &mut wrong, method) {
            asked = asked.with_method(method);
        }
        let workspace = self.workspace.as_deref();
        if let Some(id) = read("workspace", workspace, &mut wrong, WorkspaceId::new) {
            asked = asked.with_workspace(id);
        }
        match wrong.is_empty() {
            true => Ok(asked),
            false => Err(wrong),
        }
    }
}

fn requirement(names: &[String]) -> Result<Requirement, String> {
    if names.len() > MOST_REQUIRED {
        return Err(format!("at most {MOST_REQUIRED} scopes"));
    }
    let scopes: Result<Vec<_>, _> = names.iter().map(|name| Scope::new(name)).collect();
    let scopes = scopes.map_err(|error| error.to_string())?;
    let mut each = scopes.into_iter().map(Requirement::scope);
    Ok(match (each.next(), each.len()) {
        (Some(one), 0) => one,
        // An empty list is a requirement that no key meets.
        (first, _) => Requirement::all_of_list(first.into_iter().chain(each))
            .unwrap_or(Requirement::any_of::<Requirement>([])),
    })
}

fn method(name: String) -> Result<String, String> {
    if name.len() > LONGEST_METHOD || Method::from_bytes(name.as_bytes()).is_err() {
        let why = "expected a token of at most";
        return Err(format!("{why} {LONGEST_METHOD} characters (RFC 9110 §9.1)"));
    }
    Ok(name)
}

impl VerifyRequest {
    /// Returns the key and the request to evaluate.
    fn into_introspection(self) -> Result<(Secret, Introspection), Fault> {
        let asked = Asked {
            require: self.require.map(OneOrMore::into_names),
            ip: self.ip,
            method: self.method,
            workspace: self.workspace,
        };
        match asked.into_introspection() {
            Ok(asked) => Ok((self.key, asked)),
            Err(wrong) => {
                let each = wrong.iter().map(|(name, why)| format!("{name}: {why}"));
                let each = each.collect::<Vec<_>>().join("; ");
                Err(Fault::new(ErrorCode::InvalidBody, each))
            }
        }
    }
}

/// Returns the key with this secret, and what a request with it would get. `None` for a secret that
/// is not active or not known to the operator; it is counted.
pub(crate) async fn judge(
    operator: &AuthenticatedOperator,
    key: &str,
    asked: &Introspection,
) -> Result<Option<(ManagedKey, Verdict)>, Fault> {
    // The manager checks who owns the key and whether this operator can see it. The authenticator
    // applies the same rules as for a request.
    let verdict = match operator.manager.verify(key).await? {
        Some(found) => {
            let verdict = operator.shared.authenticator.verify(key, asked).await?;
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
    Ok(verdict)
}

pub(crate) async fn verify(
    operator: AuthenticatedOperator,
    content: Content,
) -> Result<Response, Fault> {
    let (Secret(key), asked) = body::read::<VerifyRequest>(content)
        .await?
        .into_introspection()?;
    let verdict = judge(&operator, &key, &asked).await?;
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
