//! Credentials of a service: which keys it accepts, where, and in which format it issues them.

use std::fmt;
use std::sync::Arc;

use crate::credential::{Accepted, Scheme};
use crate::key::{KeyFormat, KeyHasher, KeyKind};
use crate::verifier::TokenVerifier;

/// Credentials that a service accepts, and the formats in which it issues keys.
///
/// A [`KeyFormat`] converts into credentials presented as `Authorization: Bearer KEY`, which is
/// what most services need.
///
/// ```
/// use portunus::key::{Alphabet, KeyFormat, KeyKind};
/// use portunus::config::Credentials;
///
/// let key = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32).build()?;
/// let token = KeyFormat::builder("at_").random(Alphabet::URL_SAFE, 43).build()?;
/// let credentials = Credentials::new()
///     .basic([key])
///     .bearer([token.clone()])
///     .issue([KeyKind::AccessToken], token);
/// # Ok::<(), portunus::key::FormatError>(())
/// ```
#[derive(Clone)]
#[must_use = "credentials do nothing until they are given to Portunus::builder"]
pub struct Credentials {
    pub(crate) accepted: Vec<Accepted>,
    pub(crate) issued: Vec<(Vec<KeyKind>, KeyFormat)>,
    pub(crate) hasher: KeyHasher,
    pub(crate) optional: bool,
    pub(crate) verifier: Option<Arc<dyn TokenVerifier>>,
}

impl Credentials {
    /// Returns an empty set of credentials.
    pub fn new() -> Self {
        Self {
            accepted: Vec::new(),
            issued: Vec::new(),
            hasher: KeyHasher::default(),
            optional: false,
            verifier: None,
        }
    }

    /// Accepts keys of these formats as `Authorization: Bearer KEY` (RFC 6750).
    pub fn bearer(self, formats: impl IntoIterator<Item = KeyFormat>) -> Self {
        self.accept(Scheme::Bearer, formats)
    }

    /// Accepts keys of these formats as the user name of `Authorization: Basic`, with an empty
    /// password (RFC 7617).
    pub fn basic(self, formats: impl IntoIterator<Item = KeyFormat>) -> Self {
        self.accept(Scheme::Basic, formats)
    }

    /// Accepts keys of these formats as the whole value of a header such as `X-API-Key`.
    pub fn header(self, name: &str, formats: impl IntoIterator<Item = KeyFormat>) -> Self {
        self.accept(Scheme::Header(name.to_ascii_lowercase()), formats)
    }

    fn accept(mut self, scheme: Scheme, formats: impl IntoIterator<Item = KeyFormat>) -> Self {
        match self.accepted.iter_mut().find(|way| way.scheme == scheme) {
            Some(way) => way.formats.extend(formats),
            None => self.accepted.push(Accepted {
                scheme,
                formats: formats.into_iter().collect(),
            }),
        }
        self
    }

    /// Issues keys of these kinds in this format. Other kinds are issued in the first accepted
    /// format.
    pub fn issue(mut self, kinds: impl IntoIterator<Item = KeyKind>, format: KeyFormat) -> Self {
        self.issued.push((kinds.into_iter().collect(), format));
        self
    }

    /// Sets how digests of keys are computed. The default is SHA-256 without a pepper.
    pub fn hasher(mut self, hasher: KeyHasher) -> Self {
        self.hasher = hasher;
        self
    }

    /// Accepts Bearer tokens that this verifier recognizes, if the store has no such key.
    pub fn tokens(mut self, verifier: impl TokenVerifier) -> Self {
        self.verifier = Some(Arc::new(verifier));
        self
    }

    /// Lets requests without credentials pass as anonymous. This includes requests whose
    /// `Authorization` scheme is not accepted, unless the value contains an accepted key. Invalid
    /// credentials are still refused.
    ///
    /// To do this for some routes only, use `optional_key()` of the adapter.
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Returns the formats that keys are issued in, by kind. The last one applies to all other
    /// kinds.
    pub(crate) fn formats(&self) -> Vec<(Vec<KeyKind>, KeyFormat)> {
        let default = self.accepted.iter().flat_map(|way| &way.formats).next();
        let default = default.map(|format| (Vec::new(), format.clone()));
        self.issued.iter().cloned().chain(default).collect()
    }
}

impl Default for Credentials {
    fn default() -> Self {
        Self::new()
    }
}

impl From<KeyFormat> for Credentials {
    fn from(format: KeyFormat) -> Self {
        Self::new().bearer([format])
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("accepted", &self.accepted)
            .field("hasher", &self.hasher)
            .field("optional", &self.optional)
            .finish_non_exhaustive()
    }
}
