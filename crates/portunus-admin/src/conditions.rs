//! Conditional requests: `If-Match` and `If-None-Match` (RFC 9110 §13.1.1, §13.1.2).
//!
//! They are evaluated in the order of §13.2.2, and last (§13.2.1): the manager evaluates them when
//! nothing else refuses the operation. A call that is not about a key has no version: there,
//! `If-Match: *` matches, since the target of the call exists, and an entity tag does not.

use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName};

/// The preconditions of a request on the version of the key.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

/// The entity tags of a field.
#[derive(Debug, Clone, Default)]
struct Tags {
    /// Whether `*` is among them.
    any: bool,
    /// Each tag: whether it is weak, and its opaque part.
    listed: Vec<(bool, String)>,
}

impl Conditions {
    /// Parses the preconditions of a request.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self {
            if_match: Tags::of(headers, &IF_MATCH),
            if_none_match: Tags::of(headers, &IF_NONE_MATCH),
        }
    }

    /// Returns whether the preconditions allow a write at this version, or without a key.
    pub(crate) fn hold(&self, version: Option<u64>) -> bool {
        self.matches(version) && !self.is_known(version)
    }

    /// Returns whether `If-Match` matches. A weak tag never matches (strong comparison, §8.8.3.2).
    pub(crate) fn matches(&self, version: Option<u64>) -> bool {
        self.if_match
            .as_ref()
            .is_none_or(|tags| tags.any || tags.name(version, false))
    }

    /// Returns whether `If-None-Match` lists the current version (weak comparison).
    pub(crate) fn is_known(&self, version: Option<u64>) -> bool {
        let named = |tags: &Tags| (tags.any && version.is_some()) || tags.name(version, true);
        self.if_none_match.as_ref().is_some_and(named)
    }
}

impl Tags {
    fn of(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        let mut tags: Option<Self> = None;
        for line in headers.get_all(name) {
            // Tags can contain non-ASCII bytes (§8.8.3); versions do not.
            let line = String::from_utf8_lossy(line.as_bytes());
            tags.get_or_insert_with(Self::default).read(&line);
        }
        tags
    }

    /// Parses the elements of a line. Elements that are neither `*` nor a tag match nothing.
    fn read(&mut self, line: &str) {
        let mut rest = line;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                return;
            }
            let (weak, quoted) = match rest.strip_prefix("W/") {
                Some(after) => (true, after),
                None => (false, rest),
            };
            let tag = quoted.strip_prefix('"').and_then(|tag| tag.split_once('"'));
            let (tag, after) = match tag {
                Some((tag, after)) => (Some(tag), after),
                None => (None, rest),
            };
            // Skips to the next element. Only blanks can follow a tag.
            let (tail, next) = after.split_once(',').unwrap_or((after, ""));
            match (tag, tail.trim_matches([' ', '\t'])) {
                (Some(tag), "") => self.listed.push((weak, tag.to_owned())),
                (None, "*") => self.any = true,
                _ => {}
            }
            rest = next;
        }
    }

    /// Returns whether the tag of this version is listed.
    fn name(&self, version: Option<u64>, weakly: bool) -> bool {
        let own = version.map(|version| version.to_string());
        let is_own = |(weak, tag): &(bool, String)| Some(tag) == own.as_ref() && (weakly || !weak);
        self.listed.iter().any(is_own)
    }
}
