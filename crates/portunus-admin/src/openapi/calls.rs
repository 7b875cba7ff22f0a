//! The operations, with their parameters, bodies and responses.

use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, Paths,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::{Content, Object, Ref, RefOr, Required, Response, Schema, Type};
use utoipa::{IntoParams, ToSchema};

use super::answers::{self, always, json, matching, nothing, of};
use super::credits;
use crate::bulk::{BulkCount, BulkRequest, BulkView};
use crate::events::{EventPage, EventParameters};
use crate::import::{ImportRequest, ImportedKey, ImportedKeys};
use crate::issue::{IssueRequest, IssuedKey, RepeatedRequest};
use crate::keys::{ListParameters, RevokeRequest, RotateRequest, RotatedKey, UsageParameters};
use crate::record::{KeyPage, KeyRecord, Usage};
use crate::update::ChangeRequest;
use crate::verify::{Verified, VerifyRequest};
use crate::{Shared, terms};

/// Error statuses of every operation: invalid request, failed authentication, policy, quota, and
/// unavailable dependencies.
const EVERYWHERE: [u16; 5] = [400, 401, 403, 429, 503];

/// All paths with their operations.
pub(super) fn paths(shared: &Shared) -> Paths {
    let mut paths = Paths::new();
    for call in keys()
        .into_iter()
        .chain(bulk())
        .chain(one_key())
        .chain(
            shared
                .has_credits
                .then(credits::calls)
                .into_iter()
                .flatten(),
        )
        .chain(others(shared))
    {
        let mut operation = call.operation.build();
        let listed = &mut operation.responses.responses;
        // The host's proof and rules may refuse with any code; no operation itself answers 500.
        listed.insert(
            "default".into(),
            Ref::from_response_name(answers::OTHER).into(),
        );
        paths.add_path_operation(call.path, vec![call.method], operation);
    }
    paths
}

pub(super) struct Call {
    path: &'static str,
    method: HttpMethod,
    operation: OperationBuilder,
}

/// An operation with the error responses that every operation has.
pub(super) fn call(method: HttpMethod, path: &'static str, id: &str, summary: &str) -> Call {
    let operation = OperationBuilder::new()
        .operation_id(Some(id))
        .summary(Some(summary));
    let call = Call {
        path,
        method,
        operation,
    }
    .refused(&EVERYWHERE);
    let about_a_key = path.starts_with("/keys/{id}");
    let what = match path {
        "/keys/bulk/{id}" => Some("The operation."),
        _ => about_a_key.then_some("The key."),
    };
    let call = match what {
        Some(what) => call.taking(ParameterIn::Path, "id", what, of::<terms::KeyId>()),
        None => call,
    };
    if matches!(call.method, HttpMethod::Get) {
        return call;
    }
    // Every write may have content and may be conditional.
    let call = call.refused(&[412, 415]);
    if about_a_key {
        call.conditional()
    } else {
        let why =
            "The call is not about a stored key: `*` always matches, an entity tag results in 412.";
        call.header("If-Match", why, Object::with_type(Type::String))
    }
}

impl Call {
    fn with(self, change: impl FnOnce(OperationBuilder) -> OperationBuilder) -> Self {
        Self {
            operation: change(self.operation),
            ..self
        }
    }

    pub(super) fn about(self, description: &str) -> Self {
        self.with(|operation| operation.description(Some(description)))
    }

    /// Adds error responses with these statuses.
    pub(super) fn refused(self, statuses: &[u16]) -> Self {
        statuses.iter().fold(self, |call, status| {
            let refusal = Ref::from_response_name(answers::name_of(*status));
            call.with(|operation| operation.response(status.to_string(), refusal))
        })
    }

    pub(super) fn answers(self, status: u16, response: impl Into<RefOr<Response>>) -> Self {
        self.with(|operation| operation.response(status.to_string(), response))
    }

    pub(super) fn taking(
        self,
        place: ParameterIn,
        name: &str,
        description: &str,
        schema: impl Into<RefOr<Schema>>,
    ) -> Self {
        let required = if matches!(place, ParameterIn::Path) {
            Required::True
        } else {
            Required::False
        };
        let parameter: Parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(place)
            .description(Some(description))
            .required(required)
            .schema(Some(schema))
            .build();
        self.with(|operation| operation.parameter(parameter))
    }

    /// Adds query parameters. An empty value counts as absent.
    pub(super) fn query<P: IntoParams>(self) -> Self {
        P::into_params(|| None)
            .into_iter()
            .fold(self, |call, mut parameter| {
                let about = parameter.description.take().unwrap_or_default();
                parameter.description = Some(format!("{about} An empty value counts as absent."));
                // utoipa has no field for this member of OpenAPI.
                parameter.extensions = Some(Extensions::from_iter([("allowEmptyValue", true)]));
                call.with(|operation| operation.parameter(parameter))
            })
    }

