//! Importing many keys in one write, so that an import that was interrupted can be repeated.
//!
//! The id of an imported key is derived from its tenant and digest, and its record has a fingerprint
//! of the import. A repeated import therefore finds the key of the first, even if the key was used
//! or changed since, and a different one with the same digest is a conflict.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures_util::future::join;

use super::{Checked, NewImport};
use crate::audit::{Action, AuditError};
use crate::clock::within;
use crate::key::{KeyDigest, KeyRecord};
use crate::manage::check::check_time;
use crate::manage::watch::Watch;
use crate::manage::{Idempotency, KeyManager, ManageError};
use crate::store::{Change, OwnerRef, Rejected, StoreError, WriteBatch};

/// The largest number of keys of a call: as many as other nodes are told of one by one.
const MOST: usize = 500;

/// How long the audit's sinks have to store the events of the keys imported before.
const AUDIT_LIMIT: Duration = Duration::from_secs(10);

/// How many imports are checked without a pause: they take less than a millisecond.
const CHECKS_AT_ONCE: usize = 16;

/// The result of one import: `None` if it was completed before.
type Outcome = Result<Option<Arc<KeyRecord>>, ManageError>;

/// A key of a call that is not decided yet.
struct Open<'a> {
    place: usize,
    checked: Checked,
    watch: Watch<'a>,
}

impl KeyManager {
    /// Imports up to 500 keys, usually in one write, and returns the result of each in their order:
    /// the record of a new key, `None` if the same import was completed before, or why the key was
    /// refused. A refused key does not stop the others.
    ///
    /// An import that was interrupted is therefore simply repeated. It is the same import if tenant,
    /// digest and everything else in it are the same. Whether the key has been changed or used since
    /// does not matter, but a deleted key is refused. With a pepper that was replaced meanwhile,
    /// imports are not recognized, and refused as [`ManageError::DigestKnown`].
    ///
    /// Each new key has an event in the audit. Before a call imports anything, the sinks must have
    /// stored the events of the calls before, for which they have ten seconds: so an import is not
    /// faster than its audit, and none of its events are dropped. Refusals are recorded like those
    /// of calls that did not reach an operation, at most a hundred a minute
    /// ([`failures_per_source`](crate::audit::AuditTrailBuilder::failures_per_source)).
    ///
    /// # Errors
    /// [`ManageError::Invalid`] for more than 500 keys, [`ManageError::PreconditionFailed`], or
    /// [`ManageError::Log`] if the sinks do not store the earlier events. Nothing was done then.
    ///
    /// Errors of a key are those of [`import`](Self::import). If the [code](ManageError::code) has a
    /// status of 500 or more, the import of this key should be repeated later: it is not known
    /// whether it was done.
    pub async fn import_many(&self, imports: Vec<NewImport>) -> Result<Vec<Outcome>, ManageError> {
        if imports.len() > MOST {
            let why = format!("at most {MOST} are allowed in one call");
            return Err(ManageError::invalid("imports", why));
        }
        if !self.precondition_holds(None) {
            return Err(ManageError::PreconditionFailed);
        }
        let now = self.now();
        let mut outcomes: Vec<Option<Outcome>> = imports.iter().map(|_| None).collect();
        // The sinks store while these are checked; nothing is written before both are done.
        let (stored, all) = join(self.events_stored(), self.checked_all(imports, now)).await;
        if let Err(error) = stored {
            all.into_iter().for_each(|(watch, _)| watch.forget());
            return Err(error);
        }
        let mut open = Vec::with_capacity(all.len());
        for (place, (watch, checked)) in all.into_iter().enumerate() {
            match checked {
                Ok(checked) => open.push(Open {
                    place,
                    checked,
                    watch,
                }),
                Err(error) => refuse(&mut outcomes[place], watch, error),
            }
        }
        self.write_many(open, now, &mut outcomes).await;
        let undecided = || Err(StoreError::unavailable("the import was not completed").into());
        let decided = outcomes.into_iter();
        Ok(decided.map(|one| one.unwrap_or_else(undecided)).collect())
    }

