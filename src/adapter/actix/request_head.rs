//! The authenticator's view of an actix-web request.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::ControlFlow;

use actix_web::HttpMessage;
use actix_web::http::header::{AUTHORIZATION, FORWARDED, HeaderMap, HeaderName, HeaderValue};

use super::ActixHead;
use crate::audit::RequestId;
use crate::request::{FieldName, RequestHead, Single, TlsVersion};

static USER_ID: HeaderName = HeaderName::from_static("x-user-id");
static ON_BEHALF_OF: HeaderName = HeaderName::from_static("x-on-behalf-of");
static ON_BEHALF_EMAIL: HeaderName = HeaderName::from_static("x-on-behalf-email");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

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
        // `match_info` returns partly decoded values; `load` decodes the rest, as `web::Path` does.
        let mut decoded: Vec<String> = matched.load().ok()?;
        // The replacement character marks invalid UTF-8. As on axum, one invalid parameter makes
        // all of them unavailable.
        let is_lossy = |value: &String| value.contains(char::REPLACEMENT_CHARACTER);
        if place >= decoded.len() || decoded.iter().any(is_lossy) {
            return None;
        }
        Some(Cow::Owned(decoded.swap_remove(place)))
    }

    fn route(&self) -> Option<&str> {
        let pattern = || {
            // Before a route is chosen, `match_pattern` compares the path as it was sent, but the
            // router compares it decoded.
            let decoded = self.request.match_info().as_str();
            match decoded == self.request.path() {
                true => self.request.match_pattern(),
                false => self.request.resource_map().match_pattern(decoded),
            }
        };
        self.route.get_or_init(pattern).as_deref()
    }

    fn request_id(&self) -> Option<Cow<'_, str>> {
        let extensions = self.request.extensions();
        let outer = extensions.get::<RequestId>()?;
        Some(Cow::Owned(outer.to_string()))
    }

    fn peer_ip(&self) -> Option<IpAddr> {
        self.peer
    }

    fn tls(&self) -> Option<TlsVersion> {
        self.tls_of.map_or(self.tls, |of| of(self.request))
    }

    fn serves_grpc(&self) -> bool {
        self.grpc
    }

    fn may_have_any(&self, names: &[FieldName<'_>]) -> bool {
        // Both sides are lower case.
        self.request
            .headers()
            .keys()
            .any(|known| names.iter().any(|name| known.as_str() == name.as_str()))
    }

    fn single(&self, name: FieldName<'_>) -> Single<'_> {
        let mut lines = lines(self.request.headers(), name);
        match (lines.next(), lines.next()) {
            (None, _) => Single::Absent,
            (Some(value), None) => Single::One(value.as_bytes()),
            (Some(_), Some(_)) => Single::Repeated,
        }
    }

    fn visit<'a>(&'a self, name: FieldName<'_>, see: &mut dyn FnMut(&'a [u8]) -> ControlFlow<()>) {
        for value in lines(self.request.headers(), name) {
            if see(value.as_bytes()).is_break() {
                return;
            }
        }
    }
}

/// Returns all lines of a header.
fn lines<'r>(headers: &'r HeaderMap, name: FieldName<'_>) -> std::slice::Iter<'r, HeaderValue> {
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
