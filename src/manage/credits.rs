//! Credits: operators grant, void, give back and read them.

use super::watch::Watch;
use super::{Denied, Idempotency, KeyManager, ManageError};
use crate::audit::Action;
use crate::credit::{
    Balance, CreditAccount, CreditAccounts, CreditError, CreditId, LedgerEntry, NewGrant, Spending,
};
use crate::error::ParseError;
use crate::key::{KeyId, TenantId};
use crate::store::ListQuery;

impl Idempotency {
    /// Returns the id of the grant that this request makes.
    fn grant(&self) -> Result<CreditId, ParseError> {
        let request = self.id().as_str().trim_start_matches("key_once_");
        CreditId::of_request(request, self.fingerprint())
    }
}

impl KeyManager {
    /// Makes a grant; see [`CreditAccounts::grant`]. This node spends it at once, other nodes within
    /// a second.
    ///
    /// # Errors
    /// [`ManageError::Forbidden`]; [`ManageError::NotFound`] for an account of another tenant, and
    /// for a key that an operator of a tenant cannot see; [`ManageError::PreconditionFailed`];
    /// [`ManageError::Conflict`] if the service has no credits, or if the manager is
    /// [joined](Self::joined_to) to a transaction of the host; or [`ManageError::Credits`].
    pub async fn grant_credits(
        &self,
        account: &CreditAccount,
        grant: NewGrant,
    ) -> Result<CreditId, ManageError> {
        let made = self.grant_credits_once(account, grant, None).await?;
        Ok(made.0)
    }

    /// Makes a grant by a request that may be repeated, if one is given: its id is then made from
    /// the request. Returns the id, and whether the grant was made now; `false` if it was made
    /// before, whatever has become of it since.
    ///
    /// # Errors
    /// As for [`grant_credits`](Self::grant_credits). [`CreditError::Invalid`] also for a request
    /// that was made before with another content.
    pub async fn grant_credits_once(
        &self,
        account: &CreditAccount,
        mut grant: NewGrant,
        request: Option<&Idempotency>,
    ) -> Result<(CreditId, bool), ManageError> {
        let watch = self.watch(Action::CreditGrant);
        let account = &self.canonical(account);
        let units = grant.units();
        let id = request.map(Idempotency::grant).transpose();
        let made = async {
            let (spending, accounts) = self.credits_for(Action::CreditGrant, account).await?;
            if let Some(id) = id.map_err(CreditError::from)? {
                grant = grant.with_id(id);
            }
            let made = accounts.grant_once(account, &grant).await;
            spending.granted(account);
            let (id, now) = made?;
            self.unless_rehearsed((id, now), now)
        };
        let made = made.await;
        match &made {
            // Nothing was granted.
            Ok((_, false)) => watch.forget(),
            made => {
                let shown =
                    |(id, _): &(CreditId, bool)| format!("{units} units to {account} ({id})");
                watch.note_credits(account, made.as_ref().map(shown));
            }
        }
        made
    }

    /// Ends a grant and returns how many units were left of it; see [`CreditAccounts::void`].
    ///
    /// # Errors
    /// As for [`grant_credits`](Self::grant_credits).
    pub async fn void_credits(
        &self,
        account: &CreditAccount,
        grant: &CreditId,
    ) -> Result<u64, ManageError> {
        let watch = self.watch(Action::CreditVoid);
        let account = &self.canonical(account);
        let voided = async {
            let (_, accounts) = self.credits_for(Action::CreditVoid, account).await?;
            let left = accounts.void(account, grant).await?;
            self.unless_rehearsed(left, true)
        };
        let voided = voided.await;
        let shown = |units: &u64| format!("{units} units of {account} ({grant})");
        watch.note_credits(account, voided.as_ref().map(shown));
        voided
    }

    /// Gives back the units of a crashed node; see [`CreditAccounts::give_back`].
    ///
    /// # Errors
    /// As for [`grant_credits`](Self::grant_credits).
    pub async fn give_back_credits(
        &self,
        account: &CreditAccount,
        block: &CreditId,
    ) -> Result<u64, ManageError> {
        let watch = self.watch(Action::CreditGiveBack);
        let account = &self.canonical(account);
        let returned = async {
            let (spending, accounts) = self.credits_for(Action::CreditGiveBack, account).await?;
            let units = accounts.give_back(account, block).await?;
            spending.granted(account);
            self.unless_rehearsed(units, true)
        };
        let returned = returned.await;
        let shown = |units: &u64| format!("{units} units to {account} ({block})");
        watch.note_credits(account, returned.as_ref().map(shown));
        returned
    }

    /// Checks whether the operator may perform this action on an account, before the rest of the
    /// request is read. A refusal is recorded.
    ///
    /// # Errors
    /// As for [`grant_credits`](Self::grant_credits).
    pub async fn check_credits(
        &self,
        action: Action,
        account: &CreditAccount,
    ) -> Result<(), ManageError> {
        self.checked_credits(action, &self.canonical(account))
            .await
            .map(drop)
    }

    /// Returns the balance of an account.
    ///
    /// # Errors
    /// As for [`grant_credits`](Self::grant_credits).
    pub async fn credits(&self, account: &CreditAccount) -> Result<Balance, ManageError> {
        let account = &self.canonical(account);
        let accounts = self.checked_credits(Action::CreditRead, account).await?;
        Ok(accounts.balance(account).await?)
    }

