//! Shared by the checks of a store: keys with short names, and queries by every method.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::random::Random;
use crate::report::{Checked, Failure, valid};
use crate::runner::shown;
use portunus::events::SigningStore;
use portunus::key::{
    DigestScheme, Environment, KeyDigest, KeyId, KeyKind, KeyRecord, Owner, SigningState, TenantId,
    UserId,
};
use portunus::store::{
    Change, KeyStore, ListQuery, OwnerRef, Rejected, StoredKey, Usage, UsageStore, WriteBatch,
};

pub(super) type Store = Arc<dyn KeyStore>;

/// A number of seconds after 2027-01-15 08:00:00 UTC.
pub(super) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

pub(super) fn id(name: &str) -> KeyId {
    valid(KeyId::new(name))
}

pub(super) fn tenant(name: &str) -> TenantId {
    valid(TenantId::new(name))
}

pub(super) fn user(name: &str) -> UserId {
    valid(UserId::new(name))
}

pub(super) fn environment(name: &str) -> Environment {
    valid(Environment::new(name))
}

/// The tenant that owns most keys of the suite.
pub(super) fn acme() -> OwnerRef {
    OwnerRef::TenantItself(tenant("acme"))
}

fn bytes(number: u64) -> [u8; 32] {
    let mut random = Random::new(number);
    let mut bytes = [0; 32];
    for chunk in bytes.as_chunks_mut::<8>().0 {
        *chunk = random.next().to_le_bytes();
    }
    bytes
}

/// A SHA-256 digest, as random as a real one.
pub(super) fn digest(number: u64) -> KeyDigest {
    KeyDigest::new(DigestScheme::Sha256, bytes(number))
}

/// The same bytes under a pepper.
pub(super) fn peppered(number: u64) -> KeyDigest {
    KeyDigest::new(DigestScheme::HmacSha256 { pepper: 1 }, bytes(number))
}

/// A key of acme's, created at second 1000.
pub(super) fn record(name: &str) -> KeyRecord {
    let owner = Owner::tenant(tenant("acme"));
    let mut record = KeyRecord::new(
        id(name),
        name,
        KeyKind::App,
        environment("live"),
        owner,
        at(1_000),
    );
    record.masked = "acme_live_…abcd".into();
    record
}

/// The same, created at another second.
pub(super) fn made_at(name: &str, seconds: u64) -> KeyRecord {
    let mut record = record(name);
    record.created_at = at(seconds);
    record
}

/// A key of a user of a tenant.
pub(super) fn owned_by(name: &str, of: &str, by: &str) -> KeyRecord {
    let mut record = record(name);
    record.owner = Owner::user(tenant(of), user(by));
    record
}

pub(super) fn insert(number: u64, record: KeyRecord) -> Change {
    Change::Insert {
        digest: digest(number),
        record: Box::new(record),
    }
}

pub(super) fn rehash(name: &str, from: KeyDigest, to: KeyDigest) -> Change {
    Change::Rehash {
        id: id(name),
        from,
        to,
    }
}

pub(super) fn delete(name: &str) -> Change {
    Change::Delete(id(name))
}

pub(super) fn set_primary(name: &str) -> Change {
    Change::SetPrimary {
        owner: acme(),
        key: id(name),
    }
}

pub(super) fn signing(number: u8) -> SigningState {
    let mut bytes = [number; SigningState::LENGTH];
    bytes[0] = 1;
    valid(SigningState::from_bytes(&bytes))
}

pub(super) fn batch(changes: impl IntoIterator<Item = Change>) -> WriteBatch {
    changes
        .into_iter()
        .fold(WriteBatch::new(), WriteBatch::change)
}

pub(super) async fn apply(store: &Store, changes: impl IntoIterator<Item = Change>) -> Checked {
    Ok(store.apply(&batch(changes)).await?)
}

/// Inserts the key `a` of acme's, with digest 1.
pub(super) async fn put_a(store: &Store) -> Checked {
    apply(store, [insert(1, record("a"))]).await
}

/// The reason why a batch is rejected, as it must be.
pub(super) async fn rejected(store: &Store, batch: &WriteBatch) -> Result<Rejected, Failure> {
    match store.apply(batch).await {
        Ok(()) => Err(Failure::new(format!(
            "this batch was applied but must be rejected: {}",
            shown(batch)
        ))),
        Err(error) => match error.as_rejected() {
            Some(why) => Ok(why.clone()),
            None => Err(Failure::from(error)),
        },
    }
}

