//! The `Forwarded` field (RFC 7239 §4): elements of `name=value` pairs, values perhaps quoted.

use std::net::IpAddr;

use super::client_ip::parse_hop;

/// Calls `hop` for each element of one line, left to right, with the address of its `for`, if it is
/// one. `None` where the line is malformed.
pub(super) fn each_hop(line: &[u8], hop: &mut dyn FnMut(Option<IpAddr>)) -> Option<()> {
    let mut rest = std::str::from_utf8(line).ok()?;
    loop {
        let (address, after) = element(rest)?;
        hop(address);
        match after {
            Some(after) => rest = after,
            None => return Some(()),
        }
    }
}

/// One element: its `for`, and what comes after the comma that ends it.
fn element(mut rest: &str) -> Option<(Option<IpAddr>, Option<&str>)> {
    let mut address = None;
    let mut seen = false;
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        // An empty pair is allowed between semicolons.
        if !rest.starts_with([';', ',']) && !rest.is_empty() {
            let (name, after) = rest.split_once('=')?;
            if name.is_empty() || !name.bytes().all(is_tchar) {
                return None;
            }
            let is_for = name.eq_ignore_ascii_case("for");
            if is_for && std::mem::replace(&mut seen, true) {
                return None;
            }
            let (value, after) = value(after)?;
            if is_for {
                address = parse_node(value);
            }
            rest = after.trim_start_matches([' ', '\t']);
        }
        match rest.as_bytes().first() {
            None => return Some((address, None)),
            Some(b',') => return Some((address, Some(&rest[1..]))),
            Some(b';') => rest = &rest[1..],
            Some(_) => return None,
        }
    }
}

/// A token, or what stands between quotes. A value with an escape is kept with it: no address has
/// one.
fn value(text: &str) -> Option<(&str, &str)> {
    match text.strip_prefix('"') {
        Some(quoted) => {
            let bytes = quoted.as_bytes();
            let mut at = 0;
            loop {
                match bytes.get(at)? {
                    b'"' => return Some((&quoted[..at], &quoted[at + 1..])),
                    b'\\' => at += 2,
                    _ => at += 1,
                }
            }
        }
        None => {
            let end = text
                .bytes()
                .position(|byte| !is_tchar(byte))
                .unwrap_or(text.len());
            (end > 0).then(|| text.split_at(end))
        }
    }
}

/// A node of RFC 7239 §6: IPv4, or IPv6 in brackets, perhaps with a port. `unknown` and obfuscated
/// names are none.
fn parse_node(text: &str) -> Option<IpAddr> {
    // Bare IPv6 would be taken by the parser for the other header; here it needs its brackets.
    let bare_v6 = !text.starts_with('[') && text.bytes().filter(|&byte| byte == b':').count() > 1;
    if bare_v6 { None } else { parse_hop(text) }
}

/// `tchar` of RFC 9110 §5.6.2.
fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
