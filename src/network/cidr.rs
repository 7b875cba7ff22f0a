//! A network in CIDR notation (RFC 4632), or a single address.
//!
//! Addresses are parsed by the standard library, which accepts neither octal digits nor zone ids;
//! the prefix length is parsed here. IPv4-mapped IPv6 (RFC 4291 §2.5.5.2) is treated as IPv4
//! throughout.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::text::{ParseError, start};

/// A network such as `10.0.0.0/16` or `2001:db8::/32`, or a single address.
///
/// Bits beyond the prefix are cleared: `10.0.0.1/16` is `10.0.0.0/16`.
///
/// ```
/// use portunus::network::Cidr;
///
/// let network: Cidr = "10.0.0.0/16".parse()?;
/// assert!(network.contains("10.0.255.1".parse()?));
/// assert!(network.contains("::ffff:10.0.255.1".parse()?));
/// for wrong in ["010.0.0.0/8", "10.0.0.0/33", "10.0.0.0/08", "fe80::1%eth0", "10.0.0", " 10.0.0.1", ""] {
///     assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr(IpNet);

impl FromStr for Cidr {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse(text).map(Self).ok_or_else(|| {
            let text = start(text, 64);
            let why = format!("{text:?} is neither an IP address nor a CIDR range");
            ParseError::new("network", why)
        })
    }
}

fn parse(text: &str) -> Option<IpNet> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let widest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => widest,
        // Digits only, without a leading zero, which could mean octal.
        Some("0") => 0,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0') => {
            digits.parse().ok()?
        }
        Some(_) => return None,
    };
    match (address, address.to_canonical()) {
        // A range that is wider than the mapped addresses stays IPv6.
        (IpAddr::V6(_), IpAddr::V4(mapped)) if prefix >= 96 => {
            IpNet::new(mapped.into(), prefix - 96).ok()
        }
        _ => IpNet::new(address, prefix).ok(),
    }
    .map(|network| network.trunc())
}

impl Cidr {
    /// Whether the network contains an address. IPv4-mapped IPv6 counts as IPv4; an IPv6 network
    /// never contains IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    pub(super) fn net(&self) -> &IpNet {
        &self.0
    }
}

impl From<IpAddr> for Cidr {
    fn from(address: IpAddr) -> Self {
        Self(IpNet::from(address.to_canonical()))
    }
}

/// Writes a single address without its prefix length and a range with it.
impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            self.0.addr().fmt(f)
        } else {
            self.0.fmt(f)
        }
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cidr({self})")
    }
}
