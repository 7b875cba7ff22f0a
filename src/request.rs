//! The authenticator's view of a request, which can be implemented for every framework.
//!
//! The view is read synchronously and never kept, so it needs neither `Send` nor `'static`. It
//! contains no type of a framework.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::str::FromStr;

use crate::text::{ParseError, start};

/// The name of a header field. Fields that the library uses have their own variants, which can be
/// compared without comparing strings.
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
    /// Any other field, in lower case.
    Other(&'n str),
}

impl<'n> FieldName<'n> {
    /// Returns the name in lower case.
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

/// A TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.0, or an encrypted connection of unknown version.
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

/// Parses OpenSSL's version names (`TLSv1.3`), or `https` for an unknown version.
impl FromStr for TlsVersion {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "https" | "TLSv1" | "TLSv1.0" => Ok(Self::V1_0),
            "TLSv1.1" => Ok(Self::V1_1),
            "TLSv1.2" => Ok(Self::V1_2),
            "TLSv1.3" => Ok(Self::V1_3),
            _ => {
                let known = "TLSv1.0, TLSv1.1, TLSv1.2, TLSv1.3, or https if it is unknown";
                let why = format!(
                    "unknown TLS version {:?}: expected {known}",
                    start(text, 40)
                );
                Err(ParseError::new("TLS version", why))
            }
        }
    }
}

/// The parts of a request that authentication reads.
pub trait RequestHead {
    /// Returns the method, as sent (`GET`).
    fn method(&self) -> &str;

    /// Returns the whole path as the client sent it, without the query, even if the framework
    /// strips a prefix for nested routers.
    fn path(&self) -> &str;

    /// Returns the pattern of the matched route (`/documents/{id}`), if the framework provides it.
    fn route(&self) -> Option<&str> {
        None
    }

    /// Returns the value of a parameter of the matched route (`id` of `/documents/{id}`), decoded
    /// as the framework decodes it for a handler. `None`, the default, if no route was matched, if
    /// it has no parameter or several parameters of that name, or if the value cannot be decoded.
    fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        let _ = name;
        None
    }

    /// Returns the request id that an outer layer assigned, if any.
    fn request_id(&self) -> Option<Cow<'_, str>> {
        None
    }

    /// Returns the address of the connection's peer, if known.
    fn peer_ip(&self) -> Option<IpAddr>;

    /// Returns the TLS version of the connection. `None`, the default, if it is not encrypted or
    /// the server does not report it.
    fn tls(&self) -> Option<TlsVersion> {
        None
    }

    /// Returns whether the host declared that this service serves gRPC, so that calls are refused
    /// with a gRPC status; `false` by default. Never derive it from the request: a client's
    /// `Content-Type` must not turn a refusal into an HTTP 200.
    fn serves_grpc(&self) -> bool {
        false
    }

    /// Returns whether the request may have any of these fields; `false` only if it has none of
    /// them. An adapter that can tell cheaply saves a lookup per field on most requests.
    fn may_have_any(&self, names: &[FieldName<'_>]) -> bool {
        let _ = names;
        true
    }

    /// Returns the value of a field that must not be repeated. An adapter that can look it up
    /// cheaper than by [`visit`](Self::visit) overrides this.
    fn single(&self, name: FieldName<'_>) -> Single<'_> {
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

    /// Calls `see` with the value of each line of a field, in order, until it breaks.
    fn visit<'a>(&'a self, name: FieldName<'_>, see: &mut dyn FnMut(&'a [u8]) -> ControlFlow<()>);
}

/// The value of a header field that must not be repeated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Single<'a> {
    /// The field is absent.
    Absent,
    /// The field occurs once, with this value.
    One(&'a [u8]),
    /// The field occurs more than once.
    Repeated,
}

impl fmt::Debug for Single<'_> {
    /// Omits the value, which may be a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("Absent"),
            Self::One(value) => write!(f, "One({} bytes)", value.len()),
            Self::Repeated => f.write_str("Repeated"),
        }
    }
}
