//! Dropbox Sign: account, templates and signature requests under `/v3`, in the public API's JSON
//! shapes.

use axum::Form;
use axum::body::Body;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::header::CONTENT_TYPE;
use portunus::manage::ManageError;
use portunus::{AuthError, ErrorCode, Principal, Requirement, scope};
use serde_json::{Map, Value, json};

use super::route::get;
use super::{Call, Method, Outcome, Reply, Route};

pub(super) fn routes() -> Vec<Route> {
    vec![
        get("/v3/account", scope!("account_access"), account),
        get("/v3/template/list", scope!("template_access"), |call| {
            page(call, "templates")
        }),
        get(
            "/v3/signature_request/list",
            scope!("signature_request_access"),
            |call| page(call, "signature_requests"),
        ),
        Route::later(
            Method::Post,
            "/v3/signature_request/send",
            scope!("signature_request_access"),
            send,
        ),
        Route::later(Method::Post, "/demo/event", Requirement::none(), event),
    ]
}

fn account(call: &Call) -> Outcome {
    let owner = call.caller.owner();
    Ok(Reply::Ok(json!({ "account": {
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
    }})))
}

fn page(call: &Call, name: &str) -> Outcome {
    let items = call.app.documents.all(&call.caller, name);
    let info = json!({ "page": 1, "num_pages": 1, "num_results": items.len(), "page_size": 20 });
    Ok(Reply::Ok(json!({ "list_info": info, name: items })))
}

async fn send(call: Call) -> Outcome {
    let fields = fields(&call).await?;
    let test_mode = matches!(fields.get("test_mode"), Some(Value::Bool(true)))
        || fields
            .get("test_mode")
            .is_some_and(|v| v == 1 || v == "1" || v == "true");
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
    let facts = facts.as_object().cloned().unwrap_or_default();
    let mut made = call
        .app
        .documents
        .add(&call.caller, "signature_requests", facts)?;
    let id = made.get("id").cloned().unwrap_or_default();
    if let Some(facts) = made.as_object_mut() {
        facts.insert("signature_request_id".into(), id);
    }
    Ok(Reply::Ok(json!({ "signature_request": made })))
}

/// Returns an event for the caller's account, signed with its primary key at the current time.
async fn event(call: Call) -> Outcome {
    let asked = call.object()?;
    let Some(Value::String(kind)) = asked.get("event_type") else {
        return Err(AuthError::with_detail(
            ErrorCode::InvalidBody,
            "event_type: must be a string",
        ));
    };
    let event = call
        .app
        .manager
        .sign_event(call.caller.owner(), kind)
        .await
        .map_err(|error| {
            let detail = error.to_string();
            match error {
                ManageError::Store(_) | ManageError::Log(_) => {
                    AuthError::unavailable(ErrorCode::StoreUnavailable, error)
                }
                error => AuthError::with_detail(error.code(), detail),
            }
        })?;
    Ok(Reply::Ok(json!({ "event": event })))
}

/// Reads the body's fields in any of the encodings that the official clients use. Files are
/// ignored.
async fn fields(call: &Call) -> Result<Map<String, Value>, AuthError> {
    let unreadable =
        || AuthError::with_detail(ErrorCode::InvalidRequest, "The body cannot be read");
    let request = Request::post("/")
        .header(CONTENT_TYPE, &call.media)
        .body(Body::from(call.body.clone()));
    let request = request.map_err(|_| unreadable())?;
    let media = call.media.to_ascii_lowercase();
    if media.starts_with("multipart/form-data") {
        let mut parts = Multipart::from_request(request, &())
            .await
            .map_err(|_| unreadable())?;
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
        let Form(pairs) = Form::<Vec<(String, String)>>::from_request(request, &())
            .await
            .map_err(|_| unreadable())?;
        return Ok(pairs
            .into_iter()
            .map(|(name, value)| (name, value.into()))
            .collect());
    }
    call.object()
}
