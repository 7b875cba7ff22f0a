//! `POST /import`: imports a key by its digest, without its secret.

use std::cell::Cell;
use std::fmt;

use axum::http::StatusCode;
use axum::response::Response;
use portunus::audit::Action;
use portunus::manage::{ImportedDigest, NewImport};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::body::{Object, private, read};
use crate::content::Content;
use crate::issue::{IssueRequest, null};
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
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes two members of `ImportRequest`")]
struct ImportMembers {
    digest: DigestRequest,
    #[schema(value_type = Option<terms::LastFour>)]
    last_four: Option<String>,
}

/// A key to import: the members of [`ImportMembers`] and of [`IssueRequest`].
pub(crate) struct ImportRequest {
    digest: DigestRequest,
    last_four: Option<String>,
    key: IssueRequest,
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
                let (digest, last_four) = (Cell::new(None), Cell::new(None));
                let rest = Rest {
                    map,
                    digest: &digest,
                    last_four: &last_four,
                };
                let key = IssueRequest::deserialize(MapAccessDeserializer::new(rest))?;
                Ok(ImportRequest {
                    digest: digest
                        .take()
                        .map(|Object(digest)| digest)
                        .ok_or_else(|| A::Error::missing_field("digest"))?,
                    last_four: last_four.take().flatten(),
                    key,
                })
            }
        }
        deserializer.deserialize_map(Parts)
    }
}

/// Reads the members of an object and stores two of them separately. Serde's `flatten` would copy
/// the whole object and accept unknown members.
struct Rest<'r, A> {
    map: A,
    digest: &'r Cell<Option<Object<DigestRequest>>>,
    last_four: &'r Cell<Option<Option<String>>>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Rest<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        while let Some(name) = self.map.next_key::<String>()? {
            let is_first = match name.as_str() {
                "digest" => self.digest.replace(Some(self.map.next_value()?)).is_none(),
                "last_four" => self
                    .last_four
                    .replace(Some(self.map.next_value()?))
                    .is_none(),
                _ => {
                    let name = serde::de::value::StringDeserializer::new(name);
                    return seed.deserialize(name).map(Some);
                }
            };
            if !is_first {
                return Err(A::Error::custom(format!("duplicate field `{name}`")));
            }
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
    let asked = read::<ImportRequest>(body).await?;
    let import = new_import(&operator, asked).await;
    let import = operator.audited(Action::KeyImport, None, import)?;
    let imported = operator.manager.import(import).await?;
    let record = operator.view(&imported);
    Ok(private(StatusCode::CREATED, &ImportedKey { record }))
}

/// Converts the request into an import in the operator's tenant.
async fn new_import(
    operator: &AuthenticatedOperator,
    asked: ImportRequest,
) -> Result<NewImport, Fault> {
    let key = asked.key.into_new_key(operator).await?;
    let mut import = NewImport::new(asked.digest.into_digest()?, key);
    import.last_four = asked.last_four;
    Ok(import)
}
