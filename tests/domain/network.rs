//! Client addresses: which strings are networks, what an allow-list contains, and which hop is the
//! client.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portunus::key::Owner;
use portunus::manage::NewKey;
use portunus::network::{AllowList, Cidr, ClientIp, ForwardedHeader};
use portunus::store::MemoryStore;
use portunus::{Authenticator, ErrorCode};
use portunus_profiles::Profile;
use portunus_test_support::{Fixture, Head, Setup, tenant};
use proptest::prelude::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn list(entries: &[&str]) -> AllowList {
    AllowList::parse(entries).unwrap()
}

// ---- networks ----

#[test]
fn ambiguous_notations_are_not_networks() {
    for text in [
        "",
        " ",
        "/",
        "/8",
        "10.0.0.0/",
        "010.0.0.0/8",
        "10.0.0.010",
        "0x0a.0.0.1",
        "167772161",
        "10.0.0",
        "10/8",
        "10.0.0.0/33",
        "10.0.0.0/08",
        "10.0.0.0/00",
        "10.0.0.0/+8",
        "10.0.0.0/-1",
        "10.0.0.0/ 8",
        "10.0.0.0 /8",
        "10.0.0.0/8 ",
        " 10.0.0.0/8",
        "10.0.0.0/8\n",
        "10.0.0.0/8\0",
        "10.0.0.0/8/8",
        "10.0.0.0/255.0.0.0",
        "10.0.0.0/4294967304",
        "10.0.0.0/264",
        "10.0.0.0/٨",
        "256.0.0.1",
        "1.2.3.4.5",
        "1.2.3.4:80",
        "*",
        "10.0.0.*",
        "10.0.0.1-10.0.0.9",
        "10.0.0.1,10.0.0.2",
        "localhost",
        "all",
        "2001:db8::/129",
        "2001:db8::/032",
        "2001:db8::1::2",
        "fe80::1%eth0",
        "fe80::1%1",
        "fe80::%eth0/64",
        "[2001:db8::1]",
        "[2001:db8::]/32",
        "::ffff:10.0.0.0/129",
        "::ffff:010.0.0.1",
        ":::",
        "12345::",
    ] {
        assert!(text.parse::<Cidr>().is_err(), "{text:?}");
        let error = AllowList::parse(["192.0.2.1", text]).unwrap_err();
        assert_eq!(error, text.parse::<Cidr>().unwrap_err());
        assert!(
            error
                .to_string()
                .contains("neither an IP address nor a CIDR range"),
            "{error}"
        );
    }
}