/// The record that both lookup methods find under a digest.
pub(super) async fn found(
    store: &Store,
    digest: KeyDigest,
) -> Result<Option<Arc<StoredKey>>, Failure> {
    let found = store.find(&[digest]).await?;
    if let Some(now) = store.find_now(&[digest]) {
        let now = now?;
        let records = (
            found.as_ref().map(|key| key.record()),
            now.as_ref().map(|key| key.record()),
        );
        ensure_eq!(records.1, records.0, "find_now compared to find");
    }
    if let Some(found) = &found {
        ensure!(
            *found.digest() == digest,
            "a key was found under a digest that is not its own, {:?}",
            found.digest()
        );
    }
    Ok(found)
}

pub(super) async fn found_id(store: &Store, digest: KeyDigest) -> Result<Option<KeyId>, Failure> {
    Ok(found(store, digest)
        .await?
        .map(|key| key.record().id.clone()))
}

/// The record of a key that must exist.
pub(super) async fn stored(store: &Store, name: &str) -> Result<Arc<KeyRecord>, Failure> {
    store
        .get(&id(name))
        .await?
        .ok_or_else(|| Failure::new(format!("key {name} does not exist")))
}

/// The batch that changes a stored record.
pub(super) async fn change(
    store: &Store,
    name: &str,
    change: impl FnOnce(&mut KeyRecord),
) -> Result<WriteBatch, Failure> {
    let mut record = (*stored(store, name).await?).clone();
    change(&mut record);
    Ok(WriteBatch::new().update(record))
}

pub(super) async fn update(
    store: &Store,
    name: &str,
    mend: impl FnOnce(&mut KeyRecord),
) -> Checked {
    Ok(store.apply(&change(store, name, mend).await?).await?)
}

/// All records, newest first; at most 500.
pub(super) async fn all(store: &Store) -> Result<Vec<Arc<KeyRecord>>, Failure> {
    let mut query = ListQuery::new(at(1_000));
    query.limit = 500;
    Ok(store.list(&query).await?.items)
}

pub(super) async fn primary(store: &Store, seconds: u64) -> Result<Option<KeyId>, Failure> {
    Ok(store.primary(&acme(), at(seconds)).await?)
}

/// The store's usage counts.
pub(super) fn counts(store: &Store) -> Result<Arc<dyn UsageStore>, Failure> {
    let none = || Failure::new("the store no longer supports usage");
    store.usage().ok_or_else(none)
}

/// The store's signing states.
pub(super) fn states(store: &Store) -> Result<Arc<dyn SigningStore>, Failure> {
    let none = || Failure::new("the store no longer supports signing");
    store.signing().ok_or_else(none)
}

/// The usage of a key.
pub(super) async fn used(store: &Store, name: &str) -> Result<Usage, Failure> {
    let usage = counts(store)?.usage_of(&[id(name)]).await?;
    let none = || Failure::new(format!("no usage was returned for {name}"));
    usage.into_iter().next().ok_or_else(none)
}

/// All observable state of some keys, for comparison before and after.
#[derive(Debug, PartialEq)]
pub(super) struct Snapshot {
    listed: Vec<Arc<KeyRecord>>,
    by_id: Vec<Option<Arc<KeyRecord>>>,
    by_digest: Vec<Option<Arc<KeyRecord>>>,
    primaries: Vec<Option<KeyId>>,
    signing: Vec<Option<SigningState>>,
}

impl Snapshot {
    pub(super) async fn of(
        store: &Store,
        names: &[&str],
        digests: &[KeyDigest],
    ) -> Result<Self, Failure> {
        let mut snapshot = Self {
            listed: all(store).await?,
            by_id: Vec::new(),
            by_digest: Vec::new(),
            primaries: Vec::new(),
            signing: Vec::new(),
        };
        for name in names {
            snapshot.by_id.push(store.get(&id(name)).await?);
            if let Some(states) = store.signing() {
                snapshot
                    .signing
                    .push(states.signing_state(&id(name)).await?);
            }
        }
        for digest in digests {
            snapshot.by_digest.push(
                found(store, *digest)
                    .await?
                    .map(|key| Arc::clone(key.record())),
            );
        }
        for owner in [
            acme(),
            OwnerRef::Tenant(tenant("acme")),
            OwnerRef::User(tenant("acme"), user("u1")),
        ] {
            snapshot
                .primaries
                .push(store.primary(&owner, at(1_000)).await?);
        }
        Ok(snapshot)
    }
}
