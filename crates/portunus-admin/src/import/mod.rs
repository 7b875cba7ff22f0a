//! `POST /import`: imports keys by their digests, without their secrets: one as JSON, or many as
//! lines of JSON or as CSV.

mod csv;
mod keys;
mod records;

use std::cell::RefCell;
use std::fmt;
use std::time::SystemTime;

use axum::http::StatusCode;
use axum::response::Response;
use portunus::audit::Action;
use portunus::key::{KeyFamily, Revocation};
use portunus::manage::{ImportedDigest, KeyManager, NewImport, NewKey};
use portunus::{ErrorCode, json};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

pub use keys::{ImportFormat, ImportReport, ImportStopped, KeyImport, RefusedLine};
pub use records::{ImportRecord, ImportRecords};

use crate::body::{Object, Whole, private, read};
use crate::content::{ACCEPTED_BY_IMPORT as ACCEPTED, Content, Lines};
use crate::issue::{IssueRequest, null, time};
use crate::record::KeyRecord;
use crate::{AuthenticatedOperator, Fault, terms};

/// The digest of the whole key as another system stored it, in hexadecimal or base64.
#[derive(Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "digest: expected `scheme` and either `hex` or `base64`"
)]
pub(crate) enum DigestRequest {
    Hex(HexDigest),
    Base64(Base64Digest),
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HexDigest {
    #[schema(pattern = "^(sha256|sha512|hmac-sha256:(0|[1-9][0-9]*))$")]
    scheme: String,
    #[schema(pattern = "^([0-9A-Fa-f]{64}|[0-9A-Fa-f]{128})$")]
    hex: String,
    #[serde(default)]
    #[schema(schema_with = null)]
    #[allow(dead_code, reason = "absent, or `null`")]
    base64: Option<()>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Base64Digest {
    #[schema(pattern = "^(sha256|sha512|hmac-sha256:(0|[1-9][0-9]*))$")]
    scheme: String,
    #[schema(pattern = "^[A-Za-z0-9+/_-]+=*$")]
    base64: String,
    #[serde(default)]
    #[schema(schema_with = null)]
    #[allow(dead_code, reason = "absent, or `null`")]
    hex: Option<()>,
}

impl DigestRequest {
    pub(crate) fn into_digest(self) -> Result<ImportedDigest, Fault> {
        Ok(match self {
            Self::Hex(digest) => ImportedDigest::from_hex(&digest.scheme, &digest.hex)?,
            Self::Base64(digest) => ImportedDigest::from_base64(&digest.scheme, &digest.base64)?,
        })
    }
}

/// The members of an import in addition to those of a new key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ImportMembers {
    #[schema(value_type = DigestRequest)]
    digest: Object<DigestRequest>,
    #[schema(value_type = Option<terms::LastFour>)]
    last_four: Option<String>,
    /// When the key was created in the other system; now by default. Then `expires_at` can be in the
    /// past.
    #[schema(value_type = Option<terms::Time>)]
    created_at: Option<String>,
    /// When the key was last used there.
    #[schema(value_type = Option<terms::Time>)]
    last_used_at: Option<String>,
    /// How often the key was used there. Needs `last_used_at`.
    #[schema(value_type = Option<u64>, maximum = 9_007_199_254_740_991_u64)]
    request_count: Option<Whole>,
    #[schema(value_type = Option<ImportStatus>)]
    status: Option<ImportStatus>,
    /// When the key was revoked there. Required for `revoked`, which it implies.
    #[schema(value_type = Option<terms::Time>)]
    revoked_at: Option<String>,
    #[schema(value_type = Option<terms::Text>)]
    revoke_reason: Option<String>,
    /// What a key and its successors have in common there. Imported keys of one owner with the same
    /// value become one family, whose identifier is derived from it.
    #[schema(value_type = Option<terms::Id>)]
    key_family: Option<String>,
}

/// The names of these members.
const MEMBERS: [&str; 9] = [
    "digest",
    "last_four",
    "created_at",
    "last_used_at",
    "request_count",
    "status",
    "revoked_at",
    "revoke_reason",
    "key_family",
];

/// The status of a key in the other system; `active` by default. `expired` needs an `expires_at`
/// that is over.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ImportStatus {
    Active,
    Disabled,
    Expired,
    Revoked,
}

impl ImportMembers {
    /// Returns the import of a key.
    fn into_import(self, key: NewKey, now: SystemTime) -> Result<NewImport, Fault> {
        let mut import = NewImport::new(self.digest.0.into_digest()?, key);
        import.last_four = self.last_four;
        import.created_at = time("created_at", self.created_at)?;
        import.last_used_at = time("last_used_at", self.last_used_at)?;
        import.request_count = self.request_count.map_or(0, |Whole(count)| count);
        import.enabled = self.status != Some(ImportStatus::Disabled);
        let revoked_at = time("revoked_at", self.revoked_at)?;
        import.revoked = match (self.status, revoked_at, self.revoke_reason) {
            (None | Some(ImportStatus::Revoked), Some(at), reason) => {
                Some(Revocation::new(at, reason))
            }
            (Some(ImportStatus::Revoked), None, _) => {
                return Err(Fault::invalid("revoked_at", "required for a revoked key"));
            }
            (_, Some(_), _) => {
                return Err(Fault::invalid("status", "revoked_at is given, too"));
            }
            (_, None, Some(_)) => {
                return Err(Fault::invalid("revoke_reason", "needs revoked_at"));
            }
            (_, None, None) => None,
        };
        let is_over = import.key.expires_at.is_some_and(|end| end <= now);
        if self.status == Some(ImportStatus::Expired) && !is_over {
            let why = "must not be in the future for an expired key";
            return Err(Fault::invalid("expires_at", why));
        }
        let family = self.key_family.map(|name| KeyFamily::new(&name));
        import.family = family
            .transpose()
            .map_err(|error| Fault::invalid("key_family", error))?;
        Ok(import)
    }
}

