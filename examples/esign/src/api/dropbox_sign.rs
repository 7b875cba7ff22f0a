//! Dropbox Sign: account, templates and signature requests under `/v3`, in the public API's JSON shapes.

use axum::body::Bytes;
use axum::extract::{FromRequest, Multipart, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Form, Json};
use portunus::adapter::axum::{ProtectedRouter, get, post};
use portunus::manage::ManageError;
use portunus::{AuthError, ErrorCode, KeyPrincipal, Principal, scope};
use serde_json::{Map, Value, json};

use crate::app::App;

pub(super) fn routes(router: ProtectedRouter<App>) -> ProtectedRouter<App> {
    router
        .route("/v3/account", get(account).require(scope!("account_access")))
        .route("/v3/template/list", get(templates).require(scope!("template_access")))
        .route("/v3/signature_request/list", get(requests).require(scope!("signature_request_access")))
        .route("/v3/signature_request/send", post(send).require(scope!("signature_request_access")))
        .route("/demo/event", post(event).any_key())
}

async fn account(caller: KeyPrincipal) -> Response {
    let owner = caller.owner();
    Json(json!({ "account": {
        "account_id": owner.user_id.as_ref().map_or(owner.tenant_id.as_str(), |user| user.as_str()),
        "email_address": owner.user_email,
        "is_locked": false,
        "is_paid_hs": true,
        "is_paid_hf": false,
        "quotas": { "api_signature_requests_left": null, "documents_left": null, "templates_left": null },
        "callback_url": null,
        "role_code": null,
        "team_id": null,
        "locale": "en-US",
    }}))
    .into_response()
}

async fn templates(State(app): State<App>, caller: KeyPrincipal) -> Response {
    page("templates", &app.shelves.all(&caller, "templates"))
}

async fn requests(State(app): State<App>, caller: KeyPrincipal) -> Response {
    page("signature_requests", &app.shelves.all(&caller, "signature_requests"))
}

fn page(name: &str, items: &[Value]) -> Response {
    let info = json!({ "page": 1, "num_pages": 1, "num_results": items.len(), "page_size": 20 });
    Json(json!({ "list_info": info, name: items })).into_response()
}

async fn send(State(app): State<App>, caller: KeyPrincipal, request: Request) -> Response {
    let made = match fields(request).await {
        Ok(fields) => {
            let test_mode = matches!(fields.get("test_mode"), Some(Value::Bool(true)))
                || fields.get("test_mode").is_some_and(|v| v == 1 || v == "1" || v == "true");
            let text = |name: &str| fields.get(name).cloned().unwrap_or_default();
            let facts = json!({
                "test_mode": test_mode,
                "title": text("title"),
                "subject": text("subject"),
                "message": text("message"),
                "is_complete": false,
                "is_declined": false,
                "has_error": false,
                "signatures": [],
            });
            app.shelves.add(&caller, "signature_requests", facts.as_object().cloned().unwrap_or_default())
        }
        Err(error) => Err(error),
    };
    match made {
        Ok(mut made) => {
            let id = made.get("id").cloned().unwrap_or_default();
            if let Some(facts) = made.as_object_mut() {
                facts.insert("signature_request_id".into(), id);
            }
            Json(json!({ "signature_request": made })).into_response()
        }
        Err(error) => app.refuse(&error),
    }
}

/// An event of now for the caller's account, signed with its primary key.
async fn event(State(app): State<App>, caller: KeyPrincipal, body: Bytes) -> Response {
    let asked = super::object(&body);
    let kind = asked.and_then(|asked| match asked.get("event_type") {
        Some(Value::String(kind)) => Ok(kind.clone()),
        _ => Err(AuthError::with_detail(ErrorCode::InvalidBody, "event_type: a string")),
    });
    let signed = match kind {
        Ok(kind) => app.manager.sign_event(caller.owner(), &kind).await.map_err(|error| {
            let detail = error.to_string();
            match error {
                ManageError::Store(_) => AuthError::unavailable(ErrorCode::StoreUnavailable, error),
                error => AuthError::with_detail(error.code(), detail),
            }
        }),
        Err(error) => Err(error),
    };
    match signed {
        Ok(event) => Json(json!({ "event": event })).into_response(),
        Err(error) => app.refuse(&error),
    }
}

/// The body's fields, whichever way the official clients send them; files are looked past.
async fn fields(request: Request) -> Result<Map<String, Value>, AuthError> {
    let unreadable = || AuthError::with_detail(ErrorCode::InvalidRequest, "The body cannot be read");
    let media = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if media.starts_with("multipart/form-data") {
        let mut parts = Multipart::from_request(request, &()).await.map_err(|_| unreadable())?;
        let mut fields = Map::new();
        while let Some(part) = parts.next_field().await.map_err(|_| unreadable())? {
            let name = part.name().unwrap_or_default().to_owned();
            let file = part.file_name().is_some();
            let bytes = part.bytes().await.map_err(|_| unreadable())?;
            if !file {
                fields.insert(name, String::from_utf8_lossy(&bytes).into());
            }
        }
        return Ok(fields);
    }
    if media.starts_with("application/x-www-form-urlencoded") {
        let Form(pairs) = Form::<Vec<(String, String)>>::from_request(request, &()).await.map_err(|_| unreadable())?;
        return Ok(pairs.into_iter().map(|(name, value)| (name, value.into())).collect());
    }
    super::object(&Bytes::from_request(request, &()).await.map_err(|_| unreadable())?)
}
