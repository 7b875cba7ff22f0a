//! State shared by all adapters: one store with fixed keys, one clock, and services that can be
//! switched off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use portunus::Clock;
use portunus::key::{
    Access, Checksum, Delegation, Environment, KeyFamily, KeyHasher, KeyId, KeyKind, KeyRecord,
    Owner, PlanName, Revocation, WorkspaceId,
};
use portunus::network::AllowList;
use portunus::quota::{Quota, Quotas};
use portunus::store::{Change, KeyStore, WriteBatch};
use portunus::testing::ManualClock;

use portunus_test_support::{FIND, FaultyStore, corrupt, scope, tenant, user};

/// The store, the clock, and which services are down.
#[derive(Debug, Clone)]
pub(crate) struct Fixture {
    pub(crate) store: FaultyStore,
    pub(crate) clock: ManualClock,
    pub(crate) limiter_down: Arc<AtomicBool>,
    pub(crate) directory_down: Arc<AtomicBool>,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let (limiter_down, directory_down) = (Arc::default(), Arc::default());
        let fixture = Self {
            store: FaultyStore::new(),
            clock: ManualClock::new(),
            limiter_down,
            directory_down,
        };
        let mut batch = WriteBatch::new();
        for name in KEYS {
            let record = Box::new(record(name, fixture.clock.now()));
            batch = batch.change(Change::Insert {
                digest: KeyHasher::sha256().digest(&key(name)),
                record,
            });
        }
        fixture.store.apply(&batch).await.unwrap();
        fixture
    }

    pub(crate) fn take_down(&self, what: &str) {
        match what {
            "store down" => self.store.fail(FIND),
            "store corrupt" => self.store.fail_with(FIND, corrupt),
            "limiter down" => self.limiter_down.store(true, Ordering::SeqCst),
            _ => self.directory_down.store(true, Ordering::SeqCst),
        }
    }

    pub(crate) async fn revoke(&self, name: &str) {
        let id = KeyId::new(&format!("key_{name}")).unwrap();
        let mut record = (*self.store.get(&id).await.unwrap().unwrap()).clone();
        record.revoked = Some(Revocation::new(self.clock.now(), None));
        self.store
            .apply(&WriteBatch::new().update(record))
            .await
            .unwrap();
    }
}

/// Every stored key. Its id is `key_` plus its name; [`record`] has its permissions.
pub(crate) const KEYS: &[&str] = &[
    "reader",
    "writer",
    "all",
    "star",
    "none",
    "two",
    "dotted",
    "revoked",
    "expired",
    "tomorrow",
    "disabled",
    "early",
    "testing",
    "readonly",
    "ws1",
    "templates",
    "free",
    "standard",
    "enterprise",
    "gold",
    "listed",
    "listed6",
    "app",
    "appreads",
    "user",
    "suspended",
    "roleless",
    "unknowable",
    "closed",
    "rotated",
    "own2",
    "own1",
    "a_app",
    "a_user",
    "a_test",
    "a_read",
    "a_revoked",
    "a_expired",
    "a_none",
    "a_listed",
    "i_read",
    "i_all",
    "i_star",
    "i_revoked",
    "i_expired",
    "i_disabled",
    "i_plural",
    "y_org",
    "y_ws1",
    "y_read",
    "y_sandbox",
    "y_revoked",
    "u_standard",
    "u_free",
    "u_staging",
    "u_listed",
    "u_roleless",
    "u_revoked",
    "d_key",
    "d_revoked",
    "d_token",
    "d_expired",
];

/// Returns the text of a key. Names that are not stored give well-formed, unknown keys.
pub(crate) fn key(name: &str) -> String {
    if let Some(name) = name.strip_suffix(" cut") {
        let key = key(name);
        return key[..key.len() - 1].into();
    }
    if let Some(name) = name.strip_suffix(" with its last character wrong") {
        let key = key(name);
        return format!(
            "{}{}",
            &key[..key.len() - 1],
            if key.ends_with('0') { '1' } else { '0' }
        );
    }
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let padded = |length: usize| format!("{letters:x<length$}");
    match name.as_bytes() {
        [b'a', b'_', ..] => {
            let environment = if name == "a_test" { "test" } else { "live" };
            let kind = if name == "a_user" { "user_sk" } else { "sk" };
            format!("allsign_{environment}_{kind}_{}", padded(32))
        }
        [b'i', b'_', ..] => format!("isk_{}", padded(44)),
        [b'y', b'_', ..] => padded(32),
        [b'u', b'_', ..] => padded(40),
        b"d_token" | b"d_expired" | b"d_stranger_token" => padded(43),
        [b'd', b'_', ..] => {
            let hex: String = letters.bytes().map(|byte| format!("{byte:02x}")).collect();
            format!("{hex:0<48}")
        }
        _ => {
            let environment = if name == "testing" { "test" } else { "live" };
            let kind = if name == "user" { "user_sk" } else { "sk" };
            let random = padded(32);
            let sum =
                String::from_utf8(Checksum::Crc32Base62.of(random.as_bytes()).to_vec()).unwrap();
            format!("acme_{environment}_{kind}_{random}{sum}")
        }
    }
}

