//! Where a request comes from: the client's address behind trusted proxies, and the networks that a key allows.
//!
//! Nothing that a client can write is believed unless the host said which proxies it trusts and which one header those
//! set. What cannot be told is *no* address, and a key with an allow-list refuses that.

mod allow_list;
mod cidr;
mod client_ip;
mod forwarded;

pub use allow_list::{AllowList, AllowListError};
pub use cidr::{Cidr, CidrError};
pub use client_ip::{ClientIp, ForwardedHeader};
