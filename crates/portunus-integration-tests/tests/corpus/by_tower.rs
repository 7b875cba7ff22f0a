//! The test site on hyper, with only tower's layers.

use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn as hyper_service;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use portunus::adapter::tower::{AuthLayer, require};
use portunus::{Authenticator, KeyPrincipal, Requirement};
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt, service_fn};

use crate::configuration::layer;
use crate::routes::{FORGOTTEN, GET_ONLY, MAYBE, NEST, PERHAPS, PUBLIC, demands, nested, whoami};

type Asked = Request<Incoming>;
type Answered = Response<Full<Bytes>>;

/// Serves until the runtime ends.
pub(crate) async fn start(authenticator: Authenticator, configuration: &str) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let layer = layer(configuration, authenticator);
    let whole = demands()
        .into_iter()
        .map(|(path, demand)| (path.to_owned(), demand));
    let beneath = nested()
        .into_iter()
        .map(|(path, demand)| (format!("{NEST}{path}"), demand));
    let demands = Arc::new(whole.chain(beneath).collect::<Vec<_>>());
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let (layer, demands) = (layer.clone(), Arc::clone(&demands));
            let service = hyper_service(move |mut request: Asked| {
                request.extensions_mut().insert(peer);
                site(request, layer.clone(), Arc::clone(&demands))
            });
            tokio::spawn(async move {
                Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await
            });
        }
    });
    address
}

/// The layer covers everything that is not public, so an unknown path needs a key before it is
/// routed.
async fn site(
    request: Asked,
    layer: AuthLayer,
    demands: Arc<Vec<(String, Requirement)>>,
) -> Result<Answered, Infallible> {
    if request.uri().path() == PUBLIC {
        return Ok(text("ok".into()));
    }
    if request
        .uri()
        .path()
        .starts_with(FORGOTTEN.trim_end_matches("{id}"))
    {
        let inner = service_fn(|request: Asked| handler(&request));
        return require(Requirement::none())
            .layer(inner)
            .oneshot(request)
            .await;
    }
    if request.uri().path() == PERHAPS {
        let inner = service_fn(|request: Asked| handler(&request));
        let inner = require(Requirement::none().any_workspace())
            .optional_key()
            .layer(inner);
        return layer.optional_key().layer(inner).oneshot(request).await;
    }
    // Those beneath the prefix have their requirement inside of the layer, the others in it.
    if let Some(demand) = demand_of(request.uri().path(), &demands)
        && !request.uri().path().starts_with(NEST)
    {
        let inner = service_fn(|request: Asked| handler(&request));
        return layer.require(demand).layer(inner).oneshot(request).await;
    }
    let inner = service_fn(move |request: Asked| {
        let demand = demand_of(request.uri().path(), &demands);
        async move {
            match (request.uri().path(), demand) {
                (_, Some(demand)) => {
                    require(demand)
                        .layer(service_fn(|request: Asked| handler(&request)))
                        .oneshot(request)
                        .await
                }
                (MAYBE, _) => handler(&request).await,
                (GET_ONLY, _) if request.method() == "GET" || request.method() == "HEAD" => {
                    handler(&request).await
                }
                (GET_ONLY, _) => {
                    let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
                    response
                        .headers_mut()
                        .insert(ALLOW, HeaderValue::from_static("GET,HEAD"));
                    Ok(response)
                }
                _ => Ok(empty(StatusCode::NOT_FOUND)),
            }
        }
    });
    layer.layer(inner).oneshot(request).await
}

/// Compares the raw path segment by segment; `{ws}` matches any segment that is not empty.
fn demand_of(path: &str, demands: &[(String, Requirement)]) -> Option<Requirement> {
    let fits = |pattern: &str| {
        let (mut parts, mut known) = (path.split('/'), pattern.split('/'));
        let same = known.by_ref().all(|known| match parts.next() {
            Some(part) if known.starts_with('{') => !part.is_empty(),
            part => part == Some(known),
        });
        same && parts.next().is_none()
    };
    demands
        .iter()
        .find(|(pattern, _)| fits(pattern))
        .map(|(_, demand)| demand.clone())
}

fn handler(request: &Asked) -> std::future::Ready<Result<Answered, Infallible>> {
    ready(Ok(text(whoami(request.extensions().get::<KeyPrincipal>()))))
}

fn text(body: String) -> Answered {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

fn empty(status: StatusCode) -> Answered {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
