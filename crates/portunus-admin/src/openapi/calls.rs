//! The calls: what each takes, and every answer that it has.

use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, Paths,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::{Content, Object, Ref, RefOr, Required, Response, Schema, Type};
use utoipa::{IntoParams, ToSchema};

use super::answers::{self, always, json, matching, nothing, of};
use crate::events::{EventPage, EventParameters};
use crate::import::{ImportRequest, ImportedKey};
use crate::issue::{IssueRequest, IssuedKey, RepeatedRequest};
use crate::keys::{ListParameters, RevokeRequest, RotateRequest, RotatedKey, UsageParameters};
use crate::record::{KeyPage, KeyRecord, Usage};
use crate::update::ChangeRequest;
use crate::verify::{Verified, VerifyRequest};
use crate::{Shared, terms};

/// What is refused in every call: by the proof, by the policy, by the operator's quota, and where
/// nobody answers.
const EVERYWHERE: [u16; 5] = [400, 401, 403, 429, 503];

/// All paths with their calls.
pub(super) fn paths(shared: &Shared) -> Paths {
    let mut paths = Paths::new();
    for call in keys().into_iter().chain(one_key()).chain(others(shared)) {
        let mut operation = call.operation.build();
        let listed = &mut operation.responses.responses;
        // The host's proof and rules may refuse with any code. Where a call has every status, there
        // is no other.
        if !answers::statuses().all(|status| listed.contains_key(&status.to_string())) {
            listed.insert(
                "default".into(),
                Ref::from_response_name(answers::OTHER).into(),
            );
        }
        paths.add_path_operation(call.path, vec![call.method], operation);
    }
    paths
}

struct Call {
    path: &'static str,
    method: HttpMethod,
    operation: OperationBuilder,
}

