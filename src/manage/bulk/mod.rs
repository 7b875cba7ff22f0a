//! Operations on many keys, which outlive the call that starts them: the store keeps them, and the
//! periodic jobs of any node process them, a few hundred keys in one step.

mod part;
mod plan;
mod step;
mod turns;

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

pub(super) use step::Steps;

use self::plan::{Picked, Plan, Under};
use self::turns::MOST_OPEN;
use super::{Denied, Idempotency, ImportedDigest, KeyManager, ManageError, text};
use crate::audit::Action;
use crate::key::{KeyDigest, KeyId, PlanName};
use crate::store::{BulkOperation, Cursor, ListQuery, Rejected, StoredKey};

/// What a bulk operation does to each of its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BulkAction {
    /// Revokes the keys, with this reason.
    Revoke(Option<String>),
    /// Disables the keys.
    Disable,
    /// Enables the keys.
    Enable,
    /// Gives the keys this plan; `None` lets them follow their tenant's plan.
    Plan(Option<PlanName>),
}

/// The keys that a bulk operation concerns.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant, reason = "one for each operation")]
pub enum BulkSelection {
    /// Every key that the operator can list.
    All,
    /// The keys that this query selects, which must have at least one filter. `limit` and `after`
    /// are ignored.
    Matching(ListQuery),
    /// The keys with these digests, at most 1000.
    Digests(Vec<ImportedDigest>),
    /// The keys with these ids, at most 1000.
    Ids(Vec<KeyId>),
}

/// The largest number of digests or ids of an operation.
const MOST_NAMED: usize = 1000;

/// The number of keys of a page, and of a step.
const PAGE: usize = 500;

impl KeyManager {
    /// Starts an operation on many keys and returns it. The periodic jobs of any node
    /// ([`Portunus::maintain`](crate::Portunus::maintain)) process it, up to 500 keys in a step. A
    /// step and the progress are one write: if a node stops, the next node continues after the last
    /// step, and no key is processed twice. [`bulk_operation`](Self::bulk_operation) shows the
    /// progress.
    ///
    /// Each key is treated as by the operation on one key ([`revoke`](Self::revoke),
    /// [`update`](Self::update)), with the rights that the operator has now: the policy and the
    /// host's rules apply to each, caches are invalidated, and each has an event, which names the
    /// operation ([`AuditEvent::operation`](crate::audit::AuditEvent::operation)). A key for which
    /// it is refused counts as failed, and the others are processed.
    ///
    /// The operation of an operator that is [confined to its own
    /// keys](super::OperatorPolicy#operators-confined-to-their-own-keys) ends early if the user is no
    /// longer in good standing ([`OwnerStanding`](crate::actor::OwnerStanding)).
    ///
    /// A query is evaluated from the newest key to the oldest while the operation runs; its `now`
    /// stays. Every key that exists when this call returns is considered. A key that is added later
    /// is considered only if the operation has not passed its place in the list yet: the successor of
    /// a key that is rotated meanwhile needs another operation.
    ///
    /// With `request`, a repeated call returns the operation of the first one.
    ///
    /// A tenant may have 20 operations open at a time, and an operator who does not see all keys of the
    /// tenant starts no more when it has 10. Starts on several nodes at the same moment may exceed
    /// this. Operators that belong to no tenant, such as the service itself, have no bound. Steps are
    /// done in turn between tenants, however many operations each has.
    ///
    /// # Errors
    /// [`ManageError::Invalid`] for a query without a filter, too many digests or ids, an invalid reason, an
    /// undeclared plan, or an idempotency key of another request; [`ManageError::Forbidden`], also
    /// [under another policy](Self::under) than the service's and [`own_keys`](super::own_keys), which
    /// the jobs do not know; [`ManageError::Conflict`] if the tenant has too many open operations (fewer
    /// suffice while 90 are open in total); [`ManageError::Refused`] if digests cannot be looked up
    /// in time; [`ManageError::PreconditionFailed`]; or a store error, also if the store does not keep
    /// bulk operations.
    pub async fn bulk(
        &self,
        keys: BulkSelection,
        action: BulkAction,
        request: Option<Idempotency>,
    ) -> Result<BulkOperation, ManageError> {
        let watch = self.watch(Action::KeyBulk);
        match self.try_bulk(keys, action, request).await {
            Ok((operation, Some(detail))) => {
                watch.started(&operation.id, detail);
                Ok(operation)
            }
            Ok((operation, None)) => {
                watch.forget();
                Ok(operation)
            }
            Err(error) => {
                watch.note_end(Err(&error), || None);
                Err(error)
            }
        }
    }

