//! Accounts of which much is used, as audit events.
//!
//! Each change of an account on this node shows whether an event is due. Its id follows from the
//! account, the percentage and the last grant or refill. Once the sinks have the event, the account
//! itself says so, and no node reports it again. If a node stops in between, the next change of the
//! account on any node finds it due again, or the next walk through all accounts.

use std::sync::Arc;
use std::time::SystemTime;

use super::{NoticeError, Notices, Passed, readable};
use crate::audit::{Action, AuditEvent, AuditOutcome, EventId, Party};
use crate::credit::{CreditAccount, CreditAccounts, Low};
use crate::key::{KeyFamily, KeyRecord};
use crate::lock::Mutex;
use crate::store::ListQuery;

/// How many accounts are reported at once.
const AT_ONCE: usize = 500;

/// Accounts whose event is with the trail, or with the sinks.
#[derive(Debug, Default)]
pub(in crate::service) struct CreditNotices {
    passed: Passed<(CreditAccount, Low)>,
    /// Those whose event the sinks have, and which do not say so yet.
    reported: Mutex<Vec<(CreditAccount, Low)>>,
}

impl Notices {
    /// Reports the accounts of which much is used. Dropping the future loses nothing.
    pub(super) async fn report_credits(
        &self,
        accounts: &CreditAccounts,
    ) -> Result<(), NoticeError> {
        self.record_reported(accounts).await?;
        let mut events = Vec::new();
        for (account, low) in accounts.low(AT_ONCE) {
            let event = self.credit_event(&account, low).await?;
            events.push(((account, low), event));
        }
        self.credits.passed.pass(&self.trail, events.into_iter());
        self.record_reported(accounts).await
    }

    /// Waits until the sinks have the events, and records that in the accounts.
    async fn record_reported(&self, accounts: &CreditAccounts) -> Result<(), NoticeError> {
        let confirmed = self.credits.passed.confirmed(&self.trail).await?;
        self.credits.reported.lock().extend(confirmed);
        loop {
            let Some((account, low)) = self.credits.reported.lock().last().cloned() else {
                return Ok(());
            };
            accounts.told(&account, low).await?;
            self.credits.reported.lock().pop();
        }
    }

    async fn credit_event(
        &self,
        account: &CreditAccount,
        low: Low,
    ) -> Result<AuditEvent, NoticeError> {
        let Low {
            percentage,
            since,
            left,
            granted,
        } = low;
        let mut event = self.trail.event(Action::CreditLow, AuditOutcome::Ok);
        event.id = EventId::of(&format!(
            "{account} {} {percentage} {since}",
            Action::CreditLow
        ));
        event.count = Some(percentage.into());
        event.detail = Some(format!("{left} of {granted} units are left in {account}"));
        match account {
            CreditAccount::Tenant(tenant) => event.tenant_id = Some(tenant.clone()),
            CreditAccount::User(tenant, user) => {
                event.tenant_id = Some(tenant.clone());
                event.subject = Party::user(Some(user), None);
            }
            CreditAccount::Key(family) => {
                if let Some(record) = self.newest_of(family, event.at).await? {
                    event.name_key(&record);
                }
            }
        }
        Ok(event)
    }

    /// Returns the newest key of a family; `None` without keys that can be listed.
    async fn newest_of(
        &self,
        family: &KeyFamily,
        now: SystemTime,
    ) -> Result<Option<Arc<KeyRecord>>, NoticeError> {
        if !self.managed {
            return Ok(None);
        }
        let mut query = ListQuery::new(now);
        (query.family, query.limit) = (Some(family.clone()), 1);
        let page = readable(self.store.list(&query).await)?;
        Ok(page.and_then(|page| page.items.into_iter().next()))
    }
}
