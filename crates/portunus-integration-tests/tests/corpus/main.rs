//! One corpus of requests and their whole answers, and every adapter: tower's layers on hyper, axum
//! and actix-web give the same status, fields and body, on real sockets. `row.rs` says how rows are
//! written.

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
        /// Every row of every file.
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
    bearer_keys_are_answered_alike = "bearer.http",
    other_ways_to_present_a_key_are_answered_alike = "ways.http",
    nobody_and_foreign_tokens_are_answered_alike = "tokens.http",
    however_a_key_stands_it_is_answered_alike = "standing.http",
    demands_of_scopes_are_answered_alike = "scopes.http",
    other_demands_are_answered_alike = "access.http",
    the_clients_address_is_found_alike = "network.http",
    other_proxies_and_connections_are_judged_alike = "proxies.http",
    limits_are_told_alike = "limits.http",
    other_limits_are_told_alike = "more-limits.http",
    whoever_a_key_acts_for_is_answered_alike = "actors.http",
    allsign_is_answered_alike = "allsign.http",
    insigner_is_answered_alike = "insigner.http",
    yousign_is_answered_alike = "yousign.http",
    iusign_is_answered_alike = "iusign.http",
    dropbox_sign_is_answered_alike = "dropbox-sign.http",
    what_looks_like_a_call_of_grpc_is_answered_alike = "grpc.http",
    what_routers_do_themselves_lets_nobody_in = "routers.http",
    what_servers_do_themselves_lets_nobody_in = "bytes.http",
    chunks_and_upgrades_let_nobody_in = "chunks.http",
    what_is_said_over_http_2_is_answered_alike = "http2.http",
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
