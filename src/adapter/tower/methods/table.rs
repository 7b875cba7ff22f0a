//! The table of gRPC methods: which entry a path has.

use std::collections::HashMap;

use crate::policy::Requirement;

/// An entry that no table can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GrpcMethodsError {
    /// Not the path of a method: `/`, the service's name, `/` and the method's, none of them empty
    /// or percent-encoded.
    #[error("{0:?} is not the path of a method, such as /package.Service/Method")]
    Method(String),
    /// Not the name of a service: a method's path without its first slash, and without its last one
    /// and what follows.
    #[error("{0:?} is not the name of a service, such as package.Service")]
    Service(String),
    /// A method or a service that has an entry already.
    #[error("{0:?} has two entries")]
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

    /// The entry that a path has. It is what the service further in is asked for, without what an
    /// outer router stripped.
    pub(super) fn find(&self, path: &str) -> Option<&Entry> {
        let service = split(path)?;
        self.methods
            .get(path)
            .or_else(|| self.services.get(service))
            .or(self.otherwise.as_ref())
    }
}

/// The service of a method's path. What is percent-encoded or has empty parts could be another
/// method to who reads it later.
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
