//! Which address is the client's.
//!
//! The peer's, unless the host trusts proxies: then what they wrote is read from **one** configured
//! header, all of its lines joined, walked from right to left, past trusted hops, to the first that
//! is not. Anything that cannot be parsed on the way means that the address is not known.

use std::fmt;
use std::net::IpAddr;
use std::ops::ControlFlow;

use super::cidr::Cidr;
use super::forwarded;
use crate::request::{FieldName, RequestHead, Single};

/// How the client's address is found.
///
/// ```
/// use portunus::network::{ClientIp, ForwardedHeader};
///
/// let peer_only = ClientIp::peer();
/// let behind_a_load_balancer = ClientIp::behind(["10.0.0.0/8".parse()?], ForwardedHeader::XForwardedFor);
/// let behind_a_cdn = ClientIp::behind(
///     ["198.51.100.0/24".parse()?],
///     ForwardedHeader::single("CF-Connecting-IP"),
/// );
/// # Ok::<(), portunus::network::CidrError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ClientIp(Strategy);

#[derive(Debug, Clone)]
enum Strategy {
    Peer,
    Behind {
        trusted: Vec<Cidr>,
        header: ForwardedHeader,
    },
    Hops {
        proxies: usize,
        header: ForwardedHeader,
    },
}

/// The one header that trusted proxies set. Others are never looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`: addresses, the client's first, each proxy appending its peer.
    XForwardedFor,
    /// `Forwarded` (RFC 7239), by its `for` parameters.
    Forwarded,
    /// A header with one address, which the proxy overwrites, such as `CF-Connecting-IP`; its name
    /// in any case.
    Single(String),
}

impl ForwardedHeader {
    /// A header with one address, by its name.
    #[must_use]
    pub fn single(name: &str) -> Self {
        Self::Single(name.to_ascii_lowercase())
    }

    fn in_lower_case(self) -> Self {
        match self {
            Self::Single(name) => Self::single(&name),
            known => known,
        }
    }
}

impl fmt::Display for ForwardedHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
            Self::Single(name) => name,
        })
    }
}

/// By the header's name, in any case; one that is not known is taken to have [one
/// address](ForwardedHeader::Single).
impl From<&str> for ForwardedHeader {
    fn from(name: &str) -> Self {
        match Self::single(name) {
            Self::Single(name) if name == "x-forwarded-for" => Self::XForwardedFor,
            Self::Single(name) if name == "forwarded" => Self::Forwarded,
            single => single,
        }
    }
}

impl Default for ClientIp {
    fn default() -> Self {
        Self::peer()
    }
}

/// No more lines of one field, and no more hops of `Forwarded`, are looked at: beyond that the
/// address is not known.
const MOST_LINES: usize = 16;
const MOST_HOPS: usize = 24;

impl ClientIp {
    /// The address at the other end of the connection, whatever the request says.
    #[must_use]
    pub const fn peer() -> Self {
        Self(Strategy::Peer)
    }

    /// Behind proxies in these networks. A request from elsewhere is from its peer, whatever it
    /// says.
    ///
    /// An empty set trusts nobody. Private ranges are not trusted unless they are named.
    pub fn behind(trusted: impl IntoIterator<Item = Cidr>, header: ForwardedHeader) -> Self {
        Self(Strategy::Behind {
            trusted: trusted.into_iter().collect(),
            header: header.in_lower_case(),
        })
    }

    /// Behind exactly this many proxies, whose addresses are not known beforehand: the hop which
    /// the outermost of them wrote. Only where nobody can reach the service around them.
    #[must_use]
    pub fn behind_hops(proxies: usize, header: ForwardedHeader) -> Self {
        Self(if proxies == 0 {
            Strategy::Peer
        } else {
            Strategy::Hops {
                proxies,
                header: header.in_lower_case(),
            }
        })
    }

    /// The client's address, if it is known. IPv4-mapped IPv6 is returned as IPv4. Allocates
    /// nothing.
    #[must_use]
    pub fn resolve(&self, head: &dyn RequestHead) -> Option<IpAddr> {
        let peer = head.peer_ip().map(|ip| ip.to_canonical());
        match &self.0 {
            Strategy::Peer => peer,
            Strategy::Behind { trusted, header } => {
                let is_trusted = |ip: IpAddr| trusted.iter().any(|network| network.contains(ip));
                let peer = peer?;
                if !is_trusted(peer) {
                    return Some(peer);
                }
                let mut hops = Hops::of(header, head)?;
                loop {
                    match hops.next_from_the_right()? {
                        hop if is_trusted(hop) && !matches!(header, ForwardedHeader::Single(_)) => {
                        }
                        hop => return Some(hop),
                    }
                }
            }
            Strategy::Hops { proxies, header } => {
                let mut hops = Hops::of(header, head)?;
                for _ in 1..*proxies {
                    hops.next_from_the_right()?;
                }
                hops.next_from_the_right()
            }
        }
    }
}

