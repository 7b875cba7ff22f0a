//! Security schemes and requirements for the OpenAPI document of the host's own API.

use std::fmt;

use axum::http::Request;
use portunus::adapter::axum::RouteDemand;
use portunus::adapter::tower::HttpHead;
use portunus::authenticator::Presentation;
use portunus::{AuthError, Authenticator, ErrorCode, Requirement};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{Components, Content, OpenApi, RefOr, Response, ResponseBuilder};

/// Describes the authentication of an API in its OpenAPI document.
///
/// A route's scopes are listed as roles in its security requirements (OpenAPI 3.1), one requirement
/// for each way to present a key and each alternative set of scopes. The complete requirement is
/// appended to the operation's description as text.
///
/// ```
/// use portunus::adapter::axum::get;
/// # use portunus::key::{Alphabet, KeyFormat};
/// # use portunus::store::MemoryStore;
/// use portunus::{Portunus, scope};
/// use portunus_admin::ApiSecurity;
/// use utoipa::openapi::path::{HttpMethod, OperationBuilder};
/// use utoipa::openapi::{InfoBuilder, OpenApiBuilder, PathsBuilder, PathItem};
///
/// # let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32).build()?;
/// # let keys = Portunus::builder(format).store(MemoryStore::new()).build()?;
/// // Usually utoipa's macros write the document.
/// let list = PathItem::new(HttpMethod::Get, OperationBuilder::new().summary(Some("All documents")));
/// let mut document = OpenApiBuilder::new().paths(PathsBuilder::new().path("/documents", list)).build();
///
/// let router = keys.router::<()>()
///     .route("/documents", get(|| async { "[]" }).require(scope!("document:read")));
/// ApiSecurity::of(keys.authenticator()).describe(&mut document, router.demands())?;
///
/// let list = document.paths.paths["/documents"].get.as_ref().unwrap();
/// assert_eq!(serde_json::to_value(&list.security)?, serde_json::json!([{ "bearer": ["document:read"] }]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ApiSecurity {
    schemes: Vec<(String, SecurityScheme)>,
    media_type: String,
}

impl fmt::Debug for ApiSecurity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.schemes.iter().map(|(name, _)| name).collect();
        f.debug_struct("ApiSecurity")
            .field("schemes", &names)
            .field("media_type", &self.media_type)
            .finish()
    }
}

/// Error returned when a document and a router differ: operations that only one of them has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Undescribed {
    /// Routes that the document omits, as `GET /path`; a route for every method as `* /path`.
    pub routes: Vec<String>,
    /// Operations without a route.
    pub operations: Vec<String>,
}

impl fmt::Display for Undescribed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = |list: &[String]| {
            if list.is_empty() {
                "none".to_owned()
            } else {
                list.join(", ")
            }
        };
        write!(f, "undocumented routes: {}; ", all(&self.routes))?;
        write!(f, "operations without a route: {}", all(&self.operations))
    }
}

impl std::error::Error for Undescribed {}

impl ApiSecurity {
    /// Creates a description of the ways to present a key that this authenticator accepts, and of
    /// the media type of its error responses.
    #[must_use]
    pub fn of(authenticator: &Authenticator) -> Self {
        let request = Request::new(());
        let head = HttpHead::new(&request, None);
        let refusal = authenticator
            .responder()
            .answer(&AuthError::new(ErrorCode::MissingKey), &head);
        let media_type = refusal
            .fields
            .iter()
            .find(|(name, _)| *name == "content-type");
        let media_type = media_type.map_or_else(
            || "application/problem+json".to_owned(),
            |(_, value)| value.to_string(),
        );
        Self {
            schemes: authenticator.presentations().filter_map(scheme).collect(),
            media_type,
        }
    }

    /// Returns the security schemes by name: `bearer`, `basic`, or the name of a header field.
    #[must_use]
    pub fn schemes(&self) -> &[(String, SecurityScheme)] {
        &self.schemes
    }

    /// Returns the security requirements of a route, any one of which is sufficient. Empty for a
    /// route without a requirement.
    #[must_use]
    pub fn requirements(&self, requirement: Option<&Requirement>) -> Vec<SecurityRequirement> {
        let Some(requirement) = requirement else {
            return Vec::new();
        };
        let of_scopes = requirement.scope_part();
        let sets = of_scopes.scope_sets();
        let of_scheme = |(name, _): &(String, SecurityScheme)| {
            let each =
                |set: &Vec<_>| SecurityRequirement::new(name, set.iter().map(ToString::to_string));
            sets.iter().map(each).collect::<Vec<_>>()
        };
        self.schemes.iter().flat_map(of_scheme).collect()
    }

    /// Adds the requirement and the error responses to an operation.
    pub fn protect(&self, operation: &mut Operation, requirement: Option<&Requirement>) {
        operation.security = Some(self.requirements(requirement));
        let Some(requirement) = requirement else {
            return;
        };
        let any_key = [Requirement::none(), Requirement::none().any_workspace()];
        if !any_key.contains(requirement) {
            let words = format!("Requires {requirement}.");
            operation.description = Some(match operation.description.take() {
                Some(description) => format!("{description}\n\n{words}"),
                None => words,
            });
        }
        for status in [400, 401, 403, 429, 503] {
            let known = operation.responses.responses.entry(status.to_string());
            known.or_insert_with(|| RefOr::T(self.refusal(status)));
        }
    }

