//! Routes that all say what they require, for the routers that deny by default.
//!
//! What a handler is, the framework says; the words are the same: `.require(…)`, `.any_key()`,
//! `.optional_key()` and `.public()`, and a route without one of them is no route.

use crate::policy::Requirement;

/// What a route of a `ProtectedRouter` demands: for documents of an API, which are made of what is
/// enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteDemand {
    /// The path, as the framework writes it.
    pub path: String,
    /// The method; `None` for every method that the path has no other route for. `GET` is `HEAD`
    /// too.
    pub method: Option<&'static str>,
    /// What is required; `None` where the route is public.
    pub requirement: Option<Requirement>,
    /// Whether a request that sends no credentials passes, too.
    pub key_optional: bool,
}

/// A handler that has not said yet what it requires.
#[derive(Debug)]
#[must_use = "say what it requires: require(), any_key(), optional_key() or public()"]
pub struct Unguarded<H> {
    handler: H,
    method: Option<&'static str>,
}

/// Handlers that have said what they require.
#[derive(Debug)]
#[must_use = "a guarded route does nothing until a ProtectedRouter takes it"]
pub struct Guarded<H> {
    /// Each with its demand, whose path is not known yet.
    pub(super) handlers: Vec<(RouteDemand, H)>,
}

impl<H> Unguarded<H> {
    /// `None` stands for all methods.
    pub(super) fn new(method: Option<&'static str>, handler: H) -> Self {
        Self { handler, method }
    }

    /// Only for keys that meet the requirement.
    pub fn require(self, requirement: impl Into<Requirement>) -> Guarded<H> {
        self.saying(Some(requirement.into()), false)
    }

    /// For every valid key, also one of some workspaces only.
    pub fn any_key(self) -> Guarded<H> {
        self.require(Requirement::none().any_workspace())
    }

    /// For every valid key, and for requests that send no credentials at all: the handler takes
    /// `Option<KeyPrincipal>`. A wrong or revoked key is refused.
    pub fn optional_key(self) -> Guarded<H> {
        // A key that is there is judged as by `any_key()`.
        self.saying(Some(Requirement::none().any_workspace()), true)
    }

    /// For everybody, without a look at any key.
    pub fn public(self) -> Guarded<H> {
        self.saying(None, false)
    }

    fn saying(self, requirement: Option<Requirement>, key_optional: bool) -> Guarded<H> {
        let demand = RouteDemand {
            path: String::new(),
            method: self.method,
            requirement,
            key_optional,
        };
        Guarded {
            handlers: vec![(demand, self.handler)],
        }
    }
}

impl<H> Guarded<H> {
    /// These methods and those of another, each with its own requirement.
    pub fn and(mut self, other: Self) -> Self {
        self.handlers.extend(other.handlers);
        self
    }

    /// The demands, of routes with this path.
    pub(super) fn demands(&self, path: &str) -> impl Iterator<Item = RouteDemand> {
        self.handlers.iter().map(|(demand, _)| RouteDemand {
            path: path.to_owned(),
            ..demand.clone()
        })
    }
}

/// How strictly a path asks for a key: as strictly as its strictest method, before any method is
/// looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Door {
    /// No key is looked at.
    Open,
    /// A key that is there must be good.
    KeyOptional,
    /// There must be a key.
    Keyed,
}

impl RouteDemand {
    pub(super) fn door(&self) -> Door {
        match self.requirement {
            None => Door::Open,
            Some(_) if self.key_optional => Door::KeyOptional,
            Some(_) => Door::Keyed,
        }
    }
}

/// The path of a route that is nested beneath a prefix.
pub(super) fn nested(prefix: &str, path: &str) -> String {
    let within = prefix.strip_suffix('/').unwrap_or(prefix);
    match path {
        "/" if !prefix.is_empty() => prefix.to_owned(),
        path => format!("{within}{path}"),
    }
}
