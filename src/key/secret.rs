//! A key in plaintext, which is shown once.
//!
//! The type has no `Display`, `Clone` or serialization, is redacted in `Debug`, is zeroized on
//! drop, and returns its text only by being consumed.

use zeroize::Zeroize;

/// A secret that was just generated or presented.
///
/// ```
/// # use portunus::key::{Alphabet, KeyFormat};
/// let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32).build()?;
/// let key = format.generate(None, None)?;
/// assert_eq!(format!("{key:?}"), "PlaintextKey([redacted])");
/// let text: String = key.reveal(); // the only access to the text; consumes the value
/// assert!(text.starts_with("acme_"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a dropped secret can never be shown again"]
pub struct PlaintextKey(String);

impl PlaintextKey {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the text, for the one response that shows it. The caller becomes responsible for
    /// erasing it.
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
