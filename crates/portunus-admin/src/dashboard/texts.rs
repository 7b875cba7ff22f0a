//! The texts of the pages: one table, of which the host can replace each one.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use maud::{Markup, Render, html};

use super::{wording, wording_many};

/// The texts of the dashboard, by name. Those that are not replaced are in English.
///
/// Texts are escaped: they are text, not HTML. Some have placeholders, such as `{name}`; a placeholder
/// that a text leaves out is not shown. `lang` and `dir` are the language tag (BCP 47) and the direction
/// (`ltr` or `rtl`) of the pages. [`Texts::names`] lists all names with their text.
///
/// ```
/// use portunus_admin::Texts;
///
/// let texts = Texts::new()
///     .with("app.name", "AllSign")?
///     .with("list.title", "Secret keys")?;
/// # Ok::<(), portunus_admin::UnknownText>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Texts(HashMap<&'static str, Cow<'static, str>>);

/// Error returned for the name of a text that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownText(String);

impl fmt::Display for UnknownText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the dashboard has no text with the name {:?}", self.0)
    }
}

impl std::error::Error for UnknownText {}

impl Texts {
    /// Returns the English texts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces a text.
    ///
    /// # Errors
    /// Returns an error if there is no text with this name.
    pub fn with(
        mut self,
        name: &str,
        text: impl Into<Cow<'static, str>>,
    ) -> Result<Self, UnknownText> {
        let known = Self::names().find(|(known, _)| *known == name);
        let (known, _) = known.ok_or_else(|| UnknownText(name.to_owned()))?;
        self.0.insert(known, text.into());
        Ok(self)
    }

    /// Returns the name of each text, and the English text.
    pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
        let all = wording::WORDING.iter().chain(wording_many::WORDING);
        all.copied()
    }

    /// Returns a text. An unknown name is shown as it is; a test proves that the pages use none.
    pub(super) fn get<'t>(&'t self, name: &'t str) -> &'t str {
        if let Some(own) = self.0.get(name) {
            return own;
        }
        let usual = Self::names().find(|(known, _)| *known == name);
        usual.map_or(name, |(_, text)| text)
    }

    /// Returns a text with markup in place of its placeholders.
    pub(super) fn fill(&self, name: &str, values: &[(&str, Markup)]) -> Markup {
        let mut rest = self.get(name);
        let mut filled = Vec::new();
        while let Some((before, after)) = rest.split_once('{') {
            let placeholder = after.split_once('}').and_then(|(name, after)| {
                let (_, value) = values.iter().find(|(known, _)| *known == name)?;
                Some((value.clone(), after))
            });
            match placeholder {
                Some((value, after)) => {
                    filled.extend([before.render(), value]);
                    rest = after;
                }
                None => {
                    filled.extend([before.render(), "{".render()]);
                    rest = after;
                }
            }
        }
        html! { @for part in &filled { (part) } (rest) }
    }
}
