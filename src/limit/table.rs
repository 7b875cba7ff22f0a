//! The policies of a service, compiled: which of them apply to a request, by its plan and class.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::compile::{Compiler, Given, class_names, merged, placed, refused};
use super::fields::{Kept, kept};
use super::plan::{Bound, Plan};
use super::policy::{CountedBy, LimitPolicy};
use super::{LimiterSlot, PolicySource};
use crate::key::{Owner, PlanName};
use crate::quota::{Quota, Quotas};
use crate::text::{ParseError, start};

/// The policies of all plans, and of requests without a key.
pub(crate) struct LimitTable {
    /// For keys without a plan.
    pub(crate) base: Arc<PlanLimits>,
    plans: HashMap<PlanName, Arc<PlanLimits>>,
    /// The names of the plans, in the order of their declaration.
    pub(crate) plan_names: Vec<PlanName>,
    pub(crate) anonymous: Arc<PlanLimits>,
    classes: Vec<Arc<str>>,
    /// The number of slots in a key's entry.
    pub(crate) slots: usize,
    /// Whether a policy counts by address.
    pub(crate) by_address: bool,
}

/// What a plan means for a key.
pub(crate) struct PlanLimits {
    /// `None` without a plan.
    pub(crate) name: Option<PlanName>,
    /// By [`Variant`].
    pub(super) sets: Arc<[Arc<PolicySet>]>,
    /// The key's own quotas, which replace those of its first policy.
    pub(crate) own: Option<Quotas>,
    /// Their part of `RateLimit-Policy`.
    pub(super) own_field: Option<String>,
    /// Whether own quotas apply in full, even beyond the plan's.
    pub(super) own_stay: bool,
    /// The quotas of a key for all requests; `None` if they are not limited.
    pub(crate) per_key: Option<Quotas>,
    /// The most that a key's own quotas may allow; `None` if they are not limited.
    pub(crate) own_at_most: Option<Quotas>,
    pub(crate) active_keys: Option<Bound<u64>>,
    pub(crate) lifetime: Option<Bound<Duration>>,
}

/// The policies that apply to a request, in the order of buckets.
pub(crate) struct PolicySet {
    pub(crate) policies: Vec<Policy>,
    /// The value of `RateLimit-Policy`.
    field: String,
    /// The same, if it is kept for the life of the process.
    kept: Option<&'static Kept>,
    /// Where the second policy's part of it begins.
    second: usize,
}

/// A policy, compiled.
#[derive(Clone)]
pub(crate) struct Policy {
    pub(crate) counter: Counter,
    pub(crate) class: Option<Arc<str>>,
    /// With the names that responses show.
    pub(crate) quotas: Quotas,
    pub(crate) place: Place,
}

/// What a policy counts by, in the order of buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Counter {
    Key,
    User,
    Tenant,
    Address,
    Anonymous,
    Shared,
    AnonymousShared,
}

/// Counters whose buckets a limiter on several servers keeps on one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Key,
    Address,
    Shared,
}

impl Counter {
    pub(super) const fn of(counted: CountedBy, anonymous: bool) -> Self {
        match (counted, anonymous) {
            (CountedBy::Key, _) => Self::Key,
            (CountedBy::User, _) => Self::User,
            (CountedBy::Tenant, _) => Self::Tenant,
            (CountedBy::Address, false) => Self::Address,
            (CountedBy::Address, true) => Self::Anonymous,
            (CountedBy::Shared, false) => Self::Shared,
            (CountedBy::Shared, true) => Self::AnonymousShared,
        }
    }

    const fn group(self) -> Group {
        match self {
            Self::Key | Self::User | Self::Tenant => Group::Key,
            Self::Address | Self::Anonymous => Group::Address,
            Self::Shared | Self::AnonymousShared => Group::Shared,
        }
    }
}

/// Where the slot of a policy's bucket is.
#[derive(Clone)]
pub(crate) enum Place {
    /// In the key's entry, at this index.
    Entry(usize),
    /// In the policy, which has only one bucket.
    Policy(Arc<LimiterSlot>),
    /// The bucket has no slot.
    Nowhere,
}

