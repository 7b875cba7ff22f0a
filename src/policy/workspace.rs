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
    PathAfter(String),
    Header(String),
    Function(Arc<Resolve>),
}

impl WorkspaceOf {
    /// The path segment that follows this one: `workspaces` for `/v3/workspaces/ws1/templates`. It
    /// is compared as it stands, without decoding: an encoded id is none that a key reaches.
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
            Kind::PathAfter(segment) => {
                let mut segments = request
                    .path()
                    .split('/')
                    .skip_while(|part| part != segment)
                    .skip(1);
                segments.next().and_then(then)
            }
            Kind::Header(name) => match request.single(FieldName::Other(name)) {
                Single::One(value) => std::str::from_utf8(value.trim_ascii()).ok().and_then(then),
                Single::Absent | Single::Repeated => None,
            },
            Kind::Function(resolve) => resolve(request).as_deref().and_then(then),
        }
    }
}

impl PartialEq for WorkspaceOf {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kind::PathAfter(one), Kind::PathAfter(other))
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
            Kind::PathAfter(segment) => write!(f, "WorkspaceOf(path after {segment})"),
            Kind::Header(name) => write!(f, "WorkspaceOf(header {name})"),
            Kind::Function(_) => f.write_str("WorkspaceOf(function)"),
        }
    }
}
