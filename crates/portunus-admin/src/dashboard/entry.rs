//! The fields of a query or a form, as they were entered.

use zeroize::{Zeroize, Zeroizing};

use crate::Fault;

/// Maximum number of fields.
const MAX_FIELDS: usize = 4096;

/// The fields of a query or a form, in order. Values are wiped on drop: some forms take a secret.
#[derive(Clone, Default)]
pub(super) struct Fields(Vec<(String, Zeroizing<String>)>);

impl Fields {
    /// Parses `application/x-www-form-urlencoded` (URL standard §5.1).
    ///
    /// # Errors
    /// 400 for too many fields.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let mut fields = Vec::new();
        for (name, value) in form_urlencoded::parse(bytes) {
            if fields.len() == MAX_FIELDS {
                return Err(Fault::bad(format!("More than {MAX_FIELDS} fields")));
            }
            // Browsers send line breaks of a text as CR LF (HTML §4.10.21.4).
            let mut value = value.into_owned();
            let entered = value.replace("\r\n", "\n");
            value.zeroize();
            fields.push((name.into_owned(), Zeroizing::new(entered)));
        }
        Ok(Self(fields))
    }

    /// Returns the first value with this name, without white space at its ends; `None` if it is
    /// empty, because forms send empty fields.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let value = self.entered(name)?.trim();
        (!value.is_empty()).then_some(value)
    }

    /// Returns the first value with this name as it was entered.
    pub(super) fn entered(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Returns all values with this name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.0.iter().filter(move |(known, _)| known == name);
        named.map(|(_, value)| value.as_str())
    }

    /// Returns the entries of a field with one entry in each line, or separated by commas or blanks.
    pub(super) fn entries(&self, name: &str) -> Vec<String> {
        let separates = |c: char| c == ',' || c.is_whitespace();
        let all = self.all(name).flat_map(move |value| value.split(separates));
        let all = all.filter(|entry| !entry.is_empty());
        all.map(str::to_owned).collect()
    }

    /// Returns the fields as bytes, without the token of the session, which differs after the
    /// operator signed in again.
    pub(super) fn fingerprint(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let fields = self.0.iter().filter(|(name, _)| name != "token");
        for text in fields.flat_map(|(name, value)| [name.as_str(), value.as_str()]) {
            bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }
}
