//! The steps of a bulk operation. Each is one write: the changes of its keys, and how far the
//! operation is. Of several nodes that try the same step, the store lets one succeed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use super::PAGE;
use super::part::Part;
use super::plan::{Counting, Picked, Plan, Under};
use super::turns::{Starts, Turns};
use crate::audit::shortened;
use crate::key::{KeyId, KeyRecord};
use crate::manage::{ATTEMPTS, KeyManager, ManageError, own_keys};
use crate::store::{BulkOperation, Change, Cursor, OwnerRef, Rejected, StoreError, WriteBatch};

/// How long a run continues with further steps. A job is stopped after five seconds.
const RUN: Duration = Duration::from_secs(2);
/// How long keys are collected for one step: the host's rules may take their time for each.
const COLLECT: Duration = Duration::from_secs(1);
/// How often a key is tried again, about twice a second, if it fails for a reason that may pass.
const MOST_TRIES: u32 = 60;
/// The largest number of failures that an operation names.
const MOST_NAMED: usize = PAGE;
/// The length of a reason, in bytes.
const LONGEST_REASON: usize = 300;

/// What a node knows about the steps of operations.
#[derive(Debug)]
pub(in crate::manage) struct Steps {
    /// How many keys a step has on this node: fewer after one that was not completed.
    size: AtomicUsize,
    pub(super) turns: Turns,
    pub(super) starts: Starts,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            size: AtomicUsize::new(PAGE),
            turns: Turns::default(),
            starts: Starts::default(),
        }
    }
}

impl Steps {
    /// Begins a step. Until [`done`](Self::done), the next step has half as many keys, because this
    /// one may be too long.
    fn begin(&self) -> usize {
        let size = self.size.load(Ordering::Relaxed).clamp(1, PAGE);
        self.size.store((size / 2).max(1), Ordering::Relaxed);
        size
    }

    fn done(&self, size: usize) {
        self.size.store((size * 2).min(PAGE), Ordering::Relaxed);
    }
}

/// The keys of a step.
struct Next {
    keys: Vec<Arc<KeyRecord>>,
    /// Keys that cannot be read, or do not exist any more, with the reason.
    missing: Vec<(String, String)>,
    /// The position after them; `None` if they are the last ones.
    after: Option<Cursor>,
    /// The number of ids that were read.
    ids: usize,
}

/// A step that is ready to be written.
struct Ready {
    parts: Vec<Part>,
    operation: BulkOperation,
    batch: WriteBatch,
}

/// The write that starts an operation.
pub(super) fn first(operation: &BulkOperation) -> WriteBatch {
    WriteBatch::new().change(Change::Bulk(Box::new(operation.clone())))
}