/// A key to import: the members of [`ImportMembers`] and of [`IssueRequest`].
pub(crate) struct ImportRequest {
    members: ImportMembers,
    key: IssueRequest,
}

impl ImportRequest {
    /// Converts the request into an import in the operator's tenant.
    async fn into_import(self, manager: &KeyManager) -> Result<NewImport, Fault> {
        let key = self.key.into_new_key(manager).await?;
        self.members.into_import(key, manager.now())
    }
}

impl PartialSchema for ImportRequest {
    fn schema() -> RefOr<Schema> {
        let mut whole = ImportMembers::schema();
        if let (RefOr::T(Schema::Object(whole)), RefOr::T(Schema::Object(key))) =
            (&mut whole, IssueRequest::schema())
        {
            whole.properties.extend(key.properties);
            whole.required.extend(key.required);
            whole.additional_properties = key.additional_properties;
            whole.description = Some("A key to import.".to_owned());
        }
        whole
    }
}

impl ToSchema for ImportRequest {
    fn name() -> std::borrow::Cow<'static, str> {
        "ImportRequest".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        ImportMembers::schemas(schemas);
        IssueRequest::schemas(schemas);
    }
}

/// An imported key. The service does not know its secret.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportedKey<'k> {
    record: KeyRecord<'k>,
}

impl<'de> Deserialize<'de> for ImportRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = ImportRequest;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ImportRequest, A::Error> {
                let members = RefCell::default();
                let rest = Rest {
                    map,
                    members: &members,
                };
                let key = IssueRequest::deserialize(MapAccessDeserializer::new(rest))?;
                let members = Value::Object(members.into_inner());
                let members = ImportMembers::deserialize(members).map_err(A::Error::custom)?;
                Ok(ImportRequest { members, key })
            }
        }
        deserializer.deserialize_map(Parts)
    }
}

/// Reads the members of an object and stores those of [`ImportMembers`] separately. Serde's
/// `flatten` would copy the whole object and accept unknown members.
struct Rest<'r, A> {
    map: A,
    members: &'r RefCell<Map<String, Value>>,
}

/// A value without duplicate members.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        json::deserialize(deserializer).map(Self)
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Rest<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        while let Some(name) = self.map.next_key::<String>()? {
            if !MEMBERS.contains(&name.as_str()) {
                let name = serde::de::value::StringDeserializer::new(name);
                return seed.deserialize(name).map(Some);
            }
            let Strict(value) = self.map.next_value()?;
            let mut members = self.members.borrow_mut();
            if members.contains_key(&name) {
                return Err(A::Error::custom(format!("duplicate field `{name}`")));
            }
            members.insert(name, value);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

pub(crate) async fn import(
    operator: AuthenticatedOperator,
    body: Content,
) -> Result<Response, Fault> {
    let body = match body.lines()? {
        Ok((format, lines)) => return import_lines(operator, format, lines).await,
        Err(body) => body,
    };
    let asked = read::<ImportRequest>(body).await.map_err(accepting)?;
    let import = asked.into_import(&operator.manager).await;
    let import = operator.audited(Action::KeyImport, None, import)?;
    let imported = operator.manager.import(import).await?;
    let record = operator.view(&imported);
    Ok(private(StatusCode::CREATED, &ImportedKey { record }))
}

/// Adds the formats of this call to the refusal of another one.
fn accepting(fault: Fault) -> Fault {
    match fault.error().code() {
        ErrorCode::UnsupportedMediaType => fault.with_field("accept", ACCEPTED),
        _ => fault,
    }
}

async fn import_lines(
    operator: AuthenticatedOperator,
    format: ImportFormat,
    mut lines: Lines,
) -> Result<Response, Fault> {
    let mut import = KeyImport::new(&operator.manager, format);
    while let Some(bytes) = lines.next().await? {
        import.push(&bytes).await?;
    }
    let report = import.finish().await?;
    Ok(private(StatusCode::OK, &ImportedKeys::of(&report, None)))
}

/// The result of an import of many keys.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportedKeys<'r> {
    /// Number of keys that were created.
    created: u64,
    /// Number of keys that the same import created before.
    already_there: u64,
    /// Number of lines that were refused.
    refused: u64,
    /// The first of them.
    #[schema(max_items = 500)]
    refusals: Vec<RefusedLineView<'r>>,
    /// Only if the import stopped: the line from which it must be repeated.
    #[schema(value_type = u64, required = false, minimum = 1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_at: Option<u64>,
}

/// A line that was refused.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefusedLineView<'r> {
    /// The line on which the record begins, from 1.
    #[schema(minimum = 1)]
    line: u64,
    #[schema(value_type = terms::Code)]
    code: &'static str,
    detail: &'r str,
}

impl<'r> ImportedKeys<'r> {
    pub(crate) fn of(report: &'r ImportReport, stopped_at: Option<u64>) -> Self {
        let refusals = report.refusals.iter().map(|refusal| RefusedLineView {
            line: refusal.line,
            code: refusal.code.as_str(),
            detail: &refusal.reason,
        });
        Self {
            created: report.created,
            already_there: report.already_there,
            refused: report.refused,
            refusals: refusals.collect(),
            stopped_at,
        }
    }
}
