//! CORS for actix-web's routes, with the behavior of `crate::cors`: answers preflights; a plain
//! `OPTIONS` is a request like any other.

use std::sync::Arc;

use actix_web::Error;
use actix_web::HttpResponse;
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use actix_web::middleware::Next;
use portunus_admin::Origin;

use crate::cors::{is_management, is_trusted};

/// The CORS response fields for one request.
struct Sharing {
    /// The origin that may read the response, if any.
    allowed: Option<HeaderValue>,
    exposed: HeaderValue,
    varies: HeaderValue,
}

pub(super) async fn outermost<B: MessageBody>(
    trusted: Arc<[Origin]>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let asked = request.headers();
    let options = *request.method() == Method::OPTIONS;
    let sharing = Sharing::of(&request, &trusted);
    // A preflight has these two fields (Fetch §4.8).
    if options && asked.contains_key(ORIGIN) && asked.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        let mut response = HttpResponse::NoContent().finish();
        for (requested, allowed) in [
            (ACCESS_CONTROL_REQUEST_METHOD, ACCESS_CONTROL_ALLOW_METHODS),
            (ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_ALLOW_HEADERS),
        ] {
            if let Some(value) = asked.get(requested) {
                response.headers_mut().insert(allowed, value.clone());
            }
        }
        response
            .headers_mut()
            .insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        sharing.write(response.headers_mut());
        return Ok(request.into_response(response).map_into_right_body());
    }
    let mut response = next.call(request).await?.map_into_left_body();
    response
        .headers_mut()
        .insert(ACCESS_CONTROL_EXPOSE_HEADERS, sharing.exposed.clone());
    sharing.write(response.headers_mut());
    Ok(response)
}

impl Sharing {
    fn of(request: &ServiceRequest, trusted: &[Origin]) -> Self {
        if !is_management(request.path()) {
            return Self {
                allowed: Some(HeaderValue::from_static("*")),
                exposed: HeaderValue::from_static(
                    "www-authenticate,retry-after,ratelimit,ratelimit-policy",
                ),
                varies: HeaderValue::from_static(
                    "access-control-request-method, access-control-request-headers",
                ),
            };
        }
        let origin = request.headers().get(ORIGIN);
        Self {
            allowed: origin
                .filter(|origin| is_trusted(trusted, origin.as_bytes()))
                .cloned(),
            exposed: HeaderValue::from_static(
                "www-authenticate,retry-after,ratelimit,ratelimit-policy,etag",
            ),
            varies: HeaderValue::from_static(
                "origin, access-control-request-method, access-control-request-headers",
            ),
        }
    }

    fn write(self, headers: &mut HeaderMap) {
        if let Some(origin) = self.allowed {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
        headers.append(VARY, self.varies);
    }
}
