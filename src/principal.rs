//! The principal that the library creates for an authenticated key.
//!
//! A principal holds identity and facts, never a decision. Do not keep it longer than the request.

mod anonymous;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::actor::{self, Actor, ActorMode, User};
use crate::credit::Spent;
use crate::entry::{Charge, Counted, Entry};
use crate::error::AuthError;
use crate::key::{Access, Environment, KeyId, KeyRecord, Owner, PlanName, WorkspaceId};
#[cfg(any(feature = "actix-web", feature = "tower"))]
use crate::limit::LimitState;
use crate::limit::{Decision, LimitReport, PlanLimits, PolicySource, Variant};
use crate::policy::Principal;
use crate::respond::Responder;
use crate::scope::ScopeSet;

pub(crate) use anonymous::AnonymousCount;

/// The principal that the library creates for an authenticated key.
///
/// It is cheap to clone.
#[derive(Clone)]
pub struct KeyPrincipal {
    entry: Entry,
    mode: ActorMode,
    /// Whether the host declared that the service serves gRPC, for inner layers.
    #[cfg(any(feature = "actix-web", feature = "tower"))]
    grpc: bool,
    acting: Option<Arc<Acting>>,
    client_ip: Option<IpAddr>,
    /// The limits of the tenant's plan, if it decides.
    tenants: Option<Arc<PlanLimits>>,
    counted: Option<(Variant, Decision)>,
    /// The credits that the request has spent.
    #[cfg_attr(
        not(any(feature = "actix-web", feature = "tower")),
        allow(dead_code, reason = "adapters give them back")
    )]
    spent: Option<Spent>,
}

/// The user that a key acts for, and the resulting authority: the intersection of both.
pub(crate) struct Acting {
    user: Arc<User>,
    scopes: Arc<dyn ScopeSet>,
    /// The workspaces that both have access to, if the user is restricted to workspaces.
    workspaces: Option<Vec<WorkspaceId>>,
}

impl Acting {
    /// Creates the actor from a user and scopes that were already intersected.
    pub(crate) fn new(key: &KeyRecord, user: Arc<User>, scopes: Arc<dyn ScopeSet>) -> Self {
        let reached = |id: &&WorkspaceId| {
            let of_key = key.workspaces.as_ref();
            of_key.is_none_or(|of_key| of_key.contains(id))
        };
        let workspaces = user.workspaces.as_ref();
        let workspaces = workspaces.map(|own| own.iter().filter(reached).cloned().collect());
        Self {
            user,
            scopes,
            workspaces,
        }
    }
}

impl KeyPrincipal {
    #[inline]
    pub(crate) fn new(
        entry: Entry,
        mode: ActorMode,
        acting: Option<Arc<Acting>>,
        client_ip: Option<IpAddr>,
        tenants: Option<Arc<PlanLimits>>,
        counted: Option<(Variant, Decision)>,
        spent: Option<Spent>,
    ) -> Self {
        Self {
            entry,
            mode,
            #[cfg(any(feature = "actix-web", feature = "tower"))]
            grpc: false,
            acting,
            client_ip,
            tenants,
            counted,
            spent,
        }
    }

    #[cfg(any(feature = "actix-web", feature = "tower"))]
    pub(crate) fn serves_grpc(&self) -> bool {
        self.grpc
    }

    #[cfg(any(feature = "actix-web", feature = "tower"))]
    pub(crate) fn set_serves_grpc(&mut self) {
        self.grpc = true;
    }

    #[cfg(any(feature = "actix-web", feature = "tower"))]
    pub(crate) fn has_spent(&self) -> bool {
        self.spent.is_some()
    }

    /// Gives the credits of the request back, because a later step refused it. To be called at most
    /// once.
    #[cfg(any(feature = "actix-web", feature = "tower"))]
    pub(crate) fn give_credits_back(&self) {
        if let (Some(spent), Some(purse)) = (self.spent, &self.entry.purse) {
            purse.give_back(spent);
        }
    }

    pub(crate) fn entry(&self) -> &Entry {
        &self.entry
    }

    pub(crate) fn acting(&self) -> Option<&Arc<Acting>> {
        self.acting.as_ref()
    }

    #[cfg(any(feature = "actix-web", feature = "tower"))]
    pub(crate) fn responder_arc(&self) -> Arc<Responder> {
        Arc::clone(&self.entry.common.responder)
    }

    #[cfg(any(feature = "actix-web", feature = "tower"))]
    pub(crate) fn record_arc(&self) -> &Arc<KeyRecord> {
        &self.entry.record
    }

    /// Returns the directory user that the key acts for; `None` if it acts for its owner.
    #[must_use]
    pub fn acting_for(&self) -> Option<&User> {
        self.acting.as_ref().map(|acting| &*acting.user)
    }

    /// Returns the key's record, which does not contain its secret.
    #[must_use]
    pub fn record(&self) -> &KeyRecord {
        &self.entry.record
    }

    /// Returns the mode in which the key acts.
    #[must_use]
    pub fn mode(&self) -> ActorMode {
        self.mode
    }

    /// Returns the client's address, if known.
    #[must_use]
    pub fn client_ip(&self) -> Option<IpAddr> {
        self.client_ip
    }

    /// Returns the limits that apply to the request, with their state after the request was counted.
    /// `None` if it was not counted.
    #[must_use]
    pub fn limits(&self) -> Option<LimitReport> {
        let (variant, decision) = self.counted.as_ref()?;
        Some(self.report(*variant, decision.clone()))
    }

    /// Returns whether the request was counted.
    #[cfg(any(feature = "actix-web", feature = "tower"))]
    pub(crate) fn is_counted(&self) -> bool {
        self.counted.is_some() || self.entry.purse.is_some()
    }