/// The hops that a header tells, to be taken from the right. `None` from it means that there are no
/// more, or that one cannot be parsed: either way there is nothing further to the left that could
/// be believed.
enum Hops<'a> {
    List {
        lines: [&'a [u8]; MOST_LINES],
        count: usize,
    },
    /// Hops number `first` to before `last`, each at its number's remainder.
    Parsed {
        hops: [Option<IpAddr>; MOST_HOPS],
        first: usize,
        last: usize,
    },
}

impl<'a> Hops<'a> {
    fn of(header: &ForwardedHeader, head: &'a dyn RequestHead) -> Option<Self> {
        match header {
            ForwardedHeader::XForwardedFor => {
                let (lines, count) = lines(head, FieldName::XForwardedFor)?;
                Some(Self::List { lines, count })
            }
            ForwardedHeader::Forwarded => {
                let (lines, count) = lines(head, FieldName::Forwarded)?;
                let lines = &lines[..count];
                let mut hops = [None; MOST_HOPS];
                let mut count = 0;
                for line in lines {
                    // Of a longer list the rightmost are kept: those to be walked first.
                    forwarded::each_hop(line, &mut |hop| {
                        hops[count % MOST_HOPS] = hop;
                        count += 1;
                    })?;
                }
                Some(Self::Parsed {
                    hops,
                    last: count,
                    first: count.saturating_sub(MOST_HOPS),
                })
            }
            ForwardedHeader::Single(name) => match head.single(FieldName::Other(name)) {
                Single::One(value) => {
                    let mut hops = [None; MOST_HOPS];
                    hops[0] = std::str::from_utf8(value.trim_ascii())
                        .ok()
                        .and_then(parse_hop);
                    Some(Self::Parsed {
                        hops,
                        first: 0,
                        last: 1,
                    })
                }
                Single::Absent | Single::Repeated => None,
            },
        }
    }

    fn next_from_the_right(&mut self) -> Option<IpAddr> {
        match self {
            Self::List { lines, count } => {
                let line = &mut lines[count.checked_sub(1)?];
                let (rest, last) = match line.iter().rposition(|&byte| byte == b',') {
                    Some(comma) => (Some(&line[..comma]), &line[comma + 1..]),
                    None => (None, *line),
                };
                match rest {
                    Some(rest) => *line = rest,
                    None => *count -= 1,
                }
                std::str::from_utf8(last.trim_ascii())
                    .ok()
                    .and_then(parse_hop)
            }
            Self::Parsed { hops, first, last } => {
                *last = last.checked_sub(1).filter(|last| last >= first)?;
                hops[*last % MOST_HOPS]
            }
        }
    }
}

fn lines<'a>(
    head: &'a dyn RequestHead,
    name: FieldName<'_>,
) -> Option<([&'a [u8]; MOST_LINES], usize)> {
    let mut lines: [&[u8]; MOST_LINES] = [&[]; MOST_LINES];
    let (mut count, mut fits) = (0, true);
    head.visit(name, &mut |line| match lines.get_mut(count) {
        Some(place) => {
            *place = line;
            count += 1;
            ControlFlow::Continue(())
        }
        None => {
            fits = false;
            ControlFlow::Break(())
        }
    });
    fits.then_some((lines, count))
}

/// One hop: an address, in brackets or not, with a port or not. Some proxies write the port.
pub(super) fn parse_hop(text: &str) -> Option<IpAddr> {
    let (address, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (address, rest) = bracketed.split_once(']')?;
            let address = IpAddr::V6(address.parse().ok()?);
            (
                address,
                rest.strip_prefix(':')
                    .map_or_else(|| rest.is_empty().then_some("0"), Some)?,
            )
        }
        None => match text.parse::<IpAddr>() {
            Ok(address) => (address, "0"),
            Err(_) => {
                let (address, port) = text.split_once(':')?;
                (IpAddr::V4(address.parse().ok()?), port)
            }
        },
    };
    is_port(port).then(|| address.to_canonical())
}

/// A port, or an obfuscated one (RFC 7239 §6.2).
fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(rest) => {
            !rest.is_empty()
                && rest
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        }
        None => text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok(),
    }
}
