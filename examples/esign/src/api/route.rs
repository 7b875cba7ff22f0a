//! A route of an API, whichever framework serves it: what it demands, and how it answers.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Bytes;
use portunus::{AuthError, ErrorCode, KeyPrincipal, Requirement};
use serde_json::{Map, Value, json};

use crate::app::App;

/// The methods that the APIs have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    /// Whether a body is read.
    pub(crate) fn has_body(self) -> bool {
        matches!(self, Self::Post | Self::Put | Self::Patch)
    }
}

/// What a handler says of a request, or why it refuses.
pub(crate) type Outcome = Result<Reply, AuthError>;

/// An answer.
pub(crate) enum Reply {
    Ok(Value),
    Created(Value),
    NoContent,
}

type Answering = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// One method of one path.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) demand: Requirement,
    handler: Arc<dyn Fn(Call) -> Answering + Send + Sync>,
}

impl Route {
    /// A route whose handler answers at once.
    pub(super) fn new(
        method: Method,
        path: impl Into<String>,
        demand: impl Into<Requirement>,
        handler: impl Fn(&Call) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        Self::later(method, path, demand, move |call| {
            std::future::ready(handler(&call))
        })
    }

    /// A route whose handler must be awaited.
    pub(super) fn later<F: Future<Output = Outcome> + Send + 'static>(
        method: Method,
        path: impl Into<String>,
        demand: impl Into<Requirement>,
        handler: impl Fn(Call) -> F + Send + Sync + 'static,
    ) -> Self {
        let handler = Arc::new(move |call| Box::pin(handler(call)) as Answering);
        Self {
            method,
            path: path.into(),
            demand: demand.into(),
            handler,
        }
    }

    /// What the handler says.
    pub(crate) fn answer(&self, call: Call) -> Answering {
        (self.handler)(call)
    }

    /// Whether the path has parts that vary.
    pub(crate) fn has_segments(&self) -> bool {
        self.path.contains('{')
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.method, self.path)
    }
}

macro_rules! methods {
    ($($name:ident $method:ident),*) => {$(
        pub(super) fn $name(
            path: impl Into<String>,
            demand: impl Into<Requirement>,
            handler: impl Fn(&Call) -> Outcome + Send + Sync + 'static,
        ) -> Route {
            Route::new(Method::$method, path, demand, handler)
        }
    )*};
}

methods! { get Get, post Post, put Put, patch Patch, delete Delete }

/// An admitted request, as far as handlers look at it.
pub(crate) struct Call {
    pub(crate) app: App,
    pub(crate) caller: KeyPrincipal,
    /// The parts of the path that vary, decoded, in their order.
    pub(crate) segments: Vec<String>,
    /// The body's media type.
    pub(crate) media: String,
    pub(crate) body: Bytes,
}

impl Call {
    /// The last part of the path that varies.
    pub(super) fn id(&self) -> &str {
        self.segments.last().map_or("", String::as_str)
    }

    /// The body, a JSON object; nothing counts as an empty one.
    pub(super) fn object(&self) -> Result<Map<String, Value>, AuthError> {
        if self.body.trim_ascii().is_empty() {
            return Ok(Map::new());
        }
        serde_json::from_slice(&self.body).map_err(|_| {
            AuthError::with_detail(ErrorCode::InvalidRequest, "The body is not a JSON object")
        })
    }

    /// All things of one kind that this caller's tenant has in this environment.
    pub(super) fn list(&self, kind: &str) -> Outcome {
        Ok(Reply::Ok(
            json!({ kind: self.app.shelves.all(&self.caller, kind) }),
        ))
    }

    pub(super) fn create(&self, kind: &str) -> Outcome {
        let thing = self.object()?;
        self.app
            .shelves
            .add(&self.caller, kind, thing)
            .map(Reply::Created)
    }

    pub(super) fn show(&self, kind: &str) -> Outcome {
        self.app
            .shelves
            .one(&self.caller, kind, self.id())
            .map(Reply::Ok)
    }

    pub(super) fn change(&self, kind: &str) -> Outcome {
        let facts = self.object()?;
        self.app
            .shelves
            .change(&self.caller, kind, self.id(), facts)
            .map(Reply::Ok)
    }

    pub(super) fn remove(&self, kind: &str) -> Outcome {
        self.app
            .shelves
            .remove(&self.caller, kind, self.id())
            .map(|()| Reply::NoContent)
    }
}
