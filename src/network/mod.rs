//! Origin and transport of a request: the client address behind trusted proxies, the networks that
//! a key may be used from, and the security of the connection.
//!
//! Client-controlled data is not trusted unless the host declared which proxies to trust and which
//! header they set. If the address cannot be determined it is *unknown*, and a key with an
//! allow-list refuses the request.

mod allow_list;
mod cidr;
mod client_ip;
mod forwarded;
mod transport;

pub use allow_list::AllowList;
pub use cidr::Cidr;
pub use client_ip::{ClientIp, ForwardedHeader};
pub use transport::Transport;
