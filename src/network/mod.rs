//! Where a request comes from and how: the client's address behind trusted proxies, the networks
//! that a key allows, and the security of the connection.
//!
//! Nothing that a client can write is believed unless the host said which proxies it trusts and
//! which one header those set. What cannot be told is *no* address, and a key with an allow-list
//! refuses that.

mod allow_list;
mod cidr;
mod client_ip;
mod forwarded;
mod transport;

pub use allow_list::AllowList;
pub use cidr::Cidr;
pub use client_ip::{ClientIp, ForwardedHeader};
pub use transport::Transport;
