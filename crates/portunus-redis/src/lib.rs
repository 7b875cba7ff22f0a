//! Rate limits and cache invalidation for [`portunus`] across nodes, on Redis or Valkey.
//!
//! # Permissions
//! The user needs the commands that the limiter's script uses, on the keys of its prefix.

mod address;
mod breaker;
mod client;
mod error;
mod limiter;
#[cfg(test)]
mod model;
mod node;
mod request;
mod routes;
mod script;
mod server;
mod slot;
mod task;

pub use client::Redis;
pub use error::RedisError;
pub use limiter::RedisLimiter;
