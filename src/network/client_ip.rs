//! Determines the client address.
//!
//! It is the peer's address, unless the host trusts proxies. Then it is read from **one**
//! configured header: all of its lines are joined and walked from right to left, past trusted hops,
//! to the first untrusted one. Empty elements and empty lines are skipped (RFC 9110 §5.6.1.2). If
//! the walk reaches an element that cannot be parsed, the address is unknown; elements further to
//! the left are never read.

use std::fmt;
use std::net::IpAddr;
use std::ops::ControlFlow;

use super::cidr::Cidr;
use super::forwarded;
use crate::request::{FieldName, RequestHead, Single};

/// The rule by which the client address is determined.
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

/// The header that trusted proxies set. No other header is read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`: a list of addresses, the client's first, to which each proxy appends its
    /// peer.
    XForwardedFor,
    /// The `for` parameters of `Forwarded` (RFC 7239).
    Forwarded,
    /// A header with a single address that the proxy overwrites, such as `CF-Connecting-IP`. The
    /// name is case-insensitive.
    Single(String),
}

impl ForwardedHeader {
    /// Creates a [`Single`](Self::Single) from a header name.
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

/// Converts a header name, in any case. An unknown header is assumed to carry a [single
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

/// The maximum number of hops that are walked; beyond it the address is unknown.
const MOST_HOPS: usize = 64;

impl ClientIp {
    /// Uses the peer address of the connection, whatever the request claims.
    #[must_use]
    pub const fn peer() -> Self {
        Self(Strategy::Peer)
    }

    /// Trusts proxies in these networks. For a request from any other peer, the peer is the client,
    /// whatever the request claims.
    ///
    /// An empty set trusts no peer. Private ranges are not trusted unless listed. At most 64 hops
    /// are walked: a client further to the left is unknown.
    pub fn behind(trusted: impl IntoIterator<Item = Cidr>, header: ForwardedHeader) -> Self {
        Self(Strategy::Behind {
            trusted: trusted.into_iter().collect(),
            header: header.in_lower_case(),
        })
    }

    /// Trusts exactly this many proxies whose addresses are not known in advance: the client is the
    /// hop that the outermost of them wrote. Use it only if the service cannot be reached around
    /// the proxies. With more than 64 proxies, the client is always unknown.
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

    /// Returns the client address, if it is known. IPv4-mapped IPv6 is returned as IPv4. Does not
    /// allocate.
    #[must_use]
    #[inline]
    pub fn resolve(&self, head: &dyn RequestHead) -> Option<IpAddr> {
        match &self.0 {
            Strategy::Peer => canonical(head.peer_ip()),
            _ => self.behind_proxies(canonical(head.peer_ip()), head),
        }
    }

    /// Apart, because the hops take a kilobyte of the stack.
    fn behind_proxies(&self, peer: Option<IpAddr>, head: &dyn RequestHead) -> Option<IpAddr> {
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

/// Returns IPv4-mapped IPv6 as IPv4, and IPv4 as it is: an address that is written in parts and then
/// read as a whole, as `to_canonical` does, makes the processor wait for the writes. That took 10 ns.
fn canonical(address: Option<IpAddr>) -> Option<IpAddr> {
    match address {
        Some(IpAddr::V6(address)) => Some(address.to_canonical()),
        v4 => v4,
    }
}

/// The hops of a header, read from the right. `None` means that there are no more hops or that one
/// cannot be parsed; in both cases, nothing further to the left can be trusted.
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack while a header is read; boxing would allocate"
)]
enum Hops<'a> {
    /// A list whose elements are parsed when they are reached.
    List(List<'a>),
    /// The single address of a header that occurs once.
    One(Option<IpAddr>),
}

/// The unread rest of a list's lines.
struct List<'a> {
    syntax: Syntax,
    /// A ring of the last non-empty lines: line `n` at index `n % MOST_HOPS`. Each line has at
    /// least one hop, so `MOST_HOPS` lines are enough for the walk.
    lines: [&'a [u8]; MOST_HOPS],
    first: usize,
    last: usize,
    walked: usize,
}

/// The syntax of a list: how elements are separated and parsed.
#[derive(Clone, Copy)]
enum Syntax {
    XForwardedFor,
    Forwarded,
}

impl Syntax {
    /// Returns where the last element of a line begins.
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

/// Parses a hop: an address, optionally in brackets, optionally with a port, which some proxies
/// write.
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

/// Whether the text is a port or an obfuscated port (RFC 7239 §6.2).
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