pub(crate) const USER: &str = "550e8400-e29b-41d4-a716-446655440000";

fn record(name: &str, now: SystemTime) -> KeyRecord {
    let family_of = |name: &str| KeyId::new(&format!("key_{name}")).unwrap();
    let (environment, owner, kind) = match name.as_bytes() {
        [b'a', b'_', ..] => {
            let environment = if name == "a_test" { "test" } else { "live" };
            let kind = if name == "a_user" {
                KeyKind::User
            } else {
                KeyKind::App
            };
            (
                environment,
                Owner::user(tenant("tenant_abc123"), user(USER)),
                kind,
            )
        }
        b"y_sandbox" => ("sandbox", Owner::tenant(tenant("acme")), KeyKind::App),
        b"u_staging" => ("staging", Owner::tenant(tenant("acme")), KeyKind::App),
        b"u_roleless" => (
            "production",
            Owner::tenant(tenant("roleless")),
            KeyKind::App,
        ),
        b"d_token" | b"d_expired" => (
            "production",
            Owner::user(tenant("acme"), user("u1")),
            KeyKind::AccessToken,
        ),
        [b'i' | b'y' | b'u' | b'd', b'_', ..] => {
            ("production", Owner::tenant(tenant("acme")), KeyKind::App)
        }
        b"user" => (
            "live",
            Owner::user(tenant("acme"), user("u1")),
            KeyKind::User,
        ),
        b"testing" => ("test", Owner::tenant(tenant("acme")), KeyKind::App),
        b"suspended" | b"roleless" | b"unknowable" | b"closed" => {
            ("live", Owner::tenant(tenant(name)), KeyKind::App)
        }
        _ => ("live", Owner::tenant(tenant("acme")), KeyKind::App),
    };
    let environment = Environment::new(environment).unwrap();
    let mut record = KeyRecord::new(
        family_of(name),
        name,
        kind,
        environment,
        owner,
        now - Duration::from_secs(1000),
    );
    record.scopes = scopes_of(name).iter().map(|text| scope(text)).collect();
    match name
        .trim_start_matches(|c: char| c.is_ascii_lowercase())
        .trim_start_matches('_')
    {
        "" => {}
        suffix => restrict(&mut record, suffix, now),
    }
    restrict(&mut record, name, now);
    record
}

fn scopes_of(name: &str) -> &'static [&'static str] {
    match name {
        "writer" => &["document:read", "document:write"],
        "all" | "readonly" => &["document:*"],
        "star" | "i_star" => &["*"],
        "two" | "a_app" => &["document:read", "signature:read"],
        "dotted" => &["document.*"],
        "app" | "appreads" => &["document:read", "document:write"],
        "none" | "a_none" => &[],
        "i_all" => &["documents.*"],
        "i_plural" => &["documents.send", "org.read"],
        "d_token" | "d_expired" => &["account_access"],
        _ if name.starts_with("i_") => &["documents.read"],
        _ if name.starts_with(['y', 'd']) && name.as_bytes()[1] == b'_' => &[],
        _ if name.starts_with("u_") => &[],
        _ => &["document:read"],
    }
}

/// Changes a key according to its name without the profile's prefix.
fn restrict(record: &mut KeyRecord, what: &str, now: SystemTime) {
    let seconds = Duration::from_secs;
    match what {
        "revoked" => {
            record.revoked = Some(Revocation::new(now - seconds(10), Some("leaked".into())));
        }
        // The exact time of expiry.
        "expired" => record.expires_at = Some(now),
        "tomorrow" => record.expires_at = Some(now + seconds(60)),
        "disabled" => record.enabled = false,
        "early" => record.not_before = Some(now + seconds(60)),
        "readonly" | "y_read" => record.access = Access::ReadOnly,
        "ws1" | "templates" => record.workspaces = Some(vec![WorkspaceId::new(what).unwrap()]),
        "free" | "standard" | "enterprise" | "gold" | "staging" => {
            let plan = if what == "staging" { "standard" } else { what };
            record.plan = Some(PlanName::new(plan).unwrap());
        }
        "listed" => {
            record.allowed_ips =
                AllowList::parse(["203.0.113.42", "198.51.100.0/24", "192.0.2.1"]).ok();
        }
        "listed6" => record.allowed_ips = AllowList::parse(["2001:db8::/32"]).ok(),
        "app" | "a_app" => record.delegation = Delegation::On,
        "appreads" => record.delegation = Delegation::Only(vec![scope("document:read")]),
        "rotated" => record.family = KeyFamily::new("key_reader").unwrap(),
        "own1" | "own2" => {
            let limit = if what == "own1" { 1 } else { 2 };
            record.quotas = Quota::per_minute(limit)
                .and_then(|quota| Quotas::new([quota]))
                .ok();
        }
        _ => {}
    }
}
