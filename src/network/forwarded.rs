//! The `Forwarded` header (RFC 7239 §4): elements of `name=value` pairs with optionally quoted
//! values.

use std::net::IpAddr;

use super::client_ip::parse_hop;

/// Returns where the last element of a line begins: after the last comma outside quotes.
///
/// Quotes are paired from the right, so that what a client wrote, such as a quote that is never
/// closed, cannot swallow what the proxies appended. A line without such a comma is one element.
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

/// Whether the last of these bytes escapes the byte that follows, within quotes.
fn is_escaped(before: &[u8]) -> bool {
    let backslashes = before.iter().rev().take_while(|&&byte| byte == b'\\');
    backslashes.count() % 2 == 1
}

/// Returns the address of an element's `for` parameter; `None` if it has none or is malformed.
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

/// Splits off a value: a token, or the text between quotes. Escapes are kept: no address has any.
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

/// Parses a node (RFC 7239 §6): IPv4, or IPv6 in brackets, optionally with a port. `None` for
/// `unknown` and obfuscated names.
fn parse_node(text: &str) -> Option<IpAddr> {
    // `parse_hop` accepts bare IPv6, which is invalid here.
    let bare_v6 = !text.starts_with('[') && text.bytes().filter(|&byte| byte == b':').count() > 1;
    if bare_v6 { None } else { parse_hop(text) }
}

/// `tchar` (RFC 9110 §5.6.2).
fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
