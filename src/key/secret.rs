//! A key in plaintext: shown once, then gone.
//!
//! The type has no `Display`, no `Clone` and no serialization, prints redacted, is wiped when it is
//! dropped, and gives its text away by being consumed.

use zeroize::Zeroize;

/// A secret that was just made, or presented.
///
/// ```
/// # use portunus::key::{Alphabet, KeyFormat};
/// let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32).build()?;
/// let key = format.generate(None, None)?;
/// assert_eq!(format!("{key:?}"), "PlaintextKey([redacted])");
/// let text: String = key.reveal(); // the only way to the text, and it ends the value
/// assert!(text.starts_with("acme_"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a secret that is dropped can never be shown again"]
pub struct PlaintextKey(String);

impl PlaintextKey {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// Takes the text out, for the one answer that shows it. From here on wiping it is the caller's
    /// business.
    #[must_use]
    pub fn reveal(mut self) -> String {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Drop for PlaintextKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for PlaintextKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PlaintextKey([redacted])")
    }
}
