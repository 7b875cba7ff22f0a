//! Behind a proxy or a CDN: addresses, allow-lists and TLS.
//!
//! Behind a proxy, every connection comes from the proxy. Whose request it is, and whether it came
//! over TLS, stands in fields that the proxy writes, and that any client can write too. So nothing
//! is believed until you say whom to believe.
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
//!     // A key that works from the customer's office only.
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
//!     // By way of the load balancer: what it appended counts.
//!     let admitted = authenticator.authenticate(&request("10.0.0.5", "203.0.113.7")).await?;
//!     let address = admitted.principal.and_then(|caller| caller.client_ip());
//!     assert_eq!(address, Some("203.0.113.7".parse()?));
//!
//!     // Whatever the client wrote stands further left, and is never looked at.
//!     let forged = request("10.0.0.5", "203.0.113.7, 198.51.100.9");
//!     let refused = authenticator
//!         .authenticate(&forged)
//!         .await
//!         .err()
//!         .ok_or("198.51.100.9 is not the office")?;
//!     assert_eq!(refused.code(), ErrorCode::IpNotAllowed);
//!
//!     // Around the load balancer: the field is not looked at, the peer is the client.
//!     let direct = request("198.51.100.9", "203.0.113.7");
//!     assert!(authenticator.authenticate(&direct).await.is_err());
//!     Ok(())
//! }
//! ```
//!
//! # Which one to choose
//! | in front of you | say, of [`ClientIp`](crate::network::ClientIp) |
//! |---|---|
//! | nothing | nothing: the peer is the client |
//! | a proxy that appends to `X-Forwarded-For` | `behind([its networks], ForwardedHeader::XForwardedFor)` |
//! | a proxy that writes `Forwarded` (RFC 7239) | `behind([its networks], ForwardedHeader::Forwarded)` |
//! | a CDN that overwrites a field | `behind([its networks], ForwardedHeader::single("CF-Connecting-IP"))` |
//! | a CDN, and a load balancer behind it | both networks, and the one field that both append to |
//! | proxies of unknown addresses | `behind_hops(how many, …)`, and a firewall that lets nobody around |
//!
//! The walk goes from right to left, past every trusted hop, to the first that is not. What cannot
//! be parsed on the way means that the address is *not known*, never that it is the proxy's. Empty
//! elements and empty lines are skipped.
//!
//! # TLS
//! A [`Transport`](crate::network::Transport) demands a version. What proves it is the connection
//! itself, or a field of a proxy that you name:
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
//! Where your server ends TLS, it says so by a [`TlsVersion`](crate::request::TlsVersion) in the
//! request's extensions, or you say how it is found: `AuthLayer::tls(…)`, `Auth::tls(…)`. In nginx,
//! `proxy_set_header X-TLS-Version $ssl_protocol;` writes the field; a proxy that knows only
//! `$scheme` writes `https`, which counts as the oldest version there is.
//!
//! # Traps
//! - **The peer must be known first.** On axum, serve
//!   `into_make_service_with_connect_info::<SocketAddr>()`; with tonic, say
//!   [`AuthLayer::peer`](crate::adapter::tower::AuthLayer::peer). Without a peer, `behind` trusts
//!   nothing, and keys with allow-lists are refused.
//! - **Private networks are not trusted by themselves.** Name them.
//! - **One field, and no other.** `X-Real-IP`, `True-Client-IP` and their like are not looked at
//!   unless you choose one. A client may send all of them.
//! - **The proxy must append or overwrite.** One that passes a client's own field through makes
//!   every address a client's choice.
//! - **An allow-list is checked where it is set:** an empty one and a bad entry are errors there.
//!   [`AllowList::parse`](crate::network::AllowList::parse) takes addresses and ranges, IPv4 and
//!   IPv6, and no host names.
//! - **64 hops are walked:** a client further to the left is not known. What stands left of the
//!   client is not read at all, so nobody gets past an allow-list by writing a long list.
//! - **Failed attempts are counted by this address.** With the wrong setting they are all the
//!   proxy's, and one attacker slows down everybody behind it whose key is not in the cache
//!   ([`LookupBudget`](crate::limit::LookupBudget)). Without any address, failures are not counted at
//!   all, which is logged once.
//! - **CDNs change their networks.** Read them from where they are published, and build the
//!   authenticator from that.
