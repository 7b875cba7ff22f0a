//! How secure the connection must be, and what proves that it is.
//!
//! Either the connection itself (the server that ended TLS says which version it was), or a header
//! of a proxy that the host trusts. A client's own word proves nothing.

use std::fmt;
use std::str::FromStr;

use super::cidr::Cidr;
use crate::request::{FieldName, RequestHead, Single};

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

/// A text that names no version of TLS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no version of TLS {0:?}: there are TLSv1.0, TLSv1.1, TLSv1.2, TLSv1.3, and https for an unknown one"
)]
pub struct ParseTlsVersionError(String);

/// As OpenSSL names versions (`TLSv1.3`), or `https` for an unknown one.
impl FromStr for TlsVersion {
    type Err = ParseTlsVersionError;
    fn from_str(text: &str) -> Result<Self, ParseTlsVersionError> {
        match text {
            "https" | "TLSv1" | "TLSv1.0" => Ok(Self::V1_0),
            "TLSv1.1" => Ok(Self::V1_1),
            "TLSv1.2" => Ok(Self::V1_2),
            "TLSv1.3" => Ok(Self::V1_3),
            _ => Err(ParseTlsVersionError(text.chars().take(40).collect())),
        }
    }
}

/// What is demanded of the connection.
///
/// ```
/// use portunus::network::{TlsVersion, Transport};
///
/// let ended_here = Transport::tls(TlsVersion::V1_3);
/// let ended_at_a_proxy =
///     Transport::tls(TlsVersion::V1_2).or_proven_by(["10.0.0.0/8".parse()?], "X-TLS-Version");
/// # Ok::<(), portunus::network::CidrError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Transport {
    least: TlsVersion,
    proxies: Vec<Cidr>,
    header: Option<String>,
}

impl Transport {
    /// This version of TLS, or a newer one.
    #[must_use]
    pub const fn tls(least: TlsVersion) -> Self {
        Self {
            least,
            proxies: Vec::new(),
            header: None,
        }
    }

    /// Also where a proxy in one of these networks says so in this header, which it always sets:
    /// `TLSv1.3`, or `https` for an unknown version.
    #[must_use]
    pub fn or_proven_by(mut self, proxies: impl IntoIterator<Item = Cidr>, header: &str) -> Self {
        self.proxies = proxies.into_iter().collect();
        self.header = Some(header.to_ascii_lowercase());
        self
    }

    /// Whether the request came as demanded.
    #[must_use]
    pub fn is_met_by(&self, head: &dyn RequestHead) -> bool {
        head.tls().is_some_and(|version| version >= self.least)
            || self
                .said_by_a_proxy(head)
                .is_some_and(|version| version >= self.least)
    }

    fn said_by_a_proxy(&self, head: &dyn RequestHead) -> Option<TlsVersion> {
        let peer = head
            .peer_ip()
            .filter(|peer| self.proxies.iter().any(|network| network.contains(*peer)));
        match (peer, head.single(FieldName::Other(self.header.as_deref()?))) {
            (Some(_), Single::One(value)) => str::from_utf8(value.trim_ascii()).ok()?.parse().ok(),
            _ => None,
        }
    }
}
