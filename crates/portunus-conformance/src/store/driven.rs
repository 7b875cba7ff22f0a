//! The store under the library's own manager and authenticator, with an unreliable connection:
//! acknowledged writes take effect, a missing answer becomes a 503, and retries are harmless.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::tools::{Store, all, at, environment, stored, tenant, used as used_by};
use crate::report::{Checked, Failure, valid};
use portunus::config::Credentials;
use portunus::key::{Alphabet, KeyFormat, KeyHasher, KeyRecord, Owner, Pepper};
use portunus::manage::{IssueRules, Issued, KeyManager, ManageError, Management, NewKey};
use portunus::request::FieldName;
use portunus::store::Cache;
use portunus::testing::{Call, FaultyStore, ManualClock, Point};
use portunus::{Authenticator, ErrorCode, Limits, Portunus, RequestHead};

checks!(CHECKS: Store {
    "an issued key is accepted on the next request, and an unknown one is not"
        => issued depends on [read_your_writes, other_scheme],
    "an acknowledged revocation takes effect on the next request"
        => revocation_holds depends on [issued, revoked],
    "a revocation whose answer was lost can be retried, and takes effect"
        => revoked_again depends on [revocation_holds],
    "a lookup without an answer causes a 503, never a 401, and never admits a request"
        => no_answer depends on [revocation_holds],
    "a write that did not arrive changes nothing"
        => not_arrived depends on [issued],
    "a rehash whose answer was lost fails no request"
        => rehash_lost depends on [issued, candidates, rehashed, while_rehashed],
    "concurrently issued keys never exceed a quota"
        => quota_of_issues depends on [issued, concurrent_quota, no_half],
});

checks!(USAGE: Store {
    "usage that did not arrive is counted by the next flush"
        => usage_flushed depends on [issued, adds_up],
});

/// What is lost of a write: it never arrives, or it is applied and its acknowledgement is lost.
const WRITE: Point = Point::Before(Call::Apply);
const ACKNOWLEDGEMENT: Point = Point::After(Call::Apply);

struct Fixture {
    store: FaultyStore,
    clock: ManualClock,
    format: KeyFormat,
}

/// A request that presents a key.
struct Presented(String);

impl RequestHead for Presented {
    fn method(&self) -> &'static str {
        "GET"
    }
    fn path(&self) -> &'static str {
        "/"
    }
    fn peer_ip(&self) -> Option<IpAddr> {
        None
    }
    fn visit<'a>(&'a self, name: FieldName<'_>, see: &mut dyn FnMut(&'a [u8]) -> ControlFlow<()>) {
        if name == FieldName::Authorization {
            let _ = see(self.0.as_bytes());
        }
    }
}

impl Fixture {
    fn new(store: Store) -> Self {
        let format = KeyFormat::builder("acme_")
            .random(Alphabet::BASE62, 32)
            .build();
        Self {
            store: FaultyStore::over(store),
            clock: ManualClock::at(at(1_000)),
            format: valid(format),
        }
    }

    fn keys(&self, hasher: KeyHasher) -> Portunus {
        let mut rules = IssueRules::default();
        rules.active_keys = Some(4);
        let live = [environment("live")];
        let credentials = Credentials::new().bearer([self.format.clone()]);
        let built = Portunus::builder(credentials.hasher(hasher))
            .store(self.store.clone())
            .cache(Cache::none())
            .limits(Limits::none())
            .management(Management::new().environments(live).rules(rules))
            .clock(self.clock.clone())
            .build();
        valid(built)
    }

    fn manager(&self) -> KeyManager {
        self.keys(KeyHasher::default()).manager().clone()
    }

    fn authenticator(&self, hasher: KeyHasher) -> Authenticator {
        self.keys(hasher).authenticator().clone()
    }

    async fn issue(&self) -> Result<(String, Arc<KeyRecord>), Failure> {
        let issued = self.manager().issue(new_key()).await?;
        Ok((issued.key.reveal(), issued.record))
    }

    /// A well-formed key that was never issued.
    fn unknown_key(&self) -> String {
        valid(self.format.generate(None, None)).reveal()
    }
}

