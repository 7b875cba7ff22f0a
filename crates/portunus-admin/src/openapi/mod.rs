//! `GET /openapi.json`: the management API as an OpenAPI 3.1 document, exact enough to generate
//! clients and to validate responses.
//!
//! Like every other call, it requires an authenticated operator within the quota. A host that wants
//! to publish the document serves [`Admin::openapi`] itself. The document is built once; `servers`
//! is the path under which the router is nested, without scheme and host, which only the proxies
//! know.
//!
//! Refusals by the host's own proof and rules have the status of their code; a status that the
//! operation does not list falls under its `default` response.

mod answers;
mod bounds;
mod calls;
mod credits;

use std::sync::Arc;

use axum::extract::OriginalUri;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use utoipa::OpenApi as _;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{Components, InfoBuilder, OpenApi, OpenApiBuilder, RefOr, Schema, Server};

use crate::bulk::{BulkCount, BulkRequest, BulkView};
use crate::credits::{Credits, GrantRequest, LedgerPage, MadeGrant, Units};
use crate::events::EventPage;
use crate::fault::Problem;
use crate::import::{ImportRequest, ImportedKey, ImportedKeys};
use crate::issue::{IssueRequest, IssuedKey, RepeatedRequest};
use crate::keys::{RevokeRequest, RotateRequest, RotatedKey};
use crate::record::{KeyPage, Usage};
use crate::update::ChangeRequest;
use crate::verify::{Verified, VerifyRequest};
use crate::{Admin, AuthenticatedOperator, Shared};

const PATH: &str = "/openapi.json";

/// Placeholder for the nest path, which is known when a request arrives. A path cannot start like
/// this.
const NEST_PLACEHOLDER: &str = "nest-path:";

const ABOUT: &str = "Issue, list, change, rotate and revoke API keys.\n\n\
    Every error response is a problem document (RFC 9457) with a stable `code`. Unknown members \
    and parameters are refused, and so are duplicate members of an object and integers of more than 64 \
    bits. A query parameter with an empty value counts as absent. A `+` in a query means a space, \
    and is refused where a space is not valid. Times are RFC 3339, from `1970-01-01T00:00:00.000Z` \
    to `9999-12-31T23:59:59.999Z`; in responses they are in UTC with milliseconds. In texts for \
    people (names, descriptions, reasons), white space at both ends is removed. A name must \
    not be empty; a text that has only invisible characters is refused, and so is one with a control, direction, annotation or tag \
    character. \
    Every path with `GET` also supports `HEAD`. Other methods of a path get `405` \
    (`#/components/responses/MethodNotAllowed`), unknown paths `404`.\n\n\
    A write with content needs `Content-Type: application/json` (`PATCH` also accepts \
    `application/merge-patch+json`, and `/import` lines and CSV), in UTF-8 and without a content \
    coding. A write without content needs no `Content-Type`. Writes from pages of other sites are \
    refused, based on `Origin` and `Sec-Fetch-Site`, unless the service trusts the site. Preconditions (RFC 9110 §13) are \
    evaluated last: a request that would be refused without them is refused for the same reason \
    with them, and a request repeated with the same `Idempotency-Key` is recognized first.";

impl Admin {
    /// Returns the OpenAPI document of this API as JSON, for a host that publishes it itself.
    /// `server` is the URL or the path under which the router is nested.
    #[must_use]
    pub fn openapi(&self, server: &str) -> String {
        Page::of(&self.shared).at(server)
    }
}

/// The document, split at the server's URL.
struct Page {
    before: String,
    after: String,
}

impl Page {
    fn of(shared: &Shared) -> Self {
        let text = serde_json::to_string(&document(shared)).unwrap_or_default();
        let (before, after) = text
            .split_once(&quoted(NEST_PLACEHOLDER))
            .unwrap_or((&text, ""));
        Self {
            before: before.to_owned(),
            after: after.to_owned(),
        }
    }

    fn at(&self, server: &str) -> String {
        format!("{}{}{}", self.before, quoted(server), self.after)
    }
}

/// Returns the text as a JSON string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The route of the document.
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
    // Braces would start a server variable.
    let nest = nest.replace('{', "%7B").replace('}', "%7D");
    let fields = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
    ];
    (fields, page.at(&nest)).into_response()
}

fn document(shared: &Shared) -> OpenApi {
    let info = InfoBuilder::new()
        .title("API key management")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .build();
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([Server::new(NEST_PLACEHOLDER)]))
        .security(Some([SecurityRequirement::new::<_, _, &str>(
            security(shared).0,
            [],
        )]))
        .paths(calls::paths(shared))
        .components(Some(components(shared)))
        .build()
}

/// Every schema that an operation refers to, directly or indirectly.
#[derive(utoipa::OpenApi)]
#[openapi(components(schemas(
    BulkCount,
    BulkRequest,
    BulkView<'_>,
    ChangeRequest,
    EventPage<'_>,
    ImportRequest,
    ImportedKey<'_>,
    ImportedKeys<'_>,
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

/// Those of the operations on credits.
#[derive(utoipa::OpenApi)]
#[openapi(components(schemas(
    Credits<'_>,
    GrantRequest,
    LedgerPage<'_>,
    MadeGrant<'_>,
    Units,
)))]
struct CreditSchemas;

fn components(shared: &Shared) -> Components {
    let mut components = Schemas::openapi().components.unwrap_or_default();
    if shared.has_credits {
        let of_credits = CreditSchemas::openapi().components.unwrap_or_default();
        components.schemas.extend(of_credits.schemas);
    }
    let accepted = shared.manager.accepted();
    bounds::add(&mut components, &accepted);
    let is_event = |(name, _): &(&String, &mut RefOr<Schema>)| *name == "Event";
    let mut schemas = components.schemas.iter_mut();
    if shared.event_view.is_some()
        && let Some((_, RefOr::T(Schema::Object(event)))) = schemas.find(is_event)
    {
        event.additional_properties = None;
        event.description = Some("An audit event. The service adds its own members.".into());
    }
    components.responses.extend(
        answers::responses()
            .into_iter()
            .map(|(name, response)| (name.to_owned(), response)),
    );
    let (name, scheme) = security(shared);
    components
        .security_schemes
        .insert(name.into(), RefOr::T(scheme));
    components
}

/// Returns the name and the description of how operators authenticate.
fn security(shared: &Shared) -> (&'static str, SecurityScheme) {
    if let Some(name) = shared.cookie {
        let about = "The operator's session, begun at the service.";
        let cookie = ApiKey::Cookie(ApiKeyValue::with_description(name, about));
        return ("session", SecurityScheme::ApiKey(cookie));
    }
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An operator's token, issued by the service."))
        .build();
    ("bearer", SecurityScheme::Http(bearer))
}