    /// Waits until the sinks have stored the events that were recorded before.
    async fn events_stored(&self) -> Result<(), ManageError> {
        let Some(trail) = self.audit().filter(|trail| trail.pending() > 0) else {
            return Ok(());
        };
        let stored = within(AUDIT_LIMIT, trail.flush()).await;
        let late = || AuditError::unavailable(format!("no answer within {AUDIT_LIMIT:?}"));
        stored
            .unwrap_or_else(|| Err(late()))
            .map_err(ManageError::Log)
    }

    async fn checked_all(
        &self,
        imports: Vec<NewImport>,
        now: SystemTime,
    ) -> Vec<(Watch<'_>, Result<Checked, ManageError>)> {
        let mut all = Vec::with_capacity(imports.len());
        for import in imports {
            if all.len().is_multiple_of(CHECKS_AT_ONCE) {
                pause().await;
            }
            let mut watch = self.watch(Action::KeyImport).of_many();
            let checked = self.checked_repeatable(import, now, &mut watch).await;
            all.push((watch, checked));
        }
        all
    }

    async fn checked_repeatable(
        &self,
        import: NewImport,
        now: SystemTime,
        watch: &mut Watch<'_>,
    ) -> Result<Checked, ManageError> {
        let request = self.request_of(&import)?;
        self.checked_import(import, Some(&request), now, watch)
            .await
    }

    /// Identifies an import. The digest is hashed as a key is, with the pepper if there is one: ids
    /// are shown, and must not let anybody guess the secrets of weak keys. The text contains spaces,
    /// so that it is not the text of any key.
    fn request_of(&self, import: &NewImport) -> Result<Idempotency, ManageError> {
        let tenant = import.key.owner.tenant_id.as_str();
        let digest = import.digest.digest();
        let text = format!("import {tenant} {} {}", digest.scheme(), hex(&digest));
        let hashed = hex(&self.inner.authenticator.hasher().digest(&text));
        Idempotency::new(tenant, "import", &hashed, &content(import)?)
    }

    /// Decides the open imports. A rejected write is repeated without the keys that are known, and
    /// then by halves, in order, so that as many keys of an owner are imported as its quota allows.
    async fn write_many<'a>(
        &'a self,
        open: Vec<Open<'a>>,
        now: SystemTime,
        outcomes: &mut [Option<Outcome>],
    ) {
        // If its first key is there, the import is repeated, and a write would be rejected.
        let first = open.first().map(|open| &open.checked.record.id);
        let mut is_sifted = match first {
            Some(id) => matches!(self.store.get(id).await, Ok(Some(_))),
            None => return,
        };
        let open = match is_sifted {
            true => self.sift(open, outcomes).await,
            false => open,
        };
        // The next part is the last one.
        let mut parts = vec![open];
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let batch = batch(part.iter().map(|open| &open.checked), now);
            // The precondition holds, so that the number of added keys does not matter.
            let Err(error) = self.apply(&batch, true, 0).await else {
                part.into_iter().for_each(|open| created(open, outcomes));
                continue;
            };
            let Some(why) = error.as_rejected() else {
                parts.push(part);
                let error = Arc::new(error);
                for open in parts.into_iter().flatten() {
                    let error = StoreError::shared(Arc::clone(&error)).into();
                    refuse(&mut outcomes[open.place], open.watch, error);
                }
                return;
            };
            let is_known = matches!(why, Rejected::IdKnown(_) | Rejected::DigestKnown);
            if is_known && (!is_sifted || part.len() == 1) {
                is_sifted = true;
                let before = part.len();
                part = self.sift(part, outcomes).await;
                if part.len() < before {
                    parts.push(part);
                    continue;
                }
            }
            if part.len() > 1 {
                let rest = part.split_off(part.len() / 2);
                parts.extend([rest, part]);
            } else if let Some(open) = part.pop() {
                let error = match is_known {
                    true => ManageError::DigestKnown,
                    false => error.into(),
                };
                refuse(&mut outcomes[open.place], open.watch, error);
            }
        }
    }

    /// Decides the imports whose ids exist, and returns the others.
    async fn sift<'a>(
        &'a self,
        part: Vec<Open<'a>>,
        outcomes: &mut [Option<Outcome>],
    ) -> Vec<Open<'a>> {
        let mut left = Vec::new();
        for open in part {
            let record = &open.checked.record;
            match self.store.get(&record.id).await {
                Ok(None) => left.push(open),
                // Another operator of the tenant may not learn whose key it is.
                Ok(Some(found)) if is_same(&found, record) && self.sees(&found) => {
                    open.watch.forget();
                    outcomes[open.place] = Some(Ok(None));
                }
                Ok(Some(_)) => {
                    refuse(
                        &mut outcomes[open.place],
                        open.watch,
                        ManageError::DigestKnown,
                    );
                }
                Err(error) => refuse(&mut outcomes[open.place], open.watch, error.into()),
            }
        }
        left
    }
}

