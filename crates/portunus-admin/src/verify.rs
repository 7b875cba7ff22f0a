//! `POST /verify`: what a secret is, for whoever holds it, and what a request with it would get; in
//! the manner of RFC 7662. Of what a route requires, only scopes and the workspace can be named.

use axum::http::{Method, StatusCode};
use axum::response::Response;
use portunus::Requirement;
use portunus::authenticator::{Introspection, Verdict};
use portunus::key::WorkspaceId;
use portunus::manage::{ManageError, ManagedKey};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::body::{private, read};
use crate::content::Content;
use crate::issue::scopes;
use crate::{AuthenticatedOperator, Fault};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifyBody {
    key: String,
    require: Option<OneOrMore>,
    ip: Option<String>,
    method: Option<String>,
    workspace: Option<String>,
}

/// As many scopes as a key can have.
pub(crate) const MOST_REQUIRED: usize = 256;
/// The longest method that is asked about; registered ones have 17 characters at most.
pub(crate) const LONGEST_METHOD: usize = 64;

/// One scope, or several that are all required.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a scope, or a list of scopes")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn into_requirement(self) -> Result<Requirement, Fault> {
        let names = match self {
            Self::One(name) => vec![name],
            Self::More(names) => names,
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

impl VerifyBody {
    /// The key, and the request that is asked about.
    fn into_question(self) -> Result<(String, Introspection), Fault> {
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
    proven: AuthenticatedOperator,
    body: Content,
) -> Result<Response, Fault> {
    let (key, asked) = read::<VerifyBody>(body).await?.into_question()?;
    // Whose key it is, and whether this operator may know, says the manager; what the key may do,
    // the authenticator that requests pass through.
    let verdict = match proven.manager.verify(&key).await? {
        Some(found) => {
            let verdict = proven.shared.authenticator.verify(&key, &asked).await?;
            verdict
                .filter(|verdict| *verdict.key_id() == found.record.id)
                .map(|verdict| (found, verdict))
        }
        None => None,
    };
    let answer = match verdict {
        // Not a word about why.
        None => {
            proven.shared.count_unknown(proven.operator())?;
            json!({ "active": false })
        }
        Some((key, verdict)) => shown(&proven, &key, &verdict),
    };
    if !proven.manager.precondition_holds(None) {
        return Err(ManageError::PreconditionFailed.into());
    }
    Ok(private(StatusCode::OK, &answer))
}

fn shown(proven: &AuthenticatedOperator, key: &ManagedKey, verdict: &Verdict) -> Value {
    let record = &key.record;
    let scope = record
        .scopes
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ");
    let seconds = |at: std::time::SystemTime| {
        at.duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    };
    json!({
        "active": true,
        "scope": scope,
        "client_id": record.id,
        "sub": record.owner.user_id,
        "username": record.owner.user_email,
        "token_type": "api_key",
        "exp": record.expires_at.map(seconds),
        "iat": seconds(record.created_at),
        "nbf": record.not_before.map(seconds),
        "allowed": verdict.is_allowed(),
        "explain": verdict.explanation(),
        "record": proven.shown(key),
    })
}
