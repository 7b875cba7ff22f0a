//! What axum's router says of a request: its whole path, its parameters and its route.

use std::borrow::Cow;

use axum::extract::{FromRequestParts, MatchedPath, OriginalUri, RawPathParams};
use futures_util::FutureExt;
use http::{Extensions, Request, Uri};

/// What `Router::nest` strips off belongs to the path.
pub(super) fn path<'r>(uri: &'r Uri, extensions: &'r Extensions) -> &'r str {
    let original = extensions.get::<OriginalUri>();
    original.map_or(uri, |original| &original.0).path()
}

/// A parameter that the route has once.
pub(super) fn parameter(extensions: &Extensions, name: &str) -> Option<Cow<'static, str>> {
    // axum shows its parameters to extractors only, and those want parts of their own.
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

/// The pattern that the path matches.
pub(super) fn route(extensions: &Extensions) -> Option<&str> {
    extensions.get().map(MatchedPath::as_str)
}
