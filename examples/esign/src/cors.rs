//! CORS, the outermost layer: answers preflights, which need no key. A plain `OPTIONS` is a request
//! like any other.
//!
//! The APIs take keys in a header that browsers never add by themselves, so any origin may read
//! their responses, without cookies. The management API is shared with trusted origins only.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_REQUEST_METHOD, ALLOW, ETAG, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::map_request;
use portunus_admin::Origin;
use tower::{ServiceExt, service_fn};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, Any, CorsLayer};

/// Whether a path belongs to operators: the management API, self-serve, the dashboard.
pub(crate) fn is_management(path: &str) -> bool {
    ["/admin", "/me", "/dashboard"]
        .iter()
        .filter_map(|prefix| path.strip_prefix(prefix))
        .any(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether an `Origin` value is in the list of trusted origins.
pub(crate) fn is_trusted(trusted: &[Origin], origin: &[u8]) -> bool {
    let text = str::from_utf8(origin).ok();
    text.and_then(|text| text.parse().ok())
        .is_some_and(|origin| trusted.contains(&origin))
}

/// Marks a plain `OPTIONS` that has another method until it has passed the CORS layer, which treats every
/// `OPTIONS` as a preflight.
#[derive(Debug, Clone)]
struct PlainOptions;

async fn restore_method(mut request: Request) -> Request {
    if request.extensions_mut().remove::<PlainOptions>().is_some() {
        *request.method_mut() = Method::OPTIONS;
    }
    request
}

/// Wraps the router in CORS: the management API allows exactly the trusted origins, everything else
/// allows any.
pub(crate) fn outermost(app: Router, trusted: Arc<[Origin]>) -> Router {
    let cors = CorsLayer::new()
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .max_age(Duration::from_secs(600));
    let exposed = vec![
        WWW_AUTHENTICATE,
        RETRY_AFTER,
        HeaderName::from_static("ratelimit"),
        HeaderName::from_static("ratelimit-policy"),
    ];
    let listed = move |origin: &HeaderValue, _: &_| is_trusted(&trusted, origin.as_bytes());
    let for_management = cors
        .clone()
        .allow_origin(AllowOrigin::predicate(listed))
        .expose_headers([exposed.clone(), vec![ETAG]].concat());
    let for_others = cors.allow_origin(Any).expose_headers(exposed);
    let app = Router::new()
        .fallback_service(app)
        .layer(map_request(restore_method));
    let management = app.clone().layer(for_management);
    let others = app.layer(for_others);
    Router::new().fallback_service(service_fn(move |mut request: Request| {
        let with_cors = match is_management(request.uri().path()) {
            true => management.clone(),
            false => others.clone(),
        };
        async move {
            let options = request.method() == Method::OPTIONS;
            // A preflight has these two fields (Fetch §4.8).
            let headers = request.headers();
            let preflight = options
                && headers.contains_key(ORIGIN)
                && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
            if options && !preflight {
                *request.method_mut() = Method::GET;
                request.extensions_mut().insert(PlainOptions);
            }
            let mut response = with_cors
                .oneshot(request)
                .await
                .unwrap_or_else(|never| match never {});
            if preflight {
                *response.status_mut() = StatusCode::NO_CONTENT;
                // Added by axum's method router inside the layer.
                response.headers_mut().remove(ALLOW);
            }
            Ok::<_, Infallible>(response)
        }
    }))
}
