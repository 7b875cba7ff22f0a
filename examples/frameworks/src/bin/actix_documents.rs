//! A complete program on actix-web: routes that only keys with the right scope reach.
//!
//! `cargo run -p frameworks --bin actix_documents`, then paste the lines that it prints.

use std::error::Error;

use actix_web::{App, HttpServer};
use portunus::adapter::actix::{ProtectedRouter, get, post};
use portunus::key::{Alphabet, KeyFormat, Owner};
use portunus::manage::NewKey;
use portunus::store::MemoryStore;
use portunus::{KeyPrincipal, Portunus, Principal, scope};

async fn documents(caller: KeyPrincipal) -> String {
    format!("documents of {}\n", caller.owner().tenant_id)
}

async fn new_document(caller: KeyPrincipal) -> String {
    format!("a new document of {}\n", caller.owner().tenant_id)
}

#[actix_web::main]
#[allow(clippy::print_stdout, reason = "the program's output")]
async fn main() -> Result<(), Box<dyn Error>> {
    // The format of keys, and where they are stored: any type that implements `KeyStore`.
    let format = KeyFormat::builder("acme_")
        .random(Alphabet::BASE62, 32)
        .build()?;
    let keys = Portunus::builder(format)
        .store(MemoryStore::new())
        .build()?;

    // A key for a customer, with read access. Its secret is shown once; the store gets a digest.
    let new = NewKey::new("first key", Owner::tenant("tenant-1".parse()?))
        .with_scopes([scope!("document:read")]);
    let key = keys.manager().issue(new).await?.key.reveal();

    // Created once: the clones in all workers share its limits.
    let auth = keys.middleware();
    let routes = move || {
        ProtectedRouter::new(auth.clone())
            .route(
                "/documents",
                get(documents).require(scope!("document:read")),
            )
            .route(
                "/documents",
                post(new_document).require(scope!("document:write")),
            )
            .route("/healthz", get(async || "ok").public())
    };
    let app = move || App::new().service(routes());

    println!("curl -i http://127.0.0.1:3000/documents -H 'Authorization: Bearer {key}'");
    println!("curl -i -X POST http://127.0.0.1:3000/documents -H 'Authorization: Bearer {key}'");
    HttpServer::new(app)
        .bind(("127.0.0.1", 3000))?
        .run()
        .await?;
    Ok(())
}
