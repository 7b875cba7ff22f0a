//! The `Forwarded` field (RFC 7239 §4): elements of `name=value` pairs, values perhaps quoted.

use std::net::IpAddr;

use super::client_ip::parse_hop;

/// Where the last element of a line begins: after the last comma that is not within quotes.
///
/// Quotes are paired from the right: what a client wrote, such as a quote that it never closes, must
/// not swallow what the proxies appended. A line without such a comma is one element.
pub(super) fn last_element(line: &[u8]) -> usize {
    let mut quoted = false;
    for (at, &byte) in line.iter().enumerate().rev() {
        match byte {
            b',' if !quoted => return at + 1,
            b'"' => quoted = !quoted || is_escaped(&line[..at]),
            _ => {}
        }
    }
    0
}

/// Whether what comes after these bytes, within quotes, is escaped by the last of them.
fn is_escaped(before: &[u8]) -> bool {
    let backslashes = before.iter().rev().take_while(|&&byte| byte == b'\\');
    backslashes.count() % 2 == 1
}

/// The address of the `for` of one element; `None` where it has none, or is malformed.
pub(super) fn hop(mut rest: &str) -> Option<IpAddr> {
    let mut node = None;
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        // An empty pair is allowed between semicolons.
        if !rest.starts_with(';') && !rest.is_empty() {
            let (name, after) = rest.split_once('=')?;
            if name.is_empty() || !name.bytes().all(is_tchar) {
                return None;
            }
            let (value, after) = value(after)?;
            if name.eq_ignore_ascii_case("for") && node.replace(value).is_some() {
                return None;
            }
            rest = after.trim_start_matches([' ', '\t']);
        }
        match rest.as_bytes().first() {
            None => return node.and_then(parse_node),
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
