//! Middleware for routes.

use actix_web::Route;

use super::Auth;
use super::methods::Handled;
use crate::adapter::routes::KeyCheck;

impl Auth {
    /// Returns this middleware for routes whose requests have these classes, by method.
    pub(super) fn with_classes(mut self, classes: Vec<(Option<&'static str>, u8)>) -> Self {
        if classes.iter().any(|(_, class)| *class > 0) {
            let authenticator = self.authenticator().with_classes(classes);
            self.change().authenticator = authenticator;
        }
        self
    }

    /// Returns this middleware for routes that need no key, where requests are only counted; `None` if
    /// there is nothing to count them by.
    pub(super) fn without_key(mut self) -> Option<Self> {
        let authenticator = self.authenticator().without_key()?;
        self.change().authenticator = authenticator;
        Some(self)
    }
}

/// Puts the answer to other methods of a path behind the strictest key check of its handlers.
pub(super) fn behind_strictest(not_allowed: Route, handled: &[Handled]) -> Route {
    let strictest = handled.iter().max_by_key(|one| one.demand.key_check());
    match strictest.map(|one| (one.demand.key_check(), one.auth.clone())) {
        Some((KeyCheck::Required, auth)) => not_allowed.wrap(auth),
        Some((KeyCheck::Optional, auth)) => not_allowed.wrap(auth.optional_key()),
        Some((KeyCheck::None, auth)) => match auth.without_key() {
            Some(counting) => not_allowed.wrap(counting),
            None => not_allowed,
        },
        None => not_allowed,
    }
}
