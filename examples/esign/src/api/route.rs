//! A route of an API, independent of the framework: its requirement and its handler.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Bytes;
use portunus::{AuthError, ErrorCode, KeyPrincipal, Requirement};
use serde_json::{Map, Value, json};

use crate::app::App;

/// The methods that the APIs use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    /// Whether requests with this method have a body.
    pub(crate) fn has_body(self) -> bool {
        matches!(self, Self::Post | Self::Put | Self::Patch)
    }
}

/// A handler's result.
pub(crate) type Outcome = Result<Reply, AuthError>;

/// A handler's response.
pub(crate) enum Reply {
    Ok(Value),
    Created(Value),
    NoContent,
}

type ReplyFuture = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// One method of one path.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) requirement: Requirement,
    handler: Arc<dyn Fn(Call) -> ReplyFuture + Send + Sync>,
}

impl Route {
    /// A route with a synchronous handler.
    pub(super) fn new(
        method: Method,
        path: impl Into<String>,
        requirement: impl Into<Requirement>,
        handler: impl Fn(&Call) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        Self::later(method, path, requirement, move |call| {
            std::future::ready(handler(&call))
        })
    }

    /// A route with an asynchronous handler.
    pub(super) fn later<F: Future<Output = Outcome> + Send + 'static>(
        method: Method,
        path: impl Into<String>,
        requirement: impl Into<Requirement>,
        handler: impl Fn(Call) -> F + Send + Sync + 'static,
    ) -> Self {
        let handler = Arc::new(move |call| Box::pin(handler(call)) as ReplyFuture);
        Self {
            method,
            path: path.into(),
            requirement: requirement.into(),
            handler,
        }
    }

    /// Calls the handler.
    pub(crate) fn answer(&self, call: Call) -> ReplyFuture {
        (self.handler)(call)
    }

    /// Whether the path has parameters.
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
            requirement: impl Into<Requirement>,
            handler: impl Fn(&Call) -> Outcome + Send + Sync + 'static,
        ) -> Route {
            Route::new(Method::$method, path, requirement, handler)
        }
    )*};
}

methods! { get Get, post Post, put Put, patch Patch, delete Delete }

/// The parts of an authenticated request that handlers use.
pub(crate) struct Call {
    pub(crate) app: App,
    pub(crate) caller: KeyPrincipal,
    /// The path's parameters, decoded, in order.
    pub(crate) segments: Vec<String>,
    /// The body's media type.
    pub(crate) media: String,
    pub(crate) body: Bytes,
}

impl Call {
    /// The path's last parameter.
    pub(super) fn id(&self) -> &str {
        self.segments.last().map_or("", String::as_str)
    }

    /// Parses the body as a JSON object. An empty body counts as an empty object.
    pub(super) fn object(&self) -> Result<Map<String, Value>, AuthError> {
        if self.body.trim_ascii().is_empty() {
            return Ok(Map::new());
        }
        serde_json::from_slice(&self.body).map_err(|_| {
            AuthError::with_detail(ErrorCode::InvalidRequest, "The body is not a JSON object")
        })
    }

    /// Lists all documents of one kind of the caller's tenant and environment.
    pub(super) fn list(&self, kind: &str) -> Outcome {
        Ok(Reply::Ok(
            json!({ kind: self.app.documents.all(&self.caller, kind) }),
        ))
    }

    pub(super) fn create(&self, kind: &str) -> Outcome {
        let document = self.object()?;
        self.app
            .documents
            .add(&self.caller, kind, document)
            .map(Reply::Created)
    }

    pub(super) fn show(&self, kind: &str) -> Outcome {
        self.app
            .documents
            .one(&self.caller, kind, self.id())
            .map(Reply::Ok)
    }

    pub(super) fn change(&self, kind: &str) -> Outcome {
        let changes = self.object()?;
        self.app
            .documents
            .change(&self.caller, kind, self.id(), changes)
            .map(Reply::Ok)
    }

    pub(super) fn remove(&self, kind: &str) -> Outcome {
        self.app
            .documents
            .remove(&self.caller, kind, self.id())
            .map(|()| Reply::NoContent)
    }
}
