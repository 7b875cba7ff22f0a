//! Portunus, with the key shape of the other contenders.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use portunus::audit::{AuditError, AuditEvent, AuditSink, AuditTrail};
use portunus::config::{Policy, Responses};
use portunus::key::{Alphabet, Checksum, Environment, KeyFormat, KeyKind, Owner};
use portunus::limit::{LimitFields, LocalLimiter};
use portunus::manage::NewKey;
use portunus::network::AllowList;
use portunus::quota::Quota;
use portunus::store::{Cache, KeyStore, LocalBus, MemoryStore};
use portunus::{Limits, Portunus, PortunusBuilder, Scope, scope};
use tower::Layer;

use crate::awaited::Awaited;
use crate::contender::{Check, Contender, Credentials};
use crate::shape::{ENVIRONMENT, Inner, NETWORKS, SCOPES, Settings, next_year, now, soon};

/// How often audit events are flushed: more often than by default, because more of them than fit
/// into the queue would be recorded meanwhile.
const FLUSH: Duration = Duration::from_millis(5);

/// The default for the number of keys that the limiter has room for.
const ROOM: usize = 250_000;

/// A sink that discards all events.
#[derive(Debug)]
struct Discard;

#[async_trait]
impl AuditSink for Discard {
    async fn record(&self, _: &[AuditEvent]) -> Result<(), AuditError> {
        Ok(())
    }
}

/// Keys of 48 bytes, or with a checksum of 6 more.
pub fn format(checksum: bool) -> KeyFormat {
    let builder = KeyFormat::builder("example_")
        .environment(ENVIRONMENT, environment(ENVIRONMENT))
        .environment("test", environment("test"))
        .kind("sk", KeyKind::App)
        .random(Alphabet::BASE62, 32);
    let builder = if checksum {
        builder.checksum(Checksum::Crc32Base62)
    } else {
        builder
    };
    builder.build().expect("a valid format")
}

fn environment(name: &str) -> Environment {
    Environment::new(name).expect("a valid name")
}

/// A service with all defaults except the quotas and the environment that it serves.
pub fn described(settings: Settings, store: impl KeyStore, format: KeyFormat) -> PortunusBuilder {
    let limits = Limits::per_key([
        Quota::per_minute(settings.per_minute.into()),
        Quota::per_hour(settings.per_hour.into()),
    ]);
    let limits = if settings.keys < ROOM {
        limits
    } else {
        let room = LocalLimiter::builder().most_buckets(2 * settings.keys);
        limits.limiter(room.build())
    };
    Portunus::builder(format)
        .store(store)
        .policy(Policy::new().serve_only(environment(ENVIRONMENT)))
        .limits(limits)
}

pub fn built(builder: PortunusBuilder) -> Portunus {
    builder.build().expect("valid settings")
}

fn issue(keys: &Portunus, scopes: &[&str], expires_at: SystemTime) -> String {
    let owner = Owner::tenant("tenant_abc123".parse().expect("a valid id"));
    let scopes = scopes.iter().map(|scope| Scope::new(scope));
    let new = NewKey::new("peer", owner)
        .with_scopes(scopes.collect::<Result<Vec<_>, _>>().expect("valid scopes"))
        .with_environment(environment(ENVIRONMENT))
        .with_allowed_ips(AllowList::parse(NETWORKS).expect("valid networks"))
        .expiring_at(expires_at);
    let issued = now(keys.manager().issue(new)).expect("issued");
    format!("Bearer {}", issued.key.reveal())
}

/// Issues the keys of a contender.
pub fn issued(settings: Settings, keys: &Portunus, format: &KeyFormat) -> Credentials {
    let until = next_year();
    let unknown = format.generate(Some(&environment(ENVIRONMENT)), Some(KeyKind::App));
    Credentials {
        good: (0..settings.keys)
            .map(|_| issue(keys, &SCOPES, until))
            .collect(),
        unknown: format!("Bearer {}", unknown.expect("a key").reveal()),
        without_scope: issue(keys, &SCOPES[..2], until),
    }
}

fn contender(
    name: &'static str,
    checks: &'static [Check],
    settings: Settings,
    describe: impl FnOnce(PortunusBuilder) -> PortunusBuilder,
) -> Contender {
    let (format, store) = (format(false), MemoryStore::new());
    let builder = described(settings, store.clone(), format.clone());
    let keys = built(describe(builder));
    let credentials = issued(settings, &keys, &format);
    let layer = keys.layer().require(scope!("document:read"));
    let service = layer.layer(Inner);
    let write = writing_uses(&keys, &store);
    Contender::tower(name, checks, credentials, service).settling(write)
}

/// Writes the counted uses to the store, as the periodic jobs of a service do.
pub fn writing_uses(keys: &Portunus, store: &MemoryStore) -> impl Fn() + use<> {
    let usage = keys.authenticator().usage().clone();
    let store = store.usage().expect("the store counts uses");
    move || soon(usage.flush(&*store)).expect("the store accepts them")
}

fn no_fields() -> Responses {
    Responses::new().limit_fields(LimitFields::Off)
}

pub fn without_fields(settings: Settings) -> Contender {
    contender(
        "Portunus, no fields",
        Check::COMPLETE,
        settings,
        |builder| builder.responses(no_fields()),
    )
}

pub fn default(settings: Settings) -> Contender {
    let checks = Check::COMPLETE_WITH_FIELDS;
    contender("Portunus", checks, settings, |builder| builder)
}

/// With fields and audit. Another thread flushes; a round ends when everything has been written.
pub fn audited(settings: Settings) -> Contender {
    let trail = AuditTrail::new([Discard]);
    let (flushed, written) = (trail.clone(), trail.clone());
    let flusher = thread::spawn(move || {
        loop {
            now(flushed.flush()).expect("the sink never fails");
            thread::park_timeout(FLUSH);
        }
    });
    contender("Portunus, audit", &Check::ALL, settings, |builder| {
        builder.audit(trail)
    })
    .settling(move || {
        while written.pending() > 0 {
            flusher.thread().unpark();
            thread::yield_now();
        }
        assert_eq!(written.dropped(), 0, "a round must fit into the queue");
    })
}

/// Without fields, over a store that must be awaited, with the default cache in front of it.
pub fn cached(settings: Settings) -> Contender {
    let format = format(false);
    let store = MemoryStore::new();
    let awaited = Awaited(Arc::new(store.clone()));
    let builder = described(settings, awaited, format.clone())
        .cache(Cache::new().bus(LocalBus::new()))
        .responses(no_fields());
    let keys = built(builder);
    let credentials = issued(settings, &keys, &format);
    let layer = keys.layer().require(scope!("document:read"));
    let service = layer.layer(Inner);
    let write = writing_uses(&keys, &store);
    Contender::tower(
        "Portunus, no fields, cached",
        Check::COMPLETE,
        credentials,
        service,
    )
    .settling(write)
}
