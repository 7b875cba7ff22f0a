//! What a step of a bulk operation does to one key: the same as the operation on one key.

use std::sync::Arc;
use std::time::SystemTime;

use super::BulkAction;
use crate::audit::Action;
use crate::key::{KeyRecord, Revocation};
use crate::manage::change::{Checked, KeyChange};
use crate::manage::{KeyManager, ManageError, retire};
use crate::store::WriteBatch;

/// The part of one key in a step.
pub(super) struct Part {
    pub(super) action: Action,
    /// The record after the step, or before it if the operation is refused.
    pub(super) record: Arc<KeyRecord>,
    /// The detail of the event, or why the operation is refused.
    pub(super) outcome: Result<Option<String>, ManageError>,
    /// Empty if nothing is to be written.
    pub(super) batch: WriteBatch,
    /// Whether the owner's primary key is pinned before the step, too.
    pub(super) pins_first: bool,
}

impl Part {
    pub(super) fn refused(action: Action, record: Arc<KeyRecord>, why: ManageError) -> Self {
        Self {
            action,
            record,
            outcome: Err(why),
            batch: WriteBatch::new(),
            pins_first: false,
        }
    }
}

impl KeyManager {
    pub(super) async fn part(
        &self,
        what: &BulkAction,
        found: Arc<KeyRecord>,
        now: SystemTime,
    ) -> Part {
        let mut action = what.action();
        let part = match what {
            BulkAction::Revoke(reason) => self.revoked_part(reason.as_ref(), &found, now),
            BulkAction::Disable | BulkAction::Enable | BulkAction::Plan(_) => {
                self.changed_part(what.change(), &found, now, &mut action)
                    .await
            }
        };
        part.unwrap_or_else(|why| Part::refused(action, found, why))
    }

    fn revoked_part(
        &self,
        reason: Option<&String>,
        found: &Arc<KeyRecord>,
        now: SystemTime,
    ) -> Result<Part, ManageError> {
        self.may(Action::KeyRevoke, found)?;
        let mut record = (**found).clone();
        let batch = if record.revoked.is_some() {
            retire::again(&record)
        } else {
            let batch = retire::revocation(&mut record, Revocation::new(now, reason.cloned()));
            record.version += 1;
            batch
        };
        Ok(Part {
            action: Action::KeyRevoke,
            record: Arc::new(record),
            outcome: Ok(reason.map(|why| self.harmless(why))),
            batch,
            pins_first: false,
        })
    }

    async fn changed_part(
        &self,
        change: KeyChange,
        found: &Arc<KeyRecord>,
        now: SystemTime,
        action: &mut Action,
    ) -> Result<Part, ManageError> {
        let Checked {
            mut record,
            change,
            limits,
        } = self.checked(found, change, now, action).await?;
        let mut batch = WriteBatch::new();
        if record != **found {
            batch = self.fitting(batch, found, &record, now, &limits).await?;
            batch = batch.update(record.clone());
            record.version += 1;
        }
        Ok(Part {
            action: *action,
            record: Arc::new(record),
            outcome: Ok(Some(change.fields().join(", "))),
            batch,
            pins_first: true,
        })
    }
}

impl BulkAction {
    /// The action of the event of each key, unless the host's rules make it another.
    pub(super) const fn action(&self) -> Action {
        match self {
            Self::Revoke(_) => Action::KeyRevoke,
            Self::Disable => Action::KeyDisable,
            Self::Enable => Action::KeyEnable,
            Self::Plan(_) => Action::KeyUpdate,
        }
    }

    fn change(&self) -> KeyChange {
        let mut change = KeyChange::new();
        match self {
            Self::Revoke(_) => {}
            Self::Disable => change.enabled = Some(false),
            Self::Enable => change.enabled = Some(true),
            Self::Plan(plan) => change.plan = Some(plan.clone()),
        }
        change
    }
}
