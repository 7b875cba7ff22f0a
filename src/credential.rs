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
use crate::key::{FormatMismatch, KeyFormat, LONGEST_CHECKSUM, MAX_KEY_LENGTH};
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
        let rest = match self {
            Self::Bearer => strip_letters(value, b"Bearer")?,
            Self::Basic => strip_letters(value, b"Basic")?,
            Self::Header(_) => return None,
        };
        let start = rest.iter().position(|&byte| byte != b' ');
        (start != Some(0)).then(|| &rest[start.unwrap_or(rest.len())..])
    }
}

/// Returns what follows these letters, in any case.
#[inline]
fn strip_letters<'v, const N: usize>(value: &'v [u8], letters: &[u8; N]) -> Option<&'v [u8]> {
    let (given, rest) = value.split_first_chunk::<N>()?;
    // The usual case is compared at once.
    (given == letters || given.eq_ignore_ascii_case(letters)).then_some(rest)
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
#[inline(always)] // So that the type of the head is known.
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

/// Why a value is not a key. Small, because most of what is refused in a flood is refused here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoKey {
    /// It matches none of the formats.
    Shape,
    /// It matches one, except for the checksum.
    Checksum,
    /// It is not a token68, as a Bearer value must be (RFC 6750 §3.1).
    Characters,
    /// It has a password, beside what may be a key.
    Password,
}

impl From<NoKey> for AuthError {
    fn from(why: NoKey) -> Self {
        match why {
            NoKey::Shape => malformed(),
            NoKey::Checksum => Self::new(ErrorCode::InvalidKey),
            NoKey::Characters => Self::new(ErrorCode::InvalidRequest),
            NoKey::Password => Self::with_detail(
                ErrorCode::InvalidFormat,
                "The API key is the user name; the password must be empty",
            ),
        }
    }
}

/// Calls `then` with the key, if the value matches one of the accepted formats.
#[inline]
pub(crate) fn with_key<R>(
    way: &Accepted,
    value: &[u8],
    then: impl FnOnce(&[u8]) -> R,
) -> Result<R, NoKey> {
    if way.scheme == Scheme::Basic {
        return with_user_name(way, value, then);
    }
    let Err(why) = parsed(&way.formats, value) else {
        return Ok(then(value));
    };
    let known = match why {
        NoKey::Checksum => value.len().saturating_sub(LONGEST_CHECKSUM),
        _ => 0,
    };
    // Checked only after the value turned out not to be a key.
    match way.scheme == Scheme::Bearer && !is_token68_from(known, value) {
        true => Err(NoKey::Characters),
        false => Err(why),
    }
}

/// Like [`with_key`], of Basic: the key is the user name. Apart, because of the buffer.
#[inline(never)]
fn with_user_name<R>(
    way: &Accepted,
    value: &[u8],
    then: impl FnOnce(&[u8]) -> R,
) -> Result<R, NoKey> {
    let mut buffer = Zeroizing::new([0_u8; MAX_BASIC_LENGTH]);
    let length = BASIC
        .decode_slice(value, &mut buffer[..])
        .map_err(|_| NoKey::Shape)?;
    let pair = &buffer[..length];
    if pair.iter().any(u8::is_ascii_control) {
        return Err(NoKey::Shape);
    }
    let colon = pair.iter().position(|&byte| byte == b':');
    let (user, password) = pair.split_at(colon.ok_or(NoKey::Shape)?);
    if password != b":" {
        return Err(NoKey::Password);
    }
    parsed(&way.formats, user)?;
    Ok(then(user))
}

/// Parses the value by the formats, until one matches.
fn parsed(formats: &[KeyFormat], value: &[u8]) -> Result<(), NoKey> {
    let mut why = NoKey::Shape;
    for format in formats {
        match format.parse_bytes(value) {
            Ok(_) => return Ok(()),
            Err(FormatMismatch::Checksum) => why = NoKey::Checksum,
            Err(FormatMismatch::Shape) => {}
        }
    }
    Err(why)
}

/// Returns the value as a string, if it is a token68.
pub(crate) fn token68(value: &[u8]) -> Option<&str> {
    str::from_utf8(value)
        .ok()
        .filter(|text| is_token68(text.as_bytes()))
}

