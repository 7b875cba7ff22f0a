//! The steps, one after the other. Each answers now if it can, else in a continuation that owns its
//! data.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;
use zeroize::Zeroizing;

use super::rules::{is_own_user, may_act_for, may_delegate, network, standing, stands, transport};
use super::wanted::{self, Wanted};
use super::{
    Admission, Anonymous, Attempt, Facts, Inner, Limiting, Outcome, PendingAttempt, Purpose,
};
use crate::actor::{self, ActorMode, DirectoryError, User, UserRef};
use crate::credential::{self, Accepted, Credential, Scheme};
use crate::error::{AuthError, ErrorCode};
use crate::key::{Candidates, KeyDigest};
use crate::limit::{BucketId, Decision, LimitBucket, LimitRequest, LimiterError, OnOutage};
use crate::principal::{Acting, KeyEntry, KeyPrincipal};
use crate::request::RequestHead;
use crate::store::{StoreError, StoredKey};
use crate::telemetry::{self, Step};
use crate::verifier::TokenVerifier;

impl Inner {
    /// Steps 1 and 2: a text that has the shape of a key, or nobody where that is allowed.
    pub(super) fn attempt(
        self: &Arc<Self>,
        head: &dyn RequestHead,
        client_ip: Option<IpAddr>,
        anonymous: Anonymous,
    ) -> Result<Attempt, AuthError> {
        match credential::read(head, &self.accepted)? {
            Credential::Presented(way, value) => {
                let known = credential::with_key(way, value, |key| {
                    let mut facts = self.facts(head, client_ip);
                    facts.token = self.foreign(way, key.as_bytes());
                    self.look_up(key, facts)
                });
                known.or_else(|error| match self.foreign(way, value) {
                    Some(token) => Ok(self.verify(token, self.facts(head, client_ip))),
                    None => Err(error),
                })
            }
            Credential::Absent if anonymous != Anonymous::Never => {
                Ok(Attempt::Ready(Ok(Admission::nobody())))
            }
            Credential::Foreign(value)
                if anonymous == Anonymous::WithoutKey && !self.holds_a_key(value) =>
            {
                Ok(Attempt::Ready(Ok(Admission::nobody())))
            }
            Credential::Absent | Credential::Foreign(_) => {
                Err(AuthError::new(ErrorCode::MissingKey))
            }
        }
    }

    /// Whether somebody who holds a key, or a token of the verifier's, sent it in a way that is not
    /// accepted.
    fn holds_a_key(&self, value: &[u8]) -> bool {
        let words = value.split(|byte| b" \t,;=\"".contains(byte));
        let mut tokens = words.filter_map(credential::token68);
        let recognized =
            |verifier: &Arc<dyn TokenVerifier>| tokens.any(|token| verifier.recognizes(token));
        credential::holds_a_key(value, &self.accepted)
            || self.verifier.as_ref().is_some_and(recognized)
    }

    fn facts(&self, head: &dyn RequestHead, client_ip: Option<IpAddr>) -> Facts {
        Facts {
            purpose: Purpose::Request,
            now: self.clock.now(),
            client_ip,
            secure: self
                .transport
                .as_ref()
                .is_none_or(|transport| transport.is_met_by(head)),
            wanted: Wanted::read(head, self.user_ids),
            token: None,
            cost: self.cost_of.as_ref().map_or(1, |cost_of| cost_of(head)),
            bucket: self
                .bucket_of
                .as_ref()
                .and_then(|bucket_of| bucket_of(head)),
        }
    }

    /// A Bearer token of the verifier's, by its shape.
    fn foreign(&self, way: &Accepted, value: &[u8]) -> Option<Zeroizing<String>> {
        let verifier = self
            .verifier
            .as_ref()
            .filter(|_| way.scheme == Scheme::Bearer)?;
        let text = credential::token68(value)?;
        verifier
            .recognizes(text)
            .then(|| Zeroizing::new(text.to_owned()))
    }

    /// Steps 3 and 4: the digest, and the key that is stored under it; now if the store can, else
    /// in the continuation.
    fn look_up(self: &Arc<Self>, key: &str, facts: Facts) -> Attempt {
        // Under all accepted schemes, at each use: the same secret may have been ended under an
        // older one a moment ago.
        let current = self.hasher.digest(key);
        let all = self.hasher.candidates(key, current);
        match telemetry::timed(Step::Store, || self.store.find_now(all.as_slice())) {
            Some(found) => self.proceed(found, all.as_slice(), facts),
            None => self.wait_for(all, facts),
        }
    }