/// The number of variants of a class.
pub(super) const VARIANTS: usize = 4;

/// What decides which policies apply, besides the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Variant {
    /// The number of the class, from 1; 0 for none.
    pub(crate) class: u8,
    pub(crate) without_address: bool,
    pub(crate) without_user: bool,
    /// Whether the request has no key. Its limits are those of [`LimitTable::anonymous`].
    pub(crate) without_key: bool,
}

impl Variant {
    fn index(self) -> usize {
        usize::from(self.class) << 2
            | usize::from(self.without_address) << 1
            | usize::from(self.without_user)
    }
}

impl LimitTable {
    /// Compiles the policies of a service.
    ///
    /// # Errors
    /// Returns an error if a quota, a name or a combination of policies is invalid.
    pub(crate) fn new(
        policies: &[(Option<String>, LimitPolicy)],
        classes: &[String],
        plans: &[Plan],
    ) -> Result<Self, ParseError> {
        let names = class_names(classes)?;
        let base = placed(policies, classes)?;
        let of_plans = plans.iter().map(|plan| placed(&plan.policies, classes));
        let of_plans = of_plans.collect::<Result<Vec<_>, _>>()?;
        // All policies of a kind and class count in one bucket, whatever the plan: its history
        // stays when the plan changes.
        let mut slots = vec![(CountedBy::Key, None)];
        for (class, policy) in base.iter().chain(of_plans.iter().flatten()) {
            let slot = (policy.counted, *class);
            if policy.counted <= CountedBy::Tenant && !slots.contains(&slot) {
                slots.push(slot);
            }
        }
        let shared = (0..=classes.len()).map(|_| Arc::default());
        let shared: Vec<_> = shared.collect();
        let compiler = Compiler {
            names: &names,
            slots: &slots,
            shared: &shared,
        };
        let with_key = |(_, policy): &Given<'_>| !policy.anonymous;
        let without_key =
            |(_, policy): &Given<'_>| policy.anonymous || policy.counted >= CountedBy::Address;
        let keyed: Vec<_> = base.iter().copied().filter(with_key).collect();
        let anonymous: Vec<_> = base.iter().copied().filter(without_key).collect();
        let mut table = Self {
            base: Arc::new(compiler.plan(None, &keyed)?),
            plans: HashMap::new(),
            plan_names: Vec::new(),
            anonymous: Arc::new(compiler.plan(None, &anonymous)?),
            classes: names.clone(),
            slots: slots.len(),
            by_address: false,
        };
        for (plan, of_plan) in plans.iter().zip(&of_plans) {
            let name = PlanName::new(&plan.name)
                .map_err(|error| refused(format!("plan {:?}: {error}", start(&plan.name, 40))))?;
            let within = |error: ParseError| refused(format!("plan {name}: {error}"));
            if of_plan.iter().any(|(_, policy)| policy.anonymous) {
                let why = "requests without a key have no plan: add the policy to Limits";
                return Err(within(refused(why.to_owned())));
            }
            let limits = compiler
                .plan(Some((&name, plan)), &merged(&keyed, of_plan))
                .map_err(within)?;
            if table.plans.insert(name.clone(), Arc::new(limits)).is_some() {
                return Err(refused(format!("duplicate plan {name}")));
            }
            table.plan_names.push(name);
        }
        let all = table.plans.values().chain([&table.base, &table.anonymous]);
        table.by_address = all
            .flat_map(|plan| plan.sets.iter())
            .flat_map(|set| &set.policies)
            .any(|policy| matches!(policy.counter, Counter::Address | Counter::Anonymous));
        Ok(table)
    }

