//! Routes that each declare a requirement, for the deny-by-default routers.
//!
//! The handler type depends on the framework; the methods are the same: `.require(…)`,
//! `.any_key()`, `.optional_key()` and `.public()`. A handler without one of them is not accepted
//! as a route.

use crate::authenticator::Authenticator;
use crate::policy::Requirement;

/// The requirement of one route of a `ProtectedRouter`, for generating API documents from what is
/// enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteDemand {
    /// The path, in the framework's syntax.
    pub path: String,
    /// The method; `None` for every method without a route of its own at this path. `GET` includes
    /// `HEAD`.
    pub method: Option<&'static str>,
    /// The requirement; `None` if the route is public.
    pub requirement: Option<Requirement>,
    /// Whether a request without credentials passes too.
    pub key_optional: bool,
    /// The class of requests, by which [limits](crate::Limits::class) count them.
    pub class: Option<String>,
}

/// Handlers that each declare what they require. It is not for hosts to implement.
#[diagnostic::on_unimplemented(
    message = "this route does not say what it requires",
    label = "call `.require(…)`, `.any_key()`, `.optional_key()` or `.public()` on the handler",
    note = "a `ProtectedRouter` takes handlers made by `get`, `post`, … of \
            `portunus::adapter::axum` or `portunus::adapter::actix`, which have these methods; \
            those of the framework itself, such as `axum::routing::get`, do not",
    note = "for a whole `axum::routing::MethodRouter`: `portunus::adapter::axum::guard(…)`"
)]
pub trait DeclaredRoute<H> {
    /// Returns the handlers.
    fn declared(self) -> Guarded<H>;
}

impl<H> DeclaredRoute<H> for Guarded<H> {
    fn declared(self) -> Self {
        self
    }
}

/// A handler without a declared requirement.
#[derive(Debug)]
#[must_use = "declare its requirement: require(), any_key(), optional_key() or public()"]
pub struct Unguarded<H> {
    handler: H,
    method: Option<&'static str>,
}

/// Handlers with their declared requirements.
#[derive(Debug)]
#[must_use = "a guarded route does nothing until it is added to a ProtectedRouter"]
pub struct Guarded<H> {
    /// Each with its demand, whose path is not set yet.
    pub(super) handlers: Vec<(RouteDemand, H)>,
}

impl<H> Unguarded<H> {
    /// A method of `None` means all methods.
    pub(super) fn new(method: Option<&'static str>, handler: H) -> Self {
        Self { handler, method }
    }

    /// Accepts only keys that meet the requirement.
    pub fn require(self, requirement: impl Into<Requirement>) -> Guarded<H> {
        self.declared(Some(requirement.into()), false)
    }

    /// Accepts every valid key, including keys that are restricted to workspaces.
    pub fn any_key(self) -> Guarded<H> {
        self.require(Requirement::none().any_workspace())
    }

    /// Accepts every valid key, and requests without credentials: the handler takes
    /// `Option<KeyPrincipal>`. A wrong or revoked key is refused.
    pub fn optional_key(self) -> Guarded<H> {
        // A key that is presented is checked as with `any_key()`.
        self.declared(Some(Requirement::none().any_workspace()), true)
    }

    /// Accepts every request without checking a key.
    pub fn public(self) -> Guarded<H> {
        self.declared(None, false)
    }

    fn declared(self, requirement: Option<Requirement>, key_optional: bool) -> Guarded<H> {
        let demand = RouteDemand {
            path: String::new(),
            method: self.method,
            requirement,
            key_optional,
            class: None,
        };
        Guarded {
            handlers: vec![(demand, self.handler)],
        }
    }
}

impl<H> Guarded<H> {
    /// Sets the class of requests, by which the limits count them
    /// ([`Limits::class`](crate::Limits::class)).
    ///
    /// ```
    /// # use portunus::adapter::axum::{ProtectedRouter, get};
    /// # fn with(router: ProtectedRouter) -> ProtectedRouter {
    /// router.route("/reports", get(|| async { "[]" }).any_key().class("reports"))
    /// # }
    /// ```
    pub fn class(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        for (demand, _) in &mut self.handlers {
            demand.class = Some(name.clone());
        }
        self
    }

    /// Adds the methods of another route, each with its own requirement.
    pub fn and(mut self, other: Self) -> Self {
        self.handlers.extend(other.handlers);
        self
    }

    /// Returns the demands, with this path.
    pub(super) fn demands(&self, path: &str) -> impl Iterator<Item = RouteDemand> {
        self.handlers.iter().map(|(demand, _)| RouteDemand {
            path: path.to_owned(),
            ..demand.clone()
        })
    }
}

/// How a path treats keys: as strictly as its strictest method, before the method is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum KeyCheck {
    /// No key is checked.
    None,
    /// A key is optional, but must be valid if presented.
    Optional,
    /// A valid key is required.
    Required,
}

impl KeyCheck {
    /// Returns what requests for methods without a handler must meet: any key, where one is required.
    pub(super) fn of_others(self) -> Option<Requirement> {
        (self == Self::Required).then(|| Requirement::reading().any_workspace())
    }
}

impl RouteDemand {
    pub(super) fn key_check(&self) -> KeyCheck {
        match self.requirement {
            None => KeyCheck::None,
            Some(_) if self.key_optional => KeyCheck::Optional,
            Some(_) => KeyCheck::Required,
        }
    }
}

/// Returns the number of each demand's class, by method; 0 if the limits decide.
///
/// # Panics
/// Panics if the limits do not declare a class.
pub(super) fn classes<'d>(
    demands: impl Iterator<Item = &'d RouteDemand>,
    authenticator: &Authenticator,
) -> Vec<(Option<&'static str>, u8)> {
    let number = |demand: &'d RouteDemand| {
        let class = demand.class.as_ref().map(|name| {
            let number = authenticator.class(name);
            let path = &demand.path;
            assert!(
                number.is_some(),
                "{path}: the class {name} is not declared: call class({name:?}, …) on Limits"
            );
            number.unwrap_or(0)
        });
        (demand.method, class.unwrap_or(0))
    };
    demands.map(number).collect()
}

/// The path of a route that is nested under a prefix.
pub(super) fn nested(prefix: &str, path: &str) -> String {
    let within = prefix.strip_suffix('/').unwrap_or(prefix);
    match path {
        "/" if !prefix.is_empty() => prefix.to_owned(),
        path => format!("{within}{path}"),
    }
}
