//! Bounds of requests that depend on the service's settings: kinds, environments, digest schemes,
//! scopes, expiry and rotation. The derived schemas state the others.

use portunus::Scope;
use portunus::key::{Environment, KeyKind};
use portunus::manage::Accepted;
use serde_json::{Value, json};
use utoipa::PartialSchema;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::{Components, Object, RefOr, Schema, Type};

use crate::limits::{LimitOrNull, member};

/// The requests that create a key.
const NEW: [&str; 2] = ["IssueRequest", "ImportRequest"];

/// Adds the bounds of a service to the schemas.
pub(super) fn add(components: &mut Components, accepted: &Accepted) {
    let mut schemas = Schemas(components);
    let kinds = accepted.kinds.iter().map(|kind| kind.as_str());
    let kinds = one_of(kinds.map(Value::from).chain([Value::Null]));
    let environments = accepted.environments.iter().map(Environment::as_str);
    let environments = one_of(environments.map(Value::from).chain([Value::Null]));
    for name in NEW {
        schemas.replace(name, "kind", kinds.clone());
        schemas.replace(name, "environment", environments.clone());
        schemas.conditions(name, conditions(accepted));
    }
    if let Some(scopes) = scopes(accepted) {
        let scopes = RefOr::from(Schema::Object(one_of(scopes.into_iter().map(Value::from))));
        for name in NEW.into_iter().chain(["ChangeRequest"]) {
            schemas.items(name, "scopes", &scopes);
        }
    }
    if accepted.rotated_keys_stay {
        schemas.replace(
            "RotateRequest",
            "grace_seconds",
            Object::with_type(Type::Null),
        );
    }
    if let Some(plans) = &accepted.plans {
        let names = plans.iter().map(|plan| Value::from(plan.as_str()));
        let plans = one_of(names.chain([Value::Null]));
        for name in NEW.into_iter().chain(["ChangeRequest"]) {
            schemas.replace(name, "plan", plans.clone());
        }
    }
    schemas.windows(&accepted.windows);
    schemas.digests(accepted);
}

/// A string that is one of these values.
fn one_of(values: impl Iterator<Item = Value>) -> Object {
    let values: Vec<_> = values.collect();
    let types = match values.contains(&Value::Null) {
        true => vec![Type::String, Type::Null],
        false => vec![Type::String],
    };
    let mut one = Object::with_type(utoipa::openapi::schema::SchemaType::Array(types));
    one.enum_values = Some(values);
    one
}

/// The conditions that depend on the kind of a key.
fn conditions(accepted: &Accepted) -> Vec<Value> {
    let mut all = vec![json!({
        "if": of_kinds(&[KeyKind::User, KeyKind::AccessToken]),
        "then": {
            "properties": {
                "owner": {
                    "type": "object",
                    "properties": { "user_id": { "type": "string" } },
                    "required": ["user_id"],
                },
            },
            "required": ["owner"],
        },
    })];
    if accepted.never_expire {
        all.push(json!({
            "if": of_kinds(&[KeyKind::App, KeyKind::User]),
            "then": { "properties": { "expires_at": { "type": "null" } } },
        }));
    }
    if !accepted.unscoped.is_empty() {
        all.push(json!({
            "if": of_kinds(&accepted.unscoped),
            "then": { "properties": { "scopes": { "maxItems": 0 } } },
        }));
    }
    all
}

/// Matches a request for a key of one of these kinds; the default kind is `app`.
fn of_kinds(kinds: &[KeyKind]) -> Value {
    let all = [KeyKind::App, KeyKind::User, KeyKind::AccessToken];
    let names = |are_listed: bool| -> Vec<_> {
        let listed = all.iter().filter(|kind| kinds.contains(kind) == are_listed);
        listed.map(|kind| kind.as_str()).collect()
    };
    let named = |names: Vec<&str>| json!({ "properties": { "kind": { "enum": names } }, "required": ["kind"] });
    match kinds.contains(&KeyKind::App) {
        true => json!({ "not": named(names(false)) }),
        false => named(names(true)),
    }
}

/// The scopes that can be granted: those of the vocabulary, and every wildcard that covers one.
fn scopes(accepted: &Accepted) -> Option<Vec<String>> {
    let vocabulary = accepted.vocabulary.as_ref()?;
    let mut all = vec!["*".to_owned()];
    for name in vocabulary.names() {
        let name = name.as_str();
        let ends = name.match_indices([':', '.']).map(|(at, _)| at + 1);
        all.extend(ends.map(|end| format!("{}*", &name[..end])));
        all.push(name.to_owned());
    }
    all.retain(|name| Scope::new(name).is_ok_and(|scope| vocabulary.knows(&scope)));
    all.sort_unstable();
    all.dedup();
    Some(all)
}