    /// Returns the operation, and a description if it was started now.
    async fn try_bulk(
        &self,
        keys: BulkSelection,
        mut action: BulkAction,
        request: Option<Idempotency>,
    ) -> Result<(BulkOperation, Option<String>), ManageError> {
        let under = self.under_known()?;
        if let Some(request) = &request
            && let Some(before) = self.bulk_started_by(request).await?
        {
            return Ok((before, None));
        }
        match &mut action {
            BulkAction::Revoke(reason) => {
                *reason = reason
                    .take()
                    .map(|reason| text::lines("reason", &reason))
                    .transpose()?;
            }
            BulkAction::Plan(Some(plan)) => self.check_declared(plan)?,
            BulkAction::Disable | BulkAction::Enable | BulkAction::Plan(None) => {}
        }
        let now = self.now();
        let (picked, unknown) = self.picked(keys).await?;
        let id = match &request {
            Some(request) => request.id().clone(),
            None => KeyId::generate()?,
        };
        // Until the operation is stored. After the selection: an operator that may list no keys does not
        // learn what is open.
        let tenant = self.operator.tenant();
        let start = tenant.map(|it| self.inner.steps.starts.begin(it.clone(), id.clone()));
        if let Some(start) = &start {
            // One user must not keep the others of its tenant from ending a key.
            let most = if self.sees_all() {
                MOST_OPEN
            } else {
                MOST_OPEN / 2
            };
            start.check(&self.store.open_bulk_operations().await?, most)?;
        }
        if !self.precondition_holds(None) {
            return Err(ManageError::PreconditionFailed);
        }
        if request.is_none() {
            // A store that keeps no operations says so here, and need not know the change.
            self.store.bulk_operation(&id).await?;
        }
        let mut operation = BulkOperation::new(id, now);
        operation.failed = unknown.len() as u64;
        operation.failures = unknown;
        operation.failures.truncate(PAGE);
        let detail = format!("{}: {}", action.name(), picked.described());
        let by = (&*self.operator, under);
        let plan = Plan::new(by, action, picked, request.as_ref());
        operation.left = plan.left();
        operation.plan = plan.to_json()?;
        match self.store.apply(&step::first(&operation)).await {
            Ok(()) => Ok((operation, Some(detail))),
            Err(error) if error.is_not_published() => Ok((operation, Some(detail))),
            Err(error) => match (error.as_rejected(), &request) {
                (Some(Rejected::Bulk(_)), Some(request)) => {
                    let before = self.bulk_started_by(request).await?;
                    before.map_or_else(|| Err(error.into()), |before| Ok((before, None)))
                }
                _ => Err(error.into()),
            },
        }
    }

    /// Returns the policy of this manager, if the jobs that process an operation know it. They must not
    /// follow another one, which may allow more.
    fn under_known(&self) -> Result<Under, Denied> {
        if Arc::ptr_eq(&self.policy, &self.inner.settings.operators) {
            return Ok(Under::Service);
        }
        if Arc::ptr_eq(&self.policy, &self.inner.own_keys) {
            return Ok(Under::OwnKeys);
        }
        Err(Denied::because(
            "Operations on many keys follow the policy of the service or `own_keys`, not another one",
        ))
    }

    /// Returns the operation that the same request started ([`bulk`](Self::bulk)); `None` if it
    /// started none yet.
    ///
    /// # Errors
    /// [`ManageError::Invalid`] if the idempotency key belongs to another request;
    /// [`ManageError::Forbidden`] as for `bulk`; or a store error.
    pub async fn bulk_started_by(
        &self,
        request: &Idempotency,
    ) -> Result<Option<BulkOperation>, ManageError> {
        let Some(found) = self.store.bulk_operation(request.id()).await? else {
            return Ok(None);
        };
        let plan = Plan::read(&found)?;
        let is_same = plan.is_by(&self.operator) && self.under_known() == Ok(plan.under());
        if plan.is_of(request) && is_same {
            return Ok(Some(found));
        }
        let why = "was used for a different request";
        Err(ManageError::invalid("Idempotency-Key", why))
    }

    /// Counts the keys that a bulk operation would concern now, as far as the operator can list
    /// them. Reads all of them, page by page. The operation may still be refused for some. The
    /// precondition of [`only_if`](Self::only_if) is evaluated as for the operation.
    ///
    /// # Errors
    /// As for [`bulk`](Self::bulk), regardless of how many operations are open.
    pub async fn bulk_count(&self, keys: BulkSelection) -> Result<u64, ManageError> {
        let (picked, _) = self.picked(keys).await?;
        if !self.precondition_holds(None) {
            return Err(ManageError::PreconditionFailed);
        }
        let mut query = match picked {
            Picked::Ids(ids) => return Ok(ids.len() as u64),
            Picked::Keys(query) => query,
        };
        let mut count = 0;
        loop {
            let (found, next) = self.count_page(&query).await?;
            count += found;
            match next {
                Some(next) => query.after = Some(next),
                None => return Ok(count),
            }
        }
    }

    /// Counts the keys of the next page.
    async fn count_page(&self, query: &ListQuery) -> Result<(u64, Option<Cursor>), ManageError> {
        let query = self.narrow(query.clone())?;
        let page = self.store.list(&query).await?;
        let unreadable = match self.sees_all() {
            true => page.corrupt.len(),
            false => 0,
        };
        Ok(((page.items.len() + unreadable) as u64, page.next))
    }

