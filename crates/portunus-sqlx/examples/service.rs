//! The README's second program: keys in a SQLite file, a management API, and the periodic jobs.
//!
//! `cargo run -p portunus-sqlx --example service`, then paste the command that it prints.

use std::{error::Error, net::SocketAddr};

use axum::{Router, http::request::Parts, routing::get};
use portunus::adapter::axum::RequireExt;
use portunus::key::{Alphabet, KeyFormat, Owner};
use portunus::manage::{NewKey, Operator};
use portunus::quota::Quota;
use portunus::{AuthError, ErrorCode, KeyPrincipal, Limits, Portunus, Principal, scope};
use portunus_admin::{Admin, OperatorProof};
use portunus_sqlx::SqliteStore;
use tokio::{net::TcpListener, signal::ctrl_c};

async fn documents(caller: KeyPrincipal) -> String {
    format!("documents of {}\n", caller.owner().tenant_id)
}

/// Who may manage keys: check your session, single sign-on or client certificate here.
#[derive(Debug)]
struct Sessions;

#[async_trait::async_trait]
impl OperatorProof for Sessions {
    async fn prove(&self, _: &Parts) -> Result<Operator, AuthError> {
        Err(AuthError::new(ErrorCode::MissingKey))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32);
    let per_key = [Quota::per_minute(60), Quota::per_hour(1000)];
    let keys = Portunus::builder(format.build()?)
        .store(SqliteStore::open("keys.db").await?) // creates the file or migrates its schema
        .limits(Limits::per_key(per_key)) // the default
        .build()?;

    let documents = get(documents).require(scope!("document:read"));
    let app: Router = Router::new()
        .route("/documents", documents)
        .route_layer(keys.layer()) // unknown paths stay 404
        .nest("/admin", Admin::new(&keys, Sessions).into_router());

    let new = NewKey::new("first key", Owner::tenant("tenant-1".parse()?));
    let new = new.with_scopes([scope!("document:read")]);
    let key = keys.manager().issue(new).await?.key.reveal();
    eprintln!("curl -i http://127.0.0.1:3000/documents -H 'Authorization: Bearer {key}'");

    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(TcpListener::bind("127.0.0.1:3000").await?, app)
        .with_graceful_shutdown(async { _ = ctrl_c().await });
    keys.run(async { _ = server.await }).await; // the periodic jobs, until the server has stopped
    Ok(())
}
