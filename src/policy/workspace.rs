//! Sources of the workspace id in a request.

use std::fmt;
use std::ptr;
use std::sync::Arc;

use crate::request::{FieldName, RequestHead, Single};

type Resolve = dyn Fn(&dyn RequestHead) -> Option<String> + Send + Sync;

/// The part of a request that names the workspace.
#[derive(Clone)]
pub struct WorkspaceOf(Kind);

#[derive(Clone)]
enum Kind {
    Parameter(String),
    PathAfter(String),
    Header(String),
    Function(Arc<Resolve>),
}

impl WorkspaceOf {
    /// Takes the workspace from a parameter of the framework's route: `ws` for
    /// `/v3/workspaces/{ws}/templates`. This is the value that the handler gets, so prefer it on
    /// axum (also inside `nest`) and on actix-web.
    ///
    /// The request names no workspace, and every key is refused, if the route does not have the
    /// parameter, if the parameter occurs twice, or if it is not UTF-8 after decoding. Plain tower
    /// has no routes, so the requirement is never met there.
    #[must_use]
    pub fn parameter(name: &str) -> Self {
        Self(Kind::Parameter(name.into()))
    }

    /// Takes the workspace from the path segment after this one: `workspaces` for
    /// `/v3/workspaces/ws1/templates`. Use it with plain tower, which has no
    /// [parameters](Self::parameter).
    ///
    /// The whole path is searched, also inside axum's `nest`. The id is compared without decoding,
    /// so a percent-encoded id matches no workspace. A path that contains the segment twice before
    /// its last segment is ambiguous and names no workspace. So `/workspaces/workspaces/templates`
    /// is refused, and a workspace with that name is accessible through a parameter only.
    #[must_use]
    pub fn path_after(segment: &str) -> Self {
        Self(Kind::PathAfter(segment.into()))
    }

    /// Takes the workspace from a header, which must occur exactly once.
    #[must_use]
    pub fn header(name: &str) -> Self {
        Self(Kind::Header(name.to_ascii_lowercase()))
    }

    /// Takes the workspace from a function of the host. `None` means that the request names no
    /// workspace; every key is then refused.
    pub fn function(
        resolve: impl Fn(&dyn RequestHead) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self(Kind::Function(Arc::new(resolve)))
    }

    /// Calls `then` with the workspace id, if the request names one.
    pub(super) fn find<R>(
        &self,
        request: &dyn RequestHead,
        then: impl FnOnce(&str) -> R,
    ) -> Option<R> {
        let then = |workspace: &str| (!workspace.is_empty()).then(|| then(workspace));
        match &self.0 {
            Kind::Parameter(name) => {
                let value = request.parameter(name)?;
                // A lossy decoder replaces bytes that are not UTF-8 with this character.
                let is_text = !value.contains(char::REPLACEMENT_CHARACTER);
                is_text.then(|| then(&value))?
            }
            Kind::PathAfter(segment) => segment_after(request.path(), segment).and_then(then),
            Kind::Header(name) => match request.single(FieldName::Other(name)) {
                Single::One(value) => std::str::from_utf8(value.trim_ascii()).ok().and_then(then),
                Single::Absent | Single::Repeated => None,
            },
            Kind::Function(resolve) => resolve(request).as_deref().and_then(then),
        }
    }
}

/// Returns the segment after the only segment with this name, ignoring the last segment of the
/// path.
fn segment_after<'p>(path: &'p str, name: &str) -> Option<&'p str> {
    let mut segments = path.split('/').peekable();
    let mut found = None;
    while let Some(segment) = segments.next() {
        let Some(&after) = segments.peek() else {
            break;
        };
        if reads_as(segment, name) {
            // Encoded occurrences count, because a router that decodes sees two of them.
            if found.is_some() {
                return None;
            }
            found = Some((segment, after));
        }
    }
    found
        .filter(|(segment, _)| *segment == name)
        .map(|(_, after)| after)
}

/// Returns whether a segment equals the text, with or without percent-decoding (RFC 3986 §2.1).
fn reads_as(segment: &str, text: &str) -> bool {
    let (mut rest, mut text) = (segment.as_bytes(), text.bytes());
    loop {
        let (byte, after) = match rest {
            [] => return text.next().is_none(),
            [b'%', high, low, after @ ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (b'%', &rest[1..]),
            },
            [byte, after @ ..] => (*byte, after),
        };
        if text.next() != Some(byte) {
            return false;
        }
        rest = after;
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

impl PartialEq for WorkspaceOf {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kind::Parameter(one), Kind::Parameter(other))
            | (Kind::PathAfter(one), Kind::PathAfter(other))
            | (Kind::Header(one), Kind::Header(other)) => one == other,
            (Kind::Function(one), Kind::Function(other)) => {
                ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
            }
            _ => false,
        }
    }
}
impl Eq for WorkspaceOf {}

impl fmt::Debug for WorkspaceOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Parameter(name) => write!(f, "WorkspaceOf(parameter {name})"),
            Kind::PathAfter(segment) => write!(f, "WorkspaceOf(path after {segment})"),
            Kind::Header(name) => write!(f, "WorkspaceOf(header {name})"),
            Kind::Function(_) => f.write_str("WorkspaceOf(function)"),
        }
    }
}
