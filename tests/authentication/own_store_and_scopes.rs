//! A host's own store and scope model, written against the public API only and tested end to end.
//!
//! The store is an append-only log of text lines that is read from the start for each query; the
//! scopes are roles that imply others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::SystemTime;

use async_trait::async_trait;
use portunus::authenticator::Attempt;
use portunus::events::SigningStore;
use portunus::key::{
    DigestScheme, KeyDigest, KeyHasher, KeyId, KeyRecord, KeyStatus, Owner, Pepper, SigningState,
    TenantId,
};
use portunus::manage::{IssueRules, KeyManager, ManageError, NewKey};
use portunus::policy::Requirement;
use portunus::scope::{Scope, ScopeModel, ScopeSet};
use portunus::store::{
    Change, Condition, Cursor, HourOfUse, KeyLookup, KeyStore, ListQuery, Match, OwnerRef, Page,
    Rejected, StoreError, StoredKey, Usage, UsageByHour, UsageDelta, UsageStore, WriteBatch,
};
use portunus::testing::ManualClock;
use portunus::{Authenticator, Clock, ErrorCode, Principal};
use portunus_test_support::{
    Head, Setup, format, live, scope, stranger, tenant, test, with_last_character_wrong,
};

// ---- the store ----

/// Keys as lines of text, as in an append-only file. Clones share the log.
#[derive(Clone, Default)]
struct LogStore {
    log: Arc<Mutex<String>>,
}

/// The lines are omitted, because they contain signing states.
impl std::fmt::Debug for LogStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "LogStore({} lines)",
            self.log.lock().unwrap().lines().count()
        )
    }
}

/// The state after reading the log from the first line to the last.
#[derive(Debug, Default)]
struct Told {
    keys: BTreeMap<String, Key>,
    ids_ever: BTreeSet<String>,
    digests_ever: Vec<(KeyDigest, String)>,
    deleted: BTreeMap<String, TenantId>,
    primaries: Vec<(OwnerRef, KeyId)>,
}

#[derive(Debug, Clone)]
struct Key {
    digest: KeyDigest,
    record: KeyRecord,
    usage: Usage,
    by_hour: BTreeMap<SystemTime, u64>,
    signing: Option<SigningState>,
}

impl LogStore {
    fn read(&self) -> Result<Told, StoreError> {
        read(&self.log.lock().unwrap())
    }
}

fn read(log: &str) -> Result<Told, StoreError> {
    let mut told = Told::default();
    for (number, line) in log.lines().enumerate() {
        told.hear(line)
            .ok_or_else(|| StoreError::corrupt(format!("line {}", number + 1)))?;
    }
    Ok(told)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!(" {byte:02x}")).collect()
}

fn from_hex(hex: &str) -> Option<Vec<u8>> {
    hex.split(' ')
        .map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect()
}

fn digest_to_text(digest: &KeyDigest) -> String {
    format!("{}{}", digest.scheme(), hex(&digest.to_bytes()))
}

fn digest_from_text(text: &str) -> Option<KeyDigest> {
    let (scheme, hex) = text.split_once(' ')?;
    Some(KeyDigest::new(
        scheme.parse::<DigestScheme>().ok()?,
        from_hex(hex)?.try_into().ok()?,
    ))
}

fn owner_to_text(owner: &OwnerRef) -> String {
    match owner {
        OwnerRef::Tenant(tenant) => tenant.to_string(),
        OwnerRef::TenantItself(tenant) => format!("{tenant} "),
        OwnerRef::User(tenant, user) => format!("{tenant} {user}"),
        other => unreachable!("a kind of owner that is newer than this store: {other:?}"),
    }
}

fn owner_from_text(text: &str) -> Option<OwnerRef> {
    match text.split_once(' ') {
        Some((tenant, "")) => Some(OwnerRef::TenantItself(tenant.parse().ok()?)),
        Some((tenant, user)) => Some(OwnerRef::User(tenant.parse().ok()?, user.parse().ok()?)),
        None => Some(OwnerRef::Tenant(text.parse().ok()?)),
    }
}

