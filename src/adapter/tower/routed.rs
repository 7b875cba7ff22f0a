//! The full path, the parameters and the route of a request, as matched by axum's router.

use std::borrow::Cow;

use axum::extract::{FromRequestParts, MatchedPath, OriginalUri, RawPathParams};
use futures_util::FutureExt;
use http::{Extensions, Request, Uri};

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
