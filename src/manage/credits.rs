//! Credits: operators grant, void, give back and read them.

use super::watch::Watch;
use super::{Denied, KeyManager, ManageError};
use crate::audit::Action;
use crate::credit::{
    Balance, CreditAccount, CreditError, CreditId, LedgerEntry, NewGrant, Spending,
};
use crate::key::{KeyId, TenantId};

impl KeyManager {
    /// Makes a grant; see [`CreditAccounts::grant`](crate::credit::CreditAccounts::grant). This node
    /// spends it at once, other nodes within a second.
    ///
    /// # Errors
    /// [`ManageError::Forbidden`]; [`ManageError::NotFound`] for an account of another tenant, and
    /// for a key that an operator of a tenant cannot see; [`ManageError::Conflict`] if the service
    /// has no credits, or if the manager is [joined](Self::joined_to) to a transaction of the host;
    /// or [`ManageError::Credits`].
    pub async fn grant_credits(
        &self,
        account: &CreditAccount,
        grant: NewGrant,
    ) -> Result<CreditId, ManageError> {
        let watch = self.watch(Action::CreditGrant);
        let units = grant.units();
        let done = match self.credits_for(Action::CreditGrant, account).await {
            Ok(spending) => {
                let made = spending.accounts().grant(account, grant).await;
                spending.granted(account);
                made.map_err(ManageError::from)
            }
            Err(error) => Err(error),
        };
        let shown = |id: &CreditId| format!("{units} units to {account} ({id})");
        watch.note_credits(account, done.as_ref().map(shown));
        done
    }

    /// Ends a grant and returns how many units were left of it; see
    /// [`CreditAccounts::void`](crate::credit::CreditAccounts::void).
    ///
    /// # Errors
    /// As for [`grant_credits`](Self::grant_credits).
    pub async fn void_credits(
        &self,
        account: &CreditAccount,
        grant: &CreditId,
    ) -> Result<u64, ManageError> {
        let watch = self.watch(Action::CreditVoid);
        let done = match self.credits_for(Action::CreditVoid, account).await {
            Ok(spending) => {
                let left = spending.accounts().void(account, grant).await;
                left.map_err(ManageError::from)
            }
            Err(error) => Err(error),
        };
        let shown = |units: &u64| format!("{units} units of {account} ({grant})");
        watch.note_credits(account, done.as_ref().map(shown));
        done
    }

    /// Gives back the units of a crashed node; see
    /// [`CreditAccounts::give_back`](crate::credit::CreditAccounts::give_back).
    ///
    /// # Errors
    /// As for [`grant_credits`](Self::grant_credits).
    pub async fn give_back_credits(
        &self,
        account: &CreditAccount,
        block: &CreditId,
    ) -> Result<u64, ManageError> {
        let watch = self.watch(Action::CreditGiveBack);
        let done = match self.credits_for(Action::CreditGiveBack, account).await {
            Ok(spending) => {
                let back = spending.accounts().give_back(account, block).await;
                spending.granted(account);
                back.map_err(ManageError::from)
            }
            Err(error) => Err(error),
        };
        let shown = |units: &u64| format!("{units} units to {account} ({block})");
        watch.note_credits(account, done.as_ref().map(shown));
        done
    }

    /// Returns the balance of an account.
    ///
    /// # Errors
    /// As for [`grant_credits`](Self::grant_credits).
    pub async fn credits(&self, account: &CreditAccount) -> Result<Balance, ManageError> {
        let spending = self.read_credits(account).await?;
        Ok(spending.accounts().balance(account).await?)
    }

    /// Returns a page of an account's ledger; see
    /// [`CreditAccounts::ledger`](crate::credit::CreditAccounts::ledger).
    ///
    /// # Errors
    /// As for [`grant_credits`](Self::grant_credits).
    pub async fn credit_ledger(
        &self,
        account: &CreditAccount,
        after: u64,
        most: usize,
    ) -> Result<Vec<LedgerEntry>, ManageError> {
        let spending = self.read_credits(account).await?;
        Ok(spending.accounts().ledger(account, after, most).await?)
    }

    /// Checks whether the operator may read an account. A refusal is recorded.
    async fn read_credits(&self, account: &CreditAccount) -> Result<&Spending, ManageError> {
        let watch = self.watch(Action::CreditRead);
        let allowed = self.credits_for(Action::CreditRead, account).await;
        match &allowed {
            Ok(_) => watch.forget(),
            Err(error) => watch.note_credits(account, Err(error)),
        }
        allowed
    }

    /// Returns the credits of the service, if the operator may perform this action on an account.
    async fn credits_for(
        &self,
        action: Action,
        account: &CreditAccount,
    ) -> Result<&Spending, ManageError> {
        if self.joined.is_some() && action != Action::CreditRead {
            // They would stay after a rollback of the transaction, or wait for its end in vain.
            let why =
                "credits are not part of the host's transaction: change them after its COMMIT";
            return Err(ManageError::Conflict(why));
        }
        let none = ManageError::Conflict("this service has no credits");
        let spending = self.inner.authenticator.spending().ok_or(none)?;
        let Some(own) = self.operator.tenant() else {
            return Ok(spending);
        };
        let unknown = || ManageError::from(CreditError::NotFound("account"));
        if self.tenant_of(account).await?.as_ref() != Some(own) {
            return Err(unknown());
        }
        match self.policy() {
            Some(policy) => policy.allows_credits(&self.operator, action, account)?,
            None => return Err(Denied::because("No policy allows it").into()),
        }
        Ok(spending)
    }

    /// Returns the tenant of an account; `None` for that of a key that does not exist.
    async fn tenant_of(&self, account: &CreditAccount) -> Result<Option<TenantId>, ManageError> {
        Ok(match account {
            CreditAccount::Tenant(tenant) | CreditAccount::User(tenant, _) => Some(tenant.clone()),
            CreditAccount::Key(family) => {
                // A family has the id of its first key.
                let Ok(first) = KeyId::new(family.as_str()) else {
                    return Ok(None);
                };
                let record = self.store.get(&first).await?;
                record.map(|record| record.owner.tenant_id.clone())
            }
        })
    }
}

impl Watch<'_> {
    /// Records the end of an operation on an account.
    fn note_credits(self, account: &CreditAccount, done: Result<String, &ManageError>) {
        let tenant = match account {
            CreditAccount::Tenant(tenant) | CreditAccount::User(tenant, _) => Some(tenant.clone()),
            CreditAccount::Key(_) => None,
        };
        self.note_end_without_key(tenant, done);
    }
}
