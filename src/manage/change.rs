//! Changing a key: name, grants, restrictions, lifetime, and whether it is enabled.

use std::sync::Arc;
use std::time::SystemTime;

use super::check::{check_order, check_time, once, once_in};
use super::issue::check_workspaces;
use super::precondition::Applied;
use super::text;
use super::watch::Watch;
use super::{ATTEMPTS, KeyManager, ManageError, ManagedKey, readable};
use crate::audit::Action;
use crate::error::AuthError;
use crate::key::{
    Access, Delegation, KeyId, KeyKind, KeyRecord, Metadata, PlanName, Text, WorkspaceId,
};
use crate::limit::PlanLimits;
use crate::network::AllowList;
use crate::quota::Quotas;
use crate::scope::Scope;
use crate::store::{Change, OwnerRef, Rejected, WriteBatch};

/// A partial update of a key. `None` leaves a field unchanged; `Some(None)` clears it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyChange {
    /// The display name.
    pub name: Option<String>,
    /// The description.
    pub description: Option<Option<String>>,
    /// The scopes that the key grants.
    pub scopes: Option<Vec<Scope>>,
    /// The access level: full or read-only.
    pub access: Option<Access>,
    /// The only workspaces that the key can access.
    pub workspaces: Option<Option<Vec<WorkspaceId>>>,
    /// The plan of the key; `Some(None)` lets it follow the tenant's plan.
    pub plan: Option<Option<PlanName>>,
    /// Whether the key may act for users.
    pub delegation: Option<Delegation>,
    /// The client addresses from which the key may be used.
    pub allowed_ips: Option<Option<AllowList>>,
    /// The key's own quotas; `Some(None)` restores those of its plan.
    pub quotas: Option<Option<Quotas>>,
    /// Metadata of the host.
    pub metadata: Option<Metadata>,
    /// The first instant at which the key works.
    pub not_before: Option<Option<SystemTime>>,
    /// The first instant at which the key no longer works: now or later. The expiry of a rotated
    /// key cannot be extended.
    pub expires_at: Option<Option<SystemTime>>,
    /// Whether the key is enabled.
    pub enabled: Option<bool>,
}

impl KeyChange {
    /// Returns an update that changes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the names of the fields that are set.
    pub(super) fn fields(&self) -> Vec<&'static str> {
        let all = [
            ("name", self.name.is_some()),
            ("description", self.description.is_some()),
            ("scopes", self.scopes.is_some()),
            ("access", self.access.is_some()),
            ("workspaces", self.workspaces.is_some()),
            ("plan", self.plan.is_some()),
            ("delegation", self.delegation.is_some()),
            ("allowed_ips", self.allowed_ips.is_some()),
            ("quotas", self.quotas.is_some()),
            ("metadata", self.metadata.is_some()),
            ("not_before", self.not_before.is_some()),
            ("expires_at", self.expires_at.is_some()),
            ("enabled", self.enabled.is_some()),
        ];
        all.into_iter()
            .filter(|(_, changes)| *changes)
            .map(|(name, _)| name)
            .collect()
    }

    /// Returns the actions that the update consists of. Enabling or disabling a key is an action of
    /// its own, in addition to an update of other fields.
    fn actions(&self) -> impl Iterator<Item = Action> {
        let switches = self.enabled.map(|enabled| {
            if enabled {
                Action::KeyEnable
            } else {
                Action::KeyDisable
            }
        });
        switches
            .into_iter()
            .chain(Some(self.action()).filter(|action| *action == Action::KeyUpdate))
    }

    fn action(&self) -> Action {
        match (self.fields().as_slice(), self.enabled) {
            (["enabled"], Some(true)) => Action::KeyEnable,
            (["enabled"], Some(false)) => Action::KeyDisable,
            _ => Action::KeyUpdate,
        }
    }

    /// Truncates times to milliseconds and removes duplicate scopes and workspaces.
    fn normalize(&mut self) -> Result<(), ManageError> {
        for (field, time) in [
            ("not_before", &mut self.not_before),
            ("expires_at", &mut self.expires_at),
        ] {
            if let Some(Some(at)) = time {
                *at = check_time(field, *at)?;
            }
        }
        self.scopes.as_mut().map(once);
        self.workspaces.iter_mut().flatten().for_each(once);
        self.delegation.as_mut().map(once_in);
        Ok(())
    }

    /// Returns whether the update only disables the key.
    fn only_disables(&self) -> bool {
        *self
            == Self {
                enabled: Some(false),
                ..Self::default()
            }
    }

    fn apply(self, record: &mut KeyRecord) {
        fn set<T>(place: &mut T, new: Option<T>) {
            if let Some(new) = new {
                *place = new;
            }
        }
        set(&mut record.name, self.name.map(Text::from));
        set(&mut record.description, self.description);
        set(&mut record.scopes, self.scopes);
        set(&mut record.access, self.access);
        set(&mut record.workspaces, self.workspaces);
        set(&mut record.plan, self.plan);
        set(&mut record.delegation, self.delegation);
        set(&mut record.allowed_ips, self.allowed_ips);
        set(&mut record.quotas, self.quotas);
        set(&mut record.metadata, self.metadata);
        set(&mut record.not_before, self.not_before);
        set(&mut record.expires_at, self.expires_at);
        set(&mut record.enabled, self.enabled);
    }
}

