//! Protect a gRPC service (feature `tower`).
//!
//! A key travels as metadata, `authorization: Bearer acme_8fK…`.
//! [`AuthLayer`](crate::adapter::tower::AuthLayer) says who calls, and
//! [`GrpcMethods`](crate::adapter::tower::GrpcMethods) is a table of what each method requires.
//! Nothing here depends on tonic; the program shows it because it is what most services run on.
//!
//! # A first program
//! A real server and a real client. The health service stands for yours: it comes with generated
//! code.
//!
#![cfg_attr(feature = "tower", doc = "```")]
#![cfg_attr(not(feature = "tower"), doc = "```ignore (needs the feature tower)")]
//! use portunus::adapter::tower::{AuthLayer, EitherBody, GrpcMethods};
//! use portunus::key::{Alphabet, KeyFormat, Owner};
//! use portunus::manage::{KeyManager, NewKey};
//! use portunus::store::MemoryStore;
//! use portunus::{Authenticator, Requirement, scope};
//! use tokio_stream::wrappers::TcpListenerStream;
//! use tonic::transport::server::TcpConnectInfo;
//! use tonic::transport::{Endpoint, Server};
//! use tonic::{Code, Request};
//! use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
//! use tower::ServiceBuilder;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let format = KeyFormat::builder("acme_").random(Alphabet::BASE62, 32).build()?;
//!     let store = MemoryStore::new();
//!     let manager = KeyManager::builder(store.clone(), format.clone()).build()?;
//!     let new = NewKey::new("first key", Owner::tenant("tenant-1".parse()?)).with_scopes([scope!("health:read")]);
//!     let key = manager.issue(new).await?.key.reveal();
//!
//!     // What has no entry may not be called.
//!     let methods = GrpcMethods::new()
//!         .method("/grpc.health.v1.Health/Check", Requirement::scope(scope!("health:read")).and(Requirement::reading()))
//!         .method("/grpc.health.v1.Health/Watch", scope!("health:watch"))
//!         .build()?;
//!     let auth = AuthLayer::new(Authenticator::builder(store).bearer([format]).build()?)
//!         .peer(|extensions| Some(extensions.get::<TcpConnectInfo>()?.remote_addr()?.ip()));
//!     let layers = ServiceBuilder::new()
//!         .layer(auth) // who calls
//!         .layer(methods) // what that takes
//!         .map_response(|response: http::Response<tonic::body::Body>| response.map(EitherBody::inner));
//!
//!     let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//!     let address = format!("http://{}", listener.local_addr()?);
//!     let (_, health) = tonic_health::server::health_reporter();
//!     let server = Server::builder().layer(layers).add_service(health);
//!     tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
//!
//!     let mut client = HealthClient::new(Endpoint::from_shared(address)?.connect().await?);
//!     let question = || HealthCheckRequest { service: String::new() };
//!     let mut with_key = Request::new(question());
//!     with_key.metadata_mut().insert("authorization", format!("Bearer {key}").parse()?);
//!     assert!(client.check(with_key).await.is_ok());
//!
//!     let refused = client.check(question()).await.err().ok_or("there was no key")?;
//!     assert_eq!(refused.code(), Code::Unauthenticated);
//!
//!     let mut with_key = Request::new(question());
//!     with_key.metadata_mut().insert("authorization", format!("Bearer {key}").parse()?);
//!     let refused = client.watch(with_key).await.err().ok_or("the key lacks health:watch")?;
//!     assert_eq!(refused.code(), Code::PermissionDenied);
//!     Ok(())
//! }
//! ```
//!
//! `examples/grpc.rs` is the same as a server. In a method, the caller is
//! `request.extensions().get::<KeyPrincipal>()`.
//!
//! # What a refused client sees
//! A response of trailers only: `grpc-status`, `grpc-message`, and in `grpc-status-details-bin` an
//! `ErrorInfo` whose reason is the stable code (`INVALID_KEY`, `INSUFFICIENT_SCOPE`, …). Where a
//! retry helps there is a `RetryInfo` too, and `grpc-retry-pushback-ms`. A method that refuses in
//! the middle of its work says the same by [`GrpcStatus`](crate::respond::GrpcStatus).
//!
//! # Traps
//! - **The order of the layers.** The table belongs inside of the `AuthLayer`: where none ran, it
//!   refuses. In a `ServiceBuilder`, what is named first is outermost.
//! - **tonic's body needs `map_response`.**
//!   `.map_response(|response| response.map(EitherBody::inner))` stands last, right before the
//!   service. Without it the server does not compile.
//! - **The peer's address needs `peer(…)`.** tonic keeps it in `TcpConnectInfo` (under TLS, in
//!   `TlsConnectInfo<TcpConnectInfo>`), which this library does not know by itself. Without it, all
//!   clients are counted as one where they fail, and keys with allow-lists are refused.
//! - **Every call is a `POST`,** so a read-only key may call only what says
//!   [`reading()`](crate::Requirement::reading).
//! - **Public methods want an [optional](crate::AuthenticatorBuilder::optional) authenticator.**
//!   `public_method` and `public_service` open the table, but the `AuthLayer` in front still wants
//!   a key unless it is told that nobody is fine.
//! - **A table is exact.** Names are compared as they stand; a path that is misspelt is an entry
//!   for nothing, and the real method falls to its service's entry or is refused. `build()` refuses
//!   what is no path at all.
//! - **gRPC-Web is translated further out:** tonic-web's layer stands outside of these.
