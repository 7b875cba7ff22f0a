//! The authenticator's view of a request of the `http` crate, version 1.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::ControlFlow;

use http::HeaderMap;
use http::header::{AUTHORIZATION, FORWARDED, GetAll, HeaderName, HeaderValue};

use super::HttpHead;
#[cfg(feature = "axum")]
use super::routed;
use crate::adapter::inside::serves_grpc;
use crate::audit::RequestId;
use crate::request::{FieldName, RequestHead, Single, TlsVersion};

impl RequestHead for HttpHead<'_> {
    fn method(&self) -> &str {
        self.method.as_str()
    }

    #[cfg(feature = "axum")]
    fn path(&self) -> &str {
        routed::path(self.uri, self.extensions)
    }

    #[cfg(not(feature = "axum"))]
    fn path(&self) -> &str {
        self.uri.path()
    }

    #[cfg(feature = "axum")]
    fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        routed::parameter(self.extensions, name)
    }

    #[cfg(feature = "axum")]
    fn route(&self) -> Option<&str> {
        routed::route(self.extensions)
    }

    fn request_id(&self) -> Option<Cow<'_, str>> {
        let outer = self.extensions.get::<RequestId>()?;
        Some(Cow::Owned(outer.to_string()))
    }

    fn peer_ip(&self) -> Option<IpAddr> {
        self.peer
    }

    fn tls(&self) -> Option<TlsVersion> {
        self.tls_of.map_or(self.tls, |of| of(self.extensions))
    }

    fn serves_grpc(&self) -> bool {
        self.grpc.unwrap_or_else(|| serves_grpc(self.extensions))
    }

    fn may_have_any(&self, names: &[FieldName<'_>]) -> bool {
        // Both sides are lower case.
        self.headers
            .keys()
            .any(|known| names.iter().any(|name| known.as_str() == name.as_str()))
    }

    fn single(&self, name: FieldName<'_>) -> Single<'_> {
        if name == FieldName::Authorization && are_few(self.headers) {
            let all = self.headers.iter();
            return only(all.filter_map(|(name, value)| (*name == AUTHORIZATION).then_some(value)));
        }
        only(lines(self.headers, name).into_iter())
    }

    fn visit<'a>(&'a self, name: FieldName<'_>, see: &mut dyn FnMut(&'a [u8]) -> ControlFlow<()>) {
        for value in lines(self.headers, name) {
            if see(value.as_bytes()).is_break() {
                return;
            }
        }
    }
}

/// Whether to look at all headers takes less time than to find one by its hash.
pub(super) fn are_few(headers: &HeaderMap) -> bool {
    headers.len() <= 12
}

fn only<'r>(mut lines: impl Iterator<Item = &'r HeaderValue>) -> Single<'r> {
    match (lines.next(), lines.next()) {
        (None, _) => Single::Absent,
        (Some(value), None) => Single::One(value.as_bytes()),
        (Some(_), Some(_)) => Single::Repeated,
    }
}

static USER_ID: HeaderName = HeaderName::from_static("x-user-id");
static ON_BEHALF_OF: HeaderName = HeaderName::from_static("x-on-behalf-of");
static ON_BEHALF_EMAIL: HeaderName = HeaderName::from_static("x-on-behalf-email");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Returns all lines of a header.
fn lines<'r>(headers: &'r HeaderMap, name: FieldName<'_>) -> GetAll<'r, HeaderValue> {
    match name {
        FieldName::Authorization => headers.get_all(AUTHORIZATION),
        FieldName::UserId => headers.get_all(&USER_ID),
        FieldName::OnBehalfOf => headers.get_all(&ON_BEHALF_OF),
        FieldName::OnBehalfEmail => headers.get_all(&ON_BEHALF_EMAIL),
        FieldName::XForwardedFor => headers.get_all(&X_FORWARDED_FOR),
        FieldName::Forwarded => headers.get_all(FORWARDED),
        FieldName::RequestId => headers.get_all(&REQUEST_ID),
        FieldName::Other(name) => headers.get_all(name),
    }
}
