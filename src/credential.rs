//! Extraction of the key from a request: Bearer (RFC 6750), Basic (RFC 7617), and, if the host opts
//! in, a custom header.
//!
//! Sizes are capped before a value is inspected, all lines of a repeated field are considered, and
//! nothing is allocated.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use crate::error::{AuthError, ErrorCode};
use crate::key::{FormatMismatch, KeyFormat, MAX_KEY_LENGTH};
use crate::request::{FieldName, RequestHead, Single};

/// The maximum length of credentials, in bytes. Longer ones are rejected without inspection.
pub const MAX_CREDENTIAL_LENGTH: usize = 4096;

/// In bytes, after decoding. Basic carries `key:` or `key`; a password is decoded only to be
/// refused.
const MAX_BASIC_LENGTH: usize = 2 * MAX_KEY_LENGTH;

// RFC 7617 requires padding; without it, the decoded bytes are the same.
const BASIC: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// An accepted way to present a key, with the key formats accepted there.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub(crate) scheme: Scheme,
    pub(crate) formats: Vec<KeyFormat>,
}

/// The way in which a key is presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scheme {
    Bearer,
    Basic,
    /// A custom header, with its name in lower case.
    Header(String),
}

impl Scheme {
    /// Returns what follows the name of a scheme of `Authorization` and the spaces after it; `None`
    /// for another scheme. Names are case-insensitive (RFC 9110 §11.1).
    #[inline]
    fn strip_name<'v>(&self, value: &'v [u8]) -> Option<&'v [u8]> {
        let name: &[u8] = match self {
            Self::Bearer => b"bearer",
            Self::Basic => b"basic",
            Self::Header(_) => return None,
        };
        let (given, rest) = value.split_at_checked(name.len())?;
        let is_named =
            given.eq_ignore_ascii_case(name) && rest.first().is_none_or(|&next| next == b' ');
        let start = rest.iter().position(|&byte| byte != b' ');
        is_named.then(|| &rest[start.unwrap_or(rest.len())..])
    }
}

/// A way to present a key that an authenticator accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Presentation<'a> {
    /// `Authorization: Bearer` (RFC 6750).
    Bearer,
    /// `Authorization: Basic` (RFC 7617), with the key as the user name.
    Basic,
    /// A custom header, by its name in lower case.
    Header(&'a str),
}

/// The credentials of one request.
pub(crate) enum Credential<'a> {
    /// No credentials.
    Absent,
    /// An `Authorization` header with a scheme that is not accepted: its whole value.
    Unsupported(&'a [u8]),
    /// The bytes after the scheme, or a whole custom header, with the formats accepted there.
    Presented(&'a Accepted, &'a [u8]),
}

/// Reads the credentials of a request.
///
/// # Errors
/// `INVALID_REQUEST` for repeated or multiple credentials, `INVALID_FORMAT` for ones that are too
/// long.
pub(crate) fn read<'a>(
    head: &'a dyn RequestHead,
    accepted: &'a [Accepted],
) -> Result<Credential<'a>, AuthError> {
    let mut found = Credential::Absent;
    match head.single(FieldName::Authorization) {
        Single::Repeated => return Err(repeated()),
        Single::Absent => {}
        Single::One(value) if value.len() > MAX_CREDENTIAL_LENGTH => return Err(malformed()),
        Single::One(value) => {
            let value = value.trim_ascii();
            let named = |way: &'a Accepted| {
                let rest = way.scheme.strip_name(value)?;
                Some(Credential::Presented(way, rest))
            };
            found = accepted
                .iter()
                .find_map(named)
                .unwrap_or(Credential::Unsupported(value));
        }
    }
    for way in accepted {
        let Scheme::Header(name) = &way.scheme else {
            continue;
        };
        match (head.single(FieldName::Other(name)), &found) {
            (Single::Absent, _) => {}
            (Single::Repeated, _) | (Single::One(_), Credential::Presented(..)) => {
                return Err(repeated());
            }
            (Single::One(value), _) if value.len() > MAX_CREDENTIAL_LENGTH => {
                return Err(malformed());
            }
            (Single::One(value), Credential::Absent | Credential::Unsupported(_)) => {
                found = Credential::Presented(way, value.trim_ascii());
            }
        }
    }
    Ok(found)
}