    /// Returns a bulk operation that this operator started, or that another operator of its tenant
    /// started if this one sees every key of the tenant. Under [`own_keys`](super::own_keys), only one
    /// that was started under it.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], or a store error.
    pub async fn bulk_operation(&self, id: &KeyId) -> Result<BulkOperation, ManageError> {
        let unknown = || ManageError::NotFound(id.clone());
        let found = self.store.bulk_operation(id).await?;
        let found = found.ok_or_else(unknown)?;
        let plan = Plan::read(&found)?;
        // The same user may reach more keys under the policy of the service.
        let is_own = plan.is_by(&self.operator)
            && (plan.under() == Under::OwnKeys || self.under_known() != Ok(Under::OwnKeys));
        let is_seen = is_own || (plan.is_within(&self.operator) && self.sees_all());
        is_seen.then_some(found).ok_or_else(unknown)
    }

    /// Finds out which keys are meant, and which digests have none.
    async fn picked(
        &self,
        keys: BulkSelection,
    ) -> Result<(Picked, Vec<(String, String)>), ManageError> {
        let now = self.now();
        let query = match keys {
            BulkSelection::All => ListQuery::new(now),
            BulkSelection::Matching(query) => self.checked_query(query)?,
            BulkSelection::Digests(digests) => return self.with_digests(digests, now).await,
            BulkSelection::Ids(ids) => return self.with_ids(ids, now).await,
        };
        // Whether the operator can list anything, and that it means keys that it can list.
        let seen = self.narrow(query.clone())?;
        let picked = match query.owner.is_some() && query.owner != seen.owner {
            true => Picked::Ids(Vec::new()),
            false => Picked::Keys(Box::new(query)),
        };
        Ok((picked, Vec::new()))
    }

    fn checked_query(&self, mut query: ListQuery) -> Result<ListQuery, ManageError> {
        if query.is_unfiltered() {
            let why = "has no filter, which means every key: say `all` if you mean all of them";
            return Err(ManageError::invalid("filter", why));
        }
        if query.unused_since.is_some() && self.counts.is_none() {
            let why = "the store does not count uses, so that every key would seem unused";
            return Err(ManageError::invalid("unused_since", why));
        }
        query.owner = query.owner.map(|user| self.user_ids().canonical(user));
        (query.limit, query.after, query.scanned) = (PAGE, None, None);
        Ok(query)
    }

    /// Finds the keys of digests that the operator can list. Another tenant's key is as unknown as one
    /// that does not exist.
    ///
    /// The management API counts unknown secrets of an operator (`POST /verify`), but not unknown
    /// digests: after a leak, most of a thousand may be unknown, and a count that allows this would
    /// stop nobody. Digests cannot be guessed, and [turns](Self::find_in_turn) leave room for requests.
    async fn with_digests(
        &self,
        digests: Vec<ImportedDigest>,
        now: SystemTime,
    ) -> Result<(Picked, Vec<(String, String)>), ManageError> {
        check_number("digests", digests.len())?;
        let seen = self.narrow(ListQuery::new(now))?;
        let (mut ids, mut unknown) = (Vec::new(), Vec::new());
        for (place, digest) in (1..).zip(digests) {
            let found = self.find_in_turn(&[digest.digest()]).await?;
            match found.map(|key| key.record().clone()) {
                Some(record) if seen.selects(&record, &Default::default()) => {
                    ids.push(record.id.clone());
                }
                _ => unknown.push((format!("digest {place}"), "no key has it".to_owned())),
            }
        }
        ids.sort();
        ids.dedup();
        Ok((Picked::Ids(ids), unknown))
    }

    /// Looks up the digests of a secret in turn with the lookups of requests.
    pub(super) async fn find_in_turn(
        &self,
        digests: &[KeyDigest],
    ) -> Result<Option<Arc<StoredKey>>, ManageError> {
        if let Some(found) = self.store.find_now(digests) {
            return Ok(found?);
        }
        let _turn = self.inner.authenticator.turn(digests).await?;
        Ok(self.store.find(digests).await?)
    }

    /// Finds the keys of ids that the operator can list.
    async fn with_ids(
        &self,
        mut ids: Vec<KeyId>,
        now: SystemTime,
    ) -> Result<(Picked, Vec<(String, String)>), ManageError> {
        check_number("ids", ids.len())?;
        ids.sort();
        ids.dedup();
        let seen = self.narrow(ListQuery::new(now))?;
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for id in ids {
            match self.store.get(&id).await? {
                Some(record) if seen.selects(&record, &Default::default()) => known.push(id),
                _ => unknown.push((id.to_string(), "no key has this id".to_owned())),
            }
        }
        Ok((Picked::Ids(known), unknown))
    }
}

fn check_number(field: &'static str, count: usize) -> Result<(), ManageError> {
    if (1..=MOST_NAMED).contains(&count) {
        return Ok(());
    }
    let why = format!("expected 1 to {MOST_NAMED} {field}");
    Err(ManageError::invalid(field, why))
}

impl BulkAction {
    const fn name(&self) -> &'static str {
        match self {
            Self::Revoke(_) => "revoke",
            Self::Disable => "disable",
            Self::Enable => "enable",
            Self::Plan(_) => "plan",
        }
    }
}