fn new_key() -> NewKey {
    NewKey::new("key", Owner::tenant(tenant("acme")))
}

/// The code with which a key is refused; `None` if it is accepted.
async fn refused(authenticator: &Authenticator, key: &str) -> Option<ErrorCode> {
    authenticator
        .authenticate(&Presented(format!("Bearer {key}")))
        .await
        .err()
        .map(|error| error.code())
}

async fn issued(store: Store) -> Checked {
    let fixture = Fixture::new(store);
    let authenticator = fixture.authenticator(KeyHasher::sha256());
    for _ in 0..4 {
        let (key, _) = fixture.issue().await?;
        ensure_eq!(
            refused(&authenticator, &key).await,
            None,
            "what refuses a key that was just issued"
        );
        let unknown_key = fixture.unknown_key();
        ensure_eq!(
            refused(&authenticator, &unknown_key).await,
            Some(ErrorCode::InvalidKey),
            "what refuses an unknown key"
        );
    }
    Ok(())
}

async fn revocation_holds(store: Store) -> Checked {
    let fixture = Fixture::new(store);
    let authenticator = fixture.authenticator(KeyHasher::sha256());
    for _ in 0..20 {
        let (key, record) = fixture.issue().await?;
        ensure_eq!(
            refused(&authenticator, &key).await,
            None,
            "what refuses the key before"
        );
        fixture.manager().revoke(&record.id, Some("lost")).await?;
        let now = refused(&authenticator, &key).await;
        ensure_eq!(
            now,
            Some(ErrorCode::KeyRevoked),
            "what refuses the key on the next request"
        );
    }
    Ok(())
}

async fn revoked_again(store: Store) -> Checked {
    let fixture = Fixture::new(store);
    let authenticator = fixture.authenticator(KeyHasher::sha256());
    for point in [WRITE, ACKNOWLEDGEMENT] {
        let (key, record) = fixture.issue().await?;
        fixture.store.fail(point);
        let unacknowledged = fixture.manager().revoke(&record.id, Some("first")).await;
        let lost = matches!(unacknowledged, Err(ManageError::Store(_)));
        ensure!(
            lost,
            "a revocation without an answer was reported as {unacknowledged:?}"
        );
        fixture.store.recover();
        let acknowledged = fixture.manager().revoke(&record.id, Some("second")).await?;
        let reason = acknowledged
            .record
            .revoked
            .as_ref()
            .and_then(|revocation| revocation.reason.clone());
        let expected = if point == ACKNOWLEDGEMENT {
            "first"
        } else {
            "second"
        };
        ensure_eq!(
            reason.as_deref(),
            Some(expected),
            "the reason after a retry, {point:?}"
        );
        ensure_eq!(
            acknowledged.record.version,
            2,
            "the version after a retry, {point:?}"
        );
        ensure_eq!(
            refused(&authenticator, &key).await,
            Some(ErrorCode::KeyRevoked),
            "what refuses the key, {point:?}"
        );
    }
    Ok(())
}

async fn no_answer(store: Store) -> Checked {
    let fixture = Fixture::new(store);
    let authenticator = fixture.authenticator(KeyHasher::sha256());
    let (key, record) = fixture.issue().await?;
    let unknown_key = fixture.unknown_key();
    ensure_eq!(
        refused(&authenticator, &key).await,
        None,
        "what refuses the key before"
    );
    fixture.store.fail(Point::After(Call::Find));
    for _ in 0..3 {
        for (whose, key) in [("the key", &key), ("an unknown key", &unknown_key)] {
            let refused = refused(&authenticator, key).await;
            ensure_eq!(
                refused,
                Some(ErrorCode::StoreUnavailable),
                "what refuses {whose} without an answer"
            );
        }
    }
    fixture.manager().revoke(&record.id, None).await?;
    fixture.store.recover();
    ensure_eq!(
        refused(&authenticator, &key).await,
        Some(ErrorCode::KeyRevoked),
        "what refuses it afterwards"
    );
    ensure_eq!(
        refused(&authenticator, &unknown_key).await,
        Some(ErrorCode::InvalidKey),
        "what refuses the unknown key"
    );
    Ok(())
}