    /// Checks that no request needs two kinds of buckets that a limiter keeps on different servers
    /// ([`RateLimiter::counts_together`](super::RateLimiter::counts_together)). Every request with a
    /// key may need the key's bucket, because a key can have its own quotas.
    ///
    /// # Errors
    /// Returns an error that names the policy.
    pub(crate) fn check_apart(&self) -> Result<(), ParseError> {
        let apart = |with: &str, counts: String, remedy: &str| {
            refused(format!(
                "a request {with} would count {counts}, which this limiter keeps on different \
                 servers, as a Redis Cluster does: {remedy}, or use a limiter on a single server"
            ))
        };
        let keyed = self.plans.values().chain([&self.base]);
        let mut keyed = keyed.flat_map(|plan| plan.sets.iter().flat_map(|set| &set.policies));
        if let Some(policy) = keyed.find(|policy| policy.counter.group() != Group::Key) {
            let other = match policy.counter.group() {
                Group::Shared => "a shared policy",
                Group::Key | Group::Address => "its address",
            };
            let counts = format!("in the bucket of its key and in that of {other}");
            return Err(apart("with a key", counts, "make the policy anonymous()"));
        }
        for set in self.anonymous.sets.iter() {
            let has = |group| set.policies.iter().any(|of| of.counter.group() == group);
            if has(Group::Address) && has(Group::Shared) {
                let counts = "in the bucket of its address and in that of a shared policy";
                let remedy = "remove one of the two";
                return Err(apart("without a key", counts.to_owned(), remedy));
            }
        }
        Ok(())
    }

    /// Returns the limits of a plan, if the table has it.
    pub(crate) fn plan(&self, name: &PlanName) -> Option<&Arc<PlanLimits>> {
        self.plans.get(name)
    }

    /// Returns the names of the windows by which the plans limit each key.
    pub(crate) fn windows(&self) -> Vec<String> {
        let plans = self
            .plan_names
            .iter()
            .filter_map(|name| self.plans.get(name));
        let quotas = std::iter::once(&self.base)
            .chain(plans)
            .flat_map(|plan| plan.per_key.iter().chain(&plan.own_at_most))
            .flat_map(Quotas::as_slice);
        let mut names: Vec<String> = Vec::new();
        for quota in quotas {
            if !names.iter().any(|name| name == quota.name()) {
                names.push(quota.name().to_owned());
            }
        }
        names
    }

    /// Returns whether any plan is declared.
    pub(crate) fn has_plans(&self) -> bool {
        !self.plans.is_empty()
    }

    /// Returns the number of a class, from 1.
    #[cfg(any(feature = "actix-web", feature = "axum"))]
    pub(crate) fn class(&self, name: &str) -> Option<u8> {
        let place = self.classes.iter().position(|known| **known == *name)?;
        u8::try_from(place + 1).ok()
    }

    /// Returns whether nothing is limited, whatever the plan.
    pub(crate) fn is_empty(&self) -> bool {
        let mut all = self.plans.values().chain([&self.base, &self.anonymous]);
        all.all(|limits| limits.is_empty())
    }
}

impl PolicySet {
    pub(super) fn named(policies: Vec<Policy>) -> Self {
        let each: Vec<_> = policies
            .iter()
            .map(|policy| policy.quotas.to_string())
            .collect();
        let second = each.first().map_or(0, |first| first.len() + ", ".len());
        let field = each.join(", ");
        Self {
            policies,
            kept: kept(&field),
            field,
            second,
        }
    }

    /// Returns the set without a policy.
    pub(crate) const fn empty() -> &'static Self {
        const EMPTY: &PolicySet = &PolicySet {
            policies: Vec::new(),
            field: String::new(),
            kept: None,
            second: 0,
        };
        EMPTY
    }
}

impl PlanLimits {
    /// Returns whether no policy applies to any request.
    pub(crate) fn is_empty(&self) -> bool {
        self.sets.iter().all(|set| set.policies.is_empty())
    }

    /// Returns the policies that apply.
    pub(crate) fn set(&self, variant: Variant) -> &PolicySet {
        self.sets
            .get(variant.index())
            .map_or(PolicySet::empty(), |set| set)
    }