impl Told {
    fn knows(&self, digest: &KeyDigest) -> bool {
        self.digests_ever.iter().any(|(known, _)| known == digest)
    }

    /// Applies one line; returns `None` if it cannot be parsed.
    fn hear(&mut self, line: &str) -> Option<()> {
        let parts: Vec<&str> = line.split('\t').collect();
        match parts.as_slice() {
            ["insert", digest, json] => {
                let (digest, record) = (
                    digest_from_text(digest)?,
                    serde_json::from_str::<KeyRecord>(json).ok()?,
                );
                self.ids_ever.insert(record.id.to_string());
                self.digests_ever.push((digest, record.id.to_string()));
                let (usage, by_hour) = (Usage::default(), BTreeMap::new());
                self.keys.insert(
                    record.id.to_string(),
                    Key {
                        digest,
                        record,
                        usage,
                        by_hour,
                        signing: None,
                    },
                );
            }
            ["replace", json] => {
                let record = serde_json::from_str::<KeyRecord>(json).ok()?;
                let key = self.keys.get_mut(record.id.as_str())?;
                key.record = record;
            }
            ["rehash", id, digest] => {
                let digest = digest_from_text(digest)?;
                self.digests_ever.push((digest, (*id).to_owned()));
                self.keys.get_mut(*id)?.digest = digest;
            }
            ["delete", id] => {
                let key = self.keys.remove(*id)?;
                let tenant = key.record.owner.tenant_id;
                self.deleted.insert((*id).to_owned(), tenant);
            }
            ["sign", id, hex] => {
                let state = (!hex.is_empty())
                    .then(|| SigningState::from_bytes(&from_hex(hex.trim())?).ok());
                self.keys.get_mut(*id)?.signing = state.flatten();
            }
            ["forget", json] => {
                let before = serde_json::from_str::<SystemTime>(json).ok()?;
                for key in self.keys.values_mut() {
                    key.by_hour
                        .retain(|start, _| *start + HourOfUse::LENGTH >= before);
                }
            }
            ["primary", owner, id] => {
                let owner = owner_from_text(owner)?;
                self.primaries.retain(|(of, _)| *of != owner);
                if !id.is_empty() {
                    self.primaries.push((owner, id.parse().ok()?));
                }
            }
            [how @ ("used" | "added"), id, count, json] => {
                let (last, ip) = serde_json::from_str(json).ok()?;
                let delta = UsageDelta::new(id.parse().ok()?, count.parse().ok()?, last, ip);
                let key = self.keys.get_mut(*id)?;
                key.usage.add(&delta);
                if *how == "used" {
                    let hour = key.by_hour.entry(HourOfUse::start_of(last)).or_default();
                    *hour = hour.saturating_add(delta.count);
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn live(&self, id: &KeyId) -> Result<&Key, Rejected> {
        self.keys
            .get(id.as_str())
            .ok_or_else(|| Rejected::Missing(id.clone()))
    }

    fn primary(&self, owner: &OwnerRef, at: SystemTime) -> Option<&KeyId> {
        let set = self
            .primaries
            .iter()
            .find(|(of, _)| of == owner)
            .map(|(_, id)| id);
        let records = self.keys.values().map(|key| &key.record);
        let able = records.filter(|record| owner.includes(record) && record.can_be_primary(at));
        able.min_by_key(|record| (Some(&record.id) != set, place(record)))
            .map(|record| &record.id)
    }

    fn check(&self, condition: &Condition) -> Result<(), StoreError> {
        let rejected = match condition {
            Condition::Version { id, version } => match self.live(id).map(|key| key.record.version)
            {
                Ok(stored) if stored == *version => return Ok(()),
                Ok(stored) => Rejected::Version {
                    id: id.clone(),
                    expected: *version,
                    stored,
                },
                Err(missing) => missing,
            },
            Condition::Primary { owner, key, at } if self.primary(owner, *at) == key.as_ref() => {
                return Ok(());
            }
            Condition::Primary { .. } => Rejected::Primary,
            limit if limit.is_checked_afterwards() => {
                let records = self.keys.values().map(|key| &key.record);
                return limit.check_active(records).map_err(StoreError::rejected);
            }
            other => {
                return Err(StoreError::unavailable(format!(
                    "a condition that is newer than this store: {other:?}"
                )));
            }
        };
        Err(StoreError::rejected(rejected))
    }

    /// The line for a change, if its condition holds.
    fn line(&self, change: &Change) -> Result<String, StoreError> {
        let json =
            |record: &KeyRecord| serde_json::to_string(record).map_err(StoreError::unavailable);
        match change {
            Change::Insert { digest, record } => {
                if self.ids_ever.contains(record.id.as_str()) {
                    return Err(StoreError::rejected(Rejected::IdKnown(record.id.clone())));
                }
                if self.knows(digest) {
                    return Err(StoreError::rejected(Rejected::DigestKnown));
                }
                Ok(format!(
                    "insert\t{}\t{}",
                    digest_to_text(digest),
                    json(record)?
                ))
            }
            Change::Replace(record) => {
                let stored = &self.live(&record.id).map_err(StoreError::rejected)?.record;
                if !stored.is_of_the_same_owner(record) {
                    return Err(StoreError::rejected(Rejected::Owner(record.id.clone())));
                }
                Ok(format!("replace\t{}", json(record)?))
            }
            Change::Rehash { id, from, to } => {
                match self.live(id).map_err(StoreError::rejected)?.digest {
                    stored if stored != *from => {
                        Err(StoreError::rejected(Rejected::Missing(id.clone())))
                    }
                    _ if from != to && self.knows(to) => {
                        Err(StoreError::rejected(Rejected::DigestKnown))
                    }
                    _ => Ok(format!("rehash\t{id}\t{}", digest_to_text(to))),
                }
            }
            Change::Delete(id) => {
                self.live(id).map_err(StoreError::rejected)?;
                Ok(format!("delete\t{id}"))
            }
            Change::SetPrimary { owner, key } => {
                if !owner.includes(&self.live(key).map_err(StoreError::rejected)?.record) {
                    return Err(StoreError::rejected(Rejected::Owner(key.clone())));
                }
                Ok(format!("primary\t{}\t{key}", owner_to_text(owner)))
            }
            Change::PinPrimary { owner, at } => {
                let id = self.primary(owner, *at).map_or("", KeyId::as_str);
                Ok(format!("primary\t{}\t{id}", owner_to_text(owner)))
            }
            Change::SetSigning { id, state } => {
                self.live(id).map_err(StoreError::rejected)?;
                Ok(format!(
                    "sign\t{id}\t{}",
                    state
                        .as_ref()
                        .map_or(String::new(), |state| hex(state.as_bytes()))
                ))
            }
            Change::AddUsage(delta) => {
                self.live(&delta.id).map_err(StoreError::rejected)?;
                used("added", delta)
            }
            other => Err(StoreError::unavailable(format!(
                "a change that is newer than this store: {other:?}"
            ))),
        }
    }
}

/// The line for uses of a key.
fn used(how: &str, delta: &UsageDelta) -> Result<String, StoreError> {
    let last = serde_json::to_string(&(delta.last_used_at, delta.last_ip))
        .map_err(StoreError::unavailable)?;
    Ok(format!("{how}\t{}\t{}\t{last}", delta.id, delta.count))
}

/// The sort order of lists.
fn place(record: &KeyRecord) -> (std::cmp::Reverse<SystemTime>, KeyId) {
    (std::cmp::Reverse(record.created_at), record.id.clone())
}

fn record(key: &Key) -> Arc<KeyRecord> {
    Arc::new(key.record.clone())
}

#[async_trait]
impl KeyLookup for LogStore {
    async fn find(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, StoreError> {
        tokio::task::yield_now().await;
        let told = self.read()?;
        Ok(StoredKey::of_one_secret(digests, |digest| {
            let (_, id) = told
                .digests_ever
                .iter()
                .find(|(known, _)| known == digest)?;
            match told.keys.get(id) {
                None => Some(Match::Deleted(told.deleted.get(id).cloned())),
                Some(key) if key.digest == *digest => Some(Match::Key(Arc::new(StoredKey::new(
                    *digest,
                    key.record.clone(),
                )))),
                Some(key) => {
                    let (id, owner) = (key.record.id.clone(), &key.record.owner);
                    Some(Match::Former(id, owner.tenant_id.clone()))
                }
            }
        }))
    }
}

#[async_trait]
impl KeyStore for LogStore {
    async fn get(&self, id: &KeyId) -> Result<Option<Arc<KeyRecord>>, StoreError> {
        let told = self.read()?;
        Ok(told.live(id).ok().map(record))
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, StoreError> {
        let told = self.read()?;
        let after = query
            .after
            .as_ref()
            .map(|cursor| (std::cmp::Reverse(cursor.created_at), cursor.id.clone()));
        let mut keys: Vec<_> = told
            .keys
            .values()
            .filter(|key| {
                query.selects(&key.record, &key.usage)
                    && after
                        .as_ref()
                        .is_none_or(|after| place(&key.record) > *after)
            })
            .collect();
        keys.sort_by_key(|key| place(&key.record));
        let limit = query.limit.clamp(1, 500);
        let last = keys.get(limit - 1).filter(|_| keys.len() > limit);
        let next = last.map(|key| Cursor::new(key.record.created_at, key.record.id.clone()));
        Ok(Page::new(
            keys.into_iter().take(limit).map(record).collect(),
            next,
        ))
    }

    async fn primaries(
        &self,
        owners: &[OwnerRef],
        at: SystemTime,
    ) -> Result<Vec<Option<KeyId>>, StoreError> {
        let told = self.read()?;
        let primary = |owner| told.primary(owner, at).cloned();
        Ok(owners.iter().map(primary).collect())
    }

    async fn apply(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        let mut log = self.log.lock().unwrap();
        let mut told = read(&log)?;
        let afterwards = |condition: &&Condition| condition.is_checked_afterwards();
        for condition in batch
            .conditions()
            .iter()
            .filter(|condition| !afterwards(condition))
        {
            told.check(condition)?;
        }
        let mut lines = String::new();
        for change in batch.changes() {
            let line = told.line(change)?;
            told.hear(&line)
                .ok_or_else(|| StoreError::corrupt("what was just written"))?;
            lines.push_str(&line);
            lines.push('\n');
        }
        for condition in batch.conditions().iter().filter(afterwards) {
            told.check(condition)?;
        }
        log.push_str(&lines);
        Ok(())
    }

    fn usage(&self) -> Option<Arc<dyn UsageStore>> {
        Some(Arc::new(self.clone()))
    }

    fn signing(&self) -> Option<Arc<dyn SigningStore>> {
        Some(Arc::new(self.clone()))
    }
}

#[async_trait]
impl SigningStore for LogStore {
    async fn signing_state(&self, id: &KeyId) -> Result<Option<SigningState>, StoreError> {
        let told = self.read()?;
        Ok(told.live(id).ok().and_then(|key| key.signing.clone()))
    }
}

#[async_trait]
impl UsageStore for LogStore {
    async fn usage_of(&self, ids: &[KeyId]) -> Result<Vec<Usage>, StoreError> {
        let told = self.read()?;
        let usage = |id| {
            told.live(id)
                .map_or_else(|_| Usage::default(), |key| key.usage)
        };
        Ok(ids.iter().map(usage).collect())
    }

    async fn record_usage(&self, batch: &[UsageDelta]) -> Result<(), StoreError> {
        let mut log = self.log.lock().unwrap();
        let told = read(&log)?;
        let mut lines = String::new();
        for delta in batch.iter().filter(|delta| told.live(&delta.id).is_ok()) {
            lines.push_str(&used("used", delta)?);
            lines.push('\n');
        }
        log.push_str(&lines);
        Ok(())
    }

    async fn usage_by_hour(
        &self,
        id: &KeyId,
        from: SystemTime,
        to: SystemTime,
    ) -> Result<UsageByHour, StoreError> {
        let told = self.read()?;
        let hours = told.live(id).into_iter().flat_map(|key| &key.by_hour);
        let within =
            hours.filter(|(start, _)| **start >= HourOfUse::start_of(from) && **start < to);
        let hours = within.map(|(start, count)| HourOfUse::new(*start, *count));
        Ok(UsageByHour::new(hours.collect()))
    }

    async fn forget_usage_before(&self, before: SystemTime) -> Result<u64, StoreError> {
        let mut log = self.log.lock().unwrap();
        let hours = |told: &Told| {
            told.keys
                .values()
                .map(|key| key.by_hour.len())
                .sum::<usize>()
        };
        let known = hours(&read(&log)?);
        writeln!(
            log,
            "forget\t{}",
            serde_json::to_string(&before).map_err(StoreError::unavailable)?
        )
        .map_err(StoreError::unavailable)?;
        Ok((known - hours(&read(&log)?)) as u64)
    }
}

// ---- the scopes ----

/// Roles: an `admin` has all rights of an `editor`, and an `editor` those of a `viewer`.
#[derive(Debug)]
struct Roles;

#[derive(Debug)]
struct Role {
    name: &'static str,
    may: &'static [&'static str],
}

const ROLES: &[Role] = &[
    Role {
        name: "role:viewer",
        may: &["document:read"],
    },
    Role {
        name: "role:editor",
        may: &["document:read", "document:write"],
    },
    Role {
        name: "role:admin",
        may: &[
            "document:read",
            "document:write",
            "document:delete",
            "document:*",
        ],
    },
];

#[derive(Debug)]
struct Held(Vec<&'static Role>);

impl ScopeSet for Held {
    fn grants(&self, required: &Scope) -> bool {
        self.0
            .iter()
            .any(|role| role.may.contains(&required.as_str()))
    }
    fn visit(&self, see: &mut dyn FnMut(&str)) {
        self.0.iter().for_each(|role| see(role.name));
    }
}

impl ScopeModel for Roles {
    fn compile(&self, names: &[Scope]) -> Result<Arc<dyn ScopeSet>, portunus::error::ParseError> {
        let known = |name: &Scope| ROLES.iter().find(|role| role.name == name.as_str());
        let held: Option<Vec<_>> = names.iter().map(known).collect();
        match held {
            Some(held) => Ok(Arc::new(Held(held))),
            // Names that are not roles grant nothing.
            None => Err(Scope::new("no role").unwrap_err()),
        }
    }
}

// ---- the service ----

struct Host {
    clock: ManualClock,
    store: LogStore,
    hasher: KeyHasher,
}

impl Host {
    fn new() -> Self {
        Self {
            clock: ManualClock::new(),
            store: LogStore::default(),
            hasher: KeyHasher::sha256(),
        }
    }

    fn manager(&self) -> KeyManager {
        let mut rules = IssueRules::default();
        rules.active_keys = Some(4);
        Setup::on(self.store.clone())
            .bearer([format()])
            .environments([live(), test()])
            .hasher(self.hasher.clone())
            .clock(self.clock.clone())
            .rules(rules)
            .manager()
    }

    fn authenticator(&self) -> Authenticator {
        Setup::on(self.store.clone())
            .bearer([format()])
            .environment(live())
            .hasher(self.hasher.clone())
            .scope_model(Roles)
            .clock(self.clock.clone())
            .build()
            .unwrap()
    }

    async fn issue(&self, role: &str) -> (String, Arc<KeyRecord>) {
        let new = NewKey::new("key", Owner::tenant(tenant("acme"))).with_scopes([scope(role)]);
        let issued = self.manager().issue(new).await.unwrap();
        (issued.key.reveal(), issued.record)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_log_passes_the_store_conformance_suite() {
    portunus_conformance::key_store(|| async { LogStore::default() })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_key_in_the_log_is_accepted_and_an_unknown_one_is_not() {
    let host = Host::new();
    let (key, record) = host.issue("role:viewer").await;
    let authenticator = host.authenticator();
    let principal = authenticator
        .authenticate(&Head::bearer(&key))
        .await
        .unwrap()
        .principal
        .unwrap();
    assert_eq!(principal.record(), &*record);
    for wrong in [stranger(), with_last_character_wrong(&key)] {
        let error = authenticator
            .authenticate(&Head::bearer(&wrong))
            .await
            .unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidKey);
    }
}

#[test]
fn a_store_that_must_be_awaited_is_awaited() {
    let host = Host::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (key, record) = runtime.block_on(host.issue("role:viewer"));
    let Attempt::Pending(pending) = host.authenticator().attempt(&Head::bearer(&key)) else {
        panic!("this store never answers at once")
    };
    let _inside = runtime.enter();
    let mut pending = pin!(pending);
    let mut context = Context::from_waker(Waker::noop());
    assert!(
        pending.as_mut().poll(&mut context).is_pending(),
        "it really waits"
    );
    let principal = runtime.block_on(pending).unwrap().principal.unwrap();
    assert_eq!(principal.key_id(), &record.id);
}

#[tokio::test]
async fn roles_imply_lower_roles() {
    let host = Host::new();
    let authenticator = host.authenticator();
    for (role, may) in [
        ("role:viewer", [true, false, false, false]),
        ("role:editor", [true, true, false, false]),
        ("role:admin", [true, true, true, true]),
    ] {
        let (key, _) = host.issue(role).await;
        let principal = authenticator
            .authenticate(&Head::bearer(&key))
            .await
            .unwrap()
            .principal
            .unwrap();
        for (required, met) in [
            "document:read",
            "document:write",
            "document:delete",
            "document:*",
        ]
        .into_iter()
        .zip(may)
        {
            let requirement = Requirement::scope(scope(required));
            assert_eq!(
                principal.require(&requirement).is_ok(),
                met,
                "{role} for {required}"
            );
        }
        assert!(
            principal.require(&scope(role).into()).is_err(),
            "a role's name is no permission"
        );
        assert_eq!(principal.scopes().names(), [role]);
    }
}

#[tokio::test]
async fn a_refusal_and_an_explanation_speak_of_roles() {
    let host = Host::new();
    let (key, _) = host.issue("role:editor").await;
    let principal = host
        .authenticator()
        .authenticate(&Head::bearer(&key))
        .await
        .unwrap()
        .principal
        .unwrap();
    let error = principal
        .require(&scope("document:delete").into())
        .unwrap_err();
    assert_eq!(error.missing_scope().unwrap().granted, ["role:editor"]);
    let write = Requirement::scope(scope("document:write"));
    assert!(
        write
            .explain_for(&principal, None)
            .to_string()
            .starts_with("document:write granted by ")
    );
}

#[tokio::test]
async fn a_key_whose_role_means_nothing_is_refused_and_not_guessed_at() {
    let host = Host::new();
    let (key, _) = host.issue("*").await;
    let error = host
        .authenticator()
        .authenticate(&Head::bearer(&key))
        .await
        .unwrap_err();
    assert_eq!(error.status(), 503);
}

#[tokio::test]
async fn a_revocation_in_the_log_holds_for_the_next_request() {
    let host = Host::new();
    let (key, record) = host.issue("role:viewer").await;
    let authenticator = host.authenticator();
    authenticator
        .authenticate(&Head::bearer(&key))
        .await
        .unwrap();
    let revoked = host
        .manager()
        .revoke(&record.id, Some("lost"))
        .await
        .unwrap();
    assert_eq!(
        (
            revoked.record.version,
            revoked.record.status(host.clock.now())
        ),
        (2, KeyStatus::Revoked)
    );
    let error = authenticator
        .authenticate(&Head::bearer(&key))
        .await
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::KeyRevoked);
}

#[tokio::test]
async fn revoking_again_changes_nothing_and_keeps_the_first_reason() {
    let host = Host::new();
    let (_, record) = host.issue("role:viewer").await;
    let first = host
        .manager()
        .revoke(&record.id, Some("lost"))
        .await
        .unwrap();
    host.clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(
        host.manager()
            .revoke(&record.id, Some("stolen"))
            .await
            .unwrap(),
        first
    );
    let unknown = KeyId::new("key_unknown").unwrap();
    assert!(
        matches!(host.manager().revoke(&unknown, None).await, Err(ManageError::NotFound(id)) if id == unknown)
    );
}

#[tokio::test]
async fn the_log_holds_no_secret() {
    let host = Host::new();
    let (key, record) = host.issue("role:viewer").await;
    host.authenticator()
        .authenticate(&Head::bearer(&key))
        .await
        .unwrap();
    let log = host.store.log.lock().unwrap().clone();
    assert!(
        log.contains(record.id.as_str()) && log.contains(&key[key.len() - 4..]),
        "all but the secret is there"
    );
    assert!(!log.contains(&key[13..key.len() - 4]), "{log}");
}

#[tokio::test]
async fn a_corrupt_line_refuses_every_key() {
    let host = Host::new();
    let (key, _) = host.issue("role:viewer").await;
    let whole = host.store.log.lock().unwrap().clone();
    for (from, to) in [
        (r#""expires_at":null"#, r#""expires_at":"never""#),
        (r#""enabled":true"#, r#""enabled":1"#),
        (r#""role:viewer""#, r#""role:*:viewer""#),
        ("insert\tsha256", "insert\tmd5"),
    ] {
        assert!(whole.contains(from), "{from}");
        *host.store.log.lock().unwrap() = whole.replace(from, to);
        let error = host
            .authenticator()
            .authenticate(&Head::bearer(&key))
            .await
            .unwrap_err();
        assert_eq!(
            (error.code(), error.status()),
            (ErrorCode::StoreUnavailable, 503),
            "{to}"
        );
    }
}

#[tokio::test]
async fn a_pepper_that_is_introduced_later_reaches_the_log() {
    let mut host = Host::new();
    let (key, record) = host.issue("role:viewer").await;
    host.hasher = KeyHasher::hmac_sha256(Pepper::new(1, &[1; 32]).unwrap())
        .accept_sha256()
        .unwrap();
    let authenticator = host.authenticator();
    for _ in 0..3 {
        assert_eq!(
            authenticator
                .authenticate(&Head::bearer(&key))
                .await
                .unwrap()
                .principal
                .unwrap()
                .key_id(),
            &record.id
        );
        authenticator.write_rehashes().await;
    }
    assert_eq!(
        host.store
            .log
            .lock()
            .unwrap()
            .lines()
            .filter(|line| line.starts_with("rehash\t"))
            .count(),
        1
    );
    host.hasher = KeyHasher::hmac_sha256(Pepper::new(1, &[1; 32]).unwrap());
    host.authenticator()
        .authenticate(&Head::bearer(&key))
        .await
        .unwrap();
}

#[tokio::test]
async fn usage_reaches_the_log_and_outlives_the_process() {
    let host = Host::new();
    let (key, record) = host.issue("role:viewer").await;
    for _ in 0..2 {
        let authenticator = host.authenticator();
        authenticator
            .authenticate(&Head::bearer(&key))
            .await
            .unwrap();
        authenticator
            .authenticate(&Head::bearer(&key))
            .await
            .unwrap();
        authenticator.usage().flush(&host.store).await.unwrap();
    }
    let usage = host.manager().get(&record.id).await.unwrap().usage;
    assert_eq!(
        (usage.count, usage.last_used_at),
        (4, Some(host.clock.now()))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_managers_quota_holds_on_the_log_too() {
    let host = Host::new();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let manager = host.manager();
        tasks.spawn(async move {
            manager
                .issue(NewKey::new("key", Owner::tenant(tenant("acme"))))
                .await
                .is_ok()
        });
    }
    assert_eq!(
        tasks
            .join_all()
            .await
            .into_iter()
            .filter(|&issued| issued)
            .count(),
        4
    );
}

#[tokio::test]
async fn a_page_of_the_log_follows_the_one_before() {
    let host = Host::new();
    let mut newest_first = Vec::new();
    for _ in 0..4 {
        newest_first.insert(0, host.issue("role:viewer").await.1.id.clone());
        host.clock.advance(std::time::Duration::from_secs(1));
    }
    let mut query = ListQuery::new(host.clock.now());
    query.limit = 3;
    let first = host.manager().list(query.clone()).await.unwrap();
    query.after = first.next;
    let second = host.manager().list(query.clone()).await.unwrap();
    let seen: Vec<_> = first
        .items
        .iter()
        .chain(&second.items)
        .map(|key| key.record.id.clone())
        .collect();
    assert_eq!((seen, second.next), (newest_first, None));
}

#[tokio::test]
async fn arcs_and_boxes_of_a_store_and_of_a_model_are_as_good_as_they_are() {
    let host = Host::new();
    let (key, _) = host.issue("role:viewer").await;
    let arc: Arc<dyn KeyStore> = Arc::new(host.store.clone());
    let boxed: Box<dyn KeyStore> = Box::new(Arc::clone(&arc));
    let models: [Arc<dyn ScopeModel>; 2] = [
        Arc::new(Roles),
        Arc::new(Box::new(Roles) as Box<dyn ScopeModel>),
    ];
    let [one, other] = models;
    for builder in [
        Setup::on(arc).scope_model(one),
        Setup::on(boxed).scope_model(other),
    ] {
        let authenticator = builder
            .bearer([format()])
            .clock(host.clock.clone())
            .build()
            .unwrap();
        let principal = authenticator
            .authenticate(&Head::bearer(&key))
            .await
            .unwrap()
            .principal
            .unwrap();
        assert!(principal.require(&scope("document:read").into()).is_ok());
    }
}

#[tokio::test]
async fn a_principal_of_the_hosts_own_is_checked_like_the_librarys() {
    #[derive(Debug)]
    struct Impersonated(portunus::KeyPrincipal);
    impl Principal for Impersonated {
        fn key_id(&self) -> &KeyId {
            self.0.key_id()
        }
        fn owner(&self) -> &Owner {
            self.0.owner()
        }
        fn actor(&self) -> portunus::actor::Actor<'_> {
            self.0.actor()
        }
        fn environment(&self) -> &portunus::key::Environment {
            self.0.environment()
        }
        fn scopes(&self) -> &dyn ScopeSet {
            const NONE: &Held = &Held(Vec::new());
            NONE
        }
    }
    let host = Host::new();
    let (key, _) = host.issue("role:admin").await;
    let principal = host
        .authenticator()
        .authenticate(&Head::bearer(&key))
        .await
        .unwrap()
        .principal
        .unwrap();
    let read = Requirement::scope(scope("document:read"));
    assert!(principal.require(&read).is_ok());
    let own: Box<dyn Principal> = Box::new(Impersonated(principal));
    assert_eq!(
        own.require(&read).unwrap_err().code(),
        ErrorCode::InsufficientScope
    );
}
