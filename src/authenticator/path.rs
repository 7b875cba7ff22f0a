//! The steps that a request takes, as a list.
//!
//! [`Inner::present`] reads the head: steps 1 to 3. [`Inner::steps`] takes the others in order,
//! until the request is decided or must wait. Calls that can be answered at once are not awaited,
//! so a request that waits for nothing is decided without an allocation. If something must be
//! awaited, the state moves into a future: [`Inner::finish`] awaits the answer and continues at the
//! step that needed it. Every refusal of a step is completed by [`Inner::refusal`].

use std::net::IpAddr;
use std::sync::Arc;

use super::facts::{Facts, Purpose};
use super::limits::Caller;
use super::requested::{self, RequestedActor};
use super::rules::{
    check_owner, environment, may_act_for, may_delegate, network, owner_is_requested, standing,
    transport,
};
use super::wait::{Answer, Wait, answered, taken};
use super::{Anonymous, Attempt, Authenticated, Inner, Outcome, PendingAttempt, RouteClasses};
use crate::actor::{ActorMode, Directory, DirectoryError, User, UserRef};
use crate::clock::millis;
use crate::credential::{self, Credential};
use crate::credit::{Spending, Spent, Unpaid};
use crate::entry::{Entry, KeyEntry};
use crate::error::{AuthError, ErrorCode};
use crate::key::UserId;
use crate::limit::{Decision, LimitReport, PlanLimits, PolicySource, Variant};
use crate::principal::{Acting, AnonymousCount, KeyPrincipal};
use crate::request::RequestHead;
use crate::store::StoredKey;
use crate::telemetry;

/// The steps after the head was read that may have to wait, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Lookup,
    ExternalToken,
    Owner,
    Plan,
    Limit,
    Credits,
    Actor,
}

/// The results of the steps so far.
#[derive(Default)]
pub(super) struct Progress {
    /// The permit for a lookup in flight, until the key is found.
    pub(super) permit: Option<super::budget::Permit>,
    /// The key that was found, if its entry could not be compiled.
    unreadable: Option<Arc<StoredKey>>,
    pub(super) entry: Option<Entry>,
    /// The limits of the tenant's plan, if it decides.
    pub(super) tenants: Option<Arc<PlanLimits>>,
    counted: Option<(Variant, Decision)>,
    /// The credits that were spent; given back unless the request passes.
    spent: Option<Spent>,
    acting: Option<ActsFor>,
}

