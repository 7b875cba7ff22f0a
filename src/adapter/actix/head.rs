//! The view of an actix-web request.

use std::cell::OnceCell;
use std::fmt;
use std::net::IpAddr;

use actix_web::HttpRequest;

use crate::adapter::carrier::TlsOf;
use crate::adapter::inside::serves_grpc;
use crate::request::{RequestHead, TlsVersion};

/// The authenticator's view of an actix-web request.
pub struct ActixHead<'r> {
    pub(super) request: &'r HttpRequest,
    pub(super) peer: Option<IpAddr>,
    pub(super) tls: Option<TlsVersion>,
    /// Finds the TLS version instead.
    pub(super) tls_of: Option<&'r TlsOf<HttpRequest>>,
    pub(super) grpc: bool,
    /// Computed on demand: few requests need it.
    pub(super) route: OnceCell<Option<String>>,
}

impl<'r> ActixHead<'r> {
    /// Creates the view of a request from this peer address.
    #[must_use]
    pub fn new(request: &'r HttpRequest, peer: Option<IpAddr>) -> Self {
        Self::of(request, peer, serves_grpc(request))
    }

    pub(super) fn of(request: &'r HttpRequest, peer: Option<IpAddr>, grpc: bool) -> Self {
        Self {
            request,
            peer,
            tls: None,
            tls_of: None,
            grpc,
            route: OnceCell::new(),
        }
    }

    /// Sets the connection's TLS version.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<TlsVersion>) -> Self {
        (self.tls, self.tls_of) = (tls, None);
        self
    }

    /// Sets whether the service serves gRPC. By default, this is what the outer
    /// [`Auth`](super::Auth::grpc) declared.
    #[must_use]
    pub fn with_grpc(mut self, serves_grpc: bool) -> Self {
        self.grpc = serves_grpc;
        self
    }
}

impl fmt::Debug for ActixHead<'_> {
    /// Omits headers, which may contain keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActixHead")
            .field("method", &self.method())
            .field("path", &self.path())
            .field("peer", &self.peer)
            .field("tls", &self.tls())
            .finish_non_exhaustive()
    }
}