async fn not_arrived(store: Store) -> Checked {
    let fixture = Fixture::new(Arc::clone(&store));
    fixture.store.fail(WRITE);
    ensure!(
        fixture.manager().issue(new_key()).await.is_err(),
        "a key was issued that was not stored"
    );
    fixture.store.recover();
    ensure_eq!(all(&store).await?.len(), 0, "how many keys there are");
    // Applied and not acknowledged: the key exists, and a retry issues another one.
    fixture.store.fail(ACKNOWLEDGEMENT);
    ensure!(
        fixture.manager().issue(new_key()).await.is_err(),
        "a key was issued that was never acknowledged"
    );
    fixture.store.recover();
    fixture.issue().await?;
    ensure_eq!(
        all(&store).await?.len(),
        2,
        "how many keys there are after a lost answer and a retry"
    );
    Ok(())
}

async fn rehash_lost(store: Store) -> Checked {
    let fixture = Fixture::new(store);
    let pepper = || valid(Pepper::new(1, &[7; 32]));
    let both = valid(KeyHasher::hmac_sha256(pepper()).accept_sha256());
    for point in [WRITE, ACKNOWLEDGEMENT] {
        let (key, record) = fixture.issue().await?;
        let authenticator = fixture.authenticator(both.clone());
        fixture.store.fail(point);
        ensure_eq!(
            refused(&authenticator, &key).await,
            None,
            "what refuses the key, {point:?}"
        );
        authenticator.write_rehashes().await;
        fixture.store.recover();
        for _ in 0..2 {
            let again = fixture.authenticator(both.clone());
            ensure_eq!(
                refused(&again, &key).await,
                None,
                "what refuses it later, {point:?}"
            );
            again.write_rehashes().await;
        }
        let peppered = fixture.authenticator(KeyHasher::hmac_sha256(pepper()));
        ensure_eq!(
            refused(&peppered, &key).await,
            None,
            "what refuses it under its new digest, {point:?}"
        );
        ensure_eq!(
            stored(
                &(Arc::new(fixture.store.clone()) as Store),
                record.id.as_str()
            )
            .await?
            .version,
            1,
            "its version"
        );
    }
    Ok(())
}

async fn quota_of_issues(store: Store) -> Checked {
    let fixture = Fixture::new(Arc::clone(&store));
    let mut tasks = JoinSet::new();
    for _ in 0..40 {
        let manager = fixture.manager();
        tasks.spawn(async move { manager.issue(new_key()).await });
    }
    let mut issued = Vec::new();
    while let Some(outcome) = tasks.join_next().await {
        match outcome? {
            Ok(Issued { key, .. }) => issued.push(key.reveal()),
            Err(ManageError::QuotaExceeded {
                active: 5,
                limit: 4,
            }) => {}
            Err(error) => return Err(Failure::from(error)),
        }
    }
    ensure_eq!(
        (issued.len(), all(&store).await?.len()),
        (4, 4),
        "keys that were issued, and keys that exist"
    );
    let authenticator = fixture.authenticator(KeyHasher::sha256());
    for key in issued {
        ensure_eq!(
            refused(&authenticator, &key).await,
            None,
            "what refuses one of them"
        );
    }
    Ok(())
}

async fn usage_flushed(store: Store) -> Checked {
    let fixture = Fixture::new(Arc::clone(&store));
    let authenticator = fixture.authenticator(KeyHasher::sha256());
    let (key, record) = fixture.issue().await?;
    for _ in 0..3 {
        ensure_eq!(
            refused(&authenticator, &key).await,
            None,
            "what refuses the key"
        );
    }
    fixture.store.fail(Point::Before(Call::RecordUsage));
    ensure!(
        authenticator.usage().flush(&fixture.store).await.is_err(),
        "usage was reported as written but was not"
    );
    fixture.store.recover();
    authenticator.usage().flush(&fixture.store).await?;
    authenticator.usage().flush(&fixture.store).await?;
    let usage = used_by(&store, record.id.as_str()).await?;
    ensure_eq!(
        (usage.count, usage.last_used_at),
        (3, Some(at(1_000))),
        "how often and when it was used"
    );
    Ok(())
}
