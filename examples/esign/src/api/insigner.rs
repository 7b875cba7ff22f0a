//! inSigner: documents, templates, campaigns, bulk sends, webhooks and the organization under
//! `/api/v1`.

use portunus::{Principal, scope};
use serde_json::json;

use super::route::{delete, get, post, put};
use super::{Call, Outcome, Reply, Route};

pub(super) fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/documents", scope!("documents.read"), |call| {
            call.list("documents")
        }),
        post("/api/v1/documents", scope!("documents.create"), |call| {
            call.create("documents")
        }),
        get("/api/v1/documents/{id}", scope!("documents.read"), |call| {
            call.show("documents")
        }),
        put(
            "/api/v1/documents/{id}",
            scope!("documents.write"),
            |call| call.change("documents"),
        ),
        delete(
            "/api/v1/documents/{id}",
            scope!("documents.delete"),
            |call| call.remove("documents"),
        ),
        post(
            "/api/v1/documents/{id}/send",
            scope!("documents.send"),
            send,
        ),
        get("/api/v1/templates", scope!("templates.read"), |call| {
            call.list("templates")
        }),
        get("/api/v1/campaigns", scope!("campaigns.read"), |call| {
            call.list("campaigns")
        }),
        post("/api/v1/campaigns", scope!("campaigns.create"), |call| {
            call.create("campaigns")
        }),
        put(
            "/api/v1/campaigns/{id}",
            scope!("campaigns.update"),
            |call| call.change("campaigns"),
        ),
        delete(
            "/api/v1/campaigns/{id}",
            scope!("campaigns.delete"),
            |call| call.remove("campaigns"),
        ),
        get("/api/v1/webhooks", scope!("webhooks.read"), |call| {
            call.list("webhooks")
        }),
        post("/api/v1/webhooks", scope!("webhooks.create"), |call| {
            call.create("webhooks")
        }),
        put("/api/v1/webhooks/{id}", scope!("webhooks.update"), |call| {
            call.change("webhooks")
        }),
        delete("/api/v1/webhooks/{id}", scope!("webhooks.delete"), |call| {
            call.remove("webhooks")
        }),
        get("/api/v1/bulk_sends", scope!("bulk_sends.read"), |call| {
            call.list("bulk_sends")
        }),
        post("/api/v1/bulk_sends", scope!("bulk_sends.create"), |call| {
            call.create("bulk_sends")
        }),
        delete(
            "/api/v1/bulk_sends/{id}",
            scope!("bulk_sends.delete"),
            |call| call.remove("bulk_sends"),
        ),
        get("/api/v1/org", scope!("org.read"), org),
    ]
}

fn send(call: &Call) -> Outcome {
    let sent = json!({ "status": "sent" })
        .as_object()
        .cloned()
        .unwrap_or_default();
    call.app
        .documents
        .change(&call.caller, "documents", call.id(), sent)
        .map(Reply::Ok)
}

fn org(call: &Call) -> Outcome {
    Ok(Reply::Ok(
        json!({ "id": call.caller.owner().tenant_id, "members": [] }),
    ))
}
