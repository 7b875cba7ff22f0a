//! A comparison with `proxy-addr`, which Express uses: the same answer in ten thousand random
//! cases, or a stated reason for the difference.
//!
//! `vectors/proxy-addr/generate.js` generated the cases. Each is compared with the other library's
//! answer and with a slow walk implemented here, which also names the intended differences. A
//! difference without a name fails.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portunus::network::{Cidr, ClientIp, ForwardedHeader};
use portunus_test_support::Head;

/// A reason why Portunus differs from `proxy-addr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    /// A trusted peer without the header, or with an empty one: `proxy-addr` returns the proxy as
    /// the client.
    HeaderAbsent,
    /// Only trusted addresses: `proxy-addr` returns the leftmost of them as the client.
    EveryHopTrusted,
    /// An invalid address, which the other parser may accept (`10.1`, `010.0.0.1`) or return
    /// unchanged.
    UnreadableHop,
    /// An address with a port or in brackets: `proxy-addr` returns it unchanged.
    PortUnderstood,
    /// A tab, which is white space in a field (RFC 9110 §5.6.3) and part of the address for
    /// `proxy-addr`.
    TabIsSpace,
    /// IPv6 that ends in IPv4 notation (RFC 4291 §2.2): the other parser accepts that only after
    /// `::ffff:`.
    DottedTail,
    /// A range that begins in the mapped addresses and extends beyond them: in `proxy-addr` it
    /// matches nothing.
    RangeBeyondMapped,
}

/// A range: 128 bits, and how many of them are the prefix. IPv4 is treated as mapped.
struct Range {
    base: u128,
    prefix: u32,
    beyond_mapped: bool,
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn is_mapped(bits: u128) -> bool {
    bits >> 32 == 0xffff
}

impl Range {
    fn parse(text: &str) -> Self {
        let (address, prefix) = text
            .split_once('/')
            .map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().unwrap();
        let base = bits(address);
        let prefix = match prefix {
            None => 128,
            Some(prefix) => prefix.parse::<u32>().unwrap() + if address.is_ipv4() { 96 } else { 0 },
        };
        Self {
            base,
            prefix,
            beyond_mapped: is_mapped(base) && prefix < 96,
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        let address = bits(address);
        // IPv4 is only in IPv4 ranges, and IPv6 only in IPv6 ranges.
        is_mapped(address) == (is_mapped(self.base) && self.prefix >= 96)
            && (address ^ self.base)
                .checked_shr(128 - self.prefix)
                .unwrap_or(0)
                == 0
    }
}

/// Returns the client, by a walk from right to left, and the reasons for which `proxy-addr` may
/// return another one.
fn walk(trusted: &[Range], peer: &str, header: Option<&str>) -> (Option<IpAddr>, BTreeSet<Reason>) {
    let mut reasons: BTreeSet<_> = has_dotted_tail(peer)
        .then_some(Reason::DottedTail)
        .into_iter()
        .collect();
    let peer: IpAddr = peer.parse().unwrap();
    let is_trusted = |address: IpAddr, reasons: &mut BTreeSet<Reason>| {
        let by = trusted
            .iter()
            .filter(|range| range.contains(address))
            .collect::<Vec<_>>();
        if !by.is_empty() && by.iter().all(|range| range.beyond_mapped) {
            reasons.insert(Reason::RangeBeyondMapped);
        }
        !by.is_empty()
    };
    if !is_trusted(peer, &mut reasons) {
        return (Some(peer), reasons);
    }
    let Some(header) = header.filter(|value| !value.trim_matches([' ', '\t', ',']).is_empty())
    else {
        reasons.insert(Reason::HeaderAbsent);
        return (None, reasons);
    };
    for hop in header.rsplit(',') {
        if hop.contains('\t') {
            reasons.insert(Reason::TabIsSpace);
        }
        let hop = hop.trim_matches([' ', '\t']);
        if has_dotted_tail(hop) {
            reasons.insert(Reason::DottedTail);
        }
        let address = match hop.parse::<IpAddr>() {
            Ok(address) => address,
            // RFC 9110 §5.6.1.2.
            Err(_) if hop.is_empty() => continue,
            Err(_) => match without_port(hop) {
                Some(address) => {
                    reasons.insert(Reason::PortUnderstood);
                    address
                }
                None => {
                    reasons.insert(Reason::UnreadableHop);
                    return (None, reasons);
                }
            },
        };
        if !is_trusted(address, &mut reasons) {
            return (Some(address), reasons);
        }
    }
    reasons.insert(Reason::EveryHopTrusted);
    (None, reasons)
}

fn has_dotted_tail(address: &str) -> bool {
    address.contains("::")
        && address.contains('.')
        && !address.to_ascii_lowercase().starts_with("::ffff:")
}

fn without_port(hop: &str) -> Option<IpAddr> {
    let bracketed = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']'));
    let plain = bracketed
        .and_then(|hop| hop.parse::<std::net::Ipv6Addr>().ok())
        .map(IpAddr::V6);
    plain.or_else(|| {
        hop.parse::<std::net::SocketAddr>()
            .ok()
            .map(|socket| socket.ip())
    })
}

#[test]
fn every_answer_is_proxy_addrs_or_differs_for_a_reason_that_has_a_name() {
    let mut trust: Vec<Vec<String>> = Vec::new();
    let (mut cases, mut same) = (0, 0);
    let mut reasons: BTreeMap<Reason, usize> = BTreeMap::new();
    for line in include_str!("vectors/proxy-addr/cases.txt").lines() {
        if line.starts_with('#') {
            continue;
        }
        if let Some(ranges) = line.strip_prefix("trust ") {
            let (number, ranges) = ranges.split_once(' ').unwrap();
            assert_eq!(number.parse(), Ok(trust.len()));
            trust.push(ranges.split(' ').map(str::to_owned).collect());
            continue;
        }
        let line = line.replace("\\t", "\t");
        let [set, peer, told, theirs] = line.split('|').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let ranges = &trust[set.parse::<usize>().unwrap()];
        let header = told.strip_prefix('=');

        let trusted: Vec<Cidr> = ranges.iter().map(|range| range.parse().unwrap()).collect();
        let mut head = Head::new().from(peer).with("forwarded", "for=203.0.113.99");
        if let Some(value) = header {
            head = head.with("x-forwarded-for", value);
        }
        let ours = ClientIp::behind(trusted, ForwardedHeader::XForwardedFor).resolve(&head);

        let slow: Vec<Range> = ranges.iter().map(|range| Range::parse(range)).collect();
        let (expected, why) = walk(&slow, peer, header);
        let expected = expected.map(|address| address.to_canonical());
        assert_eq!(ours, expected, "{line} (trusted: {ranges:?})");
        if ours.is_some() && theirs.parse::<IpAddr>().ok().map(|ip| ip.to_canonical()) == ours {
            same += 1;
        } else {
            let reason = *why
                .first()
                .unwrap_or_else(|| panic!("no reason: {line}, {ours:?} (trusted: {ranges:?})"));
            *reasons.entry(reason).or_default() += 1;
        }
        cases += 1;
    }
    println!("of {cases} cases {same} have the same answer; the others: {reasons:?}");
    assert_eq!(cases, 10_000);
    assert_eq!(same + reasons.values().sum::<usize>(), cases);
    // Each reason occurs, and more than half of the results are equal: otherwise the cases prove
    // nothing.
    assert_eq!(reasons.len(), 7, "{reasons:?}");
    assert!(same > 5_000, "{same}");
}
