//! Middleware for routes.

use super::Auth;
use crate::policy::Requirement;

impl Auth {
    /// Returns this middleware for routes whose requests have these classes, by method.
    pub(super) fn with_classes(mut self, classes: Vec<(Option<&'static str>, u8)>) -> Self {
        if classes.iter().any(|(_, class)| *class > 0) {
            let authenticator = self.authenticator().with_classes(classes);
            self.change().authenticator = authenticator;
        }
        self
    }

    /// Returns this middleware for a route with this requirement. The route says whether it needs a key.
    pub(super) fn of_route(mut self, requirement: &Requirement, key_optional: bool) -> Self {
        self.change().be_of_route(requirement, key_optional);
        self
    }

    /// Returns this middleware for routes that need no key, where requests are only counted; `None` if
    /// there is nothing to count them by.
    pub(super) fn without_key(mut self) -> Option<Self> {
        let authenticator = self.authenticator().without_key()?;
        self.change().only_count(authenticator);
        Some(self)
    }
}
