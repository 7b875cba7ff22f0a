//! Which address is the client's.
//!
//! The peer's, unless the host trusts proxies: then what they wrote is read from **one** configured
//! header, all of its lines joined, walked from right to left, past trusted hops, to the first that
//! is not. Empty elements and empty lines are skipped (RFC 9110 §5.6.1.2). An element that is
//! reached and cannot be parsed means that the address is not known; what stands further to the
//! left is never looked at.

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
/// # Ok::<(), portunus::error::ParseError>(())
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

/// No more hops are walked: beyond that the address is not known.
const MOST_HOPS: usize = 64;

impl ClientIp {
    /// The address at the other end of the connection, whatever the request says.
    #[must_use]
    pub const fn peer() -> Self {
        Self(Strategy::Peer)
    }

    /// Behind proxies in these networks. A request from elsewhere is from its peer, whatever it
    /// says.
    ///
    /// An empty set trusts nobody. Private ranges are not trusted unless they are named. At most 64
    /// hops are walked: a client further to the left is not known.
    pub fn behind(trusted: impl IntoIterator<Item = Cidr>, header: ForwardedHeader) -> Self {
        Self(Strategy::Behind {
            trusted: trusted.into_iter().collect(),
            header: header.in_lower_case(),
        })
    }

    /// Behind exactly this many proxies, whose addresses are not known beforehand: the hop which
    /// the outermost of them wrote. Only where nobody can reach the service around them. Of more
    /// than 64 proxies no client is ever known.
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
                let mut hops = Hops::of(header, head);
                let overwritten = matches!(header, ForwardedHeader::Single(_));
                loop {
                    match hops.next_from_the_right()? {
                        hop if is_trusted(hop) && !overwritten => {}
                        hop => return Some(hop),
                    }
                }
            }
            Strategy::Hops { proxies, header } => {
                let mut hops = Hops::of(header, head);
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
#[expect(
    clippy::large_enum_variant,
    reason = "it lives on the stack for as long as a header is read, and nothing is allocated"
)]
enum Hops<'a> {
    /// A list, of which each element is parsed when it is reached.
    List(List<'a>),
    /// The one address of a header that stands once.
    One(Option<IpAddr>),
}

/// What is left of a list's lines.
struct List<'a> {
    syntax: Syntax,
    /// The last lines that are not empty, line number n at the remainder of n. Each holds a hop at
    /// least, so no more of them can be walked.
    lines: [&'a [u8]; MOST_HOPS],
    first: usize,
    last: usize,
    walked: usize,
}

/// How the elements of a list are told apart and read.
#[derive(Clone, Copy)]
enum Syntax {
    XForwardedFor,
    Forwarded,
}

impl Syntax {
    /// Where the last element of a line begins.
    fn last_element(self, line: &[u8]) -> usize {
        match self {
            Self::XForwardedFor => line
                .iter()
                .rposition(|&byte| byte == b',')
                .map_or(0, |comma| comma + 1),
            Self::Forwarded => forwarded::last_element(line),
        }
    }

    fn parse(self, element: &str) -> Option<IpAddr> {
        match self {
            Self::XForwardedFor => parse_hop(element),
            Self::Forwarded => forwarded::hop(element),
        }
    }
}

impl<'a> Hops<'a> {
    fn of(header: &ForwardedHeader, head: &'a dyn RequestHead) -> Self {
        match header {
            ForwardedHeader::XForwardedFor => Self::List(List::of(
                Syntax::XForwardedFor,
                FieldName::XForwardedFor,
                head,
            )),
            ForwardedHeader::Forwarded => {
                Self::List(List::of(Syntax::Forwarded, FieldName::Forwarded, head))
            }
            ForwardedHeader::Single(name) => match head.single(FieldName::Other(name)) {
                Single::One(value) => {
                    let text = std::str::from_utf8(value.trim_ascii()).ok();
                    Self::One(text.and_then(parse_hop))
                }
                Single::Absent | Single::Repeated => Self::One(None),
            },
        }
    }

    fn next_from_the_right(&mut self) -> Option<IpAddr> {
        match self {
            Self::List(list) => list.next_from_the_right(),
            Self::One(address) => address.take(),
        }
    }
}

impl<'a> List<'a> {
    fn of(syntax: Syntax, name: FieldName<'_>, head: &'a dyn RequestHead) -> Self {
        let mut lines: [&[u8]; MOST_HOPS] = [&[]; MOST_HOPS];
        let mut last = 0;
        head.visit(name, &mut |line| {
            if !line.iter().all(|byte| b", \t".contains(byte)) {
                lines[last % MOST_HOPS] = line;
                last += 1;
            }
            ControlFlow::Continue(())
        });
        Self {
            syntax,
            lines,
            first: last.saturating_sub(MOST_HOPS),
            last,
            walked: 0,
        }
    }

    fn next_from_the_right(&mut self) -> Option<IpAddr> {
        if self.walked == MOST_HOPS {
            return None;
        }
        self.walked += 1;
        while self.last > self.first {
            let line = &mut self.lines[(self.last - 1) % MOST_HOPS];
            let start = self.syntax.last_element(line);
            let element = line[start..].trim_ascii();
            match start.checked_sub(1) {
                Some(comma) => *line = &line[..comma],
                None => self.last -= 1,
            }
            if !element.is_empty() {
                let text = std::str::from_utf8(element).ok()?;
                return self.syntax.parse(text);
            }
        }
        None
    }
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
