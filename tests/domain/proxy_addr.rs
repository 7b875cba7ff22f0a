//! Beside `proxy-addr`, which Express uses: the same answer in ten thousand random cases, or a
//! reason why not.
//!
//! `vectors/proxy-addr/generate.js` made the cases. Each is held against two things: what the other
//! library answered, and a slow walk written out here that also names where the two part on
//! purpose. A difference without a name fails.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portunus::network::{Cidr, ClientIp, ForwardedHeader};
use portunus_test_support::Head;

/// Where Portunus parts from `proxy-addr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    /// A trusted peer without the header, or with nothing in it: `proxy-addr` takes the proxy for
    /// the client.
    HeaderAbsent,
    /// Only trusted addresses: `proxy-addr` takes the leftmost of them for the client.
    EveryHopTrusted,
    /// What is no address, though the other parser may take it for one (`10.1`, `010.0.0.1`), or
    /// hands it on as it is.
    UnreadableHop,
    /// An address with a port or in brackets: `proxy-addr` hands it on as it is.
    PortUnderstood,
    /// A tab, which is white space in a field (RFC 9110 §5.6.3) and part of the address for
    /// `proxy-addr`.
    TabIsSpace,
    /// IPv6 that ends as IPv4 is written (RFC 4291 §2.2): the other parser reads that after
    /// `::ffff:` alone.
    DottedTail,
    /// A range that begins in the mapped addresses and reaches beyond: with `proxy-addr` it matches
    /// nothing at all.
    RangeBeyondMapped,
}

/// A range, as 128 bits of which the first count. IPv4 is counted as mapped.
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
        // IPv4 lies in IPv4 ranges only, and IPv6 in IPv6 ranges only.
        is_mapped(address) == (is_mapped(self.base) && self.prefix >= 96)
            && (address ^ self.base)
                .checked_shr(128 - self.prefix)
                .unwrap_or(0)
                == 0
    }
}

/// The client, by a walk from right to left; and the reasons for which `proxy-addr` may have come
/// to another.
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
    // Each reason is met, and more than half are the same: else the cases show nothing.
    assert_eq!(reasons.len(), 7, "{reasons:?}");
    assert!(same > 5_000, "{same}");
}