/// A change that has been checked against one version of a key.
pub(super) struct Checked {
    /// The record after the change, with the version of before.
    pub(super) record: KeyRecord,
    /// The change, completed by the host's rules.
    pub(super) change: KeyChange,
    pub(super) limits: Arc<PlanLimits>,
}

impl KeyManager {
    /// Changes a key. If `version` is given, only while the key is at that version. The version is
    /// compared last, after every other reason to refuse the change. An update that changes nothing
    /// does not create a new version.
    ///
    /// # Errors
    /// [`ManageError::Invalid`] with the invalid field, [`ManageError::Changed`],
    /// [`ManageError::PreconditionFailed`], [`ManageError::Conflict`] for a revoked key,
    /// [`ManageError::NotFound`], [`ManageError::Forbidden`], [`ManageError::Refused`],
    /// [`ManageError::QuotaExceeded`] if the key would become active again and the quota is used
    /// up, or a store error. [`ManageError::NotPublished`] if the key was changed and restricted,
    /// but other nodes follow later.
    pub async fn update(
        &self,
        id: &KeyId,
        change: KeyChange,
        version: Option<u64>,
    ) -> Result<ManagedKey, ManageError> {
        let mut watch = self.watch(change.action());
        let changed = self
            .try_update(id, &|_| Ok(change.clone()), version, &mut watch)
            .await;
        ended(watch, changed)
    }

    /// Like [`update`](Self::update), for a change that depends on the current record, such as
    /// adding a scope. The change is computed again for each version that it is tried on, so that
    /// concurrent changes are not lost.
    ///
    /// # Errors
    /// As for [`update`](Self::update), and [`ManageError::Refused`] with the error returned by
    /// `change`.
    pub async fn update_with(
        &self,
        id: &KeyId,
        change: impl Fn(&KeyRecord) -> Result<KeyChange, AuthError> + Send + Sync,
        version: Option<u64>,
    ) -> Result<ManagedKey, ManageError> {
        let mut watch = self.watch(Action::KeyUpdate);
        let changed = self.try_update(id, &change, version, &mut watch).await;
        ended(watch, changed)
    }

    /// Enables a key.
    ///
    /// # Errors
    /// As for [`update`](Self::update).
    pub async fn enable(&self, id: &KeyId) -> Result<ManagedKey, ManageError> {
        self.update(
            id,
            KeyChange {
                enabled: Some(true),
                ..KeyChange::default()
            },
            None,
        )
        .await
    }

    /// Disables a key: it is refused from the next request on, until it is enabled again.
    ///
    /// # Errors
    /// As for [`update`](Self::update).
    pub async fn disable(&self, id: &KeyId) -> Result<ManagedKey, ManageError> {
        self.update(
            id,
            KeyChange {
                enabled: Some(false),
                ..KeyChange::default()
            },
            None,
        )
        .await
    }

