//! What the authenticator sees of a request: a small view that every framework's request can give.
//!
//! The view is read synchronously and never kept, so it needs neither `Send` nor `'static`; no
//! framework's type is in it.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::str::FromStr;

use crate::text::{ParseError, start};

/// A header field, by name. The library's own are told apart without comparing text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FieldName<'n> {
    /// `Authorization`.
    Authorization,
    /// `X-User-Id`.
    UserId,
    /// `X-On-Behalf-Of`.
    OnBehalfOf,
    /// `X-On-Behalf-Email`.
    OnBehalfEmail,
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// `X-Request-Id`.
    RequestId,
    /// Any other, in lower case.
    Other(&'n str),
}

impl<'n> FieldName<'n> {
    /// The name in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'n str {
        match self {
            Self::Authorization => "authorization",
            Self::UserId => "x-user-id",
            Self::OnBehalfOf => "x-on-behalf-of",
            Self::OnBehalfEmail => "x-on-behalf-email",
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
            Self::RequestId => "x-request-id",
            Self::Other(name) => name,
        }
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.0, or an unknown version: the least that can be told of an encrypted connection.
    V1_0,
    /// TLS 1.1.
    V1_1,
    /// TLS 1.2 (RFC 5246).
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_0 => "TLSv1.0",
            Self::V1_1 => "TLSv1.1",
            Self::V1_2 => "TLSv1.2",
            Self::V1_3 => "TLSv1.3",
        })
    }
}

/// As OpenSSL names versions (`TLSv1.3`), or `https` for an unknown one.
impl FromStr for TlsVersion {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "https" | "TLSv1" | "TLSv1.0" => Ok(Self::V1_0),
            "TLSv1.1" => Ok(Self::V1_1),
            "TLSv1.2" => Ok(Self::V1_2),
            "TLSv1.3" => Ok(Self::V1_3),
            _ => {
                let known = "TLSv1.0, TLSv1.1, TLSv1.2, TLSv1.3, and https for an unknown one";
                let why = format!("no version of TLS {:?}: there are {known}", start(text, 40));
                Err(ParseError::new("version of TLS", why))
            }
        }
    }
}

/// A request, as far as authentication looks at it.
pub trait RequestHead {
    /// The method, as written (`GET`).
    fn method(&self) -> &str;

    /// The whole path, without the query: as the client sent it, also where the framework strips a
    /// prefix off before it calls a router further in.
    fn path(&self) -> &str;

    /// The pattern of the route that was matched (`/documents/{id}`), where the framework knows it.
    fn route(&self) -> Option<&str> {
        None
    }

    /// The value of a parameter of the route that was matched (`id` of `/documents/{id}`), decoded
    /// as the framework decodes it for a handler. `None`, the default, where no route was matched,
    /// it has no such parameter or several of that name, or the value cannot be decoded.
    fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        let _ = name;
        None
    }

    /// The id that a layer further out has given the request, where it has.
    fn request_id(&self) -> Option<&str> {
        None
    }

    /// The address at the other end of the connection, where it is known.
    fn peer_ip(&self) -> Option<IpAddr>;

    /// The version of TLS that the connection was made with; `None`, the default, where it is not
    /// encrypted or the server does not say.
    fn tls(&self) -> Option<TlsVersion> {
        None
    }

    /// Whether the host declared that this service serves gRPC, so that calls of it are refused by
    /// a gRPC status; `false`, the default, unless the adapter was told so. Never taken from the
    /// request: a client's `Content-Type` must not turn a refusal into an HTTP 200.
    fn serves_grpc(&self) -> bool {
        false
    }

    /// Whether any of these fields may be there; `false` only where none is. An adapter that can
    /// tell at a glance spares the usual request, which has none, a look-up for each.
    fn may_have_any(&self, names: &[FieldName<'_>]) -> bool {
        let _ = names;
        true
    }

    /// Calls `see` with the value of each line of a field, in their order, until it breaks.
    fn visit<'a>(&'a self, name: FieldName<'_>, see: &mut dyn FnMut(&'a [u8]) -> ControlFlow<()>);
}

/// The value of a field that may stand once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Single<'a> {
    /// The field is not there.
    Absent,
    /// It stands once, with this value.
    One(&'a [u8]),
    /// It stands more than once.
    Repeated,
}

impl fmt::Debug for Single<'_> {
    /// Without the value: it may be a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("Absent"),
            Self::One(value) => write!(f, "One({} bytes)", value.len()),
            Self::Repeated => f.write_str("Repeated"),
        }
    }
}

impl dyn RequestHead + '_ {
    /// The one value of a field.
    #[must_use]
    pub fn single<'a>(&'a self, name: FieldName<'_>) -> Single<'a> {
        let mut found = Single::Absent;
        self.visit(name, &mut |value| match found {
            Single::Absent => {
                found = Single::One(value);
                ControlFlow::Continue(())
            }
            _ => {
                found = Single::Repeated;
                ControlFlow::Break(())
            }
        });
        found
    }
}
