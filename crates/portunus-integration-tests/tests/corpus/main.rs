//! One corpus of requests with their complete responses, run against every adapter: tower's layers
//! on hyper, axum and actix-web give the same status, fields and body on real sockets. The syntax
//! of rows is documented in `row.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod by_actix;
mod by_axum;
mod by_tower;
mod configuration;
mod fixture;
mod grpc;
mod mutations;
mod random;
mod routes;
mod row;
mod rules;
mod run;
mod wire;

use row::Row;

macro_rules! files {
    ($($(#[$doc:meta])* $test:ident = $file:literal),* $(,)?) => {
        /// All rows of all files.
        pub(crate) fn all_rows() -> Vec<Row> {
            [$(include_str!(concat!("rows/", $file))),*].into_iter().flat_map(row::parse).collect()
        }
        $(
            #[actix_web::test]
            async fn $test() {
                all_pass(&row::parse(include_str!(concat!("rows/", $file)))).await;
            }
        )*
    };
}

files! {
    bearer_keys_are_answered_identically = "bearer.http",
    other_ways_to_present_a_key_are_answered_identically = "ways.http",
    anonymous_requests_and_external_tokens_are_answered_identically = "tokens.http",
    every_standing_of_a_key_is_answered_identically = "standing.http",
    scope_requirements_are_answered_identically = "scopes.http",
    other_requirements_are_answered_identically = "access.http",
    client_addresses_are_resolved_identically = "network.http",
    other_proxies_and_transports_are_handled_identically = "proxies.http",
    limits_are_reported_identically = "limits.http",
    other_limits_are_reported_identically = "more-limits.http",
    actors_are_answered_identically = "actors.http",
    allsign_is_answered_identically = "allsign.http",
    insigner_is_answered_identically = "insigner.http",
    yousign_is_answered_identically = "yousign.http",
    iusign_is_answered_identically = "iusign.http",
    dropbox_sign_is_answered_identically = "dropbox-sign.http",
    apparent_grpc_calls_are_answered_identically = "grpc.http",
    differences_between_routers_never_let_a_request_pass = "routers.http",
    differences_between_servers_never_let_a_request_pass = "bytes.http",
    chunks_and_upgrades_never_let_a_request_pass = "chunks.http",
    http_2_requests_are_answered_identically = "http2.http",
}

async fn all_pass(rows: &[Row]) {
    let mut wrong = Vec::new();
    for row in rows {
        wrong.extend(run::run(row).await.err());
    }
    assert!(
        wrong.is_empty(),
        "{} of {} rows\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
}