impl KeyManager {
    /// Continues the open operations for about two seconds, one step at a time, in turn between
    /// tenants. Dropping the future loses nothing.
    pub(crate) async fn continue_bulk_operations(&self) -> Result<(), StoreError> {
        let until = self.clock().monotonic().saturating_add(RUN);
        let open = self.store.open_bulk_operations().await?;
        let turns = &self.inner.steps.turns;
        let mut waiting = turns.waiting(open);
        let mut failed = None;
        while let Some(turn) = turns.next(&mut waiting) {
            let done = self.step(&turn.operation).await;
            match done {
                Ok(next) => turns.succeeded(turn, next, &mut waiting),
                Err(error) => failed = Some(error),
            }
            if self.clock().monotonic() >= until {
                break;
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Does the next step. `None` if another node did it.
    async fn step(&self, before: &BulkOperation) -> Result<Option<BulkOperation>, StoreError> {
        let plan = Plan::read(before)?;
        let manager = match plan.under() {
            Under::Service => self.by(plan.operator()),
            Under::OwnKeys => self.by(plan.operator()).under(own_keys()),
        };
        if let Some(user) = manager.own()
            && let Err(error) = self.inner.authenticator.check_owner(&user).await
        {
            return match error.status() {
                503 => Err(StoreError::unavailable(error)),
                _ => manager.given_up(before, error.into()).await,
            };
        }
        match &plan.counting {
            Counting::After(after) => manager.count(before, plan.clone(), after.clone()).await,
            Counting::Done => manager.process(before, plan).await,
        }
    }

    /// Counts keys for a while.
    async fn count(
        &self,
        before: &BulkOperation,
        mut plan: Plan,
        after: Option<Cursor>,
    ) -> Result<Option<BulkOperation>, StoreError> {
        let until = self.clock().monotonic().saturating_add(COLLECT);
        plan.counting = Counting::Done;
        if let Picked::Keys(query) = &plan.picked {
            let mut query = (**query).clone();
            (query.limit, query.after) = (PAGE, after);
            loop {
                let (found, next) = match self.count_page(&query).await {
                    Ok(counted) => counted,
                    Err(error) => return self.given_up(before, error).await,
                };
                plan.counted += found;
                let Some(next) = next else { break };
                query.after = Some(next);
                if self.clock().monotonic() >= until {
                    plan.counting = Counting::After(query.after);
                    break;
                }
            }
        }
        let mut next = following(before);
        next.left = plan.left();
        next.plan = plan.to_json()?;
        self.noted(next).await
    }

    /// Ends an operation whose operator may not list keys any more, or is suspended.
    async fn given_up(
        &self,
        before: &BulkOperation,
        error: ManageError,
    ) -> Result<Option<BulkOperation>, StoreError> {
        if let ManageError::Store(error) = error {
            return Err(error);
        }
        let mut next = following(before);
        next.ended_at = Some(self.now());
        fail(&mut next, "operation".to_owned(), &error.to_string());
        self.noted(next).await
    }

    /// Writes a step without keys.
    async fn noted(&self, next: BulkOperation) -> Result<Option<BulkOperation>, StoreError> {
        match self.store.apply(&first(&next)).await {
            Err(error) if error.as_rejected().is_some() => Ok(None),
            Err(error) if !error.is_not_published() => Err(error),
            _ => Ok(Some(next)),
        }
    }

    /// Processes the next keys.
    async fn process(
        &self,
        before: &BulkOperation,
        plan: Plan,
    ) -> Result<Option<BulkOperation>, StoreError> {
        // A single key that the store refuses.
        let mut refused = None;
        for _ in 0..ATTEMPTS {
            let size = match refused {
                Some(_) => 1,
                None => self.inner.steps.begin(),
            };
            let keys = match self.next_keys(&plan, size).await {
                Ok(keys) => keys,
                Err(error) => return self.given_up(before, error).await,
            };
            let ready = self.ready(before, plan.clone(), keys, refused.take());
            let ready = match ready.await {
                Ok(ready) => ready,
                Err((tries, why)) => {
                    self.noted(tries).await?;
                    return Err(StoreError::unavailable(why));
                }
            };
            let error = match self.store.apply(&ready.batch).await {
                Err(error) if !error.is_not_published() => error,
                _ => {
                    self.inner.steps.done(size);
                    return Ok(Some(self.completed(ready)));
                }
            };
            let Some(why) = error.as_rejected() else {
                return match self.is_stored(&ready).await {
                    true => Ok(Some(self.completed(ready))),
                    false => Err(error),
                };
            };
            // A key was changed meanwhile, or another node did the step.
            let stored = self.store.bulk_operation(&before.id).await?;
            if stored.is_none_or(|stored| stored.step != before.step) {
                return Ok(None);
            }
            let may_pass = matches!(why, Rejected::Version { .. } | Rejected::Missing(_));
            if let ([part], false) = (&ready.parts[..], may_pass) {
                refused = Some((part.record.id.clone(), ManageError::from(error)));
            }
        }
        let why = "the keys of a bulk operation are being modified concurrently";
        Err(StoreError::unavailable(why))
    }

    async fn next_keys(&self, plan: &Plan, size: usize) -> Result<Next, ManageError> {
        match &plan.picked {
            Picked::Keys(query) => {
                let mut query = self.narrow((**query).clone())?;
                query.limit = size;
                let page = self.store.list(&query).await?;
                let corrupt = self.log_omitted(page.corrupt);
                let why = "the row cannot be read";
                Ok(Next {
                    keys: page.items,
                    missing: corrupt
                        .into_iter()
                        .map(|row| (row, why.to_owned()))
                        .collect(),
                    after: page.next,
                    ids: 0,
                })
            }
            Picked::Ids(ids) => {
                let mut next = Next {
                    keys: Vec::new(),
                    missing: Vec::new(),
                    after: None,
                    ids: ids.len().min(size),
                };
                for id in ids.iter().take(size) {
                    match self.find(id).await {
                        Ok(record) => next.keys.push(record),
                        Err(ManageError::Store(error)) if !error.is_corrupt() => {
                            return Err(error.into());
                        }
                        Err(error) => next.missing.push((id.to_string(), error.to_string())),
                    }
                }
                Ok(next)
            }
        }
    }

    /// Prepares a step with as many of these keys as there is time for. If the first one fails for a
    /// reason that may pass, returns the operation that counts this, and the reason.
    async fn ready(
        &self,
        before: &BulkOperation,
        mut plan: Plan,
        keys: Next,
        mut refused: Option<(KeyId, ManageError)>,
    ) -> Result<Ready, (BulkOperation, String)> {
        let (now, mut next) = (self.now(), following(before));
        let until = self.clock().monotonic().saturating_add(COLLECT);
        let (mut parts, total) = (Vec::new(), keys.keys.len());
        for found in keys.keys {
            let id = found.id.clone();
            let part = match refused.take_if(|(refused, _)| *refused == id) {
                Some((_, why)) => Part::refused(plan.action.action(), found, why),
                None => self.part(&plan.action, found, now).await,
            };
            if let Err(why) = &part.outcome
                && may_pass(why)
                && (!parts.is_empty() || plan.tries < MOST_TRIES)
            {
                if parts.is_empty() {
                    plan.tries += 1;
                    let why = why.to_string();
                    next.plan = plan.to_json().unwrap_or_else(|_| before.plan.clone());
                    return Err((next, why));
                }
                break;
            }
            parts.push(part);
            if self.clock().monotonic() >= until {
                break;
            }
        }
        let is_cut = parts.len() < total;
        plan.tries = 0;
        plan.mark = KeyId::generate().ok();
        let mut processed = parts.len();
        for (what, why) in keys.missing {
            // After a step that was cut, the same row may be read again.
            if !next.failures.iter().any(|(known, _)| *known == what) {
                processed += 1;
                fail(&mut next, what, &why);
            }
        }
        for part in &parts {
            match &part.outcome {
                Ok(_) => next.done += 1,
                Err(why) => {
                    let why = self.harmless(&why.to_string());
                    fail(&mut next, part.record.id.to_string(), &why);
                }
            }
        }
        let is_last = match &mut plan.picked {
            Picked::Keys(query) => {
                let last = parts.last().map(|part| Cursor::of(&part.record));
                query.after = if is_cut { last } else { keys.after };
                query.after.is_none()
            }
            Picked::Ids(ids) => {
                let last = parts.last().map(|part| part.record.id.clone());
                match last.filter(|_| is_cut) {
                    Some(last) => ids.retain(|id| *id > last),
                    None => drop(ids.drain(..keys.ids)),
                }
                ids.is_empty()
            }
        };
        next.left = next.left.map(|left| left.saturating_sub(processed as u64));
        if is_last {
            (next.ended_at, next.left) = (Some(now), Some(0));
        }
        match plan.to_json() {
            Ok(plan) => next.plan = plan,
            Err(error) => return Err((following(before), error.to_string())),
        }
        Ok(Ready {
            batch: batch(&next, &parts, now),
            parts,
            operation: next,
        })
    }

    /// Whether a step whose write had an unknown result was applied.
    async fn is_stored(&self, ready: &Ready) -> bool {
        let stored = self.store.bulk_operation(&ready.operation.id).await;
        stored.is_ok_and(|stored| stored.as_ref() == Some(&ready.operation))
    }

    /// Records the events of a step that was written.
    fn completed(&self, ready: Ready) -> BulkOperation {
        for part in ready.parts {
            let outcome = part.outcome.as_ref().map(Clone::clone);
            self.note_one_of(&ready.operation.id, part.action, &part.record, outcome);
        }
        ready.operation
    }
}

/// The operation after one more step.
fn following(before: &BulkOperation) -> BulkOperation {
    let mut next = before.clone();
    next.step += 1;
    next
}

/// Adds a failure, with its reason if there are not too many.
fn fail(operation: &mut BulkOperation, what: String, why: &str) {
    operation.failed += 1;
    if operation.failures.len() < MOST_NAMED {
        let why = shortened(why, LONGEST_REASON);
        operation.failures.push((what, why));
    }
}

/// Whether an operation on a key failed for a reason that does not lie in the key.
fn may_pass(why: &ManageError) -> bool {
    match why {
        ManageError::Store(error) => !error.is_corrupt() && error.as_rejected().is_none(),
        ManageError::Refused(error) => error.status() >= 500,
        _ => false,
    }
}

/// The write of a step: the operation first, so that its step is compared before any key is changed.
fn batch(next: &BulkOperation, parts: &[Part], now: SystemTime) -> WriteBatch {
    let owners = |first: bool| {
        let changed = parts.iter().filter(|part| !part.batch.changes().is_empty());
        let pinned = changed.filter(|part| part.pins_first || !first);
        let owners = pinned.map(|part| OwnerRef::of(&part.record.owner));
        owners.collect::<BTreeSet<_>>()
    };
    let pin = |batch: WriteBatch, owner| batch.change(Change::PinPrimary { owner, at: now });
    let batch = owners(true).into_iter().fold(first(next), pin);
    let changes = parts.iter().map(|part| part.batch.clone());
    let batch = changes.fold(batch, WriteBatch::join);
    owners(false).into_iter().fold(batch, pin)
}
