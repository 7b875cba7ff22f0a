//! AllSign: documents and signatures under `/v2`.

use portunus::{Requirement, scope};

use super::Route;
use super::route::{delete, get, post};

pub(super) fn routes() -> Vec<Route> {
    let write = Requirement::any_of([scope!("document:write"), scope!("document:*")]);
    vec![
        get("/v2/documents", scope!("document:read"), |call| {
            call.list("documents")
        }),
        post("/v2/documents", write, |call| call.create("documents")),
        delete("/v2/documents/{id}", scope!("document:delete"), |call| {
            call.remove("documents")
        }),
        get("/v2/signatures", scope!("signature:read"), |call| {
            call.list("signatures")
        }),
        post("/v2/signatures", scope!("signature:write"), |call| {
            call.create("signatures")
        }),
    ]
}
