//! Tokens of forms: a form is accepted only from a browser that this dashboard gave it to, in the same
//! session. A second line of defence behind [`origin`](crate::origin).
//!
//! The token is a MAC whose key is the credential by which the operator's session is recognized. So
//! every node accepts it without shared state, a new session has other tokens, and nobody who
//! does not know the credential can compute it.

use std::fmt::Write;

use axum::http::header::COOKIE;
use axum::http::request::Parts;
use portunus::key::{DigestScheme, KeyDigest, KeyHasher, Pepper};

use crate::Shared;

/// Why forms are refused if no credential is known.
pub(super) const NO_CREDENTIALS: &str = "Forms need a session: the host's proof names no credential \
     of this request (`OperatorProof::credentials`)";

pub(super) struct FormToken(KeyDigest);

impl FormToken {
    /// Returns the token of the session that a request belongs to: that of the cookie that the host
    /// named, since other cookies change, or else of all credentials.
    pub(super) fn of(parts: &Parts, shared: &Shared) -> Option<Self> {
        let named = shared.cookie.map(|name| cookies(parts, name));
        let credentials = match named {
            Some(named) if !named.is_empty() => named,
            _ => shared.proofs.credentials(parts),
        };
        if credentials.is_empty() {
            return None;
        }
        // As digits with a separator, so that different credentials cannot result in the same text.
        let mut text = String::new();
        for credential in credentials {
            credential.iter().for_each(|byte| {
                let _ = write!(text, "{byte:02x}");
            });
            text.push('.');
        }
        let key = KeyHasher::sha256().digest(&text).to_bytes();
        let pepper = Pepper::new(0, &key).ok()?;
        Some(Self(KeyHasher::hmac_sha256(pepper).digest("portunus form")))
    }

    /// Returns the token as it is written into forms.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for byte in self.0.to_bytes() {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// Returns whether a text is this token, in constant time.
    pub(super) fn is(&self, sent: &str) -> bool {
        let mut bytes = [0; 32];
        if sent.len() != 64 || !sent.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return false;
        }
        for (place, digits) in bytes.iter_mut().zip(sent.as_bytes().chunks(2)) {
            let digits = str::from_utf8(digits).unwrap_or_default();
            *place = u8::from_str_radix(digits, 16).unwrap_or_default();
        }
        KeyDigest::new(DigestScheme::HmacSha256 { pepper: 0 }, bytes) == self.0
    }
}

/// Returns the values of the cookies with a name.
fn cookies<'r>(parts: &'r Parts, name: &str) -> Vec<&'r [u8]> {
    let lines = parts.headers.get_all(COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let named = pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
    });
    named.collect()
}