/// Returns whether the value is a token68 (RFC 9110 §11.2): one or more characters, then padding.
fn is_token68(value: &[u8]) -> bool {
    is_token68_from(0, value)
}

/// The same of a value that is known to have allowed characters before this place, as a key has before
/// its checksum.
fn is_token68_from(known: usize, value: &[u8]) -> bool {
    let padding = value.iter().rev().take_while(|&&byte| byte == b'=').count();
    let text = &value[..value.len() - padding];
    let unknown = text.get(known..).unwrap_or_default();
    !text.is_empty() && crate::key::are_token68(unknown)
}

fn malformed() -> AuthError {
    AuthError::new(ErrorCode::InvalidFormat)
}

fn repeated() -> AuthError {
    AuthError::new(ErrorCode::InvalidRequest)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::key::{Alphabet, Checksum};

    /// RFC 9110 §11.2, spelled out.
    fn is_token68_by_the_letter(value: &[u8]) -> bool {
        let mut rest = value;
        while let [b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9', tail @ ..]
        | [b'-' | b'.' | b'_' | b'~' | b'+' | b'/', tail @ ..] = rest
        {
            rest = tail;
        }
        rest.len() < value.len() && rest.iter().all(|&byte| byte == b'=')
    }

    #[test]
    fn the_code_of_a_value_that_is_no_key_depends_on_the_whole_value() {
        let format = KeyFormat::builder("a_").random(Alphabet::BASE62, 32);
        let format = format.checksum(Checksum::Crc32Base62).build().unwrap();
        let key = format.generate(None, None).unwrap().reveal();
        let way = |scheme| Accepted {
            scheme,
            formats: vec![format.clone()],
        };
        let (bearer, header) = (way(Scheme::Bearer), way(Scheme::Header("x".into())));
        let mut codes = [0; 4];
        let mut check = |value: &[u8]| {
            let code = |way| {
                let with_key = with_key(way, value, |key| assert_eq!(key, value));
                with_key.err().map(|why| AuthError::from(why).code())
            };
            let shape = match format.parse_bytes(value) {
                Ok(_) => None,
                Err(FormatMismatch::Checksum) => Some(ErrorCode::InvalidKey),
                Err(FormatMismatch::Shape) => Some(ErrorCode::InvalidFormat),
            };
            let of_bearer = match is_token68_by_the_letter(value) {
                false => Some(ErrorCode::InvalidRequest),
                true => shape,
            };
            assert_eq!(code(&header), shape);
            assert_eq!(code(&bearer), of_bearer);
            codes[match of_bearer {
                None => 0,
                Some(ErrorCode::InvalidKey) => 1,
                Some(ErrorCode::InvalidFormat) => 2,
                _ => 3,
            }] += 1;
        };
        check(b"");
        for place in 0..key.len() {
            check(&key.as_bytes()[..place]);
            for byte in 0..=255 {
                let mut value = key.clone().into_bytes();
                value[place] = byte;
                check(&value);
                // From there on.
                value[place..].fill(byte);
                check(&value);
                value.push(byte);
                check(&value);
            }
        }
        assert!(codes.iter().all(|&times| times > 40), "{codes:?}");
    }

    #[test]
    fn the_name_of_a_scheme_is_case_insensitive_and_nothing_else_is_such_a_name() {
        for (value, rest) in [
            (&b"bearer x"[..], Some(&b"x"[..])),
            (b"BEARER   x y", Some(b"x y")),
            (b"bEaReR", Some(b"")),
            (b"Bearer ", Some(b"")),
            (b"Bearer\tx", None),
            (b"Bearerx", None),
            (b"Beare", None),
            (b"", None),
            (b"Basic x", None),
        ] {
            assert_eq!(Scheme::Bearer.strip_name(value), rest);
            assert_eq!(Scheme::Header("bearer".into()).strip_name(value), None);
        }
        for (place, byte) in (0..6).flat_map(|place| (0..=255).map(move |byte| (place, byte))) {
            let mut value = *b"Bearer x";
            value[place] = byte;
            let is_named = byte.eq_ignore_ascii_case(&b"bearer"[place]);
            assert_eq!(Scheme::Bearer.strip_name(&value).is_some(), is_named);
        }
    }
}
