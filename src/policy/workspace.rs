//! Which workspace a request is about.

use std::fmt;
use std::ptr;
use std::sync::Arc;

use crate::request::{FieldName, RequestHead, Single};

type Resolve = dyn Fn(&dyn RequestHead) -> Option<String> + Send + Sync;

/// How the workspace is found in a request.
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
    /// A parameter of the framework's route, by its name: `ws` for
    /// `/v3/workspaces/{ws}/templates`. It is what the handler gets, so prefer it on axum (also
    /// inside of `nest`) and on actix-web.
    ///
    /// A route without this parameter names no workspace, which no key reaches; so does a parameter
    /// that stands twice or is no UTF-8 once it is decoded. Plain tower has no routes: there it is
    /// never met.
    #[must_use]
    pub fn parameter(name: &str) -> Self {
        Self(Kind::Parameter(name.into()))
    }

    /// The path segment that follows this one: `workspaces` for `/v3/workspaces/ws1/templates`. For
    /// plain tower, where there is no [parameter](Self::parameter).
    ///
    /// The whole path is looked at, also inside of axum's `nest`. The id is compared as it stands,
    /// without decoding: an encoded id is none that a key reaches. A path that has the segment
    /// twice before its end names no workspace: nobody can tell which one the handler takes. So
    /// `/workspaces/workspaces/templates` is refused, and a workspace of that name is reached
    /// through a parameter only.
    #[must_use]
    pub fn path_after(segment: &str) -> Self {
        Self(Kind::PathAfter(segment.into()))
    }

    /// The value of a header that stands once.
    #[must_use]
    pub fn header(name: &str) -> Self {
        Self(Kind::Header(name.to_ascii_lowercase()))
    }

    /// What a function of the host's says. `None` means that no workspace is named, which no key
    /// reaches.
    pub fn function(
        resolve: impl Fn(&dyn RequestHead) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self(Kind::Function(Arc::new(resolve)))
    }

    /// Calls `then` with the workspace, if the request names one.
    pub(super) fn find<R>(
        &self,
        request: &dyn RequestHead,
        then: impl FnOnce(&str) -> R,
    ) -> Option<R> {
        let then = |workspace: &str| (!workspace.is_empty()).then(|| then(workspace));
        match &self.0 {
            Kind::Parameter(name) => {
                let value = request.parameter(name)?;
                // It stands for bytes that were no UTF-8, wherever a lossy decoder was at work.
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

/// The segment after the only one of this name, the last segment of the path aside.
fn segment_after<'p>(path: &'p str, name: &str) -> Option<&'p str> {
    let mut segments = path.split('/').peekable();
    let mut found = None;
    while let Some(segment) = segments.next() {
        let Some(&after) = segments.peek() else {
            break;
        };
        if reads_as(segment, name) {
            // Routers that decode see two of them where only one stands.
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

/// Whether a segment is this text, as it stands or once it is decoded (RFC 3986 §2.1).
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
