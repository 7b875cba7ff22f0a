//! CORS, outermost: preflights are answered here and never need a key; a plain `OPTIONS` is a
//! request like any other.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, Method, StatusCode};
use tower::{ServiceExt, service_fn};
use tower_http::cors::{AllowHeaders, AllowMethods, Any, CorsLayer};

/// The router with CORS around it: any origin, no cookies, as an API that takes keys in a header
/// can allow.
pub(crate) fn outermost(app: Router) -> Router {
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([
            WWW_AUTHENTICATE,
            RETRY_AFTER,
            HeaderName::from_static("ratelimit"),
            HeaderName::from_static("ratelimit-policy"),
        ])
        .max_age(Duration::from_secs(600));
    let with_cors = app.clone().layer(cors);
    Router::new().fallback_service(service_fn(move |request: Request| {
        let (plain, with_cors) = (app.clone(), with_cors.clone());
        async move {
            let options = request.method() == Method::OPTIONS;
            // The CORS layer takes every OPTIONS for a preflight; a preflight has these two fields
            // (Fetch §4.8).
            let headers = request.headers();
            let preflight = options
                && headers.contains_key(ORIGIN)
                && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
            if options && !preflight {
                return Ok::<_, Infallible>(
                    plain
                        .oneshot(request)
                        .await
                        .unwrap_or_else(|never| match never {}),
                );
            }
            let mut response = with_cors
                .oneshot(request)
                .await
                .unwrap_or_else(|never| match never {});
            if preflight {
                *response.status_mut() = StatusCode::NO_CONTENT;
            }
            Ok(response)
        }
    }))
}