    pub(super) fn header(
        self,
        name: &str,
        description: &str,
        schema: impl Into<RefOr<Schema>>,
    ) -> Self {
        self.taking(ParameterIn::Header, name, description, schema)
    }

    /// Makes the operation conditional on the key's version (RFC 9110 §13).
    fn conditional(self) -> Self {
        let expected = "Proceed only if the key has one of these versions: entity tags from `ETag`, \
                        or `*`. Otherwise 412. Evaluated last.";
        let known = match self.method {
            HttpMethod::Get => {
                "Versions that the caller has. The response is 304 if the key has one of them."
            }
            _ => "Proceed only if the key has none of these versions; `*` matches every version.",
        };
        self.header("If-Match", expected, Object::with_type(Type::String))
            .header("If-None-Match", known, Object::with_type(Type::String))
    }

    /// Adds a body of this schema; an absent body counts as `{}`.
    pub(super) fn body<T: ToSchema>(self, required: Required) -> Self {
        let types: &[&str] = match self.method {
            HttpMethod::Patch => &["application/json", "application/merge-patch+json"],
            _ => &["application/json"],
        };
        let body = RequestBodyBuilder::new().required(Some(required));
        let body = types.iter().fold(body, |body, media| {
            body.content(*media, Content::new(Some(of::<T>())))
        });
        self.with(|operation| operation.request_body(Some(body.build())))
            .refused(&[413])
    }

    /// Adds the bodies of an import: one key, or many.
    fn imports(self) -> Self {
        let lines = [
            (
                "application/x-ndjson",
                "One JSON object on each line, as for the import of one key. A line has at most \
                 256 KiB.",
            ),
            (
                "text/csv",
                "RFC 4180 with a header, separated by commas. A column has the name of its member; \
                 a member of a member is named by its path, such as `digest.hex`. Scopes, workspaces \
                 and addresses are separated by spaces, and `metadata` is a JSON object. An empty \
                 field counts as absent, but `workspaces` and `allowed_ips` need `*` for no \
                 restriction if there is such a column. A record has at most 256 KiB.",
            ),
        ];
        let one = Content::new(Some(of::<ImportRequest>()));
        let body = RequestBodyBuilder::new().required(Some(Required::True));
        let body = body.content("application/json", one);
        let body = lines.into_iter().fold(body, |body, (media, about)| {
            let mut text = Object::with_type(Type::String);
            text.description = Some(about.to_owned());
            body.content(media, Content::new(Some(text)))
        });
        self.with(|operation| operation.request_body(Some(body.build())))
            .refused(&[413])
    }

    /// Makes the operation idempotent (draft-ietf-httpapi-idempotency-key-header).
    fn once(self) -> Self {
        let why = "Makes the request safe to retry: a repeated request with the same body gets 200 \
                   with the same record, without the secret; with another body it gets 422.";
        self.header("Idempotency-Key", why, matching("^[!-~]{1,255}$"))
            .answers(
                200,
                json::<RepeatedRequest<'static>>(
                    "The request is a retry and was already processed.",
                ),
            )
    }

    /// Adds a response with a key and its version.
    fn key(self, when: &str) -> Self {
        self.answers(
            200,
            json::<KeyRecord<'static>>(when).header("ETag", always("ETag")),
        )
    }
}

