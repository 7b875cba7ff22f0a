//! Digests that another system has kept.

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use crate::key::{DigestScheme, KeyDigest};
use crate::manage::ManageError;

/// A digest of a whole key, kept by another system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportedDigest(KeyDigest);

impl ImportedDigest {
    pub(in crate::manage) const fn digest(&self) -> KeyDigest {
        self.0
    }

    /// Creates a digest from the name of its scheme (`sha256`, `sha512`, `hmac-sha256:VERSION` of
    /// the pepper) and its hexadecimal representation, in any case.
    ///
    /// # Errors
    /// [`ManageError::Invalid`] for an unknown scheme, other characters, or a wrong length for the
    /// scheme; and for the salted digests of bcrypt (`$2…$`) and argon2 (`$argon2…$`), which cannot be
    /// looked up.
    pub fn from_hex(scheme: &str, hex: &str) -> Result<Self, ManageError> {
        refuse_salted(scheme, hex)?;
        let text = hex.as_bytes();
        let digits = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
        let hexadecimal = text.iter().all(u8::is_ascii_hexdigit)
            && text.len().is_multiple_of(2)
            && text.len() <= 128;
        let bytes: Option<Vec<u8>> = text.as_chunks::<2>().0.iter().map(digits).collect();
        let bytes = bytes.filter(|_| hexadecimal);
        Self::new(
            scheme,
            &bytes.ok_or_else(|| ManageError::invalid("digest", "not hexadecimal"))?,
        )
    }

    /// Creates a digest from base64 (RFC 4648 §4 or §5), with or without padding.
    ///
    /// # Errors
    /// As for [`from_hex`](Self::from_hex).
    pub fn from_base64(scheme: &str, text: &str) -> Result<Self, ManageError> {
        refuse_salted(scheme, text)?;
        const LENIENT: GeneralPurposeConfig =
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let alphabet = if text.contains(['-', '_']) {
            &alphabet::URL_SAFE
        } else {
            &alphabet::STANDARD
        };
        let bytes = (text.len() <= 128)
            .then(|| GeneralPurpose::new(alphabet, LENIENT).decode(text).ok())
            .flatten();
        Self::new(
            scheme,
            &bytes.ok_or_else(|| ManageError::invalid("digest", "not base64"))?,
        )
    }

    /// Creates a digest from its bytes.
    ///
    /// # Errors
    /// [`ManageError::Invalid`] for an unknown scheme or a wrong length for the scheme.
    pub fn new(scheme: &str, bytes: &[u8]) -> Result<Self, ManageError> {
        refuse_salted(scheme, "")?;
        let scheme = scheme
            .parse()
            .map_err(|error| ManageError::invalid("digest", format!("{error}")))?;
        let right = if scheme == DigestScheme::Sha512 {
            64
        } else {
            32
        };
        let length = || {
            ManageError::invalid(
                "digest",
                format!("a {scheme} digest has {right} bytes, not {}", bytes.len()),
            )
        };
        Ok(Self(match scheme {
            DigestScheme::Sha512 => KeyDigest::of_sha512(bytes.try_into().map_err(|_| length())?),
            DigestScheme::Sha256 | DigestScheme::HmacSha256 { .. } => {
                KeyDigest::new(scheme, bytes.try_into().map_err(|_| length())?)
            }
        }))
    }
}

/// Refuses a digest that depends on a salt: it can be compared with a secret, but not found by one.
fn refuse_salted(scheme: &str, text: &str) -> Result<(), ManageError> {
    let starts = |given: &str, known: &str| {
        let start = given.as_bytes().get(..known.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(known.as_bytes()))
    };
    let is_salted = ["bcrypt", "argon2"].iter().any(|name| starts(scheme, name))
        || ["$2", "$argon2"]
            .iter()
            .any(|mark| starts(scheme, mark) || starts(text, mark));
    match is_salted {
        true => Err(ManageError::invalid(
            "digest",
            "salted digests (bcrypt, argon2) cannot be looked up",
        )),
        false => Ok(()),
    }
}
