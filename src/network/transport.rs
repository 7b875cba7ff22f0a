//! How secure the connection must be, and what proves that it is.
//!
//! Either the connection itself (the server that ended TLS says which version it was), or a header
//! of a proxy that the host trusts. A client's own word proves nothing.

use super::cidr::Cidr;
use crate::request::{FieldName, RequestHead, Single, TlsVersion};

/// What is demanded of the connection.
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
