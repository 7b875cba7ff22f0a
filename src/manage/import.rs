//! Importing keys from another system: their digests are known, their secrets are not.

use std::sync::Arc;

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use super::text;
use super::watch::Watch;
use super::{Issued, KeyManager, ManageError, ManagedKey, NewKey, Rotated};
use crate::audit::Action;
use crate::key::{DigestScheme, KeyDigest};
use crate::store::Usage;

/// A digest of a whole key, kept by another system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportedDigest(KeyDigest);

impl ImportedDigest {
    pub(super) const fn digest(&self) -> KeyDigest {
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

/// Description of a key to be imported.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewImport {
    /// The digest of the key.
    pub digest: ImportedDigest,
    /// Everything else about the key, as for a key that is issued.
    pub key: NewKey,
    /// The visible part of the secret: at most its last four characters.
    pub last_four: Option<String>,
}

impl NewImport {
    /// Creates an import of a key with this digest.
    #[must_use]
    pub fn new(digest: ImportedDigest, key: NewKey) -> Self {
        Self {
            digest,
            key,
            last_four: None,
        }
    }
}

impl KeyManager {
    /// Imports a key whose secret is unknown. It works on all nodes immediately, and its digest is
    /// replaced by one under the current scheme when the key is first used.
    ///
    /// # Errors
    /// As for [`issue`](Self::issue); [`ManageError::DigestKnown`] if a key with this digest exists
    /// or existed, even if it was deleted; [`ManageError::Invalid`] for a scheme that the service
    /// does not accept.
    pub async fn import(&self, import: NewImport) -> Result<ManagedKey, ManageError> {
        let mut watch = self.watch(Action::KeyImport);
        let imported = self.try_import(import, &mut watch).await;
        watch.note_end(imported.as_ref().map(|key| &*key.record), || None);
        imported
    }

    async fn try_import(
        &self,
        NewImport {
            digest,
            mut key,
            last_four,
        }: NewImport,
        watch: &mut Watch<'_>,
    ) -> Result<ManagedKey, ManageError> {
        let now = self.now();
        self.check_asked(&mut key).await?;
        self.inner
            .settings
            .host_rules
            .issuing(&self.operator, &mut key)
            .await?;
        self.format_of(key.kind)?;
        let scheme = digest.0.scheme();
        if !self.inner.authenticator.hasher().accepts(scheme) {
            return Err(ManageError::invalid(
                "digest",
                format!("{scheme} digests are not accepted by this service"),
            ));
        }
        let mut record = self.record_of(key, now)?;
        if let Some(last) = &last_four {
            let last = text::line("last_four", last)?;
            if last.chars().count() > 4 {
                return Err(ManageError::invalid(
                    "last_four",
                    "at most 4 characters are allowed",
                ));
            }
            record.masked = format!("…{last}");
        }
        record.may_be_primary = !self.inner.settings.rules.sign_events;
        watch.makes(&record);
        self.may(Action::KeyImport, &record)?;
        let limits = self
            .limits_of(record.plan.as_ref(), &record.owner.tenant_id)
            .await?;
        self.may_grant(&record, None, &limits)?;
        self.insert(&record, digest.0, None, now, &limits).await?;
        Ok(self.done(record).await)
    }

    /// Returns the successor of a rotated key as shown to operators. What cannot be read is left
    /// out: it does not undo the rotation.
    pub async fn overview_of_rotated(&self, rotated: &Rotated) -> ManagedKey {
        let limits = self.limits_shown(&rotated.record).await.ok();
        let record = Arc::clone(&rotated.record);
        self.shown(record, Usage::default(), rotated.primary, limits.as_deref())
    }

    /// Returns an issued key as shown to operators. What cannot be read is left out: the key is
    /// issued.
    pub async fn overview(&self, issued: &Issued) -> ManagedKey {
        let limits = self.limits_shown(&issued.record).await.ok();
        let record = Arc::clone(&issued.record);
        self.shown(record, Usage::default(), issued.primary, limits.as_deref())
    }
}