    /// Returns the account that pays for the requests of a key, and its balance. `None` if the service
    /// has no credits, or if the operator may not read this account; that is not recorded.
    ///
    /// # Errors
    /// As for [`get`](Self::get), and [`ManageError::Credits`] if the accounts do not answer.
    pub async fn credits_of_key(
        &self,
        id: &KeyId,
    ) -> Result<Option<(CreditAccount, Balance)>, ManageError> {
        let record = self.find(id).await?;
        self.may(Action::KeyRead, &record)?;
        let Some(spending) = self.inner.authenticator.spending() else {
            return Ok(None);
        };
        let account = self.canonical(&spending.account(&record));
        match self.credits_for(Action::CreditRead, &account).await {
            Ok((_, accounts)) => {
                let balance = accounts.balance(&account).await?;
                Ok(Some((account, balance)))
            }
            Err(ManageError::Forbidden(_) | ManageError::Credits(CreditError::NotFound(_))) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns a page of an account's ledger; see [`CreditAccounts::ledger`].
    ///
    /// # Errors
    /// As for [`grant_credits`](Self::grant_credits).
    pub async fn credit_ledger(
        &self,
        account: &CreditAccount,
        after: u64,
        most: usize,
    ) -> Result<Vec<LedgerEntry>, ManageError> {
        let account = &self.canonical(account);
        let accounts = self.checked_credits(Action::CreditRead, account).await?;
        Ok(accounts.ledger(account, after, most).await?)
    }

    /// Returns the accounts if the operator may perform this action on one. A refusal is recorded.
    async fn checked_credits(
        &self,
        action: Action,
        account: &CreditAccount,
    ) -> Result<CreditAccounts, ManageError> {
        let watch = self.watch(action);
        match self.credits_for(action, account).await {
            Ok((_, accounts)) => {
                watch.forget();
                Ok(accounts)
            }
            Err(error) => {
                watch.note_credits(account, Err(&error));
                Err(error)
            }
        }
    }

    /// Returns an account as it is stored, so that a user has one spelling.
    fn canonical(&self, account: &CreditAccount) -> CreditAccount {
        match account {
            CreditAccount::User(tenant, user) => {
                CreditAccount::User(tenant.clone(), self.user_ids().canonical(user.clone()))
            }
            other => other.clone(),
        }
    }

    /// Returns the credits of the service if the operator may perform this action on an account,
    /// and its accounts: they are only checked, not changed, if the precondition does not hold.
    async fn credits_for(
        &self,
        action: Action,
        account: &CreditAccount,
    ) -> Result<(&Spending, CreditAccounts), ManageError> {
        if self.joined.is_some() && action != Action::CreditRead {
            // They would stay after a rollback of the transaction, or wait for its end in vain.
            let why =
                "credits are not part of the host's transaction: change them after its COMMIT";
            return Err(ManageError::Conflict(why));
        }
        let none = ManageError::Conflict("this service has no credits");
        let spending = self.inner.authenticator.spending().ok_or(none)?;
        let accounts = match self.precondition_holds(None) {
            true => spending.accounts().clone(),
            false => spending.accounts().rehearsing(),
        };
        let Some(own) = self.operator.tenant() else {
            return Ok((spending, accounts));
        };
        if !self.sees_account(own, account).await? {
            return Err(CreditError::NotFound("account").into());
        }
        match self.policy() {
            Some(policy) => policy.allows_credits(&self.operator, action, account)?,
            None => return Err(Denied::because("No policy allows it").into()),
        }
        Ok((spending, accounts))
    }

    /// Returns the result of a change, unless it was only checked.
    fn unless_rehearsed<T>(&self, done: T, changes: bool) -> Result<T, ManageError> {
        if changes && !self.precondition_holds(None) {
            return Err(ManageError::PreconditionFailed);
        }
        Ok(done)
    }

    /// Returns whether an account belongs to the operator's tenant; that of a key, whether the
    /// operator can list a key of the family.
    async fn sees_account(
        &self,
        own: &TenantId,
        account: &CreditAccount,
    ) -> Result<bool, ManageError> {
        let family = match account {
            CreditAccount::Tenant(tenant) | CreditAccount::User(tenant, _) => {
                return Ok(tenant == own);
            }
            CreditAccount::Key(family) => family,
        };
        // A family has the id of its first key, which may have been deleted. Nobody may get at it
        // by a key of another tenant that is said to be of the same family.
        if let Ok(first) = KeyId::new(family.as_str())
            && let Some(first) = self.store.get(&first).await?
            && first.owner.tenant_id != *own
        {
            return Ok(false);
        }
        let mut query = ListQuery::new(self.now());
        (query.family, query.limit) = (Some(family.clone()), 1);
        let found = self.store.list(&self.narrow(query)?).await?;
        Ok(!found.items.is_empty())
    }
}

impl Watch<'_> {
    /// Records the end of an operation on an account.
    fn note_credits(self, account: &CreditAccount, done: Result<String, &ManageError>) {
        let tenant = match account {
            CreditAccount::Tenant(tenant) | CreditAccount::User(tenant, _) => Some(tenant.clone()),
            CreditAccount::Key(_) => self.manager().operator.tenant().cloned(),
        };
        self.note_end_without_key(tenant, done);
    }
}