#[test]
fn networks_are_displayed_as_parsed() {
    for (text, told) in [
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.1/32", "10.0.0.1"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("10.1.2.3/0", "0.0.0.0/0"),
        ("255.255.255.255/31", "255.255.255.254/31"),
        ("2001:DB8::1", "2001:db8::1"),
        ("2001:db8:0:0:0:0:0:1/128", "2001:db8::1"),
        ("2001:db8:ffff::1/32", "2001:db8::/32"),
        ("::/0", "::/0"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:10.0.0.1/128", "10.0.0.1"),
        // Extends beyond the mapped addresses, so it is IPv6.
        ("::ffff:0:0/95", "::fffe:0:0/95"),
        ("::ffff:10.0.0.1/0", "::/0"),
    ] {
        let network = cidr(text);
        assert_eq!(network.to_string(), told, "{text}");
        assert_eq!(cidr(told), network, "{text}");
    }
}

#[test]
fn a_network_has_its_own_addresses_and_no_others() {
    for (network, address, contains) in [
        ("10.0.0.0/8", "10.0.0.0", true),
        ("10.0.0.0/8", "10.255.255.255", true),
        ("10.0.0.0/8", "9.255.255.255", false),
        ("10.0.0.0/8", "11.0.0.0", false),
        ("10.0.0.7", "10.0.0.7", true),
        ("10.0.0.7", "10.0.0.6", false),
        ("10.0.0.7", "10.0.0.8", false),
        ("10.1.2.3/16", "10.1.0.0", true),
        ("10.1.2.3/16", "10.2.2.3", false),
        ("0.0.0.0/0", "255.255.255.255", true),
        ("0.0.0.0/0", "::1", false),
        ("0.0.0.0/0", "2001:db8::1", false),
        ("0.0.0.0/0", "::ffff:8.8.8.8", true),
        ("203.0.113.42", "::ffff:203.0.113.42", true),
        ("::ffff:203.0.113.42", "203.0.113.42", true),
        ("::ffff:203.0.113.42", "::ffff:203.0.113.42", true),
        ("::ffff:203.0.113.0/120", "203.0.113.42", true),
        ("::ffff:203.0.113.0/120", "203.0.114.42", false),
        // IPv4-compatible (RFC 4291 §2.5.5.1) is not IPv4-mapped.
        ("203.0.113.42", "::203.0.113.42", false),
        ("::/0", "2001:db8::1", true),
        ("::/0", "::1", true),
        ("::/0", "192.0.2.1", false),
        ("::/0", "::ffff:192.0.2.1", false),
        ("::ffff:0:0/95", "192.0.2.1", false),
        ("::ffff:0:0/95", "::fffe:0:1", true),
        (
            "2001:db8::/32",
            "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
            true,
        ),
        ("2001:db8::/32", "2001:db9::", false),
        ("2001:db8::/127", "2001:db8::1", true),
        ("2001:db8::/127", "2001:db8::2", false),
    ] {
        assert_eq!(
            cidr(network).contains(ip(address)),
            contains,
            "{address} in {network}"
        );
        assert_eq!(
            list(&[network]).contains(ip(address)),
            contains,
            "{address} in [{network}]"
        );
        assert_eq!(
            list(&["192.0.2.254", network]).contains(ip(address)),
            contains,
            "{address} in [.., {network}]"
        );
    }
}

#[test]
fn a_network_of_one_address_is_made_of_it() {
    assert_eq!(Cidr::from(ip("::ffff:192.0.2.1")), cidr("192.0.2.1"));
    assert_eq!(Cidr::from(ip("2001:db8::1")), cidr("2001:db8::1/128"));
}

#[test]
fn an_error_quotes_no_more_than_64_characters() {
    let error = "x"
        .repeat(1_000_000)
        .parse::<Cidr>()
        .unwrap_err()
        .to_string();
    assert!(error.len() < 150, "{}", error.len());
}

// ---- allow-lists ----

#[test]
fn an_empty_list_cannot_be_set() {
    for empty in [AllowList::parse::<&str>([]), AllowList::new(Vec::new())] {
        let why = empty.unwrap_err().to_string();
        assert_eq!(why, "an allow-list needs at least one entry");
    }
    assert!(serde_json::from_str::<AllowList>("[]").is_err());
    assert!(serde_json::from_str::<AllowList>("null").is_err());
    assert!(serde_json::from_str::<AllowList>(r#""10.0.0.0/8""#).is_err());
}

#[test]
fn a_list_takes_a_thousand_entries_and_not_one_more() {
    let entries: Vec<String> = (0..1001)
        .map(|n| format!("10.0.{}.{}", n / 256, n % 256))
        .collect();
    let longest = AllowList::parse(&entries[..1000]).unwrap();
    assert_eq!(longest.entries().len(), 1000);
    assert!(longest.contains(ip("10.0.3.231")) && !longest.contains(ip("10.0.3.232")));
    for too_long in [
        AllowList::parse(&entries),
        AllowList::new(entries.iter().map(|entry| cidr(entry)).collect()),
        AllowList::parse(std::iter::repeat("10.0.0.1")),
    ] {
        let why = too_long.unwrap_err().to_string();
        assert_eq!(why, "an allow-list can have at most 1000 entries");
    }
}

#[test]
fn the_first_bad_entry_of_a_list_is_named() {
    let error = AllowList::parse(["10.0.0.0/8", "bad-1", "bad-2"])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("bad-1") && !error.contains("bad-2"),
        "{error}"
    );
}

#[test]
fn a_list_is_stored_as_its_entries_and_read_with_the_same_rules() {
    let written =
        serde_json::to_string(&list(&["10.1.2.3/8", "::ffff:192.0.2.1", "2001:db8::/32"])).unwrap();
    assert_eq!(written, r#"["10.0.0.0/8","192.0.2.1","2001:db8::/32"]"#);
    let read: AllowList = serde_json::from_str(&written).unwrap();
    assert_eq!(read, list(&["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]));
    assert!(serde_json::from_str::<AllowList>(r#"["10.0.0.0/8","010.0.0.1"]"#).is_err());
    assert_eq!(
        format!("{read:?}"),
        "AllowList([Cidr(10.0.0.0/8), Cidr(192.0.2.1), Cidr(2001:db8::/32)])"
    );
}

fn networks() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (any::<u32>(), 0..=32_u8)
            .prop_map(|(bits, prefix)| Ipv4Net::new(bits.into(), prefix).unwrap().into()),
        (any::<u128>(), 0..=128_u8)
            .prop_map(|(bits, prefix)| Ipv6Net::new(bits.into(), prefix).unwrap().into()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_list_contains_what_ipnet_says_that_its_networks_contain(
        nets in prop::collection::vec(networks(), 1..6),
        near in any::<prop::sample::Index>(),
        flip in 0..128_u32,
        mapped in any::<bool>(),
    ) {
        let allowed = AllowList::parse(nets.iter().map(ToString::to_string)).unwrap();
        // An address in one of the networks, with one bit flipped: inside or just outside.
        let address = match near.get(&nets).addr() {
            IpAddr::V4(ip) => IpAddr::V4((ip.to_bits() ^ 1_u32.wrapping_shl(flip)).into()),
            IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() ^ 1_u128 << flip).into()),
        }
        .to_canonical();
        let expected = nets.iter().any(|net| net.contains(&address));
        let asked = match address {
            IpAddr::V4(ip) if mapped => IpAddr::V6(ip.to_ipv6_mapped()),
            other => other,
        };
        prop_assert_eq!(allowed.contains(asked), expected, "{} in {:?}", asked, allowed);
        let one_by_one = nets.iter().any(|net| cidr(&net.to_string()).contains(asked));
        prop_assert_eq!(one_by_one, expected);
    }

    #[test]
    fn every_network_displays_as_it_was_parsed(text in "[0-9a-f:./ %]{0,24}") {
        if let Ok(network) = text.parse::<Cidr>() {
            prop_assert_eq!(cidr(&network.to_string()), network);
        }
    }
}

// ---- the client's address: X-Forwarded-For ----

const PROXIES: [&str; 3] = ["10.0.0.0/8", "2001:db8:aaaa::/48", "::1"];

fn behind(header: ForwardedHeader) -> ClientIp {
    ClientIp::behind(PROXIES.map(cidr), header)
}

fn by_xff(peer: &str, lines: &[&str]) -> Option<String> {
    let head = lines.iter().fold(Head::new().from(peer), |head, line| {
        head.with("x-forwarded-for", line)
    });
    behind(ForwardedHeader::XForwardedFor)
        .resolve(&head)
        .map(|ip| ip.to_string())
}

fn assert_xff(table: &[(&str, &[&str], Option<&str>)]) {
    for (peer, lines, expected) in table {
        assert_eq!(
            by_xff(peer, lines).as_deref(),
            *expected,
            "{lines:?} from {peer}"
        );
    }
}

#[test]
fn headers_from_an_untrusted_peer_are_ignored() {
    assert_xff(&[
        ("192.0.2.9", &[], Some("192.0.2.9")),
        ("192.0.2.9", &["203.0.113.1"], Some("192.0.2.9")),
        ("192.0.2.9", &["10.0.0.1"], Some("192.0.2.9")),
        ("192.0.2.9", &["garbage"], Some("192.0.2.9")),
        ("::ffff:192.0.2.9", &["203.0.113.1"], Some("192.0.2.9")),
        // Private ranges are not trusted by default.
        ("192.168.0.1", &["203.0.113.1"], Some("192.168.0.1")),
        ("127.0.0.1", &["203.0.113.1"], Some("127.0.0.1")),
    ]);
}

#[test]
fn the_client_is_the_first_hop_from_the_right_that_is_not_trusted() {
    assert_xff(&[
        ("10.0.0.1", &["203.0.113.1"], Some("203.0.113.1")),
        ("::ffff:10.0.0.1", &["203.0.113.1"], Some("203.0.113.1")),
        (
            "10.0.0.1",
            &["203.0.113.1, 10.0.0.2, 10.0.0.3"],
            Some("203.0.113.1"),
        ),
        // The client itself wrote the first address, to impersonate an allowed one.
        (
            "10.0.0.1",
            &["203.0.113.42, 198.51.100.66"],
            Some("198.51.100.66"),
        ),
        (
            "10.0.0.1",
            &["203.0.113.42,198.51.100.66,10.0.0.2"],
            Some("198.51.100.66"),
        ),
        (
            "10.0.0.1",
            &["10.0.0.9, 198.51.100.66"],
            Some("198.51.100.66"),
        ),
        (
            "10.0.0.1",
            &["2001:db8::7, 2001:db8:aaaa::1"],
            Some("2001:db8::7"),
        ),
        (
            "::1",
            &["203.0.113.1, ::ffff:10.0.0.2"],
            Some("203.0.113.1"),
        ),
        ("10.0.0.1", &["::ffff:203.0.113.1"], Some("203.0.113.1")),
        (
            "10.0.0.1",
            &[" \t203.0.113.1\t , \t10.0.0.2 "],
            Some("203.0.113.1"),
        ),
    ]);
}

#[test]
fn behind_a_trusted_peer_without_a_header_the_client_is_unknown() {
    assert_xff(&[
        ("10.0.0.1", &[], None),
        ("10.0.0.1", &[""], None),
        ("10.0.0.1", &["  \t"], None),
        ("10.0.0.1", &["", ""], None),
        ("10.0.0.1", &[","], None),
        ("10.0.0.1", &["10.0.0.2"], None),
        ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], None),
        ("10.0.0.1", &["10.0.0.3", "2001:db8:aaaa::2, ::1"], None),
    ]);
}

#[test]
fn repeated_lines_are_one_list() {
    assert_xff(&[
        (
            "10.0.0.1",
            &["198.51.100.1", "10.0.0.2"],
            Some("198.51.100.1"),
        ),
        (
            "10.0.0.1",
            &["203.0.113.42", "198.51.100.66"],
            Some("198.51.100.66"),
        ),
        (
            "10.0.0.1",
            &["203.0.113.42, 198.51.100.66", "10.0.0.3, 10.0.0.2"],
            Some("198.51.100.66"),
        ),
        ("10.0.0.1", &["203.0.113.42", ""], Some("203.0.113.42")),
    ]);
}

#[test]
fn addresses_may_have_brackets_and_ports() {
    assert_xff(&[
        ("10.0.0.1", &["203.0.113.1:4711"], Some("203.0.113.1")),
        (
            "10.0.0.1",
            &["203.0.113.1:4711, 10.0.0.2:80"],
            Some("203.0.113.1"),
        ),
        ("10.0.0.1", &["[2001:db8::7]"], Some("2001:db8::7")),
        (
            "10.0.0.1",
            &["[2001:db8::7]:443, [::1]:1"],
            Some("2001:db8::7"),
        ),
        (
            "10.0.0.1",
            &["[::ffff:203.0.113.1]:443"],
            Some("203.0.113.1"),
        ),
        // Seven groups and something that looks like a port are eight groups.
        (
            "10.0.0.1",
            &["2001:db8:1:2:3:4:5:443"],
            Some("2001:db8:1:2:3:4:5:443"),
        ),
    ]);
}

#[test]
fn elements_left_of_the_client_are_ignored() {
    assert_xff(&[
        (
            "10.0.0.1",
            &["garbage, 198.51.100.66"],
            Some("198.51.100.66"),
        ),
        (
            "10.0.0.1",
            &["\"; DROP TABLE, , ,, 198.51.100.66, 10.0.0.2"],
            Some("198.51.100.66"),
        ),
        (
            "10.0.0.1",
            &["garbage", "", "198.51.100.66"],
            Some("198.51.100.66"),
        ),
    ]);
    let mut bytes = vec![0xff; 100];
    bytes.extend(b",198.51.100.66");
    let head = Head::new().from("10.0.0.1").with("x-forwarded-for", bytes);
    assert_eq!(
        behind(ForwardedHeader::XForwardedFor).resolve(&head),
        Some(ip("198.51.100.66"))
    );
}

#[test]
fn an_unreadable_hop_on_the_way_makes_the_client_unknown() {
    for hop in [
        "unknown",
        "_hidden",
        "garbage",
        "localhost",
        "203.0.113",
        "203.0.113.999",
        "203.0.113.01",
        "0xcb007101",
        "3405803777",
        "203.0.113.1/32",
        "203.0.113.1 203.0.113.2",
        "203.0.113.1;",
        "203.0.113.1:",
        "203.0.113.1:x",
        "203.0.113.1:65536",
        "203.0.113.1:-1",
        "203.0.113.1:+80",
        "203.0.113.1:80:80",
        "[203.0.113.1]",
        "[203.0.113.1]:80",
        "[2001:db8::7",
        "2001:db8::7]",
        "[2001:db8::7]443",
        "[2001:db8::7]:",
        "[2001:db8::7]]",
        "[[2001:db8::7]]",
        "[]",
        "fe80::1%eth0",
        "[fe80::1%eth0]",
        "\"203.0.113.1\"",
        "for=203.0.113.1",
        "203.0.113.1\0",
        "203.0.113.\u{661}",
    ] {
        assert_eq!(by_xff("10.0.0.1", &[hop]), None, "{hop:?}");
        assert_eq!(by_xff("10.0.0.1", &["203.0.113.42", hop]), None, "{hop:?}");
        assert_eq!(
            by_xff("10.0.0.1", &["203.0.113.42", hop, "10.0.0.2"]),
            None,
            "{hop:?}"
        );
        assert_eq!(
            by_xff("10.0.0.1", &[&format!("203.0.113.42,{hop},10.0.0.2")]),
            None,
            "{hop:?}"
        );
    }
    let head = Head::new()
        .from("10.0.0.1")
        .with("x-forwarded-for", b"203.0.113.42,\xff");
    assert_eq!(behind(ForwardedHeader::XForwardedFor).resolve(&head), None);
}

#[test]
fn empty_elements_and_empty_lines_are_skipped() {
    // RFC 9110 §5.6.1.2.
    for lines in [
        &["203.0.113.1,"][..],
        &["203.0.113.1, "],
        &["203.0.113.1,\t"],
        &["203.0.113.1,,"],
        &["203.0.113.1,, 10.0.0.2"],
        &["203.0.113.1, ,\t, 10.0.0.2 ,"],
        &[",203.0.113.1"],
        &["203.0.113.1", ""],
        &["203.0.113.1", " \t"],
        &["203.0.113.1", ", ,"],
        &["203.0.113.1,", "", ",10.0.0.2"],
        &["", "203.0.113.1", "", "10.0.0.2", ""],
    ] {
        let expected = Some("203.0.113.1");
        assert_eq!(by_xff("10.0.0.1", lines).as_deref(), expected, "{lines:?}");
        let of = |line: &&str| line.replace("203", "for=203").replace("10.0", "for=10.0");
        let forwarded: Vec<String> = lines.iter().map(of).collect();
        let forwarded: Vec<&str> = forwarded.iter().map(String::as_str).collect();
        let found = by_forwarded("10.0.0.1", &forwarded);
        assert_eq!(found.as_deref(), expected, "{forwarded:?}");
    }
    for lines in [
        &[""][..],
        &[" ", ",", ",,\t,"],
        &["203.0.113.42, unknown,"],
        &["10.0.0.2,", ""],
    ] {
        assert_eq!(by_xff("10.0.0.1", lines), None, "{lines:?}");
        assert_eq!(by_forwarded("10.0.0.1", lines), None, "{lines:?}");
    }
    let two = ClientIp::behind_hops(2, ForwardedHeader::XForwardedFor);
    let head = Head::new()
        .with("x-forwarded-for", "203.0.113.42, 203.0.113.1,")
        .with("x-forwarded-for", "")
        .with("x-forwarded-for", ", 10.0.0.2,,");
    assert_eq!(two.resolve(&head), Some(ip("203.0.113.1")));
}

#[test]
fn at_most_sixty_four_hops_are_walked_over_any_number_of_lines() {
    let walked = |trusted: usize, split: bool| {
        let mut hops = vec!["203.0.113.1"];
        hops.extend(vec!["10.0.0.2"; trusted]);
        let forwarded: Vec<String> = hops.iter().map(|hop| format!("for={hop}")).collect();
        let forwarded: Vec<&str> = forwarded.iter().map(String::as_str).collect();
        if split {
            let found = by_xff("10.0.0.1", &hops);
            assert_eq!(by_forwarded("10.0.0.1", &forwarded), found);
            return found;
        }
        let found = by_xff("10.0.0.1", &[&hops.join(", ")]);
        assert_eq!(by_forwarded("10.0.0.1", &[&forwarded.join(",")]), found);
        found
    };
    for split in [false, true] {
        for trusted in [0, 15, 16, 17, 23, 24, 63] {
            assert_eq!(walked(trusted, split).as_deref(), Some("203.0.113.1"));
        }
        for trusted in [64, 65, 128, 5000] {
            assert_eq!(walked(trusted, split), None, "{trusted}");
        }
    }
    // Elements further left than the client cost nothing and have no effect.
    let mut lines = vec!["203.0.113.42"; 1000];
    lines.push("198.51.100.66");
    let found = by_xff("10.0.0.1", &lines);
    assert_eq!(found.as_deref(), Some("198.51.100.66"));
    let long = format!("{}198.51.100.66", "203.0.113.1, ".repeat(5_000));
    let found = by_xff("10.0.0.1", &[&long]);
    assert_eq!(found.as_deref(), Some("198.51.100.66"));
    // Empty lines are not hops.
    let mut lines = vec!["203.0.113.1"];
    lines.extend([""; 1000]);
    lines.extend(["10.0.0.2,,"; 63]);
    assert_eq!(by_xff("10.0.0.1", &lines).as_deref(), Some("203.0.113.1"));
}

#[test]
fn without_a_peer_nothing_is_known() {
    let head = Head::new().with("x-forwarded-for", "203.0.113.1");
    assert_eq!(behind(ForwardedHeader::XForwardedFor).resolve(&head), None);
    assert_eq!(ClientIp::peer().resolve(&head), None);
}

#[test]
fn an_empty_set_of_proxies_trusts_no_peer() {
    let head = Head::new()
        .from("10.0.0.1")
        .with("x-forwarded-for", "203.0.113.1");
    let nobody = ClientIp::behind([], ForwardedHeader::XForwardedFor);
    assert_eq!(nobody.resolve(&head), Some(ip("10.0.0.1")));
}

#[test]
fn by_peer_no_header_is_read() {
    let head = Head::new()
        .from("::ffff:192.0.2.1")
        .with("x-forwarded-for", "203.0.113.1")
        .with("forwarded", "for=203.0.113.1")
        .with("x-real-ip", "203.0.113.1");
    assert_eq!(ClientIp::peer().resolve(&head), Some(ip("192.0.2.1")));
    assert_eq!(ClientIp::default().resolve(&head), Some(ip("192.0.2.1")));
}

// ---- Forwarded ----

fn by_forwarded(peer: &str, lines: &[&str]) -> Option<String> {
    let head = lines.iter().fold(Head::new().from(peer), |head, line| {
        head.with("forwarded", line)
    });
    behind(ForwardedHeader::Forwarded)
        .resolve(&head)
        .map(|ip| ip.to_string())
}

#[test]
fn the_for_parameter_of_forwarded_is_the_client() {
    for (line, expected) in [
        ("for=203.0.113.1", "203.0.113.1"),
        ("For=203.0.113.1", "203.0.113.1"),
        ("FOR=203.0.113.1;Proto=https", "203.0.113.1"),
        (
            "proto=https;for=203.0.113.1;by=10.0.0.1;host=example.com",
            "203.0.113.1",
        ),
        ("for=203.0.113.1;", "203.0.113.1"),
        (";;for=203.0.113.1;;", "203.0.113.1"),
        ("for=203.0.113.1 ; proto=https", "203.0.113.1"),
        ("for=\"203.0.113.1\"", "203.0.113.1"),
        ("for=\"203.0.113.1:4711\"", "203.0.113.1"),
        ("for=\"203.0.113.1:_port\"", "203.0.113.1"),
        ("for=\"[2001:db8::7]\"", "2001:db8::7"),
        ("for=\"[2001:db8::7]:4711\"", "2001:db8::7"),
        ("for=\"[::ffff:203.0.113.1]\"", "203.0.113.1"),
        ("for=203.0.113.1, for=10.0.0.2", "203.0.113.1"),
        (
            "for=203.0.113.1,for=10.0.0.2;by=10.0.0.1, for=\"[::1]:80\"",
            "203.0.113.1",
        ),
        ("for=203.0.113.42, for=198.51.100.66", "198.51.100.66"),
        ("for=unknown, for=198.51.100.66", "198.51.100.66"),
        // A comma or a semicolon in quotes does not end an element.
        (
            "for=203.0.113.1;host=\"a,for=198.51.100.66;b\"",
            "203.0.113.1",
        ),
        (
            "host=\", for=198.51.100.66, \";for=203.0.113.1",
            "203.0.113.1",
        ),
        (
            "host=\"a\\\", for=198.51.100.66\";for=203.0.113.1",
            "203.0.113.1",
        ),
    ] {
        assert_eq!(
            by_forwarded("10.0.0.1", &[line]).as_deref(),
            Some(expected),
            "{line}"
        );
    }
    assert_eq!(
        by_forwarded(
            "10.0.0.1",
            &["for=203.0.113.1", "for=10.0.0.3, for=10.0.0.2"]
        )
        .as_deref(),
        Some("203.0.113.1")
    );
    assert_eq!(
        by_forwarded("192.0.2.9", &["for=203.0.113.1"]).as_deref(),
        Some("192.0.2.9")
    );
}

#[test]
fn without_an_address_in_forwarded_the_client_is_unknown() {
    for line in [
        "",
        " ",
        ",",
        ";",
        "for",
        "for=",
        "=203.0.113.1",
        "203.0.113.1",
        "for=unknown",
        "for=_x",
        "for=\"_x\"",
        "for=\"_gazonk\";proto=http",
        "for=192.0.2.999",
        "for=\"192.0.2.999\"",
        "for=\"203.0.113.1",
        "for=203.0.113.1\"",
        "for=\"203.0.113.1\\\"",
        "for=\"203.0.113.1\"x",
        "for=\"203.0.113.\\1\"",
        "for=203.0.113.1:4711",
        "for=[2001:db8::7]",
        "for=\"2001:db8::7\"",
        "for=2001:db8::7",
        "for=\"[2001:db8::7]x\"",
        "for=\"\"",
        "for=\" 203.0.113.1\"",
        "for =203.0.113.1",
        "for= 203.0.113.1",
        "for=203.0.113.1 proto=https",
        "for=203.0.113.1;for=203.0.113.1",
        "for=203.0.113.42;FOR=10.0.0.2",
        "by=203.0.113.1",
        "proto=https",
        "for=203.0.113.1, proto=https",
        "for=203.0.113.1;proto",
        "for=203.0.113.1;proto=",
        "for=203.0.113.1;p(r=x",
        "for=10.0.0.2",
        "for=10.0.0.3, for=10.0.0.2",
    ] {
        assert_eq!(by_forwarded("10.0.0.1", &[line]), None, "{line:?}");
    }
    assert_eq!(by_forwarded("10.0.0.1", &[]), None);
    let head = Head::new()
        .from("10.0.0.1")
        .with("forwarded", b"for=203.0.113.1;x=\"\xff\"");
    assert_eq!(behind(ForwardedHeader::Forwarded).resolve(&head), None);
}

#[test]
fn malformed_elements_left_of_the_client_are_ignored() {
    for line in [
        "garbage, for=198.51.100.66",
        "for, for=198.51.100.66",
        "for=, for=198.51.100.66",
        "for=203.0.113.42;for=203.0.113.42, for=198.51.100.66, for=10.0.0.2",
        "for=\u{e9}, for=198.51.100.66",
        // A quote opened by the client must not swallow what the proxy wrote.
        "for=203.0.113.42;x=\", for=198.51.100.66",
        "\", for=198.51.100.66",
        "for=203.0.113.42;x=\"\\, for=198.51.100.66;by=\"[::1]\", for=10.0.0.2",
        "\", for=\"198.51.100.66:80\"",
        "x=\"\\\", for=\"198.51.100.66:_p\", for=\"[::1]\"",
        // Inside quotes written by the proxy, a comma does not end an element.
        "for=203.0.113.42, for=198.51.100.66;host=\"a, for=203.0.113.42\"",
        "for=203.0.113.42, host=\"a\\\", for=203.0.113.42\";for=198.51.100.66",
        "for=203.0.113.42, host=\"a\\\\\";for=198.51.100.66",
    ] {
        let found = by_forwarded("10.0.0.1", &[line]);
        assert_eq!(found.as_deref(), Some("198.51.100.66"), "{line}");
    }
    let found = by_forwarded("10.0.0.1", &["for=\"203.0.113.42", "for=198.51.100.66"]);
    assert_eq!(found.as_deref(), Some("198.51.100.66"));
    let head = Head::new()
        .from("10.0.0.1")
        .with("forwarded", b"for=\xff, for=198.51.100.66");
    let found = behind(ForwardedHeader::Forwarded).resolve(&head);
    assert_eq!(found, Some(ip("198.51.100.66")));
}

#[test]
fn malformed_quotes_on_the_way_make_the_client_unknown() {
    for line in [
        "for=203.0.113.42, for=\"198.51.100.66",
        "for=203.0.113.42, for=198.51.100.66\"",
        "for=203.0.113.42, for=\"198.51.100.66\\\"",
        "for=203.0.113.42, x=\"\"\";for=198.51.100.66",
    ] {
        assert_eq!(by_forwarded("10.0.0.1", &[line]), None, "{line}");
    }
}

// ---- a header with one address ----

#[test]
fn a_single_header_must_not_be_repeated() {
    let cdn = behind(ForwardedHeader::single("CF-Connecting-IP"));
    assert_eq!(
        ForwardedHeader::single("CF-Connecting-IP"),
        ForwardedHeader::Single("cf-connecting-ip".into())
    );
    let of = |peer: &str, lines: &[&str]| {
        let head = lines.iter().fold(Head::new().from(peer), |head, line| {
            head.with("CF-Connecting-IP", line)
        });
        cdn.resolve(&head).map(|ip| ip.to_string())
    };
    for (peer, lines, expected) in [
        ("10.0.0.1", &["203.0.113.1"][..], Some("203.0.113.1")),
        ("10.0.0.1", &["2001:db8::7"], Some("2001:db8::7")),
        ("10.0.0.1", &[" ::ffff:203.0.113.1 "], Some("203.0.113.1")),
        ("10.0.0.1", &["203.0.113.1", "203.0.113.1"], None),
        ("10.0.0.1", &["203.0.113.1", "198.51.100.66"], None),
        ("10.0.0.1", &["203.0.113.1, 198.51.100.66"], None),
        ("10.0.0.1", &[""], None),
        ("10.0.0.1", &[], None),
        ("10.0.0.1", &["garbage"], None),
        // A proxy that sends its own requests is a client.
        ("10.0.0.1", &["10.0.0.9"], Some("10.0.0.9")),
        ("192.0.2.9", &["203.0.113.1"], Some("192.0.2.9")),
    ] {
        assert_eq!(
            of(peer, lines).as_deref(),
            expected,
            "{lines:?} from {peer}"
        );
    }
}

// ---- a number of proxies ----

#[test]
fn behind_a_number_of_proxies_it_is_the_hop_that_the_outermost_wrote() {
    for (proxies, lines, expected) in [
        (0, &["203.0.113.1"][..], Some("192.0.2.9")),
        (1, &["203.0.113.1"], Some("203.0.113.1")),
        (1, &["203.0.113.42, 198.51.100.66"], Some("198.51.100.66")),
        (
            2,
            &["203.0.113.42, 198.51.100.66, 10.0.0.2"],
            Some("198.51.100.66"),
        ),
        (
            2,
            &["203.0.113.42", "198.51.100.66", "10.0.0.2"],
            Some("198.51.100.66"),
        ),
        (
            3,
            &["203.0.113.1, 198.51.100.66, 10.0.0.2"],
            Some("203.0.113.1"),
        ),
        (4, &["203.0.113.1, 198.51.100.66, 10.0.0.2"], None),
        (2, &["203.0.113.1, garbage"], None),
        (1, &["garbage, 203.0.113.1"], Some("203.0.113.1")),
        (1, &[], None),
        (1, &[""], None),
        (usize::MAX, &["203.0.113.1"], None),
    ] {
        let head = lines
            .iter()
            .fold(Head::new().from("192.0.2.9"), |head, line| {
                head.with("x-forwarded-for", line)
            });
        let found = ClientIp::behind_hops(proxies, ForwardedHeader::XForwardedFor).resolve(&head);
        assert_eq!(
            found.map(|ip| ip.to_string()).as_deref(),
            expected,
            "{proxies} proxies, {lines:?}"
        );
    }
    let head = Head::new()
        .with("forwarded", "for=203.0.113.1, for=10.0.0.2")
        .with("x-real-ip", "203.0.113.7");
    let found = |proxies, header| ClientIp::behind_hops(proxies, header).resolve(&head);
    assert_eq!(
        found(2, ForwardedHeader::Forwarded),
        Some(ip("203.0.113.1"))
    );
    assert_eq!(
        found(1, ForwardedHeader::single("x-real-ip")),
        Some(ip("203.0.113.7"))
    );
    assert_eq!(found(2, ForwardedHeader::single("x-real-ip")), None);
}

// ---- all modes ----

#[test]
fn no_header_but_the_configured_one_is_looked_at() {
    let others = |name: &str| {
        let mut head = Head::new().from("10.0.0.1");
        for (field, value) in [
            ("x-forwarded-for", "198.51.100.1"),
            ("forwarded", "for=198.51.100.2"),
            ("x-real-ip", "198.51.100.3"),
            ("true-client-ip", "198.51.100.4"),
            ("cf-connecting-ip", "198.51.100.5"),
            ("x_forwarded_for", "198.51.100.6"),
            ("client-ip", "198.51.100.7"),
        ] {
            if field != name {
                head = head.with(field, value);
            }
        }
        head
    };
    for (name, header) in [
        ("x-forwarded-for", ForwardedHeader::XForwardedFor),
        ("forwarded", ForwardedHeader::Forwarded),
        ("x-real-ip", ForwardedHeader::single("X-Real-IP")),
    ] {
        assert_eq!(
            behind(header.clone()).resolve(&others(name)),
            None,
            "{name}"
        );
        let value = if name == "forwarded" {
            "for=203.0.113.1"
        } else {
            "203.0.113.1"
        };
        let head = others(name).with(name, value);
        assert_eq!(
            behind(header).resolve(&head),
            Some(ip("203.0.113.1")),
            "{name}"
        );
    }
}

/// Bytes that resemble the contents of the headers.
fn values() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "for=",
        "For=\"",
        "by=",
        "\"",
        "\\",
        ",",
        ";",
        " ",
        "\t",
        "[",
        "]",
        ":",
        "::1",
        "10.0.0.1",
        "203.0.113.1",
        "_x",
        "2001:db8::7",
        "::ffff:10.0.0.1",
        "999",
        "unknown",
        "=",
        "\u{e9}",
        "65536",
        ".",
    ]);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        prop::collection::vec(words, 0..16).prop_map(|words| words.concat().into_bytes()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn for_any_headers_the_client_is_unknown_or_listed_in_them(
        lines in prop::collection::vec(values(), 0..4),
        peer in prop::sample::select(vec!["10.0.0.1", "192.0.2.9", "::1"]),
        proxies in 0..4_usize,
    ) {
        for (name, header) in [
            ("x-forwarded-for", ForwardedHeader::XForwardedFor),
            ("forwarded", ForwardedHeader::Forwarded),
            ("x-real-ip", ForwardedHeader::single("x-real-ip")),
        ] {
            let head = lines.iter().fold(Head::new().from(peer), |head, line| head.with(name, line));
            let found = behind(header.clone()).resolve(&head);
            if peer == "192.0.2.9" {
                prop_assert_eq!(found, Some(ip(peer)));
            } else if let Some(found) = found {
                let single = name == "x-real-ip";
                prop_assert!(single || !PROXIES.iter().any(|proxy| cidr(proxy).contains(found)), "{}", found);
                prop_assert_eq!(found, found.to_canonical());
            }
            let _ = ClientIp::behind_hops(proxies, header).resolve(&head);
        }
    }

    #[test]
    fn any_chain_of_trusted_proxies_leads_to_the_first_untrusted_address(
        left in prop::collection::vec(any::<u32>(), 0..4),
        stranger in any::<u32>(),
        proxies in prop::collection::vec(any::<[u8; 3]>(), 0..6),
        split in any::<bool>(),
    ) {
        let stranger = Ipv4Addr::from_bits(stranger | 1 << 31);
        let mut hops: Vec<String> = left
            .into_iter()
            .map(|bits| Ipv4Addr::from_bits(bits).to_string())
            .collect();
        hops.push(stranger.to_string());
        hops.extend(proxies.into_iter().map(|[b, c, d]| format!("10.{b}.{c}.{d}")));
        let lines = if split { hops.clone() } else { vec![hops.join(", ")] };
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        prop_assert_eq!(by_xff("10.0.0.1", &lines), Some(stranger.to_string()));
        let forwarded: Vec<String> = hops.iter().map(|hop| format!("for={hop}")).collect();
        prop_assert_eq!(by_forwarded("10.0.0.1", &[&forwarded.join(", ")]), Some(stranger.to_string()));
    }
}

// ---- allow-lists in the authentication path ----

async fn outcome(authenticator: &Authenticator, head: &Head) -> Result<Option<IpAddr>, ErrorCode> {
    let admission = authenticator
        .authenticate(head)
        .await
        .map_err(|error| error.code())?;
    Ok(admission.principal.unwrap().client_ip())
}

#[tokio::test]
async fn a_key_with_an_allow_list_works_from_there_only() {
    let fixture = Fixture::new();
    let mut new = NewKey::new("key", Owner::tenant(tenant("acme")));
    new.allowed_ips = Some(list(&["203.0.113.42", "198.51.100.0/24"]));
    let (key, _) = fixture.issue_new(new).await;
    let proxies = behind(ForwardedHeader::XForwardedFor);
    let authenticator = fixture.bearer().client_ip(proxies).build().unwrap();
    let from = |peer: &str, told: &str| Head::bearer(&key).from(peer).with("x-forwarded-for", told);
    for (head, expected) in [
        (from("203.0.113.42", ""), Ok("203.0.113.42")),
        (from("::ffff:203.0.113.42", ""), Ok("203.0.113.42")),
        (from("10.0.0.1", "198.51.100.200"), Ok("198.51.100.200")),
        (
            from("10.0.0.1", "8.8.8.8, 198.51.100.200:555, 10.0.0.2"),
            Ok("198.51.100.200"),
        ),
        (from("8.8.8.8", "203.0.113.42"), Err(())),
        (from("10.0.0.1", "203.0.113.42, 8.8.8.8"), Err(())),
        (from("10.0.0.1", "203.0.113.42, unknown"), Err(())),
        (from("10.0.0.1", "10.0.0.9"), Err(())),
        (from("10.0.0.1", ""), Err(())),
        (Head::bearer(&key).from("10.0.0.1"), Err(())),
        (Head::bearer(&key), Err(())),
        (
            Head::bearer(&key).with("x-forwarded-for", "203.0.113.42"),
            Err(()),
        ),
    ] {
        let expected = expected
            .map(|text| Some(ip(text)))
            .map_err(|()| ErrorCode::IpNotAllowed);
        assert_eq!(outcome(&authenticator, &head).await, expected, "{head:?}");
    }
}

#[tokio::test]
async fn a_key_without_an_allow_list_works_from_nowhere_known() {
    let fixture = Fixture::new();
    let (key, _) = fixture.issue(&[]).await;
    let authenticator = fixture
        .bearer()
        .client_ip(behind(ForwardedHeader::Forwarded))
        .build()
        .unwrap();
    let head = Head::bearer(&key)
        .from("10.0.0.1")
        .with("forwarded", "for=_hidden");
    assert_eq!(outcome(&authenticator, &head).await, Ok(None));
}

#[tokio::test]
async fn allsign_says_that_the_address_is_not_allowed() {
    let store = MemoryStore::new();
    let manager = Setup::of(store.clone(), Profile::AllSign).manager();
    let mut new = NewKey::new("key", Owner::tenant(tenant("tenant_abc123")));
    new.allowed_ips = Some(list(&["203.0.113.42"]));
    let key = manager.issue(new).await.unwrap().key.reveal();
    let authenticator = Setup::of(store, Profile::AllSign).build().unwrap();
    let mut answers = HashSet::new();
    for head in [
        Head::bearer(&key),
        Head::bearer(&key).from("203.0.113.43"),
        Head::bearer(&key).from("2001:db8::1"),
    ] {
        let error = authenticator.authenticate(&head).await.unwrap_err();
        assert_eq!(
            (error.code(), error.status()),
            (ErrorCode::IpNotAllowed, 403)
        );
        let answer = authenticator.responder().answer(&error, &head);
        assert_eq!(answer.status, 403);
        assert_eq!(
            String::from_utf8_lossy(&answer.body),
            r#"{"detail": "Access from this IP is not allowed for this API key"}"#
        );
        assert!(
            answer
                .fields
                .contains(&("content-type", "application/json".into())),
            "{answer:?}"
        );
        assert!(
            answer
                .fields
                .contains(&("cache-control", "no-store".into())),
            "{answer:?}"
        );
        assert!(
            answer
                .fields
                .iter()
                .all(|(name, _)| *name != "www-authenticate"),
            "{answer:?}"
        );
        answers.insert(format!("{answer:?}"));
    }
    assert_eq!(
        answers.len(),
        1,
        "an unknown address is distinguishable from a wrong one"
    );
    let mapped: IpAddr = Ipv6Addr::from([0, 0, 0, 0, 0, 0xffff, 0xcb00, 0x712a]).into();
    let head = Head::bearer(&key).from(&mapped.to_string());
    assert_eq!(
        outcome(&authenticator, &head).await,
        Ok(Some(ip("203.0.113.42")))
    );
}
