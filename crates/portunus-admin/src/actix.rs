//! The management API on actix-web: requests are passed to the axum router in process, and bodies are
//! streamed in both directions.
//!
//! Of a body, one chunk is in memory for each direction.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{AppService, HttpServiceFactory};
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use actix_web::web::{self, Bytes};
use actix_web::{HttpRequest, HttpResponse, guard};
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::ConnectInfo;
use axum::http::{self, Extensions, Method, Request};
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tower::{ServiceExt, service_fn};

use crate::Admin;

type Extend = dyn Fn(&HttpRequest, &mut Extensions) + Send + Sync;

/// An axum router as a service of actix-web 4, under a path of the site ([`Admin::into_actix`]).
/// Build it once, outside the closure that `HttpServer::new` calls for every worker, and add a clone
/// to each `App`. Workers then share the limits of the API.
#[derive(Clone)]
pub struct ActixMount {
    router: Router,
    /// Without a slash at its end; empty for the whole site.
    path: Arc<str>,
    extend: Option<Arc<Extend>>,
}

impl Admin {
    /// Builds the API for actix-web 4, under a path such as `/admin`, or `/` for the whole site. The
    /// path is that of the request as actix-web sees it, also within a `web::scope`.
    ///
    /// ```no_run
    /// # fn with(keys: &portunus::Portunus, proof: impl portunus_admin::OperatorProof) {
    /// use actix_web::App;
    /// use portunus_admin::Admin;
    ///
    /// let admin = Admin::new(keys, proof).into_actix("/admin");
    /// let app = move || App::new().service(admin.clone());
    /// # }
    /// ```
    #[must_use]
    pub fn into_actix(self, path: &str) -> ActixMount {
        let admin = self.into_router();
        let path = path.trim_end_matches('/');
        if path.is_empty() {
            return ActixMount::new(admin, path);
        }
        // Not a route of the nested router, which therefore does not see it.
        let unknown = admin.clone();
        let unknown = service_fn(move |request| unknown.clone().oneshot(request));
        let router = Router::new()
            .route_service(&format!("{path}/"), unknown)
            .nest(path, admin);
        ActixMount::new(router, path)
    }
}

#[cfg(feature = "dashboard")]
impl crate::Dashboard {
    /// Builds the dashboard for actix-web 4, under a path such as `/keys`, or `/` for the whole site,
    /// as [`Admin::into_actix`] does.
    ///
    /// What a middleware of the host adds to a request reaches [`nonce`](Self::nonce) through
    /// [`ActixMount::extensions`]:
    ///
    /// ```
    /// use actix_web::body::MessageBody;
    /// use actix_web::dev::{ServiceRequest, ServiceResponse};
    /// use actix_web::http::header::{CONTENT_SECURITY_POLICY, HeaderValue};
    /// use actix_web::middleware::{Next, from_fn};
    /// use actix_web::{App, Error, HttpMessage};
    /// use portunus_admin::Admin;
    /// # use portunus::{AuthError, ErrorCode, Portunus};
    /// # #[derive(Debug)]
    /// # struct Sessions;
    /// # #[async_trait::async_trait]
    /// # impl portunus_admin::OperatorProof for Sessions {
    /// #     async fn prove(
    /// #         &self,
    /// #         _: &axum::http::request::Parts,
    /// #     ) -> Result<portunus::manage::Operator, AuthError> {
    /// #         Err(AuthError::new(ErrorCode::MissingKey))
    /// #     }
    /// # }
    /// # fn random() -> String {
    /// #     portunus::key::KeyId::generate().unwrap().to_string()
    /// # }
    ///
    /// #[derive(Clone)]
    /// struct Nonce(String);
    ///
    /// // A middleware around the whole site.
    /// async fn policy<B: MessageBody>(
    ///     request: ServiceRequest,
    ///     next: Next<B>,
    /// ) -> Result<ServiceResponse<B>, Error> {
    ///     let nonce = random();
    ///     request.extensions_mut().insert(Nonce(nonce.clone()));
    ///     let mut response = next.call(request).await?;
    ///     let policy = format!("script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'");
    ///     if let Ok(policy) = HeaderValue::from_str(&policy) {
    ///         response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    ///     }
    ///     Ok(response)
    /// }
    ///
    /// # let format = portunus::key::KeyFormat::builder("acme_").random(portunus::key::Alphabet::BASE62, 32);
    /// # let keys = Portunus::builder(format.build()?).store(portunus::store::MemoryStore::new()).build()?;
    /// let dashboard = Admin::new(&keys, Sessions)
    ///     .dashboard()
    ///     .nonce(|request| request.get::<Nonce>().map(|nonce| nonce.0.clone()))
    ///     .into_actix("/keys")
    ///     .extensions(|request, extensions| {
    ///         if let Some(nonce) = request.extensions().get::<Nonce>() {
    ///             extensions.insert(nonce.clone());
    ///         }
    ///     });
    /// let app = move || App::new().service(dashboard.clone()).wrap(from_fn(policy));
    /// # actix_web::rt::System::new().block_on(async {
    /// #     use actix_web::test::{TestRequest, call_service, init_service, read_body};
    /// #     let service = init_service(app()).await;
    /// #     for path in ["/keys", "/keys/"] {
    /// #         let response = call_service(&service, TestRequest::get().uri(path).to_request()).await;
    /// #         assert_eq!(response.status(), 401, "{path}");
    /// #         let policy = response.headers().get(CONTENT_SECURITY_POLICY).unwrap();
    /// #         let policy = policy.to_str().unwrap().to_owned();
    /// #         let page = read_body(response).await;
    /// #         let page = std::str::from_utf8(&page).unwrap();
    /// #         let nonce = policy.split(['\'', '-']).skip_while(|part| *part != "nonce").nth(1).unwrap();
    /// #         assert!(nonce.starts_with("key_"));
    /// #         assert_eq!(page.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
    /// #     }
    /// # });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn into_actix(self, path: &str) -> ActixMount {
        let path = path.trim_end_matches('/');
        let router = match path {
            "" => self.into_router(),
            path => Router::new().nest_service(path, self.into_router::<()>()),
        };
        ActixMount::new(router, path)
    }
}