fn keys() -> [Call; 4] {
    [
        call(HttpMethod::Post, "/keys", "issueKey", "Issue a key")
            .about(
                "Only `name` is required. Defaults: kind `app`, the default environment, the \
                 operator's tenant, no scopes, full access, the whole organization, the default \
                 rate limits, no expiry. The secret is shown only once.",
            )
            .once()
            .body::<IssueRequest>(Required::True)
            .answers(201, json::<IssuedKey<'static>>("The key, with its secret."))
            .refused(&[409, 422]),
        call(
            HttpMethod::Get,
            "/keys",
            "listKeys",
            "List keys, newest first",
        )
        .query::<ListParameters>()
        .answers(200, json::<KeyPage<'static>>("A page of keys.")),
        call(
            HttpMethod::Post,
            "/import",
            "importKey",
            "Import a key by its digest, or many keys",
        )
        .about(
            "A digest that was ever stored, even for a deleted key, results in a conflict. \
             Many keys are sent as lines of JSON or as CSV, without a maximum length: each is \
             checked alone, and a refused one does not stop the others. If such an import is \
             interrupted (503 with `import.stopped_at`), send the same content again: keys that are there \
             already are recognized.",
        )
        .imports()
        .answers(
            200,
            json::<ImportedKeys<'static>>("The result of an import of many keys."),
        )
        .answers(201, json::<ImportedKey<'static>>("The imported key."))
        .refused(&[409, 422]),
        call(
            HttpMethod::Post,
            "/verify",
            "verifyKey",
            "Verify a secret and what it allows",
        )
        .about(
            "Modelled on RFC 7662. Applies the rules for requests: the status of the key and its \
                 owner, the environment of the service, the allow-list, and the given scopes, \
                 method and workspace. The call does not count as usage of the key or against its \
                 quota, and checks neither the rate limit nor the transport. Other requirements of \
                 a route (a plan, a user, the organization) are not evaluated: a request that is \
                 `allowed` here may still be refused.",
        )
        .body::<VerifyRequest>(Required::True)
        .answers(
            200,
            json::<Verified<'static>>("The key if it is active, otherwise only `active: false`."),
        )
        .refused(&[422]),
    ]
}

fn bulk() -> [Call; 2] {
    let once = "Makes the request safe to retry: a repeated request with the same body gets the same \
                operation; with another body it gets 422.";
    [
        call(
            HttpMethod::Post,
            "/keys/bulk",
            "startBulkOperation",
            "Revoke, disable, enable or change the plan of many keys",
        )
        .about(
            "The service processes the keys one by one, with the rights that the operator has now, \
             and with an event for each. A tenant may have 20 operations open at a time. A dry run only \
             counts them.",
        )
        .header("Idempotency-Key", once, matching("^[!-~]{1,255}$"))
        .body::<BulkRequest>(Required::True)
        .answers(200, json::<BulkCount>("The number of keys, for a dry run."))
        .answers(
            202,
            json::<BulkView<'static>>("The operation was started.")
                .header("Location", always("Location")),
        )
        .refused(&[409, 422]),
        call(
            HttpMethod::Get,
            "/keys/bulk/{id}",
            "getBulkOperation",
            "Get the progress of an operation on many keys",
        )
        .answers(200, json::<BulkView<'static>>("The operation."))
        .refused(&[404]),
    ]
}

fn one_key() -> [Call; 7] {
    [
        call(HttpMethod::Get, "/keys/{id}", "getKey", "Get a key")
            .conditional()
            .key("The key.")
            .answers(
                304,
                nothing("The caller already has the current version of the key.")
                    .header("ETag", always("ETag")),
            )
            .refused(&[404, 412]),
        call(HttpMethod::Patch, "/keys/{id}", "changeKey", "Change a key")
            .body::<ChangeRequest>(Required::False)
            .key("The changed key.")
            .refused(&[404, 409, 422]),
        call(
            HttpMethod::Delete,
            "/keys/{id}",
            "deleteKey",
            "Revoke a key and remove it from lists",
        )
        .about(
            "Audit events about the key remain. Deleting an owner's primary key is a conflict \
                 while the owner has another active key.",
        )
        .answers(204, nothing("The key is deleted."))
        .refused(&[404, 409]),
        call(
            HttpMethod::Post,
            "/keys/{id}/revoke",
            "revokeKey",
            "Revoke a key permanently, from the next request on",
        )
        .about("Idempotent: the first reason is kept.")
        .body::<RevokeRequest>(Required::False)
        .key("The revoked key.")
        .refused(&[404, 409, 422]),
        call(
            HttpMethod::Post,
            "/keys/{id}/rotate",
            "rotateKey",
            "Rotate a key",
        )
        .about(
            "Issues a successor. The old key works until the grace period ends (`KEY_EXPIRED` \
             afterwards), but never past its own expiry. Without a grace period it is revoked in \
             the same step, with the reason `rotated` (`KEY_REVOKED`); if it was the primary key, \
             the successor becomes the primary key.",
        )
        .once()
        .body::<RotateRequest>(Required::False)
        .answers(
            201,
            json::<RotatedKey<'static>>("The successor, with its secret."),
        )
        .refused(&[404, 409, 422]),
        call(
            HttpMethod::Post,
            "/keys/{id}/primary",
            "makeKeyPrimary",
            "Make a key its owner's primary key",
        )
        .key("The key, which is now primary.")
        .refused(&[404, 409]),
        call(
            HttpMethod::Get,
            "/keys/{id}/usage",
            "getKeyUsage",
            "Get the hourly usage of a key",
        )
        .about("At most 366 days per call; the last 7 days by default.")
        .query::<UsageParameters>()
        .answers(
            200,
            json::<Usage<'static>>("Request counts by hour; hours without requests are omitted."),
        )
        .refused(&[404]),
    ]
}

fn others(shared: &Shared) -> Vec<Call> {
    let document = call(
        HttpMethod::Get,
        "/openapi.json",
        "getOpenApi",
        "Get this OpenAPI document",
    )
    .answers(
        200,
        nothing("The OpenAPI document.").content(
            "application/json",
            Content::new(Some(Object::with_type(Type::Object))),
        ),
    );
    // The path exists only with an event log.
    let events = shared.events.is_some().then(events);
    events.into_iter().chain([document]).collect()
}

fn events() -> Call {
    call(
        HttpMethod::Get,
        "/events",
        "listEvents",
        "List audit events, newest first",
    )
    .about(
        "Includes every request that this node has answered, as long as its audit sinks keep up: \
         the response waits up to half a second for events that are not yet written.",
    )
    .query::<EventParameters>()
    .answers(200, json::<EventPage<'static>>("A page of events."))
}
