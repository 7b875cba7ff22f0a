//! CSV (RFC 4180): a row becomes the JSON object that describes the same key. A column is named by
//! the path of its member.

use std::borrow::Cow;

use portunus::json;
use serde_json::{Map, Value};

/// How a field is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    /// Names separated by white space.
    Names,
    /// The same, where `*` stands for no restriction. An empty field could mean both.
    Restriction,
    Json,
}

const COLUMNS: [(&str, Kind); 26] = [
    ("name", Kind::Text),
    ("description", Kind::Text),
    ("kind", Kind::Text),
    ("environment", Kind::Text),
    ("owner.tenant_id", Kind::Text),
    ("owner.user_id", Kind::Text),
    ("owner.user_email", Kind::Text),
    ("scopes", Kind::Names),
    ("access", Kind::Text),
    ("workspaces", Kind::Restriction),
    ("allowed_ips", Kind::Restriction),
    ("plan", Kind::Text),
    ("not_before", Kind::Text),
    ("expires_at", Kind::Text),
    ("metadata", Kind::Json),
    ("digest.scheme", Kind::Text),
    ("digest.hex", Kind::Text),
    ("digest.base64", Kind::Text),
    ("last_four", Kind::Text),
    ("created_at", Kind::Text),
    ("last_used_at", Kind::Text),
    ("request_count", Kind::Number),
    ("status", Kind::Text),
    ("revoked_at", Kind::Text),
    ("revoke_reason", Kind::Text),
    ("key_family", Kind::Text),
];

/// The beginning of the name of a column with a limit.
const LIMIT: &str = "rate_limit_config.requests_per_";

/// The columns of a file, from its first record.
pub(super) struct Header(Vec<(String, Kind)>);

impl Header {
    /// Reads the first record. `needs_tenant` says whether the file must name the tenant.
    pub(super) fn read(bytes: &[u8], needs_tenant: bool) -> Result<Self, String> {
        let mut columns: Vec<(String, Kind)> = Vec::new();
        for name in fields(bytes)? {
            let shown = || name.chars().take(60).collect::<String>();
            let known = COLUMNS.iter().find(|(known, _)| *known == name);
            let kind = match known {
                Some((_, kind)) => *kind,
                None if name.len() > LIMIT.len() && name.starts_with(LIMIT) => Kind::Number,
                None => {
                    return Err(format!(
                        "unknown column {:?}: expected names separated by commas, such as {}",
                        shown(),
                        "name,digest.scheme,digest.hex"
                    ));
                }
            };
            if columns.iter().any(|(known, _)| *known == name) {
                return Err(format!("duplicate column {:?}", shown()));
            }
            columns.push((name.into_owned(), kind));
        }
        let has = |wanted: &str| columns.iter().any(|(name, _)| name == wanted);
        let missing = ["name", "digest.scheme"]
            .into_iter()
            .find(|name| !has(name));
        let tenant = (needs_tenant && !has("owner.tenant_id")).then_some("owner.tenant_id");
        let digest = !has("digest.hex") && !has("digest.base64");
        let digest = digest.then_some("digest.hex or digest.base64");
        match missing.or(digest).or(tenant) {
            Some(missing) => Err(format!("missing column {missing}")),
            None => Ok(Self(columns)),
        }
    }

    /// Reads a row. An empty field counts as absent.
    pub(super) fn row(&self, bytes: &[u8]) -> Result<Value, String> {
        let fields = fields(bytes)?;
        if fields.len() != self.0.len() {
            return Err(format!(
                "{} fields, but the file has {} columns",
                fields.len(),
                self.0.len()
            ));
        }
        let mut object = Map::new();
        for ((name, kind), field) in self.0.iter().zip(fields) {
            let Some(value) = value(name, *kind, field)? else {
                continue;
            };
            match name.split_once('.') {
                None => drop(object.insert(name.clone(), value)),
                Some((outer, inner)) => {
                    let members = object
                        .entry(outer)
                        .or_insert_with(|| Value::Object(Map::new()));
                    if let Value::Object(members) = members {
                        members.insert(inner.to_owned(), value);
                    }
                }
            }
        }
        Ok(object.into())
    }
}

fn value(name: &str, kind: Kind, field: Cow<'_, str>) -> Result<Option<Value>, String> {
    if field.is_empty() {
        return match kind {
            Kind::Restriction => Err(format!(
                "{name}: an empty field is ambiguous: write * for no restriction"
            )),
            _ => Ok(None),
        };
    }
    Ok(Some(match kind {
        Kind::Text => field.into_owned().into(),
        Kind::Restriction if field == "*" => return Ok(None),
        Kind::Names | Kind::Restriction => field.split_whitespace().collect(),
        Kind::Number => {
            let digits = field.bytes().all(|byte| byte.is_ascii_digit());
            let number = field.parse::<u64>().ok().filter(|_| digits);
            let why = || format!("{name}: expected a whole number of at most 64 bits");
            number.ok_or_else(why)?.into()
        }
        Kind::Json => json::parse(field.as_bytes()).map_err(|error| format!("{name}: {error}"))?,
    }))
}

/// Reads the fields of a record.
fn fields(bytes: &[u8]) -> Result<Vec<Cow<'_, str>>, String> {
    let text = str::from_utf8(bytes).map_err(|_| "not UTF-8")?;
    let mut rest = Some(text.strip_suffix('\r').unwrap_or(text));
    let mut fields = Vec::new();
    while let Some(text) = rest {
        let number = fields.len() + 1;
        let field;
        (field, rest) = match text.strip_prefix('"') {
            Some(quoted) => {
                let (field, after) = quoted_field(quoted)
                    .ok_or_else(|| format!("field {number}: the closing quote is missing"))?;
                let next = match after.strip_prefix(',') {
                    None if after.is_empty() => None,
                    None => return Err(format!("field {number}: text after the closing quote")),
                    next => next,
                };
                (field, next)
            }
            None => {
                let (field, next) = match text.split_once(',') {
                    Some((field, next)) => (field, Some(next)),
                    None => (text, None),
                };
                if field.contains('"') {
                    return Err(format!("field {number}: a quote in a field without quotes"));
                }
                (Cow::Borrowed(field), next)
            }
        };
        fields.push(field);
    }
    Ok(fields)
}

/// Returns the content of a quoted field, and what follows its closing quote.
fn quoted_field(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut from = 0;
    loop {
        let end = from + text[from..].find('"')?;
        let after = &text[end + 1..];
        if !after.starts_with('"') {
            let field = &text[..end];
            let field = match from {
                0 => Cow::Borrowed(field),
                _ => Cow::Owned(field.replace("\"\"", "\"")),
            };
            return Some((field, after));
        }
        from = end + 2;
    }
}
