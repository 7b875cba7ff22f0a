//! `POST /verify`: what a secret is, for whoever holds it; in the manner of RFC 7662.

use std::net::IpAddr;

use axum::http::StatusCode;
use axum::response::Response;
use portunus::ScopeSet;
use portunus::key::{Access, KeyStatus};
use portunus::manage::{ManageError, ManagedKey};
use portunus::policy::Requirement;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::body::{private, read};
use crate::content::Content;
use crate::issue::scopes;
use crate::{Fault, Proven};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifyBody {
    key: String,
    require: Option<OneOrMore>,
    ip: Option<String>,
    method: Option<String>,
}

/// One scope, or several that are all required.
#[derive(Deserialize)]
#[serde(untagged)]
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
        Ok(Requirement::all_of(scopes(&names)?))
    }
}

pub(crate) async fn verify(proven: Proven, body: Content) -> Result<Response, Fault> {
    let asked = read::<VerifyBody>(body).await?;
    let required = asked.require.map(OneOrMore::into_requirement).transpose()?;
    let ip = asked
        .ip
        .map(|text| {
            text.parse::<IpAddr>()
                .map_err(|error| Fault::invalid("ip", error))
        })
        .transpose()?;
    let now = proven.manager.now();
    let found = proven.manager.verify(&asked.key).await?;
    let answer = match found.filter(|key| key.record.status(now) == KeyStatus::Active) {
        // Not a word about why.
        None => json!({ "active": false }),
        Some(key) => {
            let granted = proven.shared.authenticator.scopes_of(&key.record)?;
            let (allowed, explain) = judge(
                &key,
                &*granted,
                required.as_ref(),
                ip,
                asked.method.as_deref(),
            );
            shown(&proven, &key, allowed, &explain)
        }
    };
    if !proven.manager.precondition_holds(None) {
        return Err(ManageError::PreconditionFailed.into());
    }
    Ok(private(StatusCode::OK, &answer))
}

/// Whether the key may do what is asked about, and why.
fn judge(
    key: &ManagedKey,
    granted: &dyn ScopeSet,
    required: Option<&Requirement>,
    ip: Option<IpAddr>,
    method: Option<&str>,
) -> (bool, Vec<String>) {
    let (record, mut allowed, mut explain) = (&key.record, true, Vec::new());
    let mut say = |fits: bool, why: String| {
        allowed &= fits;
        explain.push(why);
    };
    if let Some(required) = required {
        say(
            required.is_met_by(granted),
            required.explain(granted).to_string(),
        );
    }
    match (&record.allowed_ips, ip) {
        (None, Some(ip)) => say(true, format!("{ip}: the key works from anywhere")),
        (Some(list), Some(ip)) if list.contains(ip) => {
            say(true, format!("{ip} is on the allow-list"));
        }
        (Some(_), Some(ip)) => say(false, format!("{ip} is not on the allow-list")),
        (_, None) => {}
    }
    if let Some(method) = method {
        let reads = matches!(method, "GET" | "HEAD" | "OPTIONS");
        match record.access {
            Access::ReadOnly if !reads => say(false, format!("{method}: the key is read-only")),
            _ => say(true, format!("{method}: the key has access")),
        }
    }
    (allowed, explain)
}

fn shown(proven: &Proven, key: &ManagedKey, allowed: bool, explain: &[String]) -> Value {
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
        "allowed": allowed,
        "explain": explain.join("; "),
        "record": proven.shown(key),
    })
}
