//! What the tests share: a request head made by hand, a small house of store, manager and clock,
//! and a store that counts what it is asked and fails when it is told to.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::new_without_default,
    missing_docs
)]

pub mod gated;
#[cfg(unix)]
pub mod postgres;
#[cfg(unix)]
pub mod proxy;
pub mod random;
pub mod text;
pub mod wait;

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use portunus::key::{
    Alphabet, Checksum, Environment, KeyDigest, KeyFormat, KeyHasher, KeyId, KeyKind, KeyRecord,
    Owner, SigningState, TenantId, UserId,
};
use portunus::manage::{KeyManager, NewKey};
use portunus::request::FieldName;
use portunus::store::{
    HourOfUse, KeyStore, ListQuery, Listed, MemoryStore, OwnerRef, Page, StoreError, StoredKey,
    UsageDelta, WriteBatch,
};
use portunus::testing::ManualClock;
use portunus::{Authenticator, AuthenticatorBuilder, RequestHead, Scope};

/// A request head as a list of fields, in their order.
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

/// Base64 with padding (RFC 4648 §4), written out so that the tests do not lean on what they test.
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

/// A well-formed key of [`format`] that nobody issued.
pub fn stranger() -> String {
    format()
        .generate(Some(&live()), Some(KeyKind::App))
        .unwrap()
        .reveal()
}

/// The key with its last character exchanged for another of the alphabet.
pub fn with_last_character_wrong(key: &str) -> String {
    let (rest, last) = key.split_at(key.len() - 1);
    format!("{rest}{}", if last == "0" { "1" } else { "0" })
}

/// A store, a manager and an authenticator's builder that share a clock.
#[derive(Debug, Clone)]
pub struct House {
    pub clock: ManualClock,
    pub store: Watched,
    pub hasher: KeyHasher,
}

impl House {
    pub fn new() -> Self {
        Self {
            clock: ManualClock::new(),
            store: Watched::default(),
            hasher: KeyHasher::sha256(),
        }
    }

    pub fn manager(&self) -> KeyManager {
        KeyManager::builder(self.store.clone(), format())
            .environments([live(), test()])
            .hasher(self.hasher.clone())
            .clock(self.clock.clone())
            .build()
            .unwrap()
    }

    /// An authenticator's builder without a way to present a key.
    pub fn bare(&self) -> AuthenticatorBuilder {
        Authenticator::builder(self.store.clone())
            .hasher(self.hasher.clone())
            .clock(self.clock.clone())
    }

    pub fn bearer(&self) -> AuthenticatorBuilder {
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

    /// Changes a stored record behind the manager's back.
    pub async fn change(&self, id: &KeyId, change: impl FnOnce(&mut KeyRecord)) {
        let mut record = (*self.store.get(id).await.unwrap().unwrap().record).clone();
        change(&mut record);
        self.store
            .apply(&WriteBatch::new().update(record))
            .await
            .unwrap();
    }
}

/// A store in memory that counts what it is asked, and answers late, wrongly or not at all when
/// told.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    inner: MemoryStore,
    told: Arc<Told>,
}

#[derive(Debug, Default)]
struct Told {
    finds: AtomicUsize,
    writes: AtomicUsize,
    slow: AtomicBool,
    reading: AtomicU8,
    writing_fails: AtomicBool,
    usage_fails: AtomicBool,
    always: Mutex<Option<Arc<StoredKey>>>,
}

impl Watched {
    /// How many look-ups by digest there were.
    pub fn finds(&self) -> usize {
        self.told.finds.load(Ordering::SeqCst)
    }
    /// How many batches were given to it.
    pub fn writes(&self) -> usize {
        self.told.writes.load(Ordering::SeqCst)
    }
    /// From now on look-ups must be awaited, and really wait once.
    pub fn answer_late(&self) {
        self.told.slow.store(true, Ordering::SeqCst);
    }
    pub fn answer_nothing(&self) {
        self.told.reading.store(1, Ordering::SeqCst);
    }
    pub fn answer_corrupt(&self) {
        self.told.reading.store(2, Ordering::SeqCst);
    }
    pub fn answer_again(&self) {
        self.told.reading.store(0, Ordering::SeqCst);
    }
    pub fn refuse_writes(&self, refuse: bool) {
        self.told.writing_fails.store(refuse, Ordering::SeqCst);
    }
    pub fn refuse_usage(&self, refuse: bool) {
        self.told.usage_fails.store(refuse, Ordering::SeqCst);
    }
    /// A faulty store: whatever is looked up, this is found.
    pub fn always_find(&self, stored: Arc<StoredKey>) {
        *self.told.always.lock().unwrap() = Some(stored);
    }

    fn look_up(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError> {
        if let Some(always) = &*self.told.always.lock().unwrap() {
            return Ok(Some(Arc::clone(always)));
        }
        match self.told.reading.load(Ordering::SeqCst) {
            0 => self.inner.find_now(digests).unwrap(),
            1 => Err(StoreError::unavailable("connection refused by db.internal")),
            _ => Err(StoreError::corrupt("row 7, column expires_at")),
        }
    }
}

#[async_trait]
impl KeyStore for Watched {
    async fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError> {
        self.told.finds.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.look_up(digests)
    }

    fn find_now(
        &self,
        digests: &[KeyDigest],
    ) -> Option<Result<Option<Arc<StoredKey>>, StoreError>> {
        if self.told.slow.load(Ordering::SeqCst) {
            return None;
        }
        self.told.finds.fetch_add(1, Ordering::SeqCst);
        Some(self.look_up(digests))
    }

    async fn get(&self, id: &KeyId) -> Result<Option<Listed>, StoreError> {
        self.inner.get(id).await
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        self.inner.list(query).await
    }

    async fn primary(&self, owner: &OwnerRef, at: SystemTime) -> Result<Option<KeyId>, StoreError> {
        self.inner.primary(owner, at).await
    }

    async fn signing_state(&self, id: &KeyId) -> Result<Option<SigningState>, StoreError> {
        self.inner.signing_state(id).await
    }

    async fn usage_by_hour(
        &self,
        id: &KeyId,
        from: SystemTime,
        to: SystemTime,
    ) -> Result<Vec<HourOfUse>, StoreError> {
        self.inner.usage_by_hour(id, from, to).await
    }

    async fn forget_usage_before(&self, before: SystemTime) -> Result<u64, StoreError> {
        self.inner.forget_usage_before(before).await
    }

    async fn apply(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        self.told.writes.fetch_add(1, Ordering::SeqCst);
        if self.told.writing_fails.load(Ordering::SeqCst) {
            return Err(StoreError::unavailable("the disk is full"));
        }
        self.inner.apply(batch).await
    }

    async fn record_usage(&self, batch: &[UsageDelta]) -> Result<(), StoreError> {
        if self.told.usage_fails.load(Ordering::SeqCst) {
            return Err(StoreError::unavailable("the disk is full"));
        }
        self.inner.record_usage(batch).await
    }
}