    /// Step 4 for a store that must be awaited: all digests in one trip, unless this client has
    /// failed too often.
    fn wait_for(self: &Arc<Self>, digests: Candidates, mut facts: Facts) -> Attempt {
        if let Some(error) = self.blocked(&facts) {
            return Attempt::Ready(Err(error));
        }
        let this = Arc::clone(self);
        Attempt::Pending(PendingAttempt(Box::pin(async move {
            let found = telemetry::awaited(Step::Store, this.store.find(digests.as_slice())).await;
            // A key may have expired while its store was asked.
            facts.now = this.clock.now();
            this.proceed(found, digests.as_slice(), facts)
                .outcome()
                .await
        })))
    }

    /// Step 4 for a token that somebody else issued: always awaited.
    fn verify(self: &Arc<Self>, token: Zeroizing<String>, mut facts: Facts) -> Attempt {
        let Some(verifier) = self.verifier.clone() else {
            return Attempt::Ready(Err(self.unknown(&facts)));
        };
        if let Some(error) = self.blocked(&facts) {
            return Attempt::Ready(Err(error));
        }
        let this = Arc::clone(self);
        Attempt::Pending(PendingAttempt(Box::pin(async move {
            let answer = telemetry::awaited(Step::Verifier, verifier.verify(&token)).await;
            facts.now = this.clock.now();
            let verified = answer
                .map_err(|error| AuthError::unavailable(ErrorCode::VerifierUnavailable, error))?;
            let mut token = verified.ok_or_else(|| this.unknown(&facts))?;
            token.owner = this.user_ids.owner(token.owner);
            let entry = this.compile(&token.into_record(facts.now))?;
            this.stand(entry, facts).outcome().await
        })))
    }

    /// Steps 5 to 9, for what the store answered. `digests` begins with the one under the current
    /// scheme.
    fn proceed(
        self: &Arc<Self>,
        found: Result<Option<Arc<StoredKey>>, StoreError>,
        digests: &[KeyDigest],
        mut facts: Facts,
    ) -> Attempt {
        if matches!(found, Ok(None))
            && let Some(token) = facts.token.take()
        {
            return self.verify(token, facts);
        }
        let (stored, entry) = match self.identify(found, digests, &facts) {
            Ok(identified) => identified,
            Err(error) => return Attempt::Ready(Err(error)),
        };
        // What does not stand is not worth a write.
        let stale = self.is_stale(&stored) && standing(&entry.record, facts.now).is_ok();
        let attempt = self.stand(entry, facts);
        match digests.first() {
            Some(&to) if stale => self.rehash(stored, to, attempt),
            _ => attempt,
        }
    }

    /// Step 5: the key's own standing.
    pub(super) fn stand(self: &Arc<Self>, entry: Arc<KeyEntry>, facts: Facts) -> Attempt {
        match standing(&entry.record, facts.now) {
            Ok(()) => self.owner(entry, facts),
            Err(error) => self.refused(error, &entry, &facts),
        }
    }

    /// Step 5, its last part: how the key's owner stands; now if that can be told, else in the
    /// continuation.
    fn owner(self: &Arc<Self>, entry: Arc<KeyEntry>, facts: Facts) -> Attempt {
        let Some(owners) = &self.owner_standing else {
            return self.place(entry, facts);
        };
        if let Some(answer) = telemetry::timed(Step::OwnerStanding, || {
            owners.standing_now(&entry.record.owner)
        }) {
            return match stands(answer) {
                Ok(()) => self.place(entry, facts),
                Err(error) => self.refused(error, &entry, &facts),
            };
        }
        let (this, owners) = (Arc::clone(self), Arc::clone(owners));
        Attempt::Pending(PendingAttempt(Box::pin(async move {
            let answer =
                telemetry::awaited(Step::OwnerStanding, owners.standing(&entry.record.owner)).await;
            match stands(answer) {
                Ok(()) => this.place(entry, facts).outcome().await,
                Err(error) => this.refused(error, &entry, &facts).outcome().await,
            }
        })))
    }

    /// Step 6: environment, transport and network.
    fn place(self: &Arc<Self>, entry: Arc<KeyEntry>, facts: Facts) -> Attempt {
        let allowed = self
            .environment(&entry.record)
            .and_then(|()| transport(&facts))
            .and_then(|()| network(&entry.record, facts.client_ip));
        match allowed {
            Ok(()) => self.limit(entry, facts),
            Err(error) => self.refused(error, &entry, &facts),
        }
    }

