//! A service with its protection, the keys it admits, and clients that send it requests.

use std::convert::Infallible;

use http::{Request, Response};
use tower::Service;

use crate::shape::{Body, Inner, now, request};

/// What a contender does for each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Refuses unknown keys.
    Key,
    Scope,
    Network,
    Environment,
    Expiry,
    /// Limits each key.
    Limits,
    /// Counts the uses of each key.
    Usage,
    /// Reports the limits in fields of the response.
    Fields,
    Audit,
}

impl Check {
    pub const ALL: [Self; 9] = [
        Self::Key,
        Self::Scope,
        Self::Network,
        Self::Environment,
        Self::Expiry,
        Self::Limits,
        Self::Usage,
        Self::Fields,
        Self::Audit,
    ];
    /// All checks of a key, without fields and audit.
    pub const COMPLETE: &[Self] = Self::ALL.split_at(7).0;
    /// The same with fields.
    pub const COMPLETE_WITH_FIELDS: &[Self] = Self::ALL.split_at(8).0;

    pub const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Scope => "scope",
            Self::Network => "network",
            Self::Environment => "environment",
            Self::Expiry => "expiry",
            Self::Limits => "limits",
            Self::Usage => "usage",
            Self::Fields => "fields",
            Self::Audit => "audit",
        }
    }
}

/// Sends requests that were built before.
pub trait Client {
    /// Builds a request with this value of `Authorization`.
    fn prepare(&mut self, authorization: &str);

    /// Sends all prepared requests and returns how many were answered with 200.
    fn send(&mut self) -> usize;

    /// Sends one request and returns the status.
    fn status(&mut self, authorization: &str) -> u16;
}

struct Batch<Q, B, C> {
    build: B,
    call: C,
    requests: Vec<Q>,
}

impl<Q, B: Fn(&str) -> Q, C: FnMut(Q) -> u16> Client for Batch<Q, B, C> {
    fn prepare(&mut self, authorization: &str) {
        self.requests.push((self.build)(authorization));
    }

    fn send(&mut self) -> usize {
        let mut admitted = 0;
        for request in self.requests.drain(..) {
            admitted += usize::from((self.call)(request) == 200);
        }
        admitted
    }

    fn status(&mut self, authorization: &str) -> u16 {
        (self.call)((self.build)(authorization))
    }
}

/// Creates a client from a function that builds a request and one that returns its status.
pub fn client<Q: 'static>(
    build: impl Fn(&str) -> Q + 'static,
    call: impl FnMut(Q) -> u16 + 'static,
) -> Box<dyn Client> {
    let requests = Vec::new();
    Box::new(Batch {
        build,
        call,
        requests,
    })
}

type Connect = dyn Fn() -> Box<dyn Client> + Send + Sync;

/// Values of `Authorization`, by what becomes of them.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    pub good: Vec<String>,
    pub unknown: String,
    /// A key without the scope that is needed, if there are scopes.
    pub without_scope: String,
}

pub struct Contender {
    pub name: &'static str,
    pub checks: &'static [Check],
    pub credentials: Credentials,
    connect: Box<Connect>,
    settle: Box<dyn Fn() + Send + Sync>,
}

impl Contender {
    pub fn new(
        name: &'static str,
        checks: &'static [Check],
        credentials: Credentials,
        connect: impl Fn() -> Box<dyn Client> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            checks,
            credentials,
            connect: Box::new(connect),
            settle: Box::new(|| ()),
        }
    }

    /// Creates a contender from a tower service, which each client clones.
    pub fn tower<S>(
        name: &'static str,
        checks: &'static [Check],
        credentials: Credentials,
        service: S,
    ) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        Self::new(name, checks, credentials, move || {
            let mut service = service.clone();
            client(request, move |request| {
                let Ok(response) = now(service.call(request));
                response.status().as_u16()
            })
        })
    }

    /// Adds to what is done after each round, outside of the time.
    #[must_use]
    pub fn settling(mut self, settle: impl Fn() + Send + Sync + 'static) -> Self {
        let earlier = self.settle;
        self.settle = Box::new(move || {
            earlier();
            settle();
        });
        self
    }

    pub fn connect(&self) -> Box<dyn Client> {
        (self.connect)()
    }

    pub fn settle(&self) {
        (self.settle)();
    }
}

/// The service without protection, which is sent the keys of the hand-written contenders.
pub fn bare(keys: usize) -> Contender {
    let good = (0..keys as u64).map(|number| format!("Bearer {}", crate::shape::secret(number)));
    let credentials = Credentials {
        good: good.collect(),
        ..Credentials::default()
    };
    Contender::tower("the service alone", &[], credentials, Inner)
}
