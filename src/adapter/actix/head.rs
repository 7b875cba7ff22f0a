//! The view of an actix-web request.

use std::cell::OnceCell;
use std::fmt;
use std::net::IpAddr;

use actix_web::{HttpMessage, HttpRequest};

use crate::adapter::carrier::ServesGrpc;
use crate::audit::RequestId;
use crate::request::{RequestHead, TlsVersion};

/// An actix-web request as the authenticator sees it.
pub struct ActixHead<'r> {
    pub(super) request: &'r HttpRequest,
    /// What middleware further out has said, copied so that the extensions stay free.
    pub(super) request_id: Option<RequestId>,
    pub(super) peer: Option<IpAddr>,
    pub(super) tls: Option<TlsVersion>,
    pub(super) grpc: bool,
    /// Made when it is asked for, which few requests need.
    pub(super) route: OnceCell<Option<String>>,
}

impl<'r> ActixHead<'r> {
    /// The view of a request that came from this address.
    #[must_use]
    pub fn new(request: &'r HttpRequest, peer: Option<IpAddr>) -> Self {
        let extensions = request.extensions();
        let request_id = extensions.get::<RequestId>().cloned();
        let grpc = extensions.contains::<ServesGrpc>();
        Self {
            request,
            request_id,
            peer,
            tls: None,
            grpc,
            route: OnceCell::new(),
        }
    }

    /// The same request, over this version of TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<TlsVersion>) -> Self {
        self.tls = tls;
        self
    }

    /// The same request, to a service that serves gRPC, or that does not. Unless said, what the
    /// [`Auth`](super::Auth::grpc) further out declared.
    #[must_use]
    pub fn with_grpc(mut self, serves_grpc: bool) -> Self {
        self.grpc = serves_grpc;
        self
    }
}

impl fmt::Debug for ActixHead<'_> {
    /// Without the fields: a key of the host's own header is among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActixHead")
            .field("method", &self.method())
            .field("path", &self.path())
            .field("peer", &self.peer)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}
