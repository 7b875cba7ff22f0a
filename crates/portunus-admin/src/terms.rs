//! What OpenAPI can say of the values that the library's own types check: named schemas of strings.

#![allow(dead_code, reason = "these types describe values; none is ever made")]

use std::borrow::Cow;

use portunus::ErrorCode;
use portunus::audit::{Action as AuditAction, AuditOutcome};
use portunus::key::KeyStatus as Status;
use serde::{Deserialize, Serialize};
use utoipa::openapi::{Object, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// An identifier: 1 to 128 visible ASCII characters.
#[derive(ToSchema)]
#[schema(pattern = "^[!-~]{1,128}$")]
pub(crate) struct Id(String);

/// The id of a key.
#[derive(ToSchema)]
#[schema(pattern = "^[!-~]{1,128}$")]
pub(crate) struct KeyId(String);

/// A workspace of the tenant.
#[derive(ToSchema)]
#[schema(pattern = "^[A-Za-z0-9._-]{1,128}$")]
pub(crate) struct WorkspaceId(String);

#[derive(ToSchema)]
#[schema(pattern = "^[a-z0-9-]{1,32}$")]
pub(crate) struct Environment(String);

#[derive(ToSchema)]
#[schema(pattern = "^[a-z0-9_-]{1,128}$")]
pub(crate) struct PlanName(String);

/// A grant or requirement: segments of the characters of RFC 6749 §3.3 between `:` or `.`. The last
/// one may be `*`: a wildcard such as `document:*` covers every deeper name.
#[derive(Deserialize, ToSchema)]
#[schema(
    pattern = r"^([!#-)+,\-/-9;-\[\]-~]+[:.])*([!#-)+,\-/-9;-\[\]-~]+|\*)$",
    max_length = 128
)]
pub(crate) struct Scope(pub(crate) String);

/// A time in an answer: RFC 3339 in UTC, with milliseconds.
#[derive(ToSchema)]
#[schema(
    format = DateTime,
    pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$"
)]
pub(crate) struct Timestamp(String);

/// A time in a request: RFC 3339, from `1970-01-01T00:00:00.000Z` to `9999-12-31T23:59:59.999Z`.
#[derive(ToSchema)]
#[schema(
    format = DateTime,
    pattern = r"^(19[7-9][0-9]|[2-9][0-9]{3})-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
)]
pub(crate) struct Time(String);

#[derive(Serialize, ToSchema)]
#[schema(format = Ipv4)]
pub(crate) struct Ipv4(String);

#[derive(Serialize, ToSchema)]
#[schema(format = Ipv6)]
pub(crate) struct Ipv6(String);

/// An IP address.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum IpAddress {
    V4(Ipv4),
    V6(Ipv6),
}

/// An address or a CIDR range.
#[derive(ToSchema)]
#[schema(pattern = "^[0-9A-Fa-f:.]{2,45}(/[0-9]{1,3})?$")]
pub(crate) struct Network(String);

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Access {
    FullAccess,
    ReadOnly,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeyKind {
    App,
    User,
    AccessToken,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ActorMode {
    User,
    App,
    AppUser,
    Delegated,
}

/// A list of names that the library has.
macro_rules! names {
    ($(#[doc = $about:literal] $name:ident: $all:expr;)+) => {$(
        #[doc = $about]
        pub(crate) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let mut names = Object::with_type(Type::String);
                names.enum_values = Some($all.map(Into::into).collect());
                names.description = Some($about.trim().to_owned());
                names.into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        }
    )+};
}

names! {
    /// The state of a key.
    KeyStatus: STATUSES.iter().map(|status| status.as_str());
    /// What an event is about.
    Action: AuditAction::ALL.iter().map(|action| action.as_str());
    /// How it ended: done, given up by its caller, failed, or refused with this code.
    Outcome: outcomes();
    /// What is wrong, for programs. A code never changes its meaning.
    Code: ErrorCode::ALL.iter().map(|code| code.as_str());
}

/// Every state of a key.
const STATUSES: [Status; 6] = [
    Status::Active,
    Status::NotYetValid,
    Status::Expired,
    Status::Disabled,
    Status::Revoked,
    Status::Unreadable,
];

fn outcomes() -> impl Iterator<Item = &'static str> {
    let ended = [
        AuditOutcome::Ok,
        AuditOutcome::Abandoned,
        AuditOutcome::Failed,
    ];
    let refused = ErrorCode::ALL.iter().map(|code| code.as_str());
    ended.map(AuditOutcome::as_str).into_iter().chain(refused)
}