impl Progress {
    /// Gives the credits back: a later step refused the request, or its client has gone.
    fn give_back(&mut self) {
        if let Some(spent) = self.spent.take() {
            let purse = self.entry.as_ref().and_then(|entry| entry.purse.as_ref());
            purse.iter().for_each(|purse| purse.give_back(spent));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// The user for whom the key acts, the mode, and the user's id if the response should include it.
struct ActsFor {
    mode: ActorMode,
    acting: Arc<Acting>,
    canonical_user: Option<UserId>,
}

/// The directory that resolves the requested user, the mode, and the user.
type Requested<'a> = (&'a Arc<dyn Directory>, ActorMode, &'a UserRef);

/// The progress of the steps: what must be awaited, or `None` for a request that passes.
pub(super) type Advance = Result<Option<Wait>, AuthError>;

impl Inner {
    /// Takes a request from its head to a decision, or to the point where it must wait. Calls `watch`
    /// with the client's address first.
    #[inline]
    pub(super) fn attempt(
        self: &Arc<Self>,
        head: &dyn RequestHead,
        watch: impl FnOnce(&Option<IpAddr>),
        anonymous: Anonymous,
        routes: &RouteClasses,
    ) -> Attempt {
        let mut facts = Facts::new(Purpose::Request);
        // In its place, which is filled only now: see `canonical`.
        facts.client_ip = self.client_ip.resolve(head);
        watch(&facts.client_ip);
        // 1. to 3.
        match self.present(head, anonymous, routes, &mut facts) {
            Ok(()) => {}
            Err(error) => return Attempt::Ready(Err(error)),
        }
        if facts.anonymous && self.limits.of_anonymous().is_none() {
            return Attempt::Ready(Ok(Authenticated::anonymous(None)));
        }
        // 4. to 9.
        let mut so_far = Progress::default();
        match self.advance(&facts, &mut so_far, None) {
            Ok(None) => Attempt::Ready(self.outcome(&facts, &mut so_far)),
            Err(error) => Attempt::Ready(Err(error)),
            Ok(Some(wait)) => self.pending(facts, so_far, wait),
        }
    }

    /// Takes the steps that read the head.
    #[inline(always)] // So that the type of the head is known.
    fn present(
        &self,
        head: &dyn RequestHead,
        anonymous: Anonymous,
        routes: &RouteClasses,
        facts: &mut Facts,
    ) -> Result<(), AuthError> {
        if anonymous == Anonymous::Always {
            self.without_key(head, routes, facts);
            return Ok(());
        }
        // 1. credential
        let (way, value) = match credential::read(head, &self.accepted)? {
            Credential::Presented(way, value) => (way, value),
            absent if self.is_anonymous(&absent, anonymous) => {
                self.without_key(head, routes, facts);
                return Ok(());
            }
            _ => return Err(AuthError::new(ErrorCode::MissingKey)),
        };
        // 2. shape and 3. digest
        let shape = credential::with_key(way, value, |key| self.digest(key, facts));
        facts.token = self.external_token(way, value);
        if facts.token.is_none() {
            shape?;
        }
        self.read(head, routes, facts);
        Ok(())
    }

    /// Reads what an anonymous request is counted by.
    fn without_key(&self, head: &dyn RequestHead, routes: &RouteClasses, facts: &mut Facts) {
        facts.anonymous = true;
        if self.limits.of_anonymous().is_some() {
            self.read_for_limits(head, routes, facts);
        }
    }

    /// Returns the future of a request that must wait.
    fn pending(self: &Arc<Self>, facts: Facts, mut so_far: Progress, wait: Wait) -> Attempt {
        let this = Arc::clone(self);
        let rest = async move { this.finish(&facts, &mut so_far, wait).await };
        Attempt::Pending(PendingAttempt(Box::pin(telemetry::in_span(rest))))
    }

    /// Awaits what the steps must wait for, and continues with each answer.
    pub(super) async fn finish(
        &self,
        facts: &Facts,
        so_far: &mut Progress,
        mut wait: Wait,
    ) -> Outcome {
        loop {
            let answer = self.ask(wait, facts, so_far).await?;
            match self.advance(facts, so_far, Some(answer))? {
                None => return self.outcome(facts, so_far),
                Some(next) => wait = next,
            }
        }
    }

    pub(super) fn advance(
        &self,
        facts: &Facts,
        so_far: &mut Progress,
        answer: Option<Answer>,
    ) -> Advance {
        let steps = self.steps(facts, so_far, answer);
        steps.map_err(|error| self.refusal(error, facts, so_far))
    }

    /// Takes the steps in order, from the one that got its answer. Returns what the next one must
    /// await.
    fn steps(&self, facts: &Facts, so_far: &mut Progress, mut answer: Option<Answer>) -> Advance {
        let from = match &answer {
            Some(answer) => answer.step(),
            None if facts.anonymous => Step::Limit,
            None if !facts.digests().is_empty() => Step::Lookup,
            None => Step::ExternalToken,
        };
        // Read again after each wait: a key may expire in the meantime.
        let now = millis(self.clock.recently());
        // 4. lookup
        if from == Step::Lookup {
            let found = answered!(answer, Key, self.find_now(facts), self.lookup(facts)?);
            match self.matching(found, facts)? {
                Some(stored) => match self.entry_of(stored) {
                    Ok(entry) => so_far.entry = Some(entry),
                    Err((error, stored)) => {
                        so_far.unreadable = Some(stored);
                        return Err(error);
                    }
                },
                None if facts.token.is_some() => {}
                None => return Err(self.unknown(facts)),
            }
        }
        if from <= Step::ExternalToken && so_far.entry.is_none() {
            let known = || self.verified(facts);
            so_far.entry = answered!(answer, Token, known(), self.verification(facts, so_far)?)?;
            if so_far.entry.is_none() {
                return Err(self.unknown(facts));
            }
        }
        let held = so_far.entry.as_ref();
        let entry = so_far.entry.as_deref();
        if let (Some(held), Some(entry)) = (held, entry) {
            // 5. standing: the key's, then its owner's
            if from < Step::Owner {
                so_far.permit = None;
                standing(entry, now, &*self.clock)?;
                self.queue_rehash(facts, held.key());
            }
            if from <= Step::Owner {
                if let Some(owners) = &self.owner_standing {
                    let now = || owners.standing_now(&entry.record.owner);
                    let now = || telemetry::timed(telemetry::Step::OwnerStanding, now);
                    check_owner(answered!(answer, Owner, now(), Wait::owner(owners, held)))?;
                }
                // 6. environment, transport, network
                environment(&entry.facts)?;
                transport(facts)?;
                network(&entry.facts, facts.client_ip)?;
            }
            // 7. limit: all policies at once, those of the key's plan or of its tenant's
            if from <= Step::Plan
                && let Some(directory) = self.decides_plan(entry)?
            {
                let now = || self.plan_now(entry);
                let plan = answered!(answer, Plan, now(), Wait::plan(directory, held));
                so_far.tenants = Some(self.tenants_limits(plan, entry)?);
            }
        }
        if from <= Step::Limit
            && let (Some(limiter), Purpose::Request) = (&self.limits.limiter, facts.purpose)
        {
            let (limits, caller) = self.counted_by(facts, entry, so_far.tenants.as_ref());
            let limiting = &*self.limits;
            // A decision is large, so the usual one is moved once.
            let decision = match taken!(answer) {
                Some(Answer::Limiter(decided)) => {
                    limiting.settle(decided, limits, caller, facts.cost)?
                }
                _ => match limiting.decide_now(limiter, limits, caller, facts.cost) {
                    Some(Ok(decision)) if decision.is_admitted() => {
                        limiting.outage.answered();
                        decision
                    }
                    Some(other) => limiting.settle(other, limits, caller, facts.cost)?,
                    None => return Ok(Some(Wait::Limiter(Arc::clone(limiter)))),
                },
            };
            so_far.counted = Some((caller.variant(), decision));
        }
        let (Some(held), Some(entry)) = (held, entry) else {
            return Ok(None);
        };
        // 8. credits: given back if a later step refuses
        if from <= Step::Credits
            && facts.credits > 0
            && let (Some(credits), Some(purse)) = (&self.credits, &entry.purse)
        {
            // The usual case, without moving what a refusal consists of.
            so_far.spent = match answer {
                None => purse.spend_now(now, facts.credits),
                Some(_) => None,
            };
            if so_far.spent.is_none() {
                let refused = || purse.refuse_now(now, facts.credits).map(Err);
                let wait = || Wait::Credits(Arc::clone(credits), Arc::clone(purse));
                let spent = answered!(answer, Credits, refused(), wait());
                so_far.spent = Some(spent.map_err(|refused| unpaid(credits, facts, refused))?);
            }
        }
        // 9. actor: the owner, or a user that the request names
        if let Some((directory, mode, user)) = self.acts_for(facts, entry)? {
            let tenant = &entry.record.owner.tenant_id;
            let now = || directory.resolve_now(tenant, user);
            let now = || telemetry::timed(telemetry::Step::Directory, now);
            let wait = || Wait::directory(directory, held, user);
            let answer = answered!(answer, User, now(), wait());
            so_far.acting = Some(self.acting(entry, mode, user, answer)?);
        }
        // 10. principal
        if facts.purpose == Purpose::Request {
            self.usage.count(held, now, facts.client_ip);
        }
        Ok(None)
    }

    /// Completes a refusal: with the state of the windows for the response, and the real key that
    /// was presented and the named user for the audit event. A name that looks like a key is
    /// omitted.
    fn refusal(&self, error: AuthError, facts: &Facts, so_far: &mut Progress) -> AuthError {
        // Before the response says how many credits are left.
        so_far.give_back();
        let of_entry = so_far.entry.as_ref().map(|entry| &entry.record);
        let record = of_entry.or(so_far.unreadable.as_ref().map(|stored| stored.record()));
        let Some(record) = record else { return error };
        let is_name = |user: &UserRef| match user {
            UserRef::Id(id) => !self.looks_like_key(id.as_str()),
            UserRef::Email(email) => !self.looks_like_key(email),
        };
        let named = match &facts.requested {
            Ok(RequestedActor::User(mode, user)) if is_name(user) => {
                Some(requested::named(*mode, user))
            }
            _ => None,
        };
        let tenants = so_far.tenants.take();
        let counted = so_far.counted.take().zip(so_far.entry.as_ref());
        let counted = counted.map(|((variant, decision), entry)| {
            let source: Arc<dyn PolicySource> = match tenants {
                Some(limits) => limits,
                None => entry.policies(),
            };
            LimitReport::new(source, variant, decision)
        });
        let unpaid = error.code() == ErrorCode::CreditsExhausted;
        let limits = counted.or_else(|| unpaid.then(LimitReport::of_credits_only));
        let purse = so_far.entry.as_ref().and_then(|entry| entry.purse.as_ref());
        // A refusal by the limits has their state.
        let limits = limits.or_else(|| error.limits().filter(|_| purse.is_some()).cloned());
        let credits = purse.and_then(|purse| purse.shown());
        let limits = limits.map(|limits| limits.with_credits(credits));
        error.with_limits(limits).presenting(record, named)
    }

    /// Returns the user that the key is asked to act for, if it is not its owner, and the
    /// directory.
    fn acts_for<'a>(
        &'a self,
        facts: &'a Facts,
        entry: &KeyEntry,
    ) -> Result<Option<Requested<'a>>, AuthError> {
        match &facts.requested {
            Err(error) => Err(error.clone()),
            Ok(RequestedActor::Owner) => Ok(None),
            Ok(RequestedActor::User(mode, user))
                if owner_is_requested(&entry.record, self.user_ids, *mode, user) =>
            {
                Ok(None)
            }
            Ok(RequestedActor::User(mode, user)) => match &self.directory {
                Some(directory) if may_delegate(&entry.record) => {
                    Ok(Some((directory, *mode, user)))
                }
                _ => Err(AuthError::new(ErrorCode::UnknownActor)),
            },
        }
    }

    /// Evaluates the directory's answer. Users that are unknown, of another tenant or suspended are
    /// refused with the same error.
    fn acting(
        &self,
        entry: &KeyEntry,
        mode: ActorMode,
        requested: &UserRef,
        answer: Result<Option<Arc<User>>, DirectoryError>,
    ) -> Result<ActsFor, AuthError> {
        let user = answer
            .map_err(|error| AuthError::unavailable(ErrorCode::DirectoryUnavailable, error))?
            .filter(|user| may_act_for(&entry.record, user))
            .ok_or_else(|| AuthError::new(ErrorCode::UnknownActor))?;
        let user = self.user_ids.user(user);
        let scopes = self.authority(entry, &user)?;
        let by_email = mode == ActorMode::AppUser && matches!(requested, UserRef::Email(_));
        Ok(ActsFor {
            mode,
            canonical_user: by_email.then(|| user.id.clone()),
            acting: Arc::new(Acting::new(&entry.record, user, scopes)),
        })
    }
}

/// Returns the error for a request that cannot be paid.
#[cold]
fn unpaid(credits: &Spending, facts: &Facts, refused: Unpaid) -> AuthError {
    match refused {
        Unpaid::Exhausted { left, refills_in } => {
            let payment_required = credits.settings.payment_required;
            AuthError::credits_exhausted((facts.credits, left), refills_in, payment_required)
        }
        // Fail closed: the units may have been spent elsewhere.
        Unpaid::Unavailable(error) => AuthError::unavailable(ErrorCode::StoreUnavailable, error)
            .saying("Credits cannot be checked right now"),
    }
}

impl Inner {
    /// Returns the limits that apply to a request, and those that it counts.
    #[inline]
    pub(super) fn counted_by<'a>(
        &'a self,
        facts: &Facts,
        entry: Option<&'a KeyEntry>,
        tenants: Option<&'a Arc<PlanLimits>>,
    ) -> (&'a Arc<PlanLimits>, Caller<'a>) {
        let of_entry = entry.and_then(|entry| entry.plan.as_ref());
        let limits = match (tenants, of_entry) {
            (Some(limits), _) | (None, Some(limits)) => limits,
            (None, None) if entry.is_some() => &self.limits.table.base,
            (None, None) => &self.limits.table.anonymous,
        };
        (limits, Caller::of(entry, facts))
    }

    /// Returns the result once all steps are taken.
    #[inline]
    pub(super) fn outcome(&self, facts: &Facts, so_far: &mut Progress) -> Outcome {
        let spent = so_far.spent.take();
        let counted = so_far.counted.take();
        let Some(entry) = so_far.entry.take() else {
            if !facts.anonymous {
                return Err(AuthError::new(ErrorCode::InvalidKey));
            }
            let count = counted.map(|(variant, decision)| AnonymousCount {
                limits: Arc::clone(&self.limits.table.anonymous),
                variant,
                client_ip: facts.client_ip,
                charger: Arc::clone(&self.limits) as _,
                decision: decision.into(),
            });
            return Ok(Authenticated::anonymous(count.map(Arc::new)));
        };
        let (mode, acting, canonical_user) = match so_far.acting.take() {
            Some(acts) => (acts.mode, Some(acts.acting), acts.canonical_user),
            None => (entry.facts.mode, None, None),
        };
        let tenants = so_far.tenants.take();
        let client_ip = facts.client_ip;
        let principal = KeyPrincipal::new(entry, mode, acting, client_ip, tenants, counted, spent);
        Ok(Authenticated {
            principal: Some(principal),
            anonymous: None,
            canonical_user,
        })
    }
}
