//! The table of gRPC methods.

use std::collections::HashMap;

use crate::policy::Requirement;

/// Error returned when building a table with an invalid entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrpcMethodsError {
    /// The text is not a method path: `/`, service name, `/` and method name, neither empty nor
    /// percent-encoded.
    #[error("{0:?} is not a method path such as /package.Service/Method")]
    Method(String),
    /// The text is not a service name: a method path without its leading slash and without its last
    /// slash and method name.
    #[error("{0:?} is not a service name such as package.Service")]
    Service(String),
    /// A method or service has more than one entry.
    #[error("{0:?} has more than one entry")]
    Twice(String),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    methods: HashMap<String, Entry>,
    services: HashMap<String, Entry>,
    pub(super) otherwise: Option<Entry>,
}

#[derive(Debug, Clone)]
pub(super) enum Entry {
    Public,
    Require(Requirement),
}

impl Table {
    /// Adds the entry of a method.
    pub(super) fn add_method(&mut self, path: &str, entry: Entry) -> Result<(), GrpcMethodsError> {
        if split(path).is_none() {
            return Err(GrpcMethodsError::Method(path.to_owned()));
        }
        match self.methods.insert(path.to_owned(), entry) {
            Some(_) => Err(GrpcMethodsError::Twice(path.to_owned())),
            None => Ok(()),
        }
    }

    /// Adds the entry of a service.
    pub(super) fn add_service(&mut self, name: &str, entry: Entry) -> Result<(), GrpcMethodsError> {
        if split(&format!("/{name}/x")).is_none() {
            return Err(GrpcMethodsError::Service(name.to_owned()));
        }
        match self.services.insert(name.to_owned(), entry) {
            Some(_) => Err(GrpcMethodsError::Twice(name.to_owned())),
            None => Ok(()),
        }
    }

    /// Returns the entry for a path. The path is the one that the inner service sees, without a
    /// prefix that an outer router stripped.
    pub(super) fn find(&self, path: &str) -> Option<&Entry> {
        let service = split(path)?;
        self.methods
            .get(path)
            .or_else(|| self.services.get(service))
            .or(self.otherwise.as_ref())
    }
}

/// Returns the service name of a method path. Percent-encoded paths and empty segments are
/// rejected, because a later reader could take them for another method.
fn split(path: &str) -> Option<&str> {
    let (service, method) = path.strip_prefix('/')?.rsplit_once('/')?;
    let named = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'%' | b'?' | b'#' | b';'))
    };
    (service.split('/').all(named) && named(method)).then_some(service)
}