impl ActixMount {
    /// Passes the requests under a path to a router, which sees whole paths.
    #[must_use]
    pub fn new(router: Router, path: &str) -> Self {
        Self {
            router,
            path: path.trim_end_matches('/').into(),
            extend: None,
        }
    }

    /// Sets a function that adds what the [`OperatorProof`](crate::OperatorProof) needs of a request
    /// or its connection. `ConnectInfo<SocketAddr>` is added in any case.
    #[must_use]
    pub fn extensions(
        mut self,
        extend: impl Fn(&HttpRequest, &mut Extensions) + Send + Sync + 'static,
    ) -> Self {
        self.extend = Some(Arc::new(extend));
        self
    }

    async fn call(self, request: HttpRequest, payload: web::Payload) -> HttpResponse<Streamed> {
        let (mut feed, body) = Feed::new(payload);
        let Some(forwarded) = self.forwarded(&request, body) else {
            return empty(StatusCode::BAD_REQUEST, feed);
        };
        let mut answer = pin!(self.router.oneshot(forwarded));
        // The body is fed from the same poll as the response: actix-web drops a request with malformed
        // chunks in the poll in which it detects them, and accepts no later response.
        let answer = poll_fn(|context| {
            loop {
                let polled = answer.as_mut().poll(context);
                if polled.is_ready() || !feed.forward_next(context) {
                    return polled;
                }
            }
        });
        let (parts, body) = match answer.await {
            Ok(answer) => answer.into_parts(),
            Err(never) => match never {},
        };
        let status = StatusCode::from_u16(parts.status.as_u16());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // No `Content-Length: 0` for a 304: it would be that of the 200 response (RFC 9110 §8.6).
        let has_body = status != StatusCode::NOT_MODIFIED;
        let streamed = Streamed {
            body: has_body.then_some(body),
            feed,
        };
        let mut response = HttpResponse::with_body(status, streamed);
        for (name, value) in &parts.headers {
            let (name, value) = (
                HeaderName::from_bytes(name.as_str().as_bytes()),
                HeaderValue::from_bytes(value.as_bytes()),
            );
            // actix-web sets the content length itself.
            if let (Ok(name), Ok(value)) = (name, value)
                && name != CONTENT_LENGTH
            {
                response.headers_mut().append(name, value);
            }
        }
        response
    }

