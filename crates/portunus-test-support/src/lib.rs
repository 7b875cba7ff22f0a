//! Shared test support: a request head built by hand, and a fixture of store, manager and clock.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::new_without_default,
    missing_docs
)]

pub mod browser;
pub mod credits;
#[cfg(unix)]
pub mod disk;
pub mod gated;
#[cfg(unix)]
pub mod pgbouncer;
#[cfg(unix)]
pub mod postgres;
#[cfg(unix)]
pub mod proxy;
pub mod random;
#[cfg(unix)]
pub mod redis;
pub mod setup;
pub mod text;
pub mod wait;

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portunus::key::{
    Alphabet, Checksum, Environment, KeyFormat, KeyHasher, KeyId, KeyKind, KeyRecord, Owner,
    TenantId, UserId,
};
use portunus::manage::{KeyManager, NewKey};
use portunus::request::FieldName;
use portunus::store::{KeyStore, StoreError, Usage, UsageStore, WriteBatch};
use portunus::testing::ManualClock;
pub use portunus::testing::{Call, FaultyStore, Point};
use portunus::{Clock, RequestHead, Scope};
pub use setup::Setup;

/// The points at which a lookup by digest or a write fails before it reaches the store.
pub const FIND: Point = Point::Before(Call::Find);
pub const APPLY: Point = Point::Before(Call::Apply);

/// A clock whose recent times are a quarter of a second behind, as far as they may be.
#[derive(Debug, Clone)]
pub struct Behind(pub ManualClock);

const QUARTER: Duration = Duration::from_millis(250);

impl Clock for Behind {
    fn now(&self) -> SystemTime {
        self.0.now()
    }
    fn recently(&self) -> SystemTime {
        self.now() - QUARTER
    }
    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
    fn monotonic_recently(&self) -> Duration {
        self.monotonic() - QUARTER
    }
}

/// The error of a store that cannot read a stored record.
pub fn corrupt() -> StoreError {
    StoreError::corrupt("row 7, column expires_at")
}

/// A request head as an ordered list of fields.
#[derive(Debug, Clone, Default)]
pub struct Head {
    fields: Vec<(String, Vec<u8>)>,
    path: String,
    peer: Option<IpAddr>,
}

impl Head {
    pub fn new() -> Self {
        Self {
            path: "/documents".into(),
            ..Self::default()
        }
    }

    /// `Authorization: Bearer KEY`.
    pub fn bearer(key: &str) -> Self {
        Self::new().with("authorization", format!("Bearer {key}"))
    }

    /// `Authorization: Basic base64(pair)`.
    pub fn basic(pair: &[u8]) -> Self {
        Self::new().with("authorization", format!("Basic {}", base64(pair)))
    }

    pub fn authorization(value: impl AsRef<[u8]>) -> Self {
        Self::new().with("authorization", value)
    }

    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    pub fn at(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    pub fn from(mut self, peer: &str) -> Self {
        self.peer = Some(peer.parse().unwrap());
        self
    }
}

impl RequestHead for Head {
    fn method(&self) -> &'static str {
        "GET"
    }
    fn path(&self) -> &str {
        &self.path
    }
    fn peer_ip(&self) -> Option<IpAddr> {
        self.peer
    }
    fn visit<'a>(&'a self, name: FieldName<'_>, see: &mut dyn FnMut(&'a [u8]) -> ControlFlow<()>) {
        for (field, value) in &self.fields {
            if field.eq_ignore_ascii_case(name.as_str()) && see(value).is_break() {
                return;
            }
        }
    }
}

/// Base64 with padding (RFC 4648 §4), implemented here so that tests do not depend on the code
/// under test.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = (0..3).fold(0_usize, |group, at| {
            group << 8 | usize::from(chunk.get(at).copied().unwrap_or(0))
        });
        for place in 0..4 {
            let digit = DIGITS[group >> (18 - 6 * place) & 63];
            text.push(if place <= chunk.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    text
}

/// `acme_{live|test}_{sk|user_sk}_` + 32 base62 + checksum.
pub fn format() -> KeyFormat {
    KeyFormat::builder("acme_")
        .environment("live", live())
        .environment("test", test())
        .kind("sk", KeyKind::App)
        .kind("user_sk", KeyKind::User)
        .random(Alphabet::BASE62, 32)
        .checksum(Checksum::Crc32Base62)
        .build()
        .unwrap()
}

pub fn live() -> Environment {
    Environment::new("live").unwrap()
}

pub fn test() -> Environment {
    Environment::new("test").unwrap()
}

pub fn scope(text: &str) -> Scope {
    Scope::new(text).unwrap()
}

pub fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

pub fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// A well-formed key of [`format()`] that was never issued.
pub fn stranger() -> String {
    format()
        .generate(Some(&live()), Some(KeyKind::App))
        .unwrap()
        .reveal()
}

/// The key with its last character replaced by another character of the alphabet.
pub fn with_last_character_wrong(key: &str) -> String {
    let (rest, last) = key.split_at(key.len() - 1);
    format!("{rest}{}", if last == "0" { "1" } else { "0" })
}

/// A key's usage according to a store.
pub async fn used(store: &dyn UsageStore, id: &KeyId) -> Usage {
    let usage = store.usage_of(std::slice::from_ref(id)).await.unwrap();
    assert_eq!(usage.len(), 1);
    usage[0]
}

/// A store, a manager and an authenticator builder that share a clock.
#[derive(Debug, Clone)]
pub struct Fixture {
    pub clock: ManualClock,
    pub store: FaultyStore,
    pub hasher: KeyHasher,
}

impl Fixture {
    pub fn new() -> Self {
        Self {
            clock: ManualClock::new(),
            store: FaultyStore::new(),
            hasher: KeyHasher::sha256(),
        }
    }

    pub fn manager(&self) -> KeyManager {
        Setup::on(self.store.clone())
            .bearer([format()])
            .environments([live(), test()])
            .hasher(self.hasher.clone())
            .clock(self.clock.clone())
            .manager()
    }

    /// An authenticator builder that accepts no credentials yet.
    pub fn bare(&self) -> Setup {
        Setup::on(self.store.clone())
            .hasher(self.hasher.clone())
            .clock(self.clock.clone())
    }

    pub fn bearer(&self) -> Setup {
        self.bare().bearer([format()])
    }

    pub async fn issue(&self, scopes: &[&str]) -> (String, Arc<KeyRecord>) {
        let scopes = scopes.iter().map(|text| scope(text));
        self.issue_new(NewKey::new("test key", Owner::tenant(tenant("acme"))).with_scopes(scopes))
            .await
    }

    pub async fn issue_new(&self, new: NewKey) -> (String, Arc<KeyRecord>) {
        let issued = self.manager().issue(new).await.unwrap();
        (issued.key.reveal(), issued.record)
    }

    /// Changes a stored record without the manager.
    pub async fn change(&self, id: &KeyId, change: impl FnOnce(&mut KeyRecord)) {
        let mut record = (*self.store.get(id).await.unwrap().unwrap()).clone();
        change(&mut record);
        self.store
            .apply(&WriteBatch::new().update(record))
            .await
            .unwrap();
    }
}