    /// Step 7: all windows at once; now if the limiter can, else in the continuation.
    fn limit(self: &Arc<Self>, entry: Arc<KeyEntry>, facts: Facts) -> Attempt {
        let limits = self.limits.as_ref();
        let Some(limits) = limits.filter(|_| facts.purpose == Purpose::Request) else {
            return self.act(entry, facts, None);
        };
        let decided = telemetry::timed(Step::Limiter, || {
            self.with_buckets(&entry, &facts, |request| {
                limits.limiter.try_acquire(request)
            })
        });
        if let Some(decided) = decided {
            return self.limited(limits, entry, facts, decided);
        }
        let this = Arc::clone(self);
        Attempt::Pending(PendingAttempt(Box::pin(async move {
            let Some(limits) = &this.limits else {
                return this.act(entry, facts, None).outcome().await;
            };
            let decided = {
                let buckets = this.buckets(&entry, &facts);
                let request = LimitRequest::new(&buckets, facts.cost);
                telemetry::awaited(Step::Limiter, limits.limiter.acquire(&request)).await
            };
            this.limited(limits, entry, facts, decided).outcome().await
        })))
    }

    /// What the limiter's answer means, or its silence.
    fn limited(
        self: &Arc<Self>,
        limits: &Limiting,
        entry: Arc<KeyEntry>,
        facts: Facts,
        decided: Result<Decision, LimiterError>,
    ) -> Attempt {
        let decided = decided.or_else(|error| {
            // No mode lets pass what could never pass, and nothing is down.
            if matches!(error, LimiterError::Cost { .. }) {
                return Err(error);
            }
            limits.outages.fetch_add(1, Ordering::Relaxed);
            telemetry::limiter_outage(limits.on_outage.as_str());
            match (limits.on_outage, error) {
                (OnOutage::Closed, error) => Err(error),
                (OnOutage::Open, _) => Ok(Decision::admitted()),
                (OnOutage::Local, _) => {
                    self.with_buckets(&entry, &facts, |request| limits.stand_in.decide(request))
                }
            }
        });
        match decided {
            Ok(decision) if decision.is_admitted() => self.act(entry, facts, Some(decision)),
            Ok(decision) => self.refused(AuthError::rate_limited(decision), &entry, &facts),
            Err(error) => self.refused(not_limited(error), &entry, &facts),
        }
    }

    /// Step 8: the owner, or whom the directory knows by what the request says; now if it can, else
    /// in the continuation.
    fn act(
        self: &Arc<Self>,
        entry: Arc<KeyEntry>,
        facts: Facts,
        limits: Option<Decision>,
    ) -> Attempt {
        let wanted = match &facts.wanted {
            Ok(Wanted::User(mode, user))
                if !is_own_user(&entry.record, self.user_ids, *mode, user) =>
            {
                (*mode, user.clone())
            }
            Ok(_) => return Attempt::Ready(Ok(finish(entry, &facts, limits, None))),
            Err(error) => return self.refused(error.clone().with_limits(limits), &entry, &facts),
        };
        let directory = match &self.directory {
            Some(directory) if may_delegate(&entry.record) => directory,
            _ => {
                let error = AuthError::new(ErrorCode::UnknownActor).with_limits(limits);
                return Attempt::Ready(Err(self.presenting(error, &entry, Some(&wanted))));
            }
        };
        let answer = telemetry::timed(Step::Directory, || {
            directory.resolve_now(&entry.record.owner.tenant_id, &wanted.1)
        });
        if let Some(answer) = answer {
            return Attempt::Ready(self.acting(entry, &facts, limits, &wanted, answer));
        }
        let (this, directory) = (Arc::clone(self), Arc::clone(directory));
        Attempt::Pending(PendingAttempt(Box::pin(async move {
            let asked = directory.resolve(&entry.record.owner.tenant_id, &wanted.1);
            let answer = telemetry::awaited(Step::Directory, asked).await;
            this.acting(entry, &facts, limits, &wanted, answer)
        })))
    }

