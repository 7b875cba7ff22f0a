//! Cross-site checks: which sites can send writes.
//!
//! A browser adds the operator's cookies, Basic credentials or client certificate to requests that
//! any page makes, so such a proof does not show that the operator wanted the request. Browsers say
//! where a request comes from in `Sec-Fetch-Site` (Fetch Metadata) and `Origin` (RFC 6454 §7,
//! Fetch §3.2), which pages cannot change.
//!
//! `tower_http::csrf` implements a similar rule but not this one. It accepts an empty
//! `Sec-Fetch-Site` and an empty `Origin`, reads the first line only where a field is repeated,
//! compares hosts byte by byte (so `https://keys.example` is another host than
//! `keys.example:443`, and so are two spellings of an IPv6 address), and treats `TRACE` as unsafe.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use axum::http::header::{HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use portunus::ErrorCode;

use crate::Fault;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Origin of pages that can write to the management API, for
/// [`Admin::trusted_origins`](crate::Admin::trusted_origins): `https://console.example.com`, with a
/// port where it is not the default one.
///
/// Parsed from the serialization of RFC 6454 §6.2: `http` or `https`, a host and an optional port,
/// and nothing else. Case and an explicit default port make no difference. Hosts outside ASCII are
/// written as browsers send them, in punycode.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    secure: bool,
    host: Host,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Host {
    /// A name or an IPv4 address, in lower case.
    Name(String),
    Ipv6(Ipv6Addr),
}

/// Error returned when parsing an [`Origin`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidOrigin(&'static str);

impl fmt::Display for InvalidOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid origin: {}", self.0)
    }
}

impl std::error::Error for InvalidOrigin {}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let (scheme, authority) = text
            .split_once("://")
            .ok_or(InvalidOrigin("expected https://host or https://host:port"))?;
        let secure = scheme.eq_ignore_ascii_case("https");
        if !secure && !scheme.eq_ignore_ascii_case("http") {
            return Err(InvalidOrigin("the scheme must be http or https"));
        }
        if authority.contains(['/', '?', '#', '@']) {
            return Err(InvalidOrigin(
                "expected scheme, host and port only, without a path or a trailing slash",
            ));
        }
        if !authority.is_ascii() {
            return Err(InvalidOrigin("write the host in punycode (xn--…)"));
        }
        let default_port = if secure { 443 } else { 80 };
        let (host, port) =
            host_and_port(authority, default_port).ok_or(InvalidOrigin("invalid host or port"))?;
        Ok(Self { secure, host, port })
    }
}

impl fmt::Display for Origin {
    /// As browsers write it: in lower case, without a default port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.secure { "https://" } else { "http://" })?;
        match &self.host {
            Host::Name(name) => f.write_str(name)?,
            Host::Ipv6(address) => write!(f, "[{address}]")?,
        }
        if self.port != self.default_port() {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

impl Origin {
    const fn default_port(&self) -> u16 {
        if self.secure { 443 } else { 80 }
    }

    /// Whether this is the host and port that a request was made to. Behind a proxy that ends TLS,
    /// the request's own scheme is unknown, so an authority without a port has this origin's
    /// default one.
    fn is_at(&self, authority: &str) -> bool {
        host_and_port(authority, self.default_port())
            .is_some_and(|(host, port)| host == self.host && port == self.port)
    }
}

/// The parts of `uri-host [ ":" port ]` (RFC 9110 §7.2); an empty port is the default one.
fn host_and_port(authority: &str, default_port: u16) -> Option<(Host, u16)> {
    let (host, rest) = if let Some(rest) = authority.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        (Host::Ipv6(address.parse().ok()?), rest)
    } else {
        let end = authority.find(':').unwrap_or(authority.len());
        let (name, rest) = authority.split_at(end);
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if name.is_empty() || !name.bytes().all(known) {
            return None;
        }
        (Host::Name(name.to_ascii_lowercase()), rest)
    };
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => default_port,
        Some("") => default_port,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        _ => return None,
    };
    Some((host, port))
}

/// Refuses an unsafe request (RFC 9110 §9.2.1) that a page of another site made.
///
/// In this order: an `Origin` on the list passes. `Sec-Fetch-Site` of `same-origin` or `none`
/// passes, any other value is refused. Without `Sec-Fetch-Site`, a request without `Origin` passes,
/// since it does not come from a browser, and so does an `Origin` at the request's own host and
/// port. Every other `Origin`, including `null`, is refused. A repeated field passes only if each
/// of its lines does.
///
/// The API does this itself. For the host's own routes that operators use, such as the login of a
/// session.
///
/// # Errors
/// `CROSS_SITE` (403).
pub fn check(parts: &Parts, trusted: &[Origin]) -> Result<(), Fault> {
    if parts.method.is_safe() {
        return Ok(());
    }
    let origins = lines(&parts.headers, &ORIGIN);
    let from = |passes: &dyn Fn(&Origin) -> bool| {
        let passes = |line: &Option<&str>| {
            line.and_then(|line| line.parse().ok())
                .is_some_and(|origin| passes(&origin))
        };
        !origins.is_empty() && origins.iter().all(passes)
    };
    if from(&|origin| trusted.contains(origin)) {
        return Ok(());
    }
    let sites = lines(&parts.headers, &SEC_FETCH_SITE);
    let passes = if sites.is_empty() {
        let own = authority(parts);
        origins.is_empty() || own.is_some_and(|own| from(&|origin| origin.is_at(own)))
    } else {
        let same = |site: &Option<&str>| matches!(site, Some("same-origin" | "none"));
        sites.iter().all(same)
    };
    if passes {
        return Ok(());
    }
    Err(Fault::new(
        ErrorCode::CrossSite,
        "Writes from pages of other sites are refused unless the service trusts their origin",
    ))
}

/// All lines of a field; `None` for one that is not text.
fn lines<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Vec<Option<&'h str>> {
    let all = headers.get_all(name).iter();
    all.map(|value| value.to_str().ok()).collect()
}

/// The host and port that the request was made to: the authority of its target, which HTTP/2 and
/// absolute targets carry (RFC 9113 §8.3.1, RFC 9112 §3.2.2), otherwise its only `Host`.
fn authority(parts: &Parts) -> Option<&str> {
    match parts.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => match lines(&parts.headers, &HOST)[..] {
            [host] => host,
            _ => None,
        },
    }
}
