//! Run behind a proxy or CDN: client addresses, allow-lists and TLS.
//!
//! Behind a proxy, every connection comes from the proxy. The client address, and whether the
//! client used TLS, are in headers that the proxy sets, but that any client can send too. So no
//! header is trusted until you configure which proxies to trust.
//!
//! # A first program
//! A load balancer in `10.0.0.0/8` that appends to `X-Forwarded-For`:
//!
#![cfg_attr(feature = "testing", doc = "```")]
#![cfg_attr(
    not(feature = "testing"),
    doc = "```ignore (needs the feature testing)"
)]
//! use portunus::ErrorCode;
//! use portunus::config::Policy;
//! use portunus::network::{AllowList, ClientIp, ForwardedHeader};
//! use portunus::testing::{TestKeys, TestRequest};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let keys = TestKeys::new();
//!     // A key that works only from the customer's office.
//!     let office = AllowList::parse(["203.0.113.0/24"])?;
//!     let key = keys.issue_with("acme", ["document:read"], |new| new.allowed_ips = Some(office));
//!     let behind = ClientIp::behind(["10.0.0.0/8".parse()?], ForwardedHeader::XForwardedFor);
//!     let service = keys.builder().policy(Policy::new().client_ip(behind)).build()?;
//!     let authenticator = service.authenticator();
//!     let request = |peer: &str, forwarded: &str| {
//!         let request = TestRequest::get("/documents").bearer(&key).field("x-forwarded-for", forwarded);
//!         request.peer(peer)
//!     };
//!
//!     // Through the load balancer: the address that it appended counts.
//!     let admitted = authenticator.authenticate(&request("10.0.0.5", "203.0.113.7")).await?;
//!     let address = admitted.principal.and_then(|caller| caller.client_ip());
//!     assert_eq!(address, Some("203.0.113.7".parse()?));
//!
//!     // What the client wrote is further left, and is never read.
//!     let forged = request("10.0.0.5", "203.0.113.7, 198.51.100.9");
//!     let refused = authenticator
//!         .authenticate(&forged)
//!         .await
//!         .err()
//!         .ok_or("198.51.100.9 is not the office")?;
//!     assert_eq!(refused.code(), ErrorCode::IpNotAllowed);
//!
//!     // Around the load balancer: the header is ignored; the peer is the client.
//!     let direct = request("198.51.100.9", "203.0.113.7");
//!     assert!(authenticator.authenticate(&direct).await.is_err());
//!     Ok(())
//! }
//! ```
//!
//! # Choosing a rule
//! | in front of the service | [`ClientIp`](crate::network::ClientIp) |
//! |---|---|
//! | nothing | the default, `peer()`: the peer is the client |
//! | a proxy that appends to `X-Forwarded-For` | `behind([its networks], ForwardedHeader::XForwardedFor)` |
//! | a proxy that writes `Forwarded` (RFC 7239) | `behind([its networks], ForwardedHeader::Forwarded)` |
//! | a CDN that overwrites a header | `behind([its networks], ForwardedHeader::single("CF-Connecting-IP"))` |
//! | a CDN, and a load balancer behind it | `behind`, with both networks and the header that both append to |
//! | proxies with unknown addresses | `behind_hops(count, …)`, and a firewall that blocks direct access |
//!
//! The header is walked from right to left, past every trusted hop, to the first untrusted one. If
//! an element on the way cannot be parsed, the address is *unknown*; it is never assumed to be the
//! proxy's. Empty elements and empty lines are skipped.
//!
//! # TLS
//! A [`Transport`](crate::network::Transport) requires a TLS version. The proof is either the
//! connection itself or a header set by a trusted proxy:
//!
#![cfg_attr(feature = "testing", doc = "```")]
#![cfg_attr(
    not(feature = "testing"),
    doc = "```ignore (needs the feature testing)"
)]
//! use portunus::network::Transport;
//! use portunus::request::TlsVersion;
//! use portunus::config::Policy;
//! use portunus::testing::{TestKeys, TestRequest};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keys = TestKeys::new();
//! let key = keys.issue("acme", []);
//! let demand = Transport::tls(TlsVersion::V1_2).or_proven_by(["10.0.0.0/8".parse()?], "X-TLS-Version");
//! let service = keys.builder().policy(Policy::new().transport(Some(demand))).build()?;
//! let authenticator = service.authenticator();
//! let request = || TestRequest::get("/documents").bearer(&key);
//!
//! let ended_here = request().tls(TlsVersion::V1_3);
//! let ended_at_the_proxy = request().peer("10.0.0.5").field("x-tls-version", "TLSv1.3");
//! let said_by_a_client = request().peer("198.51.100.9").field("x-tls-version", "TLSv1.3");
//! assert!(authenticator.authenticate(&ended_here).await.is_ok());
//! assert!(authenticator.authenticate(&ended_at_the_proxy).await.is_ok());
//! assert!(authenticator.authenticate(&said_by_a_client).await.is_err()); // INSECURE_TRANSPORT
//! # Ok(())
//! # }
//! ```
//!
//! If your server terminates TLS, it reports the version as a
//! [`TlsVersion`](crate::request::TlsVersion) in the request's extensions, or you configure how to
//! find it: `AuthLayer::tls(…)`, `Auth::tls(…)`. In nginx,
//! `proxy_set_header X-TLS-Version $ssl_protocol;` sets the header. A proxy that only knows
//! `$scheme` sends `https`, which counts as the oldest version.
//!
//! # Pitfalls
//! - **The peer address must be known.** On axum, serve
//!   `into_make_service_with_connect_info::<SocketAddr>()`; with tonic, set
//!   [`AuthLayer::peer`](crate::adapter::tower::AuthLayer::peer). Without a peer address, `behind`
//!   trusts nothing, and keys with allow-lists are refused.
//! - **Private networks are not trusted by default.** List them.
//! - **Only one header is read.** `X-Real-IP`, `True-Client-IP` and similar headers are ignored
//!   unless you choose one. A client may send all of them.
//! - **The proxy must append or overwrite.** If it forwards the client's own header unchanged, the
//!   client can choose any address.
//! - **An allow-list is validated when it is created:** an empty list and an invalid entry are
//!   errors. [`AllowList::parse`](crate::network::AllowList::parse) accepts IPv4 and IPv6 addresses
//!   and ranges, but no host names.
//! - **At most 64 hops are walked:** a client further to the left is unknown. Elements to the left
//!   of the client are not read at all, so a long forged list does not get past an allow-list.
//! - **Failed attempts are counted by this address.** With the wrong setting, every failure counts
//!   for the proxy's address, and one attacker slows down all clients behind it whose keys are not
//!   cached ([`LookupBudget`](crate::limit::LookupBudget)). Without an address, failures are not
//!   counted at all, which is logged once.
//! - **CDNs change their networks.** Read them from the published list when you build the service.
