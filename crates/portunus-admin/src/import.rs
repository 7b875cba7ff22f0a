//! `POST /import`: a key whose digest is known and whose secret is not.

use axum::http::StatusCode;
use axum::response::Response;
use portunus::audit::Action;
use portunus::manage::{ImportedDigest, NewImport};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::body::{Object, private, read};
use crate::content::Content;
use crate::issue::KeyBody;
use crate::{AuthenticatedOperator, Fault};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DigestBody {
    scheme: String,
    hex: Option<String>,
    base64: Option<String>,
}

impl DigestBody {
    fn into_digest(self) -> Result<ImportedDigest, Fault> {
        match (self.hex, self.base64) {
            (Some(hex), None) => Ok(ImportedDigest::from_hex(&self.scheme, &hex)?),
            (None, Some(base64)) => Ok(ImportedDigest::from_base64(&self.scheme, &base64)?),
            _ => Err(Fault::invalid("digest", "either hex or base64")),
        }
    }
}

pub(crate) async fn import(
    proven: AuthenticatedOperator,
    body: Content,
) -> Result<Response, Fault> {
    let members = read::<Object<Map<String, Value>>>(body).await?;
    let import = proven.noted(Action::KeyImport, None, described(&proven, members))?;
    let imported = proven.manager.import(import).await?;
    Ok(private(
        StatusCode::CREATED,
        &json!({ "record": proven.shown(&imported) }),
    ))
}

/// The import that is asked for, in the operator's tenant.
fn described(
    proven: &AuthenticatedOperator,
    Object(mut members): Object<Map<String, Value>>,
) -> Result<NewImport, Fault> {
    let digest = members
        .remove("digest")
        .ok_or_else(|| Fault::invalid("digest", "it is missing"))?;
    let Object(digest) = serde_json::from_value::<Object<DigestBody>>(digest)
        .map_err(|error| Fault::invalid("digest", error))?;
    let last_four = match members.remove("last_four") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text),
        Some(_) => return Err(Fault::invalid("last_four", "a string")),
    };
    let key = serde_json::from_value::<KeyBody>(Value::Object(members));
    let key = key
        .map_err(|error| Fault::invalid("body", error))?
        .into_new_key(proven)?;
    let mut import = NewImport::new(digest.into_digest()?, key);
    import.last_four = last_four;
    Ok(import)
}