/// Returns whether an `Authorization` value with an unsupported scheme contains a key: alone, after
/// the scheme, as one of its parameters, or Basic-encoded. A key with a wrong checksum counts.
pub(crate) fn holds_a_key(value: &[u8], accepted: &[Accepted]) -> bool {
    if has_key(value, accepted) {
        return true;
    }
    let scheme = value.get(..5).unwrap_or_default();
    let pair = scheme.eq_ignore_ascii_case(b"basic").then(|| {
        let encoded = value.get(5..).unwrap_or_default().trim_ascii();
        BASIC.decode(encoded).map(Zeroizing::new)
    });
    matches!(pair, Some(Ok(pair)) if has_key(&pair, accepted))
}

/// Returns whether one of the words is a key. Keys are `token68` words, with any delimiters.
fn has_key(text: &[u8], accepted: &[Accepted]) -> bool {
    let formats = || accepted.iter().flat_map(|way| &way.formats);
    text.split(|&byte| !crate::key::is_token68(byte))
        .filter_map(|word| str::from_utf8(word).ok())
        .any(|word| formats().any(|format| is_shaped(format, word)))
}

fn is_shaped(format: &KeyFormat, word: &str) -> bool {
    !matches!(format.parse(word), Err(FormatMismatch::Shape))
}

/// Calls `then` with the key, if the value matches one of the accepted formats.
pub(crate) fn with_key<R>(
    way: &Accepted,
    value: &[u8],
    then: impl FnOnce(&[u8]) -> R,
) -> Result<R, AuthError> {
    match way.scheme {
        Scheme::Bearer => match shaped(&way.formats, value) {
            Ok(key) => Ok(then(key)),
            // RFC 6750 §3.1 requires 400 for a value that is not a token68. Checked only after the
            // value turned out not to be a key.
            Err(_) if !is_token68(value) => Err(AuthError::new(ErrorCode::InvalidRequest)),
            Err(error) => Err(error),
        },
        Scheme::Header(_) => Ok(then(shaped(&way.formats, value)?)),
        Scheme::Basic => {
            let mut buffer = Zeroizing::new([0_u8; MAX_BASIC_LENGTH]);
            let length = BASIC
                .decode_slice(value, &mut buffer[..])
                .map_err(|_| malformed())?;
            let pair = &buffer[..length];
            if pair.iter().any(u8::is_ascii_control) {
                return Err(malformed());
            }
            let colon = pair
                .iter()
                .position(|&byte| byte == b':')
                .ok_or_else(malformed)?;
            let (user, password) = (&pair[..colon], &pair[colon + 1..]);
            if !password.is_empty() {
                return Err(AuthError::with_detail(
                    ErrorCode::InvalidFormat,
                    "The API key is the user name; the password must be empty",
                ));
            }
            Ok(then(shaped(&way.formats, user)?))
        }
    }
}

/// Returns the value, if it matches one of the formats.
fn shaped<'k>(formats: &[KeyFormat], value: &'k [u8]) -> Result<&'k [u8], AuthError> {
    let mut checksum = false;
    for format in formats {
        match format.parse_bytes(value) {
            Ok(_) => return Ok(value),
            Err(FormatMismatch::Checksum) => checksum = true,
            Err(FormatMismatch::Shape) => {}
        }
    }
    Err(if checksum {
        AuthError::new(ErrorCode::InvalidKey)
    } else {
        malformed()
    })
}

/// Returns the value as a string, if it is a token68.
pub(crate) fn token68(value: &[u8]) -> Option<&str> {
    str::from_utf8(value)
        .ok()
        .filter(|text| is_token68(text.as_bytes()))
}

/// Returns whether the value is a token68 (RFC 9110 §11.2): one or more characters, then padding.
fn is_token68(value: &[u8]) -> bool {
    let padding = value.iter().rev().take_while(|&&byte| byte == b'=').count();
    let text = &value[..value.len() - padding];
    !text.is_empty() && text.iter().all(|&byte| crate::key::is_token68(byte))
}

fn malformed() -> AuthError {
    AuthError::new(ErrorCode::InvalidFormat)
}

fn repeated() -> AuthError {
    AuthError::new(ErrorCode::InvalidRequest)
}
