//! The APIs' routes, served by actix-web with the same responses as axum. Calls by operators are
//! passed to the axum router (`ActixMount`).

mod connection;
mod cors;
mod edge;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_http::HttpService;
use actix_service::{IntoServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::dev::{AppConfig, Server};
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use actix_web::middleware::from_fn;
use actix_web::web::{self, Bytes};
use actix_web::{App as ActixApp, FromRequest, HttpRequest, HttpResponse};
use axum::extract::{ConnectInfo, State};
use portunus::adapter::actix::{
    Auth, ProtectedRouter, delete, get, into_response, patch, post, put,
};
use portunus::request::TlsVersion;
use portunus::{AuthError, ErrorCode, KeyPrincipal};
use portunus_admin::ActixMount;
use serde_json::Value;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::api::{self, Call, Method, Reply, Route};
use crate::app::App;
use crate::limits::HEAD;
use crate::tls::Peer;

/// The maximum length of a request body in bytes. Same as axum's default limit.
const LONGEST_BODY: usize = 2 * 1024 * 1024;

/// The paths of operators, whose routes are axum's.
const OF_OPERATORS: [&str; 7] = [
    "/admin",
    "/dashboard",
    "/me/login",
    "/me/logout",
    "/me/api",
    "/me/keys",
    "/demo/users",
];

/// Builds a server of all routes on a listener. On shutdown, requests in flight have `drain`
/// seconds to complete.
pub(crate) fn server(
    app: &App,
    listener: TcpListener,
    tls: Option<ServerConfig>,
    drain: u64,
) -> io::Result<Server> {
    // The TLS configuration offers only this version.
    let version = tls.is_some().then_some(TlsVersion::V1_3);
    // Built once, so that all workers share its limits and caches.
    let auth = Auth::new(app.authenticator.clone()).tls(move |_| version);
    let routes: Vec<_> = api::routes(app).into_iter().map(Arc::new).collect();
    let unknown = |State(app): State<App>| async move { app.unknown_path() };
    let management = app.management().fallback(unknown).with_state(app.clone());
    let mounts = OF_OPERATORS.map(|path| {
        let mount = ActixMount::new(management.clone(), path);
        mount.extensions(move |request, extensions| {
            if let Some(address) = request.peer_addr() {
                let tls = version;
                extensions.insert(ConnectInfo(Peer { address, tls }));
            }
        })
    });
    let app = app.clone();
    let serve = move || {
        let shared = app.clone();
        let trusted = Arc::clone(&app.trusted_origins);
        let not_found = move || {
            let error = AuthError::new(ErrorCode::NotFound);
            std::future::ready(into_response(shared.answer(&error), &error))
        };
        let mut site = ActixApp::new();
        for mount in &mounts {
            site = site.service(mount.clone());
        }
        let health = || std::future::ready(json(StatusCode::OK, &api::health()));
        let open = ProtectedRouter::new(auth.clone()).route("/healthz", get(health).public());
        let add = |router, route| add(router, &app, route);
        site.service(routes.iter().fold(open, add))
            .default_service(web::to(not_found))
            .wrap(from_fn(move |request, next| {
                cors::outermost(Arc::clone(&trusted), request, next)
            }))
            .wrap(from_fn(edge::answer))
    };
    let server = Server::build().disable_signals().shutdown_timeout(drain);
    let stopping = server.graceful_shutdown_signal();
    let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
    // The same as `HttpServer`, except for how a connection is accepted and closed.
    let server = server.listen("esign", listener, move || {
        let serve = serve().into_factory();
        let serve = serve.map_err(|error: actix_web::Error| error.error_response());
        let (told, accepted) = (stopping.clone(), stopping.clone());
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let told = told.clone();
                async move { told.notified().await }
            })
            .keep_alive(HEAD)
            .client_request_timeout(HEAD)
            // The connection lingers by itself (`Lingering`).
            .client_disconnect_timeout(Duration::ZERO)
            .on_connect_ext(|connection: &connection::Connection, data| {
                data.insert(Arc::clone(&connection.activity));
            })
            .finish(map_config(serve, |()| AppConfig::default()));
        let tls = tls.clone();
        fn_service(move |stream| {
            let (tls, stopping) = (tls.clone(), accepted.clone());
            connection::accept(stream, tls, async move { stopping.notified().await })
        })
        .and_then(http)
    })?;
    Ok(server.run())
}

/// Adds a route.
fn add(router: ProtectedRouter, app: &App, route: &Arc<Route>) -> ProtectedRouter {
    let (app, shared) = (app.clone(), Arc::clone(route));
    let answer = move |caller: KeyPrincipal, request: HttpRequest, payload: web::Payload| {
        answer(Arc::clone(&shared), app.clone(), caller, request, payload)
    };
    let handler = match route.method {
        Method::Get => get(answer),
        Method::Post => post(answer),
        Method::Put => put(answer),
        Method::Patch => patch(answer),
        Method::Delete => delete(answer),
    };
    router.route(&route.path, handler.require(route.requirement.clone()))
}

/// Reads the request's parameters and body, and calls the handler.
async fn answer(
    route: Arc<Route>,
    app: App,
    caller: KeyPrincipal,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    let mut segments = Vec::new();
    if route.has_segments() {
        match web::Path::<Vec<String>>::extract(&request).await {
            Ok(path) => segments = path.into_inner(),
            Err(error) => return HttpResponse::from_error(error),
        }
    }
    let mut body = Bytes::new();
    if route.method.has_body() {
        match read(&request, payload).await {
            Ok(bytes) => body = bytes,
            Err(response) => return response,
        }
    }
    let media = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let call = Call {
        app: app.clone(),
        caller,
        segments,
        media: media.to_owned(),
        body,
    };
    match route.answer(call).await {
        Ok(Reply::Ok(body)) => json(StatusCode::OK, &body),
        Ok(Reply::Created(body)) => json(StatusCode::CREATED, &body),
        Ok(Reply::NoContent) => HttpResponse::NoContent().finish(),
        Err(error) => into_response(app.answer(&error), &error),
    }
}

fn json(status: StatusCode, body: &Value) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("application/json")
        .body(body.to_string())
}

/// Reads the whole body. Returns the error response if it is too long or incomplete.
async fn read(request: &HttpRequest, payload: web::Payload) -> Result<Bytes, HttpResponse> {
    let refusal = |status: StatusCode, why: &str| {
        let text = format!("Failed to buffer the request body: {why}");
        HttpResponse::build(status)
            .content_type("text/plain; charset=utf-8")
            .body(text)
    };
    let too_long = || refusal(StatusCode::PAYLOAD_TOO_LARGE, "length limit exceeded");
    let length = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > LONGEST_BODY) {
        return Err(too_long());
    }
    let read = payload
        .to_bytes_limited(LONGEST_BODY)
        .await
        .map_err(|_| too_long())?;
    // The same text as axum's, for incomplete and malformed bodies alike.
    let broken = "error reading a body from connection";
    read.map_err(|_| refusal(StatusCode::BAD_REQUEST, broken))
}
