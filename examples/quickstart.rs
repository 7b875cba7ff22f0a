//! The README's first program: one route that only keys with the right scope reach.
//!
//! `cargo run --example quickstart --features axum`, then paste the command that it prints.

use portunus::adapter::axum::get;
use portunus::key::{Alphabet, KeyFormat, Owner};
use portunus::{KeyPrincipal, Portunus, Principal, manage::NewKey, scope, store::MemoryStore};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32);
    let store = MemoryStore::new();
    let keys = Portunus::builder(format.build()?).store(store).build()?;
    let new = NewKey::new("first key", Owner::tenant("tenant-1".parse()?));
    let new = new.with_scopes([scope!("document:read")]);
    let key = keys.manager().issue(new).await?.key.reveal();
    eprintln!("curl -i http://127.0.0.1:3000/documents -H 'Authorization: Bearer {key}'");
    let list = get(|caller: KeyPrincipal| async move { caller.owner().tenant_id.to_string() });
    let list = list.require(scope!("document:read"));
    let app: axum::Router = keys.router().route("/documents", list).into_router();
    let app = app.into_make_service_with_connect_info::<std::net::SocketAddr>();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    Ok(axum::serve(listener, app).await?)
}
