//! Named schemas for string values that the library's own types validate.

#![allow(dead_code, reason = "these types only describe schemas")]

use std::borrow::Cow;

use portunus::ErrorCode;
use portunus::audit::{Action as AuditAction, AuditOutcome};
use portunus::credit::LedgerKind as Kind;
use portunus::key::KeyStatus as Status;
use portunus::manage::MAX_TEXT_LENGTH;
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::AnyOf;
use utoipa::openapi::{Object, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::fault::METHOD_NOT_ALLOWED;

use crate::patterns;

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

/// An account of credits: `key:` and the family of a key, `tenant:` and a tenant, or `user:`, the length
/// of the tenant, `:`, the tenant, `:` and a user of it, as in `user:4:acme:ann`.
#[derive(ToSchema)]
#[schema(pattern = "^((key|tenant):[!-~]{1,128}|user:[1-9][0-9]{0,2}:[!-~]{3,257})$")]
pub(crate) struct CreditAccount(String);

/// The id of a grant, of a block that a node has taken, or of a reservation.
#[derive(ToSchema)]
#[schema(pattern = "^[A-Za-z0-9._-]{1,64}$")]
pub(crate) struct CreditId(String);

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

/// A time in a response: RFC 3339 in UTC, with milliseconds.
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
    pattern = r"^(19[7-9][0-9]|[2-9][0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
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

/// Defines string schemas with a regular expression and a maximum length.
macro_rules! texts {
    ($(#[doc = $about:literal] $name:ident: $pattern:expr, $most:expr;)+) => {$(
        #[doc = $about]
        pub(crate) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let mut text = Object::with_type(Type::String);
                text.pattern = Some($pattern);
                text.max_length = Some($most);
                text.description = Some($about.trim().to_owned());
                text.into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        }
    )+};
}

texts! {
    /// One line with a visible character. White space at both ends is removed.
    Name: patterns::name(), MAX_TEXT_LENGTH;
    /// One or more lines without invisible characters. White space at both ends is removed.
    Text: patterns::text(), MAX_TEXT_LENGTH;
    /// One line without invisible characters.
    Line: patterns::line(), MAX_TEXT_LENGTH;
    /// The last characters of a secret, for display.
    LastFour: patterns::line(), 4;
    /// An IPv4 address or CIDR range.
    Ipv4Network: patterns::ipv4_network(), 64;
    /// An IPv6 address or CIDR range.
    Ipv6Network: patterns::ipv6_network(), 64;
}

/// An IP address or CIDR range.
pub(crate) struct Network;

impl PartialSchema for Network {
    fn schema() -> RefOr<Schema> {
        let mut any = AnyOf::new();
        any.items = vec![Ipv4Network::schema(), Ipv6Network::schema()];
        Schema::AnyOf(any).into()
    }
}

impl ToSchema for Network {}

/// Defines enumerations of names from the library.
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
    /// The status of a key.
    KeyStatus: STATUSES.iter().map(|status| status.as_str());
    /// The action that an event records.
    Action: AuditAction::ALL.iter().map(|action| action.as_str());
    /// The outcome of an action: success, abandoned by the caller, failure, or an error code.
    Outcome: outcomes();
    /// What changed the balance of a grant.
    LedgerKind: LEDGER_KINDS.iter().map(|kind| kind.as_str());
    /// A machine-readable error code. The meaning of a code never changes.
    Code: ErrorCode::ALL.iter().map(|code| code.as_str()).chain([METHOD_NOT_ALLOWED]);
}

/// Every status of a key.
const STATUSES: [Status; 6] = [
    Status::Active,
    Status::NotYetValid,
    Status::Expired,
    Status::Disabled,
    Status::Revoked,
    Status::Unreadable,
];

const LEDGER_KINDS: [Kind; 6] = [
    Kind::Granted,
    Kind::Refilled,
    Kind::Lapsed,
    Kind::Voided,
    Kind::Taken,
    Kind::GivenBack,
];

pub(crate) fn outcomes() -> impl Iterator<Item = &'static str> {
    let ended = [
        AuditOutcome::Ok,
        AuditOutcome::Abandoned,
        AuditOutcome::Failed,
    ];
    let refused = ErrorCode::ALL.iter().map(|code| code.as_str());
    ended.map(AuditOutcome::as_str).into_iter().chain(refused)
}
