//! The shortest whole program: an axum router that only keys with the right scope reach.
//!
//! `cargo run --example quickstart --features axum`, then paste the line it prints.

use std::error::Error;
use std::net::SocketAddr;

use axum::Router;
use portunus::adapter::axum::get;
use portunus::key::{Alphabet, KeyFormat, Owner};
use portunus::manage::NewKey;
use portunus::store::MemoryStore;
use portunus::{KeyPrincipal, Portunus, Principal, scope};

async fn documents(caller: KeyPrincipal) -> String {
    format!("documents of {}\n", caller.owner().tenant_id)
}

#[tokio::main]
#[allow(clippy::print_stdout, reason = "the program's output")]
async fn main() -> Result<(), Box<dyn Error>> {
    // What keys look like, and where they are kept: any type that implements `KeyStore`.
    let format = KeyFormat::builder("acme_")
        .random(Alphabet::BASE62, 32)
        .build()?;
    let keys = Portunus::builder(format)
        .store(MemoryStore::new())
        .build()?;

    // A key for a customer. Its secret is shown this once; the store gets a digest.
    let new = NewKey::new("first key", Owner::tenant("tenant-1".parse()?))
        .with_scopes([scope!("document:read")]);
    let key = keys.manager().issue(new).await?.key.reveal();

    // Every route says what it requires; one that says nothing does not compile.
    let app: Router = keys
        .router()
        .route(
            "/documents",
            get(documents).require(scope!("document:read")),
        )
        .route("/healthz", get(|| async { "ok" }).public())
        .into_router();

    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("curl -i http://127.0.0.1:3000/documents -H 'Authorization: Bearer {key}'");
    // With the peer's address: failures are counted by client, and keys may be bound to networks.
    axum::serve(
        listener,
        app.into_make_service_with_connect_info::<SocketAddr>(),
    )
    .await?;
    Ok(())
}
