//! Routes of axum: the full path, the parameters and the route that a request matched, and layers
//! for routes.

use std::borrow::Cow;

use axum::extract::{FromRequestParts, MatchedPath, OriginalUri, RawPathParams};
use futures_util::FutureExt;
use http::{Extensions, Request, Uri};

use super::AuthLayer;
use crate::policy::Requirement;

/// Returns the full path, including the prefix that `Router::nest` strips.
pub(super) fn path<'r>(uri: &'r Uri, extensions: &'r Extensions) -> &'r str {
    let original = extensions.get::<OriginalUri>();
    original.map_or(uri, |original| &original.0).path()
}

/// Returns a path parameter, if its name occurs exactly once in the route.
pub(super) fn parameter(extensions: &Extensions, name: &str) -> Option<Cow<'static, str>> {
    // axum exposes path parameters to extractors only, which need request parts.
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.extensions = extensions.clone();
    let read = RawPathParams::from_request_parts(&mut parts, &());
    let parameters = read.now_or_never()?.ok()?;
    let mut values = parameters.iter().filter(|(known, _)| *known == name);
    match (values.next(), values.next()) {
        (Some((_, value)), None) => Some(Cow::Owned(value.to_owned())),
        _ => None,
    }
}

/// Returns the pattern that the path matched.
pub(super) fn route(extensions: &Extensions) -> Option<&str> {
    extensions.get().map(MatchedPath::as_str)
}

impl AuthLayer {
    /// Returns this layer for routes whose requests have these classes, by method.
    pub(in crate::adapter) fn with_classes(
        mut self,
        classes: Vec<(Option<&'static str>, u8)>,
    ) -> Self {
        if classes.iter().any(|(_, class)| *class > 0) {
            let authenticator = self.authenticator().with_classes(classes);
            self.change().authenticator = authenticator;
        }
        self
    }

    /// Returns this layer for a route with this requirement. The route says whether it needs a key.
    pub(in crate::adapter) fn of_route(
        mut self,
        requirement: &Requirement,
        key_optional: bool,
    ) -> Self {
        self.change().be_of_route(requirement, key_optional);
        self
    }

    /// Returns this layer for routes that need no key, where requests are only counted; `None` if
    /// there is nothing to count them by.
    pub(in crate::adapter) fn without_key(mut self) -> Option<Self> {
        let authenticator = self.authenticator().without_key()?;
        self.change().only_count(authenticator);
        Some(self)
    }
}