struct Schemas<'c>(&'c mut Components);

impl Schemas<'_> {
    fn object(&mut self, name: &str) -> Option<&mut Object> {
        match self.0.schemas.get_mut(name) {
            Some(RefOr::T(Schema::Object(object))) => Some(object),
            _ => None,
        }
    }

    /// Replaces the schema of a member; its description stays.
    fn replace(&mut self, name: &str, member: &str, mut by: Object) {
        if let Some(old) = self
            .object(name)
            .and_then(|object| object.properties.get_mut(member))
        {
            by.description = description(old);
            *old = Schema::Object(by).into();
        }
    }

    fn items(&mut self, name: &str, member: &str, by: &RefOr<Schema>) {
        let object = self.object(name);
        if let Some(RefOr::T(Schema::Array(list))) =
            object.and_then(|object| object.properties.get_mut(member))
        {
            list.items = utoipa::openapi::schema::ArrayItems::RefOrSchema(Box::new(by.clone()));
        }
    }

    fn conditions(&mut self, name: &str, all: Vec<Value>) {
        if let Some(object) = self.object(name) {
            // Extensions are serialized unchanged. Only one, because their order is random.
            object.extensions = Some(Extensions::from_iter([("allOf", Value::from(all))]));
        }
    }

    /// A new key has only the windows of its plan; an existing key may have others.
    fn windows(&mut self, names: &[String]) {
        if let Some(new) = self.object("RateLimitRequest") {
            new.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
            for name in names {
                let known = new.properties.entry(member(name));
                known.or_insert_with(LimitOrNull::schema);
            }
        }
        if let Some(change) = self.object("RateLimitChange") {
            let mut names = Object::with_type(Type::String);
            names.pattern = Some("^requests_per_[a-z0-9_-]{1,32}$".to_owned());
            change.property_names = Some(Box::new(Schema::Object(names)));
        }
    }

    /// Restricts digests to the accepted schemes, each with the length of its digests.
    fn digests(&mut self, accepted: &Accepted) {
        let (long, short): (Vec<_>, Vec<_>) = accepted
            .schemes
            .iter()
            .map(ToString::to_string)
            .partition(|scheme| scheme == "sha512");
        // In the last group of base64, the bits beyond the digest are zero; padding is optional.
        let short_base64 = "^([A-Za-z0-9+/]{42}|[A-Za-z0-9_-]{42})[AEIMQUYcgkosw048]=?$";
        let long_base64 = "^([A-Za-z0-9+/]{85}|[A-Za-z0-9_-]{85})[AQgw](=|==)?$";
        let lengths = [
            (short, "^[0-9A-Fa-f]{64}$", short_base64),
            (long, "^[0-9A-Fa-f]{128}$", long_base64),
        ];
        let mut forms = Vec::new();
        for (schemes, hex, base64) in lengths {
            if schemes.is_empty() {
                continue;
            }
            let scheme = one_of(schemes.into_iter().map(Value::from));
            for (name, pattern) in [("HexDigest", hex), ("Base64Digest", base64)] {
                let Some(mut form) = self.object(name).cloned() else {
                    continue;
                };
                let digits = if name == "HexDigest" { "hex" } else { "base64" };
                let scheme = Schema::Object(scheme.clone());
                form.properties.insert("scheme".to_owned(), scheme.into());
                if let Some(RefOr::T(Schema::Object(text))) = form.properties.get_mut(digits) {
                    text.pattern = Some(pattern.to_owned());
                }
                forms.push(Schema::Object(form).into());
            }
        }
        if let Some(RefOr::T(Schema::OneOf(digest))) = self.0.schemas.get_mut("DigestRequest") {
            digest.items = forms;
        }
        for name in ["HexDigest", "Base64Digest"] {
            self.0.schemas.remove(name);
        }
    }
}

/// Returns the description of a member, including that of a reference in a choice with `null`.
fn description(schema: &RefOr<Schema>) -> Option<String> {
    match schema {
        RefOr::T(Schema::Object(object)) => object.description.clone(),
        RefOr::T(Schema::OneOf(choice)) => {
            let first = choice.items.iter().find_map(description);
            choice.description.clone().or(first)
        }
        RefOr::Ref(reference) => {
            Some(reference.description.clone()).filter(|text| !text.is_empty())
        }
        RefOr::T(_) => None,
    }
}
