//! Words for schemas: what a value may be, in a line each.

use utoipa::Number;
use utoipa::openapi::schema::{AdditionalProperties, AnyOf, OneOf, SchemaType};
use utoipa::openapi::{Array, KnownFormat, Object, Ref, RefOr, Schema, SchemaFormat, Type};

/// Any text.
pub(super) fn text() -> Object {
    Object::with_type(Type::String)
}

/// A text of 1 to so many characters.
pub(super) fn line(longest: usize) -> Object {
    let mut text = text();
    (text.min_length, text.max_length) = (Some(1), Some(longest));
    text
}

/// A text of at most so many characters.
pub(super) fn prose(longest: usize) -> Object {
    let mut text = text();
    text.max_length = Some(longest);
    text
}

/// A text that this regular expression (ECMA-262) describes.
pub(super) fn matching(pattern: &str) -> Object {
    let mut text = text();
    text.pattern = Some(pattern.to_owned());
    text
}

/// One of these names.
pub(super) fn names<'n>(names: impl IntoIterator<Item = &'n str>) -> Object {
    let mut text = text();
    text.enum_values = Some(names.into_iter().map(Into::into).collect());
    text
}

/// This truth value and not the other.
pub(super) fn always(value: bool) -> Object {
    let mut only = boolean();
    only.enum_values = Some(vec![value.into()]);
    only
}

pub(super) fn boolean() -> Object {
    Object::with_type(Type::Boolean)
}

/// An integer that is not less than this.
pub(super) fn at_least(least: usize) -> Object {
    let mut number = Object::with_type(Type::Integer);
    number.minimum = Some(Number::UInt(least));
    number
}

/// An integer within these bounds.
pub(super) fn within(least: usize, most: usize) -> Object {
    let mut number = at_least(least);
    number.maximum = Some(Number::UInt(most));
    number
}

/// An RFC 3339 time that a caller writes.
pub(super) fn time() -> Object {
    let mut text = text();
    text.format = Some(SchemaFormat::KnownFormat(KnownFormat::DateTime));
    text
}

/// A time as it is shown: in UTC, with milliseconds.
pub(super) fn shown_time() -> Object {
    let mut text = time();
    text.pattern =
        Some(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$".into());
    text
}

/// An identifier: 1 to 128 visible ASCII characters.
pub(super) fn id() -> Object {
    matching("^[!-~]{1,128}$")
}

/// What is always `null`.
pub(super) fn null() -> Object {
    Object::with_type(Type::Null)
}

/// The same, or `null`.
pub(super) fn or_null(mut object: Object) -> Object {
    object.schema_type = nullable(object.schema_type);
    if let Some(values) = &mut object.enum_values {
        values.push(serde_json::Value::Null);
    }
    object
}

/// Such a list, or `null`.
pub(super) fn list_or_null(mut list: Array) -> Array {
    list.schema_type = nullable(list.schema_type);
    list
}

fn nullable(kind: SchemaType) -> SchemaType {
    match kind {
        SchemaType::Type(kind) => SchemaType::Array(vec![kind, Type::Null]),
        several => several,
    }
}

/// Values of this schema, in a list.
pub(super) fn list(items: impl Into<RefOr<Schema>>) -> Array {
    Array::new(items)
}

/// A schema of [`super::schemas`] or [`super::bodies`].
pub(super) fn named(name: &str) -> Ref {
    Ref::from_schema_name(name)
}

/// That schema, or `null`.
pub(super) fn named_or_null(name: &str) -> RefOr<Schema> {
    any_of([named(name).into(), null().into()])
}

/// One of these, or several.
pub(super) fn any_of(schemas: impl IntoIterator<Item = RefOr<Schema>>) -> RefOr<Schema> {
    let mut any = AnyOf::new();
    any.items = schemas.into_iter().collect();
    Schema::from(any).into()
}

/// Exactly one of these.
pub(super) fn one_of(
    description: &str,
    schemas: impl IntoIterator<Item = RefOr<Schema>>,
) -> RefOr<Schema> {
    let mut one = OneOf::new();
    one.items = schemas.into_iter().collect();
    one.description = Some(description.to_owned());
    Schema::from(one).into()
}

/// The same, explained.
pub(super) fn about(mut object: Object, description: &str) -> Object {
    object.description = Some(description.to_owned());
    object
}

/// An object of known members and no others.
pub(super) struct Members(Object);

/// An object without members so far.
pub(super) fn members() -> Members {
    let mut object = Object::with_type(Type::Object);
    object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
    Members(object)
}

impl Members {
    /// A member that is always there.
    pub(super) fn with(mut self, name: &str, schema: impl Into<RefOr<Schema>>) -> Self {
        self.0.required.push(name.to_owned());
        self.perhaps(name, schema)
    }

    /// A member that may be missing.
    pub(super) fn perhaps(mut self, name: &str, schema: impl Into<RefOr<Schema>>) -> Self {
        self.0.properties.insert(name.to_owned(), schema.into());
        self
    }

    /// The same with any other members of this schema.
    pub(super) fn others(mut self, schema: impl Into<RefOr<Schema>>) -> Self {
        let others = AdditionalProperties::RefOr(schema.into());
        self.0.additional_properties = Some(Box::new(others));
        self
    }

    /// The same with the members of another one too.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.0.required.extend(other.0.required);
        self.0.properties.extend(other.0.properties);
        self
    }

    /// The same, explained.
    pub(super) fn about(self, description: &str) -> Self {
        Self(about(self.0, description))
    }
}

impl From<Members> for Object {
    fn from(members: Members) -> Self {
        members.0
    }
}

impl From<Members> for RefOr<Schema> {
    fn from(members: Members) -> Self {
        members.0.into()
    }
}

/// Any JSON object.
pub(super) fn any_object() -> Object {
    Object::with_type(Type::Object)
}

/// The same object with members of anybody's beside its own.
pub(super) fn open(members: Members) -> Object {
    let mut object = Object::from(members);
    object.additional_properties = None;
    object
}