/// Lets the other futures of the task run.
async fn pause() {
    let mut is_over = false;
    let pause = |context: &mut Context<'_>| match mem::replace(&mut is_over, true) {
        true => Poll::Ready(()),
        false => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    };
    poll_fn(pause).await;
}

/// Whether a record was created by the import that would create the other one.
fn is_same(found: &KeyRecord, record: &KeyRecord) -> bool {
    found.origin == record.origin && found.is_of_the_same_owner(record)
}

fn created(open: Open<'_>, outcomes: &mut [Option<Outcome>]) {
    let record = Arc::new(open.checked.record);
    open.watch.note_end(Ok(&record), || None);
    outcomes[open.place] = Some(Ok(Some(record)));
}

fn refuse(outcome: &mut Option<Outcome>, watch: Watch<'_>, error: ManageError) {
    watch.note_end(Err(&error), || None);
    *outcome = Some(Err(error));
}

/// Returns the write of some imports. The primary keys of their owners are pinned before it as well,
/// so that no new key replaces one that became primary only because others expired.
pub(super) fn batch<'c>(
    all: impl Iterator<Item = &'c Checked> + Clone,
    now: SystemTime,
) -> WriteBatch {
    let able = all
        .clone()
        .filter(|checked| checked.record.can_be_primary(now));
    let owners: BTreeSet<_> = able
        .map(|checked| OwnerRef::of(&checked.record.owner))
        .collect();
    let pins = |batch: WriteBatch| {
        let pin = |batch: WriteBatch, owner: &OwnerRef| {
            let owner = owner.clone();
            batch.change(Change::PinPrimary { owner, at: now })
        };
        owners.iter().fold(batch, pin)
    };
    let mut batch = pins(WriteBatch::new());
    for Checked { record, digest, .. } in all.clone() {
        batch = batch.change(Change::Insert {
            digest: *digest,
            record: Box::new(record.clone()),
        });
    }
    for used in all.clone().filter_map(|checked| checked.used.as_ref()) {
        batch = batch.change(Change::AddUsage(used.clone()));
    }
    batch = pins(batch);
    for condition in all.flat_map(|checked| checked.quota.conditions()) {
        if !batch.conditions().contains(condition) {
            batch = batch.require(condition.clone());
        }
    }
    batch
}

/// Everything in an import except its digest, which its id depends on.
fn content(import: &NewImport) -> Result<Vec<u8>, ManageError> {
    let key = &import.key;
    // Others cannot be written.
    for (field, at) in [
        ("created_at", import.created_at),
        ("last_used_at", import.last_used_at),
        (
            "revoked_at",
            import.revoked.as_ref().map(|revoked| revoked.at),
        ),
        ("not_before", key.not_before),
        ("expires_at", key.expires_at),
    ] {
        at.map(|at| check_time(field, at)).transpose()?;
    }
    let described = (
        &key.name,
        &key.description,
        key.kind,
        &key.environment,
        &key.owner,
    );
    let granted = (
        &key.scopes,
        key.access,
        &key.workspaces,
        &key.plan,
        &key.delegation,
    );
    let limited = (
        &key.allowed_ips,
        &key.quotas,
        key.not_before,
        key.expires_at,
    );
    let history = (
        import.created_at,
        import.last_used_at,
        import.request_count,
        import.enabled,
        &import.revoked,
        &import.family,
    );
    let shown = (&import.last_four, &key.metadata);
    serde_json::to_vec(&(described, granted, limited, history, shown))
        .map_err(|error| ManageError::invalid("key", error.to_string()))
}

fn hex(digest: &KeyDigest) -> String {
    let bytes = digest.to_bytes();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
