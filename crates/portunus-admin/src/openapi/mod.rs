//! `GET /openapi.json`: the management API in OpenAPI 3.1, exact enough to generate clients and to
//! check answers with.
//!
//! It is asked for like everything else here, by an operator who is proven and within the quota:
//! there is no path around the proof, and a client that is generated or a page that shows it can
//! send a token. A host that wants to publish it writes [`Admin::openapi`] where it likes. The
//! document is made once; `servers` is the path under which the request found the router, without
//! scheme and host: those are the proxies' to know.
//!
//! What the host's own proof and rules refuse has the status of its code; a status that the call
//! does not list is its `default`.

mod answers;
mod calls;

use std::sync::Arc;

use axum::extract::OriginalUri;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use utoipa::OpenApi as _;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, InfoBuilder, OpenApi, OpenApiBuilder, RefOr, Schema, Server};

use crate::events::EventPage;
use crate::fault::Problem;
use crate::import::{ImportRequest, ImportedKey};
use crate::issue::{IssueRequest, IssuedKey, RepeatedRequest};
use crate::keys::{RevokeRequest, RotateRequest, RotatedKey};
use crate::record::{KeyPage, Usage};
use crate::update::ChangeRequest;
use crate::verify::{Verified, VerifyRequest};
use crate::{Admin, AuthenticatedOperator, Shared};

const PATH: &str = "/openapi.json";

/// Stands for the nest path until a request tells it. No path begins so.
const SOMEWHERE: &str = "nest-path:";

const ABOUT: &str = "Issue, list, change, rotate and revoke API keys.\n\n\
    Every refusal is a problem document (RFC 9457) with a stable `code`. Members and parameters \
    that are not known are refused, and so are members that stand twice in one object and integers \
    of more than 64 bits. A query parameter without a value counts as absent; a `+` in a query \
    stands for a space, and is refused where that means nothing. Times are RFC 3339, from \
    `1970-01-01T00:00:00.000Z` to `9999-12-31T23:59:59.999Z`, in answers with milliseconds and in \
    UTC. In texts that people read (names, descriptions, reasons), white space at both ends is left \
    out; one of which nothing is visible is refused, and one with a control, direction, annotation \
    or tag character. \
    What is `GET` answers `HEAD` too. Other methods of a path are answered by `405` \
    (`#/components/responses/MethodNotAllowed`), other paths by `404`.\n\n\
    A write with content needs `Content-Type: application/json` (a change also takes \
    `application/merge-patch+json`), in UTF-8 and without a content coding; without content it \
    needs none. A write from a page of another site is refused by its `Origin` and `Sec-Fetch-Site`, \
    unless the service trusts that site. Preconditions (RFC 9110 §13) are evaluated last: what \
    is refused without them is refused for the same reason with them, and a request that is \
    repeated under its `Idempotency-Key` is recognized before.";

impl Admin {
    /// The OpenAPI document of this API as JSON, for a host that publishes it itself. `server` is
    /// the URL or the path under which the router is nested.
    #[must_use]
    pub fn openapi(&self, server: &str) -> String {
        Page::of(&self.shared).at(server)
    }
}

/// The document, cut where the server stands.
struct Page {
    before: String,
    after: String,
}

impl Page {
    fn of(shared: &Shared) -> Self {
        let text = serde_json::to_string(&document(shared)).unwrap_or_default();
        let (before, after) = text.split_once(&quoted(SOMEWHERE)).unwrap_or((&text, ""));
        Self {
            before: before.to_owned(),
            after: after.to_owned(),
        }
    }

    fn at(&self, server: &str) -> String {
        format!("{}{}{}", self.before, quoted(server), self.after)
    }
}

/// The text as JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The call that shows the document.
pub(crate) fn route(shared: &Shared) -> MethodRouter<Shared> {
    let page = Arc::new(Page::of(shared));
    get(
        |_: AuthenticatedOperator, OriginalUri(uri): OriginalUri| async move { show(&page, uri.path()) },
    )
}

fn show(page: &Page, path: &str) -> Response {
    let nest = path
        .strip_suffix(PATH)
        .filter(|nest| !nest.is_empty())
        .unwrap_or("/");
    // Braces would name a variable of the server's.
    let nest = nest.replace('{', "%7B").replace('}', "%7D");
    let fields = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
    ];
    (fields, page.at(&nest)).into_response()
}

fn document(shared: &Shared) -> OpenApi {
    let info = InfoBuilder::new()
        .title("Management of API keys")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .build();
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([Server::new(SOMEWHERE)]))
        .security(Some([SecurityRequirement::new::<_, _, &str>("bearer", [])]))
        .paths(calls::paths(shared))
        .components(Some(components(shared)))
        .build()
}

/// Every schema that a call refers to, and those that these refer to.
#[derive(utoipa::OpenApi)]
#[openapi(components(schemas(
    ChangeRequest,
    EventPage<'_>,
    ImportRequest,
    ImportedKey<'_>,
    IssueRequest,
    IssuedKey<'_>,
    KeyPage<'_>,
    Problem<'_>,
    RepeatedRequest<'_>,
    RevokeRequest,
    RotateRequest,
    RotatedKey<'_>,
    Usage<'_>,
    Verified<'_>,
    VerifyRequest,
)))]
struct Schemas;

fn components(shared: &Shared) -> Components {
    let mut components = Schemas::openapi().components.unwrap_or_default();
    let is_event = |(name, _): &(&String, &mut RefOr<Schema>)| *name == "Event";
    let mut schemas = components.schemas.iter_mut();
    if shared.event_view.is_some()
        && let Some((_, RefOr::T(Schema::Object(event)))) = schemas.find(is_event)
    {
        event.additional_properties = None;
        event.description = Some("An audit event. The service adds members of its own.".into());
    }
    components.responses.extend(
        answers::responses()
            .into_iter()
            .map(|(name, response)| (name.to_owned(), response)),
    );
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "The token of an operator, as the service gives them out.",
        ))
        .build();
    components
        .security_schemes
        .insert("bearer".into(), RefOr::T(SecurityScheme::Http(bearer)));
    components
}