    /// Step 8, for what the directory answered: one answer for users who are unknown, foreign or
    /// suspended.
    fn acting(
        &self,
        entry: Arc<KeyEntry>,
        facts: &Facts,
        limits: Option<Decision>,
        wanted: &(ActorMode, UserRef),
        answer: Result<Option<Arc<User>>, DirectoryError>,
    ) -> Outcome {
        let refused = match answer {
            Err(error) => AuthError::unavailable(ErrorCode::DirectoryUnavailable, error),
            Ok(Some(user)) if may_act_for(&entry.record, &user) => {
                let user = self.user_ids.user(user);
                match self.authority(&entry, &user) {
                    Ok(scopes) => {
                        let canonical =
                            wanted.0 == ActorMode::AppUser && matches!(wanted.1, UserRef::Email(_));
                        let canonical_user = canonical.then(|| user.id.clone());
                        let acting = Acting::new(&entry.record, user, scopes);
                        let acting = Some((wanted.0, Arc::new(acting)));
                        return Ok(Admission {
                            canonical_user,
                            ..finish(entry, facts, limits, acting)
                        });
                    }
                    Err(error) => error,
                }
            }
            Ok(_) => AuthError::new(ErrorCode::UnknownActor),
        };
        Err(self.presenting(refused.with_limits(limits), &entry, Some(wanted)))
    }

    fn with_buckets<R>(
        &self,
        entry: &KeyEntry,
        facts: &Facts,
        then: impl FnOnce(&LimitRequest<'_>) -> R,
    ) -> R {
        then(&LimitRequest::new(&self.buckets(entry, facts), facts.cost))
    }

    fn buckets<'a>(
        &'a self,
        entry: &'a KeyEntry,
        facts: &'a Facts,
    ) -> SmallVec<[LimitBucket<'a>; 3]> {
        let record = &entry.record;
        let family = LimitBucket::new(BucketId::Family(&record.family), &entry.quotas)
            .with_slot(&entry.family_slot);
        let mut buckets = SmallVec::new();
        buckets.push(family);
        if let Some(quotas) = &self.tenant_quotas {
            let id = BucketId::Tenant(&record.owner.tenant_id);
            buckets.push(LimitBucket::new(id, quotas).with_slot(&entry.tenant_slot));
        }
        if let Some((name, quotas)) = &facts.bucket {
            buckets.push(LimitBucket::new(BucketId::Custom(name), quotas));
        }
        buckets
    }

    /// A refusal of who presented a real key, perhaps to act for somebody.
    fn refused(&self, error: AuthError, entry: &Arc<KeyEntry>, facts: &Facts) -> Attempt {
        let wanted = match &facts.wanted {
            Ok(Wanted::User(mode, user)) => Some((*mode, user.clone())),
            _ => None,
        };
        Attempt::Ready(Err(self.presenting(error, entry, wanted.as_ref())))
    }

    /// The error with whose key it was, for the audit; not with a key that was written where a
    /// user's name belongs.
    fn presenting(
        &self,
        error: AuthError,
        entry: &KeyEntry,
        wanted: Option<&(ActorMode, UserRef)>,
    ) -> AuthError {
        let is_name = |(_, user): &&(ActorMode, UserRef)| match user {
            UserRef::Id(id) => !self.gives_away(id.as_str()),
            UserRef::Email(email) => !self.gives_away(email),
        };
        error.presenting(&entry.record, wanted.filter(is_name).map(wanted::named))
    }

    /// The answer to a client that has failed too often to be worth a look-up.
    fn blocked(&self, facts: &Facts) -> Option<AuthError> {
        let wait = self
            .failures
            .as_ref()
            .and_then(|failures| failures.blocked(facts.client_ip))?;
        Some(AuthError::too_many_failures(wait))
    }
}

/// What a limiter's error means for the caller. A cost above the key's limit is no outage, and no
/// retry helps; a cost of 0 is the host's mistake.
fn not_limited(error: LimiterError) -> AuthError {
    match error {
        LimiterError::Cost { cost, limit } if cost > limit => {
            let detail = format!(
                "This request costs {cost} units, more than the limit of {limit} that applies to \
                 this API key"
            );
            AuthError::with_detail(ErrorCode::Forbidden, detail).caused_by(error)
        }
        error => AuthError::unavailable(ErrorCode::LimiterUnavailable, error),
    }
}

/// Step 9: the principal; usage is counted without waiting.
fn finish(
    entry: Arc<KeyEntry>,
    facts: &Facts,
    limits: Option<Decision>,
    acting: Option<(ActorMode, Arc<Acting>)>,
) -> Admission {
    if facts.purpose == Purpose::Request {
        entry.usage.count(facts.now, facts.client_ip);
    }
    let (mode, acting) = acting.map_or_else(
        || (actor::own_mode(entry.record.kind), None),
        |(mode, a)| (mode, Some(a)),
    );
    let principal = KeyPrincipal::new(entry, mode, acting, facts.client_ip);
    Admission {
        principal: Some(principal),
        limits,
        canonical_user: None,
    }
}