/// A call that so far has the answers of every call.
fn call(method: HttpMethod, path: &'static str, id: &str, summary: &str) -> Call {
    let operation = OperationBuilder::new()
        .operation_id(Some(id))
        .summary(Some(summary));
    let call = Call {
        path,
        method,
        operation,
    }
    .refused(&EVERYWHERE);
    let about_a_key = path.contains("{id}");
    let call = if about_a_key {
        call.taking(ParameterIn::Path, "id", "The key.", of::<terms::KeyId>())
    } else {
        call
    };
    if matches!(call.method, HttpMethod::Get) {
        return call;
    }
    // Every write: it may have content, and it may be conditional.
    let call = call.refused(&[412, 415]);
    if about_a_key {
        call.conditional()
    } else {
        let why = "The call concerns no stored key: `*` passes, a tag is answered by 412.";
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

    fn about(self, description: &str) -> Self {
        self.with(|operation| operation.description(Some(description)))
    }

    /// Refused with these statuses too.
    fn refused(self, statuses: &[u16]) -> Self {
        statuses.iter().fold(self, |call, status| {
            let refusal = Ref::from_response_name(answers::name_of(*status));
            call.with(|operation| operation.response(status.to_string(), refusal))
        })
    }

    fn answers(self, status: u16, response: impl Into<RefOr<Response>>) -> Self {
        self.with(|operation| operation.response(status.to_string(), response))
    }

    fn taking(
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

    /// The parameters of the query. An empty one counts as absent.
    fn query<P: IntoParams>(self) -> Self {
        P::into_params(|| None)
            .into_iter()
            .fold(self, |call, mut parameter| {
                let about = parameter.description.take().unwrap_or_default();
                parameter.description = Some(format!("{about} An empty value counts as absent."));
                // What OpenAPI has a member for, and utoipa has not.
                parameter.extensions = Some(Extensions::from_iter([("allowEmptyValue", true)]));
                call.with(|operation| operation.parameter(parameter))
            })
    }

    fn header(self, name: &str, description: &str, schema: impl Into<RefOr<Schema>>) -> Self {
        self.taking(ParameterIn::Header, name, description, schema)
    }

    /// Done only while the key is at a version that the caller expects (RFC 9110 §13).
    fn conditional(self) -> Self {
        let expected = "Do it only if the key is at one of these versions: tags of `ETag`, or `*`. \
                        Otherwise 412. Evaluated last.";
        let known = match self.method {
            HttpMethod::Get => "Versions that the caller has: 304 if the key is at one of them.",
            _ => "Do it only if the key is at none of these versions; `*` stands for all of them.",
        };
        self.header("If-Match", expected, Object::with_type(Type::String))
            .header("If-None-Match", known, Object::with_type(Type::String))
    }

    /// A body of this schema; an absent one is `{}`.
    fn body<T: ToSchema>(self, required: Required) -> Self {
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

    /// Repeatable without being done twice (draft-ietf-httpapi-idempotency-key-header).
    fn once(self) -> Self {
        let why = "Makes the request repeatable: the same key with the same body answers 200 with \
                   the same record and never the secret again; with another body it is 422.";
        self.header("Idempotency-Key", why, matching("^[!-~]{1,255}$"))
            .answers(
                200,
                json::<RepeatedRequest<'static>>("The same request was done before."),
            )
    }

    /// Answers with a key and its version.
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
                "Only `name` is required: kind `app`, the usual environment, the operator's tenant, \
                 no scopes, full access, the whole organization, the usual limits, no end. The \
                 secret is shown this once.",
            )
            .once()
            .body::<IssueRequest>(Required::True)
            .answers(201, json::<IssuedKey<'static>>("The key, with its secret."))
            .refused(&[409, 422]),
        call(HttpMethod::Get, "/keys", "listKeys", "List keys, newest first")
            .query::<ListParameters>()
            .answers(200, json::<KeyPage<'static>>("A page of keys.")),
        call(HttpMethod::Post, "/import", "importKey", "Take over a key whose secret is unknown")
            .about("A digest that was ever known, even of a deleted key, is a conflict.")
            .body::<ImportRequest>(Required::True)
            .answers(201, json::<ImportedKey<'static>>("The key. Nobody here knows its secret."))
            .refused(&[409, 422]),
        call(HttpMethod::Post, "/verify", "verifyKey", "What a secret is, and what it may do")
            .about(
                "In the manner of RFC 7662, by the rules that a request passes: the key's and its \
                 owner's standing, the environment that is served, the allow-list, and the scopes, \
                 method and workspace that are named. It is no use of the key, counts against no \
                 quota, and looks at neither the rate limit nor the transport. What a route requires \
                 besides scopes (a plan, a user, the organization) is not asked about: a request that \
                 is `allowed` here may be refused there.",
            )
            .body::<VerifyRequest>(Required::True)
            .answers(200, json::<Verified<'static>>("About the key, if it works; else not a word."))
            .refused(&[422]),
    ]
}

fn one_key() -> [Call; 7] {
    [
        call(HttpMethod::Get, "/keys/{id}", "getKey", "Show a key")
            .conditional()
            .key("The key.")
            .answers(
                304,
                nothing("The key is at a version that the caller has.")
                    .header("ETag", always("ETag")),
            )
            .refused(&[404, 412]),
        call(HttpMethod::Patch, "/keys/{id}", "changeKey", "Change a key")
            .body::<ChangeRequest>(Required::False)
            .key("The key as it is now.")
            .refused(&[404, 409, 422]),
        call(
            HttpMethod::Delete,
            "/keys/{id}",
            "deleteKey",
            "Revoke a key and take it out of the lists",
        )
        .about(
            "The audit keeps it. The primary key of an owner who has another active one is a \
                 conflict.",
        )
        .answers(204, nothing("It is gone."))
        .refused(&[404, 409]),
        call(
            HttpMethod::Post,
            "/keys/{id}/revoke",
            "revokeKey",
            "Refuse a key from the next request on, for good",
        )
        .about("Idempotent: the first reason stays.")
        .body::<RevokeRequest>(Required::False)
        .key("The key, revoked.")
        .refused(&[404, 409, 422]),
        call(
            HttpMethod::Post,
            "/keys/{id}/rotate",
            "rotateKey",
            "Give a key a successor",
        )
        .about(
            "The old key works until its grace ends (then it answers KEY_EXPIRED), and never past its \
             own end. Without a grace it is revoked in the same step, with the reason `rotated` \
             (KEY_REVOKED); if it was the primary key, the successor becomes that.",
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
            "Make a key its owner's primary one",
        )
        .key("The key, primary now.")
        .refused(&[404, 409]),
        call(
            HttpMethod::Get,
            "/keys/{id}/usage",
            "getKeyUsage",
            "How often a key was used, hour by hour",
        )
        .about("At most 366 days at once; the last 7 unless it is said.")
        .query::<UsageParameters>()
        .answers(200, json::<Usage<'static>>("Counts; hours without use are left out."),
        )
        .refused(&[404]),
    ]
}

fn others(shared: &Shared) -> Vec<Call> {
    let document = call(
        HttpMethod::Get,
        "/openapi.json",
        "getOpenApi",
        "This document",
    )
    .answers(
        200,
        nothing("This document.").content(
            "application/json",
            Content::new(Some(Object::with_type(Type::Object))),
        ),
    );
    // Without a log there is no such path.
    let events = shared.events.is_some().then(events);
    events.into_iter().chain([document]).collect()
}

fn events() -> Call {
    call(
        HttpMethod::Get,
        "/events",
        "listEvents",
        "What happened, the last first",
    )
    .about(
        "With every request that this node has answered, as long as its sinks keep up: for events \
         that are not written yet, the answer waits half a second at most.",
    )
    .query::<EventParameters>()
    .answers(200, json::<EventPage<'static>>("A page of events."))
}
