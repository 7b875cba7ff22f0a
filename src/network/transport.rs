//! The required security of the connection, and what proves it.
//!
//! The proof is either the connection itself (the server that terminated TLS reports the version)
//! or a header set by a trusted proxy. A client's own header proves nothing.

use super::cidr::Cidr;
use crate::request::{FieldName, RequestHead, Single, TlsVersion};

/// A requirement on the connection.
///
/// ```
/// use portunus::network::Transport;
/// use portunus::request::TlsVersion;
///
/// let ended_here = Transport::tls(TlsVersion::V1_3);
/// let ended_at_a_proxy =
///     Transport::tls(TlsVersion::V1_2).or_proven_by(["10.0.0.0/8".parse()?], "X-TLS-Version");
/// # Ok::<(), portunus::error::ParseError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Transport {
    least: TlsVersion,
    proxies: Vec<Cidr>,
    header: Option<String>,
}

impl Transport {
    /// Requires this TLS version or a newer one.
    #[must_use]
    pub const fn tls(least: TlsVersion) -> Self {
        Self {
            least,
            proxies: Vec::new(),
            header: None,
        }
    }

    /// Also accepts this header as proof if the peer is a proxy in one of these networks. The proxy
    /// must always set it: `TLSv1.3`, or `https` for an unknown version.
    #[must_use]
    pub fn or_proven_by(mut self, proxies: impl IntoIterator<Item = Cidr>, header: &str) -> Self {
        self.proxies = proxies.into_iter().collect();
        self.header = Some(header.to_ascii_lowercase());
        self
    }

    /// Whether the request's connection meets the requirement.
    #[must_use]
    pub fn is_met_by(&self, head: &dyn RequestHead) -> bool {
        head.tls().is_some_and(|version| version >= self.least)
            || self
                .reported_by_proxy(head)
                .is_some_and(|version| version >= self.least)
    }

    fn reported_by_proxy(&self, head: &dyn RequestHead) -> Option<TlsVersion> {
        let peer = head
            .peer_ip()
            .filter(|peer| self.proxies.iter().any(|network| network.contains(*peer)));
        match (peer, head.single(FieldName::Other(self.header.as_deref()?))) {
            (Some(_), Single::One(value)) => str::from_utf8(value.trim_ascii()).ok()?.parse().ok(),
            _ => None,
        }
    }
}
