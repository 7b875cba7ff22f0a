//! The APIs' routes, served by axum.

mod edge;
mod server;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method as HttpMethod, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use portunus::adapter::axum::{ProtectedRouter, delete, get, patch, post, put};
use portunus::{AuthError, ErrorCode, KeyPrincipal};

pub(crate) use server::serve;

use crate::api::{Call, Method, Reply, Route};
use crate::app::App;
use crate::cors::is_management;

/// Adds a route.
pub(crate) fn add(router: ProtectedRouter<App>, route: Route) -> ProtectedRouter<App> {
    let (method, path, requirement) = (route.method, route.path.clone(), route.requirement.clone());
    let answer = move |State(app): State<App>, caller: KeyPrincipal, request: Request| {
        let route = route.clone();
        async move {
            match call(&route, app.clone(), caller, request).await {
                Ok(call) => match route.answer(call).await {
                    Ok(Reply::Ok(body)) => Json(body).into_response(),
                    Ok(Reply::Created(body)) => (StatusCode::CREATED, Json(body)).into_response(),
                    Ok(Reply::NoContent) => StatusCode::NO_CONTENT.into_response(),
                    Err(error) => app.refuse(&error),
                },
                Err(rejection) => rejection,
            }
        }
    };
    let route = match method {
        Method::Get => get(answer),
        Method::Post => post(answer),
        Method::Put => put(answer),
        Method::Patch => patch(answer),
        Method::Delete => delete(answer),
    };
    router.route(&path, route.require(requirement))
}

/// Answers 404 for paths with an empty segment. axum's router accepts an empty parameter in the
/// middle of a path, so that `/documents//send` would match a route; actix-web's router does not.
pub(crate) async fn reject_empty_segments(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    // The management API uses the same router with both frameworks.
    let ours = !is_management(path) && !path.starts_with("/demo/users/");
    if !(ours && path.contains("//")) {
        return next.run(request).await;
    }
    let unknown = app.unknown_path();
    // axum removes the body of a HEAD response only in its routes, and HTTP/2 would send it.
    match *request.method() {
        HttpMethod::HEAD => unknown.map(|_| Body::empty()),
        _ => unknown,
    }
}

/// Reads the request's parameters and body. Returns axum's rejection if they cannot be read.
async fn call(
    route: &Route,
    app: App,
    caller: KeyPrincipal,
    request: Request,
) -> Result<Call, Response> {
    let (mut parts, body) = request.into_parts();
    let media = parts
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let mut segments = Vec::new();
    if route.has_segments() {
        let path = Path::<Vec<String>>::from_request_parts(&mut parts, &()).await;
        // Not UTF-8: nothing has such an id.
        segments = path
            .map_err(|_| app.refuse(&AuthError::new(ErrorCode::NotFound)))?
            .0;
    }
    let mut bytes = Bytes::new();
    if route.method.has_body() {
        let read = Bytes::from_request(Request::from_parts(parts, body), &()).await;
        bytes = read.map_err(IntoResponse::into_response)?;
    }
    Ok(Call {
        app,
        caller,
        segments,
        media,
        body: bytes,
    })
}