    /// Returns limits without a policy.
    pub(crate) fn none() -> &'static Self {
        static NONE: LazyLock<PlanLimits> = LazyLock::new(PlanLimits::undeclared);
        &NONE
    }

    /// Returns the limits of a plan that is not declared, to be shown.
    pub(crate) fn undeclared() -> Self {
        Self {
            name: None,
            sets: [].into(),
            own: None,
            own_field: None,
            own_stay: false,
            per_key: None,
            own_at_most: None,
            active_keys: None,
            lifetime: None,
        }
    }

    /// Returns every quota that applies to requests with a key of this owner, of any class, each name
    /// once.
    pub(crate) fn all_quotas(&self, owner: &Owner) -> Vec<Quota> {
        let mut all: Vec<Quota> = Vec::new();
        let policies = self.of_owner(owner).into_iter();
        for quota in policies.flat_map(|(_, _, quotas)| quotas.as_slice()) {
            if all.iter().all(|known| known.name() != quota.name()) {
                all.push(quota.clone());
            }
        }
        all
    }

    /// Returns what applies to requests with a key of this owner, of any class: who is counted, the
    /// class, and the quotas. The key's own quotas are those of its policy for all requests.
    pub(crate) fn of_owner(&self, owner: &Owner) -> Vec<(Counter, Option<&str>, &Quotas)> {
        let own = self.own.iter().map(|own| (Counter::Key, None, own));
        let mut all: Vec<(Counter, Option<&str>, &Quotas)> = own.collect();
        for class in 0..self.sets.len() / VARIANTS {
            let variant = Variant {
                class: u8::try_from(class).unwrap_or(0),
                without_user: owner.user_id.is_none(),
                ..Variant::default()
            };
            for policy in self.policies(variant) {
                let (counter, class) = (policy.counter, policy.class.as_deref());
                if all
                    .iter()
                    .all(|known| (known.0, known.1) != (counter, class))
                {
                    all.push((counter, class, &policy.quotas));
                }
            }
        }
        all
    }

    /// Returns these limits for a key with quotas of its own, which apply within what the plan
    /// allows.
    pub(crate) fn with_own(&self, own: &Quotas) -> Self {
        let ceiling = self.own_at_most.as_ref();
        let own = match ceiling.filter(|_| self.name.is_some() && !self.own_stay) {
            Some(ceiling) => own.within(ceiling),
            None => own.clone(),
        };
        Self {
            name: self.name.clone(),
            sets: Arc::clone(&self.sets),
            per_key: Some(own.clone()),
            own_field: Some(own.to_string()),
            own: Some(own),
            own_stay: self.own_stay,
            own_at_most: self.own_at_most.clone(),
            active_keys: self.active_keys,
            lifetime: self.lifetime,
        }
    }

    /// Returns whether the key's own quotas replace the first policy of a set.
    fn replaces_first(&self, set: &PolicySet) -> bool {
        let is_of_key = |first: &Policy| first.counter == Counter::Key && first.class.is_none();
        self.own.is_some() && set.policies.first().is_some_and(is_of_key)
    }

    /// Returns the policies that apply, besides the key's own quotas.
    pub(crate) fn policies(&self, variant: Variant) -> &[Policy] {
        let set = self.set(variant);
        &set.policies[usize::from(self.replaces_first(set))..]
    }

    /// Returns the value of `RateLimit-Policy`, if the key has no own quotas and it is kept.
    pub(super) fn kept_field(&self, variant: Variant) -> Option<&'static Kept> {
        match self.own {
            None => self.set(variant).kept,
            Some(_) => None,
        }
    }

    /// Returns the part of `RateLimit-Policy` for these policies, if there are any.
    pub(super) fn field(&self, variant: Variant) -> Option<&str> {
        let set = self.set(variant);
        let begin = if self.replaces_first(set) {
            set.second
        } else {
            0
        };
        set.field.get(begin..).filter(|field| !field.is_empty())
    }
}

impl PolicySource for PlanLimits {
    fn limits(&self) -> &PlanLimits {
        self
    }
}

/// Returns the address that a client is counted by: the IPv4 address, or the /64 of an IPv6
/// address.
pub(crate) fn counted_address(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & (u128::MAX << 64)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl fmt::Debug for PlanLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlanLimits")
            .field("name", &self.name)
            .field("policies", &self.set(Variant::default()).field)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LimitTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitTable")
            .field("base", &self.base)
            .field("plans", &self.plan_names)
            .field("classes", &self.classes)
            .finish_non_exhaustive()
    }
}
