//! Requests with something that cannot be a key: they must be refused cheaply.

use std::hint::black_box;
use std::net::IpAddr;

use http::Request;
use portunus::Authenticator;
use portunus::adapter::tower::HttpHead;
use portunus::authenticator::Attempt;
use portunus::key::{Environment, KeyKind};
use portunus::store::MemoryStore;

use crate::library::{built, described, format};
use crate::shape::{Body, ENVIRONMENT, PEER, Settings, request};

/// An authenticator of keys with a checksum, and a request that it refuses.
pub struct Garbage {
    authenticator: Authenticator,
    request: Request<Body>,
}

impl Garbage {
    fn new(authorization: &str) -> Self {
        let settings = Settings::plenty(1);
        let keys = built(described(settings, MemoryStore::new(), format(true)));
        Self {
            authenticator: keys.authenticator().clone(),
            request: request(authorization),
        }
    }

    pub fn wrong_shape() -> Self {
        Self::new("Bearer nothing-like-a-key")
    }

    pub fn wrong_checksum() -> Self {
        let environment = Environment::new(ENVIRONMENT).ok();
        let key = format(true).generate(environment.as_ref(), Some(KeyKind::App));
        let mut key = key.expect("a key").reveal();
        let last = if key.pop() == Some('0') { '1' } else { '0' };
        key.push(last);
        Self::new(&format!("Bearer {key}"))
    }

    /// Returns the status of the refusal.
    pub fn refused(&self) -> Option<u16> {
        let peer: IpAddr = PEER.ip();
        let attempt = self
            .authenticator
            .attempt(&HttpHead::new(&self.request, Some(peer)));
        match black_box(&attempt) {
            Attempt::Ready(Err(error)) => Some(error.code().status()),
            _ => None,
        }
    }
}
