//! IUSign: envelopes under `/v1`, for plan `standard` and higher.

use portunus::Requirement;
use serde_json::json;

use super::route::{get, post};
use super::{Call, Outcome, Reply, Route};

pub(super) fn routes(standard: &Requirement) -> Vec<Route> {
    vec![
        get("/v1/envelopes", standard.clone(), |call| {
            call.list("envelopes")
        }),
        post("/v1/envelopes", standard.clone(), |call| {
            call.create("envelopes")
        }),
        post("/v1/envelopes/mass", standard.clone(), |call| {
            call.create("envelopes")
        }),
        get("/v1/envelopes/{id}", standard.clone(), |call| {
            call.show("envelopes")
        }),
        get("/v1/envelopes/{id}/document", standard.clone(), document),
    ]
}

fn document(call: &Call) -> Outcome {
    call.app
        .documents
        .one(&call.caller, "envelopes", call.id())?;
    Ok(Reply::Ok(
        json!({ "envelope_id": call.id(), "media_type": "application/pdf", "pages": 0 }),
    ))
}