    fn report(&self, variant: Variant, decision: Decision) -> LimitReport {
        let source: Arc<dyn PolicySource> = match &self.tenants {
            Some(limits) => Arc::clone(limits) as _,
            None => self.entry.policies(),
        };
        let credits = self.entry.purse.as_ref().and_then(|purse| purse.shown());
        LimitReport::new(source, variant, decision).with_credits(credits)
    }

    fn as_counted(&self, variant: Variant, decision: Decision) -> Counted {
        Counted {
            limits: self.tenants.clone(),
            variant,
            client_ip: self.client_ip,
            decision,
        }
    }

    /// Calls `see` with the state of the limits when the response is sent: that after a handler's
    /// last charge, if there was one since.
    #[cfg(any(feature = "actix-web", feature = "tower"))]
    pub(crate) fn limits_after(&self, since: u64, see: impl FnOnce(LimitState<'_>)) {
        let purse = self.entry.purse.as_ref();
        let credits = purse.and_then(|purse| purse.shown());
        let Some((variant, decision)) = &self.counted else {
            if credits.is_some() {
                see(LimitReport::of_credits_only().with_credits(credits).state());
            }
            return;
        };
        let limits = match &self.tenants {
            Some(limits) => limits,
            None => self.entry.limits(),
        };
        let state = |decision| LimitState {
            limits,
            variant: *variant,
            decision,
            credits,
        };
        if self.entry.charges() == since {
            return see(state(decision));
        }
        let counted = self.as_counted(*variant, decision.clone());
        let last = self.entry.last_charge(since, &counted);
        see(state(last.as_ref().unwrap_or(decision)));
    }

    /// Counts more units against all limits of the request, or against none. The rate-limit fields of
    /// the response show the state after the last charge. A request that was not counted is not
    /// charged.
    ///
    /// # Errors
    /// Returns the error to refuse the request with: `RATE_LIMITED` if the units do not fit,
    /// `FORBIDDEN` if they never can, or `LIMITER_UNAVAILABLE`. Nothing is counted then.
    pub async fn charge(&self, units: u64) -> Result<LimitReport, AuthError> {
        self.count_more(units, false).await
    }

    /// Like [`charge`](Self::charge), but counts the units even if they do not fit: later requests
    /// are refused until they do.
    ///
    /// # Errors
    /// Returns `LIMITER_UNAVAILABLE` if the limiter does not answer and the outage mode is `closed`.
    pub async fn overdraw(&self, units: u64) -> Result<LimitReport, AuthError> {
        self.count_more(units, true).await
    }

    pub(crate) async fn count_more(
        &self,
        units: u64,
        overdraw: bool,
    ) -> Result<LimitReport, AuthError> {
        let variant = self
            .counted
            .as_ref()
            .map_or_else(Variant::default, |(variant, _)| *variant);
        let limits = self.tenants.as_ref().or(self.entry.plan.as_ref());
        let state = self.counted.as_ref().map(|(_, decision)| decision);
        let (Some(limits), Some(state)) = (limits, state) else {
            return Ok(self.report(variant, Decision::admitted()));
        };
        if units == 0 {
            return Ok(self.report(variant, state.clone()));
        }
        let charge = Charge {
            limits,
            entry: Some(&self.entry),
            client_ip: self.client_ip,
            variant,
            units,
            overdraw,
        };
        let charged = self.entry.common.charger.charge(charge).await;
        let decision = match &charged {
            Ok(decision) | Err(Ok(decision)) => decision.clone(),
            Err(Err(error)) => return Err(error.clone()),
        };
        let report = self.report(variant, decision.clone());
        self.entry.charged(self.as_counted(variant, decision));
        match charged {
            Ok(_) => Ok(report),
            Err(_) => Err(AuthError::rate_limited(report)),
        }
    }

    /// Returns the responder of the authenticator that admitted this caller, which renders later
    /// refusals in the same format.
    #[must_use]
    pub fn responder(&self) -> &Responder {
        &self.entry.common.responder
    }
}

impl Principal for KeyPrincipal {
    fn key_id(&self) -> &KeyId {
        &self.entry.record.id
    }
    fn owner(&self) -> &Owner {
        &self.entry.record.owner
    }
    fn actor(&self) -> Actor<'_> {
        match self.acting_for() {
            Some(user) => Actor {
                mode: self.mode,
                user_id: Some(&user.id),
                user_email: user.email.as_deref(),
            },
            None => actor::as_owner(self.mode, self.owner()),
        }
    }
    fn environment(&self) -> &Environment {
        &self.entry.record.environment
    }
    fn access(&self) -> Access {
        match self.acting_for() {
            Some(user) if user.access == Access::ReadOnly => Access::ReadOnly,
            _ => self.entry.facts.access,
        }
    }
    fn workspaces(&self) -> Option<&[WorkspaceId]> {
        let of_both = self
            .acting
            .as_ref()
            .and_then(|one| one.workspaces.as_deref());
        match of_both {
            None if self.entry.facts.is_restricted => self.entry.record.workspaces.as_deref(),
            of_both => of_both,
        }
    }
    fn plan(&self) -> Option<&PlanName> {
        let own = self.entry.record.plan.as_ref();
        own.or_else(|| self.tenants.as_ref()?.name.as_ref())
    }
    fn scopes(&self) -> &dyn ScopeSet {
        match &self.acting {
            Some(acting) => &*acting.scopes,
            None => &*self.entry.scopes,
        }
    }
}

impl fmt::Debug for KeyPrincipal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPrincipal")
            .field("key_id", self.key_id())
            .field("owner", self.owner())
            .field("actor", &self.actor())
            .field("environment", self.environment())
            .field("scopes", &self.scopes())
            .finish_non_exhaustive()
    }
}
