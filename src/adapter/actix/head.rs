//! The view of an actix-web request.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;
use std::net::IpAddr;
use std::ops::ControlFlow;

use actix_web::http::header::{AUTHORIZATION, FORWARDED, HeaderName};
use actix_web::{HttpMessage, HttpRequest};

use crate::adapter::nobody::ServesGrpc;
use crate::audit::RequestId;
use crate::request::{FieldName, RequestHead, TlsVersion};

static USER_ID: HeaderName = HeaderName::from_static("x-user-id");
static ON_BEHALF_OF: HeaderName = HeaderName::from_static("x-on-behalf-of");
static ON_BEHALF_EMAIL: HeaderName = HeaderName::from_static("x-on-behalf-email");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// An actix-web request as the authenticator sees it.
pub struct ActixHead<'r> {
    request: &'r HttpRequest,
    /// What middleware further out has said, copied so that the extensions stay free.
    request_id: Option<RequestId>,
    peer: Option<IpAddr>,
    tls: Option<TlsVersion>,
    grpc: bool,
    /// Made when it is asked for, which few requests need.
    route: OnceCell<Option<String>>,
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

impl RequestHead for ActixHead<'_> {
    fn method(&self) -> &str {
        self.request.method().as_str()
    }

    fn path(&self) -> &str {
        self.request.path()
    }

    fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        let matched = self.request.match_info();
        let mut places = matched
            .iter()
            .enumerate()
            .filter(|(_, (known, _))| *known == name);
        let (Some((place, _)), None) = (places.next(), places.next()) else {
            return None;
        };
        // What `match_info` shows is decoded in part; `web::Path` decodes the rest.
        let mut decoded: Vec<String> = matched.load().ok()?;
        // Stands for bytes that are no UTF-8. As on axum, one such parameter spoils them all.
        let is_lossy = |value: &String| value.contains(char::REPLACEMENT_CHARACTER);
        if place >= decoded.len() || decoded.iter().any(is_lossy) {
            return None;
        }
        Some(Cow::Owned(decoded.swap_remove(place)))
    }

    fn route(&self) -> Option<&str> {
        self.route
            .get_or_init(|| self.request.match_pattern())
            .as_deref()
    }

    fn request_id(&self) -> Option<&str> {
        self.request_id.as_ref().map(RequestId::as_str)
    }

    fn peer_ip(&self) -> Option<IpAddr> {
        self.peer
    }

    fn tls(&self) -> Option<TlsVersion> {
        self.tls
    }

    fn serves_grpc(&self) -> bool {
        self.grpc
    }

    fn may_have_any(&self, names: &[FieldName<'_>]) -> bool {
        // Names in the map are in lower case, as the fields' are.
        self.request
            .headers()
            .keys()
            .any(|known| names.iter().any(|name| known.as_str() == name.as_str()))
    }

    fn visit<'a>(&'a self, name: FieldName<'_>, see: &mut dyn FnMut(&'a [u8]) -> ControlFlow<()>) {
        let headers = self.request.headers();
        let values = match name {
            FieldName::Authorization => headers.get_all(AUTHORIZATION),
            FieldName::UserId => headers.get_all(&USER_ID),
            FieldName::OnBehalfOf => headers.get_all(&ON_BEHALF_OF),
            FieldName::OnBehalfEmail => headers.get_all(&ON_BEHALF_EMAIL),
            FieldName::XForwardedFor => headers.get_all(&X_FORWARDED_FOR),
            FieldName::Forwarded => headers.get_all(FORWARDED),
            FieldName::RequestId => headers.get_all(&REQUEST_ID),
            FieldName::Other(name) => headers.get_all(name),
        };
        for value in values {
            if see(value.as_bytes()).is_break() {
                return;
            }
        }
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
