//! The stylesheet, the script and the icon. Their names contain a hash of their content, so that browsers
//! keep them and still get new ones after an update.

use std::fmt::Write;
use std::sync::LazyLock;

use axum::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use portunus::key::KeyHasher;

/// A file of the dashboard.
pub(super) struct Asset {
    name: String,
    media_type: &'static str,
    content: &'static str,
}

pub(super) static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new(
        "css",
        "text/css; charset=utf-8",
        include_str!("dashboard.css"),
    )
});

pub(super) static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    let media_type = "text/javascript; charset=utf-8";
    Asset::new("js", media_type, include_str!("dashboard.js"))
});

pub(super) static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("svg", "image/svg+xml", include_str!("dashboard.svg")));

impl Asset {
    fn new(extension: &str, media_type: &'static str, content: &'static str) -> Self {
        let mut name = "dashboard-".to_owned();
        for byte in &KeyHasher::sha256().digest(content).to_bytes()[..8] {
            let _ = write!(name, "{byte:02x}");
        }
        let _ = write!(name, ".{extension}");
        Self {
            name,
            media_type,
            content,
        }
    }

    /// Returns a reference to the file.
    pub(super) fn link(&self) -> String {
        format!("?file={}", self.name)
    }
}

/// Answers a request for a file. The files are the same for everybody.
pub(super) fn file(name: &str, asked: &HeaderMap) -> Response {
    let found = [&STYLE, &SCRIPT, &ICON].into_iter();
    let Some(asset) = found.map(|asset| &**asset).find(|asset| asset.name == name) else {
        let fields = [(CACHE_CONTROL, "no-store")];
        return (StatusCode::NOT_FOUND, fields).into_response();
    };
    let tag = format!("\"{}\"", asset.name);
    let fields = [
        (CONTENT_TYPE, asset.media_type),
        (CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (ETAG, &tag),
    ];
    let known = asked.get(IF_NONE_MATCH).is_some_and(|known| known == &*tag);
    match known {
        true => (StatusCode::NOT_MODIFIED, fields).into_response(),
        false => (fields, asset.content).into_response(),
    }
}
