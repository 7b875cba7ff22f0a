//! A hand-made request head, to call an authenticator or a requirement without a framework.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::ops::ControlFlow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::valid;
use crate::request::{FieldName, RequestHead, TlsVersion};

/// A request, as seen by authentication.
#[derive(Clone, PartialEq, Eq)]
#[must_use]
pub struct TestRequest {
    method: String,
    path: String,
    parameters: Vec<(String, String)>,
    fields: Vec<(String, Vec<u8>)>,
    peer: Option<IpAddr>,
    tls: Option<TlsVersion>,
}

impl TestRequest {
    /// Creates a request without header fields and without a peer address.
    pub fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.into(),
            path: path.into(),
            parameters: Vec::new(),
            fields: Vec::new(),
            peer: None,
            tls: None,
        }
    }

    /// Creates a `GET` request.
    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// Creates a `POST` request.
    pub fn post(path: &str) -> Self {
        Self::new("POST", path)
    }

    /// Adds a decoded parameter of the matched route.
    pub fn parameter(mut self, name: &str, value: &str) -> Self {
        self.parameters.push((name.into(), value.into()));
        self
    }

    /// Adds a header line after existing lines of the same name.
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields
            .push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        self
    }

    /// Adds `Authorization: Bearer`.
    pub fn bearer(self, key: &str) -> Self {
        self.field("authorization", format!("Bearer {key}"))
    }

    /// Adds `Authorization: Basic`, with the key as the user name.
    pub fn basic(self, key: &str) -> Self {
        self.field(
            "authorization",
            format!("Basic {}", STANDARD.encode(format!("{key}:"))),
        )
    }

    /// Sets the peer address.
    ///
    /// # Panics
    /// Panics if this is not an IP address.
    pub fn peer(mut self, address: &str) -> Self {
        self.peer = Some(valid(address.parse()));
        self
    }

    /// Sets the TLS version of the connection.
    pub fn tls(mut self, version: TlsVersion) -> Self {
        self.tls = Some(version);
        self
    }
}

impl RequestHead for TestRequest {
    fn method(&self) -> &str {
        &self.method
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut values = self.parameters.iter().filter(|(known, _)| known == name);
        match (values.next(), values.next()) {
            (Some((_, value)), None) => Some(Cow::Borrowed(value)),
            _ => None,
        }
    }

    fn peer_ip(&self) -> Option<IpAddr> {
        self.peer
    }

    fn tls(&self) -> Option<TlsVersion> {
        self.tls
    }

    fn visit<'a>(&'a self, name: FieldName<'_>, see: &mut dyn FnMut(&'a [u8]) -> ControlFlow<()>) {
        for (_, value) in self
            .fields
            .iter()
            .filter(|(field, _)| field == name.as_str())
        {
            if see(value).is_break() {
                return;
            }
        }
    }
}

impl fmt::Debug for TestRequest {
    /// Prints only the names of the fields, because their values may contain keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<&str> = self.fields.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("TestRequest")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("fields", &fields)
            .field("peer", &self.peer)
            .field("tls", &self.tls)
            .finish()
    }
}
