//! The APIs' routes, served by actix-web with the same answers; operators' calls go to the axum
//! router behind it.

mod bridge;
mod connection;
mod cors;
mod edge;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_http::HttpService;
use actix_service::{IntoServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::dev::{AppConfig, HttpServiceFactory, Server, Service};
use actix_web::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use actix_web::http::{Method as HttpMethod, StatusCode};
use actix_web::middleware::from_fn;
use actix_web::web::{self, Bytes};
use actix_web::{App as ActixApp, FromRequest, HttpRequest, HttpResponse, guard};
use portunus::adapter::actix::{Auth, into_response, require};
use portunus::request::TlsVersion;
use portunus::{AuthError, ErrorCode, KeyPrincipal};
use serde_json::Value;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::api::{self, Call, Method, Reply, Route};
use crate::app::App;
use crate::limits::HEAD;

/// The longest body that is read, in bytes: axum's limit.
const LONGEST_BODY: usize = 2 * 1024 * 1024;

/// A server of all routes on this listener, which ends within so many seconds of being told to
/// stop.
pub(crate) fn server(
    app: &App,
    listener: TcpListener,
    tls: Option<ServerConfig>,
    drain: u64,
) -> io::Result<Server> {
    // The configuration offers no other version.
    let version = tls.is_some().then_some(TlsVersion::V1_3);
    // Made once: all workers share its limits and caches.
    let auth = Auth::new(app.authenticator.clone()).tls(move |_| version);
    let paths = by_path(api::routes(app));
    let management = app.management().with_state(app.clone());
    let app = app.clone();
    let serve = move || {
        let (shared, management) = (app.clone(), management.clone());
        let trusted = Arc::clone(&app.trusted_origins);
        let not_found = move || {
            let error = AuthError::new(ErrorCode::NotFound);
            std::future::ready(into_response(shared.answer(&error), &error))
        };
        let bridge =
            move |request, payload| bridge::call(management.clone(), version, request, payload);
        let mut routes = ActixApp::new().service(health());
        for path in ["/admin", "/admin/{rest:.*}", "/demo/users/{id}"] {
            let behind = web::resource(path).guard(as_it_stands(path.into()));
            routes = routes.service(behind.to(bridge.clone()));
        }
        for handlers in &paths {
            routes = routes.service(resource(&app, &auth, handlers));
        }
        routes
            .default_service(web::to(not_found))
            .wrap(from_fn(move |request, next| {
                cors::outermost(Arc::clone(&trusted), request, next)
            }))
            .wrap(from_fn(edge::answer))
    };
    let server = Server::build().disable_signals().shutdown_timeout(drain);
    let stopping = server.graceful_shutdown_signal();
    let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
    // What `HttpServer` does, but for how a connection begins and ends.
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
            // The connection itself lingers, where there is something to linger for.
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

/// The routes of each path together, in their order.
fn by_path(routes: Vec<Route>) -> Vec<Vec<Arc<Route>>> {
    let mut paths: Vec<Vec<Arc<Route>>> = Vec::new();
    for route in routes.into_iter().map(Arc::new) {
        match paths
            .iter_mut()
            .find(|known| known.iter().any(|other| other.path == route.path))
        {
            Some(known) => known.push(route),
            None => paths.push(vec![route]),
        }
    }
    paths
}

/// A path with its methods, each behind what it demands, all behind a key.
fn resource(app: &App, auth: &Auth, handlers: &[Arc<Route>]) -> impl HttpServiceFactory + use<> {
    let path = handlers
        .first()
        .map_or_else(String::new, |route| route.path.clone());
    let mut resource = web::resource(path.as_str());
    for route in handlers {
        let (app, shared) = (app.clone(), Arc::clone(route));
        let answer = move |caller: KeyPrincipal, request: HttpRequest, payload: web::Payload| {
            answer(Arc::clone(&shared), app.clone(), caller, request, payload)
        };
        let guarded = web::route().guard(of_method(route.method)).to(answer);
        resource = resource.route(guarded.wrap(require(route.demand.clone())));
    }
    let methods = Methods::of(handlers.iter().map(|route| route.method));
    resource
        .guard(as_it_stands(path))
        .wrap(auth.clone())
        .wrap_fn(move |request, service| {
            let allow = methods.lacks(request.method());
            let answer = service.call(request);
            async move { answer.await.map(|answer| telling(allow, answer)) }
        })
}

/// What everybody may ask.
fn health() -> impl HttpServiceFactory {
    let methods = Methods::of([Method::Get].into_iter());
    let answer = || std::future::ready(json(StatusCode::OK, &api::health()));
    let healthy =
        web::resource("/healthz").route(web::route().guard(of_method(Method::Get)).to(answer));
    healthy
        .guard(as_it_stands("/healthz".into()))
        .wrap_fn(move |request, service| {
            let allow = methods.lacks(request.method());
            let answer = service.call(request);
            async move { answer.await.map(|answer| telling(allow, answer)) }
        })
}

/// As axum's router has it: `HEAD` is a `GET` without the body of its answer.
fn of_method(method: Method) -> impl guard::Guard {
    guard::fn_guard(move |context| {
        let asked = &context.head().method;
        asked.as_str() == name(method) || (method == Method::Get && *asked == HttpMethod::HEAD)
    })
}

const fn name(method: Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Patch => "PATCH",
        Method::Delete => "DELETE",
    }
}

/// As axum's router has it: a path that is percent-encoded where the pattern is literal is another
/// path.
fn as_it_stands(pattern: String) -> impl guard::Guard {
    guard::fn_guard(move |context| {
        let (path, pattern) = (context.head().uri.path().split('/'), pattern.split('/'));
        path.zip(pattern)
            .all(|(asked, literal)| literal.starts_with('{') || asked == literal)
    })
}

/// The methods of a path, as `Allow` lists them.
#[derive(Clone)]
struct Methods {
    names: Vec<&'static str>,
    listed: HeaderValue,
}

impl Methods {
    fn of(methods: impl Iterator<Item = Method>) -> Self {
        let names = methods.flat_map(|method| match method {
            Method::Get => vec!["GET", "HEAD"],
            method => vec![name(method)],
        });
        let names: Vec<_> = names.collect();
        let listed =
            HeaderValue::from_str(&names.join(",")).unwrap_or(HeaderValue::from_static(""));
        Self { names, listed }
    }

    /// What is told to whoever asks by another method.
    fn lacks(&self, method: &HttpMethod) -> Option<HeaderValue> {
        (!self.names.contains(&method.as_str())).then(|| self.listed.clone())
    }
}

type Answer<B> = actix_web::dev::ServiceResponse<B>;

fn telling<B>(allow: Option<HeaderValue>, mut answer: Answer<B>) -> Answer<B> {
    if let Some(allow) = allow {
        answer.headers_mut().insert(ALLOW, allow);
    }
    answer
}

/// Reads what the handler looks at, and gives its answer.
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

/// The whole body, or the refusal of one that is too long or breaks off.
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
    // As axum has it, whatever broke off or cannot be parsed.
    let broken = "error reading a body from connection";
    read.map_err(|_| refusal(StatusCode::BAD_REQUEST, broken))
}
