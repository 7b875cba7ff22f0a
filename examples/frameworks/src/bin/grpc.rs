//! A gRPC server that requires a scope for each method.
//!
//! `cargo run -p frameworks --bin grpc`, then paste the command that it prints.

use std::error::Error;

use http::Response;
use portunus::adapter::tower::{EitherBody, GrpcMethods};
use portunus::key::{Alphabet, KeyFormat, Owner};
use portunus::manage::NewKey;
use portunus::store::MemoryStore;
use portunus::{Portunus, scope};
use tonic::body::Body;
use tonic::transport::Server;
use tonic::transport::server::TcpConnectInfo;
use tower::ServiceBuilder;

#[tokio::main]
#[allow(clippy::print_stdout, reason = "the program's output")]
async fn main() -> Result<(), Box<dyn Error>> {
    let format = KeyFormat::builder("acme_")
        .random(Alphabet::BASE62, 32)
        .build()?;
    let keys = Portunus::builder(format)
        .store(MemoryStore::new())
        .build()?;
    let new = NewKey::new("first key", Owner::tenant("tenant-1".parse()?))
        .with_scopes([scope!("health:read")]);
    let key = keys.manager().issue(new).await?.key.reveal();

    // Methods without an entry are refused.
    let methods = GrpcMethods::new()
        .method("/grpc.health.v1.Health/Check", scope!("health:read"))
        .method("/grpc.health.v1.Health/Watch", scope!("health:watch"))
        .build()?;
    let auth = keys
        .layer()
        .grpc()
        .peer(|extensions| Some(extensions.get::<TcpConnectInfo>()?.remote_addr()?.ip()));
    let layers = ServiceBuilder::new()
        .layer(auth)
        .layer(methods)
        .map_response(|response: Response<Body>| response.map(EitherBody::inner));

    // Any tonic service works here; this one needs no code of its own.
    let (_, health) = tonic_health::server::health_reporter();
    println!(
        "grpcurl -plaintext -import-path . -proto health.proto -H 'authorization: Bearer {key}' \\\n  \
         127.0.0.1:50051 grpc.health.v1.Health/Check"
    );
    Server::builder()
        .layer(layers)
        .add_service(health)
        .serve("127.0.0.1:50051".parse()?)
        .await?;
    Ok(())
}