    /// Adds the schemes to a document, and to each of its operations the requirement of the route
    /// with that path and method.
    ///
    /// # Errors
    /// Returns an error if the document and the routes do not have the same operations. Operations
    /// that both have are described nevertheless.
    pub fn describe(
        &self,
        document: &mut OpenApi,
        routes: &[RouteDemand],
    ) -> Result<(), Undescribed> {
        let components = document.components.get_or_insert_with(Components::new);
        for (name, scheme) in &self.schemes {
            components
                .security_schemes
                .insert(name.clone(), RefOr::T(scheme.clone()));
        }
        let mut undescribed = Undescribed {
            routes: Vec::new(),
            operations: Vec::new(),
        };
        let mut described = vec![false; routes.len()];
        for (path, item) in &mut document.paths.paths {
            for (method, operation) in operations(item) {
                let here =
                    |demand: &RouteDemand| same_path(&demand.path, path) && serves(demand, method);
                // A route for this method takes precedence over one for every method.
                let own = routes
                    .iter()
                    .position(|demand| here(demand) && demand.method == Some(method));
                let get = || {
                    routes
                        .iter()
                        .position(|demand| here(demand) && demand.method.is_some())
                };
                let any = || routes.iter().position(here);
                match own.or_else(get).or_else(any) {
                    Some(place) => {
                        let route = &routes[place];
                        self.protect(operation, route.requirement.as_ref());
                        if route.key_optional {
                            // The empty requirement makes credentials optional.
                            let security = operation.security.get_or_insert_default();
                            security.insert(0, SecurityRequirement::default());
                        }
                        described[place] = true;
                    }
                    None => undescribed.operations.push(format!("{method} {path}")),
                }
            }
        }
        let missing = routes
            .iter()
            .zip(&described)
            .filter(|(_, described)| !**described);
        let named =
            missing.map(|(demand, _)| format!("{} {}", demand.method.unwrap_or("*"), demand.path));
        undescribed.routes = named.collect();
        match undescribed.routes.is_empty() && undescribed.operations.is_empty() {
            true => Ok(()),
            false => Err(undescribed),
        }
    }

    /// Returns the error response with this status, with its codes.
    fn refusal(&self, status: u16) -> Response {
        let about_requests =
            |code: &&ErrorCode| code.status() == status && !OF_MANAGEMENT.contains(code);
        let codes: Vec<_> = ErrorCode::ALL
            .iter()
            .filter(about_requests)
            .map(|code| code.as_str())
            .collect();
        let response = ResponseBuilder::new().description(codes.join(", "));
        response
            .content(
                &self.media_type,
                Content::new::<RefOr<utoipa::openapi::Schema>>(None),
            )
            .build()
    }
}

/// Codes that only the management API uses.
const OF_MANAGEMENT: [ErrorCode; 8] = [
    ErrorCode::CrossSite,
    ErrorCode::TooLarge,
    ErrorCode::UnsupportedMediaType,
    ErrorCode::InvalidBody,
    ErrorCode::QuotaExceeded,
    ErrorCode::Conflict,
    ErrorCode::PreconditionFailed,
    ErrorCode::NotFound,
];

fn scheme(presentation: Presentation<'_>) -> Option<(String, SecurityScheme)> {
    let http = |scheme| SecurityScheme::Http(Http::new(scheme));
    match presentation {
        Presentation::Bearer => Some(("bearer".into(), http(HttpAuthScheme::Bearer))),
        Presentation::Basic => Some(("basic".into(), http(HttpAuthScheme::Basic))),
        Presentation::Header(name) => Some((
            name.to_owned(),
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(name))),
        )),
        _ => None,
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let all = [
        ("GET", &mut item.get),
        ("PUT", &mut item.put),
        ("POST", &mut item.post),
        ("DELETE", &mut item.delete),
        ("OPTIONS", &mut item.options),
        ("HEAD", &mut item.head),
        ("PATCH", &mut item.patch),
        ("TRACE", &mut item.trace),
    ];
    all.into_iter()
        .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

fn serves(demand: &RouteDemand, method: &str) -> bool {
    demand
        .method
        .is_none_or(|of| of == method || (of, method) == ("GET", "HEAD"))
}

/// Returns whether axum's path and OpenAPI's path are the same. Names of parameters may differ, and
/// axum marks a parameter for the whole rest.
fn same_path(route: &str, documented: &str) -> bool {
    let is_parameter =
        |part: &str| part.starts_with('{') && part.ends_with('}') && !part.starts_with("{{");
    let (mut one, mut other) = (route.split('/'), documented.split('/'));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(one), Some(other))
                if one == other || (is_parameter(one) && is_parameter(other)) => {}
            _ => return false,
        }
    }
}
