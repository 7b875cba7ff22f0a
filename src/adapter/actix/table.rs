//! The paths of a [`ProtectedRouter`](super::ProtectedRouter), each with its handlers.

use std::fmt;

use actix_web::Route;
use actix_web::dev::{AppService, HttpServiceFactory};

use super::Auth;
use super::methods::MakeRoute;
use super::paths::{clash, literals_match, rank};
use super::resource::{Handled, resource};
use crate::adapter::routes::{Guarded, RouteDemand, nested};

/// The handlers of each path and their demands.
pub(super) struct Table {
    paths: Vec<(String, Vec<Handled>)>,
    pub(super) demands: Vec<RouteDemand>,
    /// Answers methods that a known path has no handler for.
    pub(super) not_allowed: MakeRoute,
}

impl Table {
    pub(super) fn new(not_allowed: impl Fn() -> Route + 'static) -> Self {
        Self {
            paths: Vec::new(),
            demands: Vec::new(),
            not_allowed: Box::new(not_allowed),
        }
    }

    /// Adds the handlers of a path.
    pub(super) fn add(&mut self, path: &str, route: Guarded<MakeRoute>, auth: &Auth) {
        self.demands.extend(route.demands(path));
        let handled = |(demand, make)| Handled {
            demand,
            make,
            auth: auth.clone(),
            depth: 0,
        };
        self.put(path, route.handlers.into_iter().map(handled));
    }

    /// Adds the contents of another table under a prefix.
    pub(super) fn add_all(&mut self, prefix: &str, other: Self) {
        for demand in other.demands {
            let path = nested(prefix, &demand.path);
            self.demands.push(RouteDemand { path, ..demand });
        }
        let deeper = |one: Handled| Handled {
            depth: one.depth + 1,
            ..one
        };
        for (path, handled) in other.paths {
            self.put(&nested(prefix, &path), handled.into_iter().map(deeper));
        }
    }

    fn put(&mut self, path: &str, handled: impl Iterator<Item = Handled>) {
        let known = self.paths.iter().position(|(known, _)| clash(known, path));
        let place = known.unwrap_or(self.paths.len());
        if known.is_none() {
            self.paths.push((path.to_owned(), Vec::new()));
        }
        let (known, handlers) = &mut self.paths[place];
        assert!(
            *known == path,
            "{known} and {path} are the same path to the router"
        );
        for one in handled {
            let method = one.demand.method;
            let twice = handlers.iter().any(|other| other.demand.method == method);
            let name = method.unwrap_or("every method");
            assert!(!twice, "{path} has two handlers for {name}");
            handlers.push(one);
        }
    }

    /// Registers a resource for each path, the more specific ones first.
    pub(super) fn register(mut self, config: &mut AppService) {
        self.paths.sort_by_cached_key(|(path, _)| rank(path));
        for (path, handled) in self.paths {
            let literals_match = literals_match(&path, config.is_root());
            resource(&path, handled, (self.not_allowed)(), literals_match).register(config);
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.paths.iter().map(|(path, _)| path))
            .finish()
    }
}