    /// Converts a request to the types of `http` 1.
    fn forwarded(&self, request: &HttpRequest, body: Body) -> Option<Request<Body>> {
        let mut forwarded = Request::new(body);
        let method = Method::from_bytes(request.method().as_str().as_bytes()).ok()?;
        // actix-web omits the body of the response.
        *forwarded.method_mut() = match method {
            Method::HEAD => Method::GET,
            method => method,
        };
        *forwarded.uri_mut() = request.uri().to_string().parse().ok()?;
        for (name, value) in request.headers() {
            if *name != TRANSFER_ENCODING {
                let name = http::HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
                let value = http::HeaderValue::from_bytes(value.as_bytes()).ok()?;
                forwarded.headers_mut().append(name, value);
            }
        }
        let extensions = forwarded.extensions_mut();
        if let Some(address) = request.peer_addr() {
            extensions.insert(ConnectInfo(address));
        }
        if let Some(extend) = &self.extend {
            extend(request, extensions);
        }
        Some(forwarded)
    }
}

impl HttpServiceFactory for ActixMount {
    fn register(self, config: &mut AppService) {
        let path = Arc::clone(&self.path);
        // As in axum's router, a percent-encoded spelling of the path is another path.
        let is_below = guard::fn_guard(move |context| {
            let rest = context.head().uri.path().strip_prefix(&*path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        let call = move |request, payload| self.clone().call(request, payload);
        web::resource("/{below:.*}")
            .guard(is_below)
            .to(call)
            .register(config);
    }
}

impl fmt::Debug for ActixMount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActixMount")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

fn empty(status: StatusCode, feed: Feed) -> HttpResponse<Streamed> {
    let body = Some(Body::empty());
    HttpResponse::with_body(status, Streamed { body, feed })
}

/// The body of a response. While it waits, more of the request's body is read: a router may answer
/// before it has read all of it.
struct Streamed {
    body: Option<Body>,
    feed: Feed,
}

impl MessageBody for Streamed {
    type Error = axum::Error;

    fn size(&self) -> BodySize {
        let Some(body) = &self.body else {
            return BodySize::None;
        };
        body.size_hint()
            .exact()
            .map_or(BodySize::Stream, BodySize::Sized)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, axum::Error>>> {
        let Self { body, feed } = &mut *self;
        let Some(body) = body else {
            return Poll::Ready(None);
        };
        loop {
            match Pin::new(&mut *body).poll_frame(context) {
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Poll::Pending if feed.forward_next(context) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

type Chunk = Result<Bytes, String>;

/// Streams the request's body through a channel, because actix-web's payload must stay on its
/// thread.
struct Feed {
    payload: web::Payload,
    slot: Slot,
}

/// The place for the next chunk.
enum Slot {
    /// The receiver has not taken the previous chunk yet.
    Taken(Pin<Box<dyn Future<Output = Slot>>>),
    Free(mpsc::OwnedPermit<Chunk>),
    /// The body has been read completely, or nobody reads it.
    Closed,
}

impl Slot {
    fn after(sender: mpsc::Sender<Chunk>) -> Self {
        Self::Taken(Box::pin(async {
            let permit = sender.reserve_owned().await;
            permit.map_or(Self::Closed, Self::Free)
        }))
    }
}

impl Feed {
    fn new(payload: web::Payload) -> (Self, Body) {
        let (sender, mut receiver) = mpsc::channel::<Chunk>(1);
        let body = stream::poll_fn(move |context| receiver.poll_recv(context));
        let slot = Slot::after(sender);
        (Self { payload, slot }, Body::from_stream(body))
    }

    /// Forwards the next chunk, or the end of the body, if the receiver has taken the previous one.
    /// Returns whether anything happened; otherwise, the task is woken when it can.
    fn forward_next(&mut self, context: &mut Context<'_>) -> bool {
        self.slot = match std::mem::replace(&mut self.slot, Slot::Closed) {
            Slot::Closed => return false,
            Slot::Taken(mut wait) => match wait.as_mut().poll(context) {
                Poll::Ready(slot) => slot,
                Poll::Pending => {
                    self.slot = Slot::Taken(wait);
                    return false;
                }
            },
            Slot::Free(permit) => match self.payload.poll_next_unpin(context) {
                Poll::Ready(Some(chunk)) => {
                    let chunk = chunk.map_err(|error| error.to_string());
                    Slot::after(permit.send(chunk))
                }
                Poll::Ready(None) => Slot::Closed,
                Poll::Pending => {
                    self.slot = Slot::Free(permit);
                    return false;
                }
            },
        };
        true
    }
}