    async fn try_update(
        &self,
        id: &KeyId,
        change: &(dyn Fn(&KeyRecord) -> Result<KeyChange, AuthError> + Send + Sync),
        version: Option<u64>,
        watch: &mut Watch<'_>,
    ) -> Result<(ManagedKey, KeyChange), ManageError> {
        for _ in 0..ATTEMPTS {
            let (now, found) = (self.now(), watch.find(id).await?);
            let before = &found;
            // Every check below applies to this version only. If the store rejects the write
            // because the version is no longer current, the loop reads the record and checks
            // everything again.
            let mut action = Action::KeyUpdate;
            let checked = self
                .checked(before, change(before)?, now, &mut action)
                .await;
            watch.is(action);
            let Checked {
                mut record,
                change,
                limits,
            } = checked?;
            let expected = version.unwrap_or(before.version);
            let unmet = match before.version == expected {
                true => ManageError::PreconditionFailed,
                false => ManageError::Changed {
                    expected,
                    stored: before.version,
                },
            };
            let holds = before.version == expected && self.precondition_holds(Some(before.version));
            if record == **before {
                return match holds {
                    true => Ok((self.done(record).await, change)),
                    false => Err(unmet),
                };
            }
            let pin = Change::PinPrimary {
                owner: OwnerRef::of(&record.owner),
                at: now,
            };
            let batch = WriteBatch::new().change(pin.clone());
            let batch = self.fitting(batch, before, &record, now, &limits).await?;
            let added =
                i64::from(record.counts_as_active(now)) - i64::from(before.counts_as_active(now));
            let batch = batch.update(record.clone()).change(pin);
            match self.apply(&batch, holds, added).await {
                Ok(Applied::Done(unpublished)) => {
                    watch.narrowed(unpublished.filter(|_| narrows(before, &record)));
                    record.version += 1;
                    return Ok((self.done(record).await, change));
                }
                Ok(Applied::Unmet) => return Err(unmet),
                Err(error) if matches!(error.as_rejected(), Some(Rejected::Version { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ManageError::Contended)
    }

    /// Checks a change against one version of a key and applies it to a copy of the record. `action`
    /// is what is being done, for the audit.
    pub(super) async fn checked(
        &self,
        before: &Arc<KeyRecord>,
        mut change: KeyChange,
        now: SystemTime,
        action: &mut Action,
    ) -> Result<Checked, ManageError> {
        *action = change.action();
        change
            .actions()
            .try_for_each(|action| self.may(action, before))?;
        if before.revoked.is_some() {
            return Err(ManageError::Conflict("a revoked key cannot be changed"));
        }
        if !change.only_disables() {
            readable(before)?;
        }
        self.check_asked_change(&mut change, before).await?;
        self.inner
            .settings
            .host_rules
            .changing(&self.operator, before, &mut change)
            .await?;
        *action = change.action();
        change.normalize()?;
        self.check_change(before, &mut change, now)?;
        let mut record = (**before).clone();
        change.clone().apply(&mut record);
        change
            .actions()
            .try_for_each(|action| self.may(action, &record))?;
        // The plan matters to a later expiry only: other changes need no plan that is known.
        let limits = match change.expires_at {
            Some(end) if is_later(end, before.expires_at) => {
                let tenant = &record.owner.tenant_id;
                self.limits_of(record.plan.as_ref(), tenant).await?
            }
            _ => Arc::new(PlanLimits::undeclared()),
        };
        self.may_grant(&record, Some(before), &limits)?;
        if self.revives(before, &record) {
            let limits = self.limits_of_key(&record).await?;
            self.check_taken_over(&record, &limits).await?;
            self.may_grant(&record, None, &limits)?;
        }
        Ok(Checked {
            record,
            change,
            limits,
        })
    }

    /// Adds the quota of active keys to a batch, if the change makes the key last longer: the old
    /// expiry may pass during this operation, and other keys may take its place in the quota.
    pub(super) async fn fitting(
        &self,
        batch: WriteBatch,
        before: &KeyRecord,
        record: &KeyRecord,
        now: SystemTime,
        limits: &PlanLimits,
    ) -> Result<WriteBatch, ManageError> {
        match is_later(record.expires_at, before.expires_at) {
            true => self.within_quota(batch, record, now, limits).await,
            false => Ok(batch),
        }
    }

    /// Refuses invalid values and trims white space around texts.
    fn check_change(
        &self,
        before: &KeyRecord,
        change: &mut KeyChange,
        now: SystemTime,
    ) -> Result<(), ManageError> {
        if let Some(name) = &mut change.name {
            *name = text::name(name)?;
        }
        if let Some(Some(description)) = &mut change.description {
            *description = text::lines("description", description)?;
        }
        if let Some(scopes) = &change.scopes {
            self.check_scopes(before.kind, scopes)?;
        }
        if before.kind != KeyKind::App
            && change
                .delegation
                .as_ref()
                .is_some_and(|to| *to != Delegation::Off)
        {
            return Err(ManageError::invalid(
                "delegation",
                "only application keys can act for users",
            ));
        }
        self.check_delegation(change.delegation.as_ref())?;
        if let Some(workspaces) = &change.workspaces {
            check_workspaces(workspaces.as_deref())?;
        }
        if let Some(end) = change.expires_at {
            if before.successor.is_some() && is_later(end, before.expires_at) {
                return Err(ManageError::invalid(
                    "expires_at",
                    "a rotated key cannot outlive its grace period",
                ));
            }
            if self.inner.settings.rules.never_expire
                && before.kind != KeyKind::AccessToken
                && end.is_some()
            {
                return Err(ManageError::invalid(
                    "expires_at",
                    "API keys of this API cannot have an expiry",
                ));
            }
            if before.kind == KeyKind::AccessToken && end.is_none() {
                return Err(ManageError::invalid(
                    "expires_at",
                    "access tokens must expire",
                ));
            }
            if end.is_some_and(|end| end < now) {
                return Err(ManageError::invalid(
                    "expires_at",
                    "must not be in the past",
                ));
            }
        }
        let not_before = change.not_before.unwrap_or(before.not_before);
        let expires_at = change.expires_at.unwrap_or(before.expires_at);
        // Unchanged times are not checked: a rotated key may expire before its start.
        match change.not_before.is_some() || change.expires_at.is_some() {
            true => check_order(not_before, expires_at),
            false => Ok(()),
        }
    }
}

/// Records the outcome of a change.
fn ended(
    watch: Watch<'_>,
    changed: Result<(ManagedKey, KeyChange), ManageError>,
) -> Result<ManagedKey, ManageError> {
    match changed {
        Ok((key, change)) => {
            watch.ended(Ok(&key.record), || Some(change.fields().join(", ")))?;
            Ok(key)
        }
        Err(error) => {
            watch.note_end(Err(&error), || None);
            Err(error)
        }
    }
}

/// Returns whether a change may restrict a key. Values that cannot be compared count as restricted.
fn narrows(before: &KeyRecord, after: &KeyRecord) -> bool {
    let within =
        |before: &Option<Vec<WorkspaceId>>, after: &Option<Vec<WorkspaceId>>| match (before, after)
        {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(before), Some(after)) => before.iter().all(|id| after.contains(id)),
        };
    before.enabled && !after.enabled
        || !before
            .scopes
            .iter()
            .all(|scope| after.scopes.contains(scope))
        || before.access != after.access && after.access != Access::FullAccess
        || !within(&before.workspaces, &after.workspaces)
        || before.plan != after.plan
        || before.delegation != after.delegation && before.delegation != Delegation::Off
        || before.allowed_ips != after.allowed_ips && after.allowed_ips.is_some()
        || before.quotas != after.quotas
        || after.not_before.is_some() && before.not_before < after.not_before
        || is_later(before.expires_at, after.expires_at)
}

/// Returns whether one expiry is later than another; `None` is the latest.
pub(super) fn is_later(one: Option<SystemTime>, other: Option<SystemTime>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one > other,
        (None, Some(_)) => true,
        (_, None) => false,
    }
}
