//! The policies of a service, compiled: which of them apply to a request, by its plan and class.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::plan::{Bound, Plan};
use super::policy::{CountedBy, LimitPolicy};
use super::{LimiterSlot, PolicySource};
use crate::key::{Owner, PlanName};
use crate::quota::{Quota, Quotas};
use crate::text::{ParseError, start};

/// The maximum number of classes.
const MOST_CLASSES: usize = 100;

/// The maximum number of policies that apply to one request.
const MOST_POLICIES: usize = 16;

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
    sets: Box<[Arc<PolicySet>]>,
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
    pub(crate) field: String,
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

impl Counter {
    const fn of(counted: CountedBy, anonymous: bool) -> Self {
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

/// A policy as the host gave it, with the index of its class.
type Given<'p> = (Option<usize>, &'p LimitPolicy);

/// Creates the error for limits that cannot be built.
fn refused(why: String) -> ParseError {
    ParseError::new("limits", why)
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

/// Replaces the name of each policy's class by its index, and checks the list.
fn placed<'p>(
    policies: &'p [(Option<String>, LimitPolicy)],
    classes: &[String],
) -> Result<Vec<Given<'p>>, ParseError> {
    let find = |name: &String| {
        let place = classes.iter().position(|known| known == name);
        place.ok_or_else(|| refused(format!("unknown class {:?}", start(name, 40))))
    };
    let place = |(name, policy): &'p (Option<String>, LimitPolicy)| {
        Ok((name.as_ref().map(find).transpose()?, policy))
    };
    let placed = policies.iter().map(place).collect::<Result<Vec<_>, _>>()?;
    check_each(&placed)?;
    Ok(placed)
}

/// The policies of a plan: those of the base, except where the plan has its own.
fn merged<'p>(base: &[Given<'p>], plan: &[Given<'p>]) -> Vec<Given<'p>> {
    let stays = |(class, policy): &Given<'p>| {
        let same = |(of, other): &Given<'p>| (class, policy.counted) == (of, other.counted);
        !plan.iter().any(same)
    };
    let stays = base.iter().copied().filter(stays);
    stays.chain(plan.iter().copied()).collect()
}

/// Checks the names of classes, which become parts of the names of quotas.
fn class_names(classes: &[String]) -> Result<Vec<Arc<str>>, ParseError> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    for (place, name) in classes.iter().enumerate() {
        if name.is_empty() || name.len() > 20 || !name.bytes().all(fits) {
            let why = "a class must have a name of 1 to 20 characters of a-z 0-9 - _";
            return Err(refused(format!("{why}, not {:?}", start(name, 40))));
        }
        if classes[..place].contains(name) {
            return Err(refused(format!("duplicate class {name}")));
        }
    }
    if classes.len() > MOST_CLASSES {
        return Err(refused(format!("at most {MOST_CLASSES} classes")));
    }
    Ok(classes.iter().map(|name| name.as_str().into()).collect())
}

/// Checks the policies of one list.
fn check_each(policies: &[Given<'_>]) -> Result<(), ParseError> {
    for (place, (class, policy)) in policies.iter().enumerate() {
        let LimitPolicy {
            counted, anonymous, ..
        } = policy;
        if *anonymous && !matches!(counted, CountedBy::Address | CountedBy::Shared) {
            return Err(refused(format!(
                "anonymous() is for policies per address and shared ones, not per {}",
                word(*counted)
            )));
        }
        if policy.unknown.is_some() && *counted != CountedBy::Address {
            return Err(refused(format!(
                "without_address() is for policies per address, not per {}",
                word(*counted)
            )));
        }
        let same = |(other_class, other): &Given<'_>| {
            (class, counted, anonymous) == (other_class, &other.counted, &other.anonymous)
        };
        if policies[..place].iter().any(same) {
            return Err(refused(format!(
                "two policies for one class count per {}: use one policy with all quotas",
                word(*counted)
            )));
        }
    }
    Ok(())
}

/// The word for those counted, in names of quotas and errors.
fn word(counted: CountedBy) -> &'static str {
    match counted {
        CountedBy::Key => "key",
        CountedBy::User => "user",
        CountedBy::Tenant => "tenant",
        CountedBy::Address => "address",
        CountedBy::Shared => "shared",
    }
}

struct Compiler<'c> {
    names: &'c [Arc<str>],
    slots: &'c [(CountedBy, Option<usize>)],
    /// By class; the last one without a class.
    shared: &'c [Arc<LimiterSlot>],
}

impl Compiler<'_> {
    fn plan(
        &self,
        plan: Option<(&PlanName, &Plan)>,
        policies: &[Given<'_>],
    ) -> Result<PlanLimits, ParseError> {
        let mut sets: Vec<Arc<PolicySet>> = Vec::new();
        for class in 0..=self.names.len() {
            for variant in 0..4 {
                let (no_address, no_user) = (variant & 2 != 0, variant & 1 != 0);
                let mut set = Vec::new();
                for (of, policy) in policies {
                    let applies = of.is_none_or(|of| of + 1 == class)
                        && !(no_user && policy.counted == CountedBy::User);
                    if applies {
                        set.extend(self.policy(*of, policy, no_address)?);
                    }
                }
                let set = PolicySet::new(set)?;
                // Most variants are the same as another.
                let known = sets.iter().rev().take(3).find(|known| known.is_same(&set));
                let set = known.map_or_else(|| Arc::new(set), Arc::clone);
                sets.push(set);
            }
        }
        let of_key = policies
            .iter()
            .find(|(class, policy)| class.is_none() && policy.counted == CountedBy::Key);
        let per_key = of_key
            .and_then(|(_, policy)| policy.quotas.clone())
            .transpose()?;
        let own = plan.and_then(|(_, plan)| plan.own.clone()).transpose()?;
        Ok(PlanLimits {
            name: plan.map(|(name, _)| name.clone()),
            sets: sets.into(),
            own_at_most: own.or_else(|| per_key.clone()),
            per_key,
            active_keys: plan.and_then(|(_, plan)| plan.active_keys),
            lifetime: plan.and_then(|(_, plan)| plan.lifetime),
        })
    }

    /// Compiles a policy; `None` if it sets no limit.
    fn policy(
        &self,
        class: Option<usize>,
        policy: &LimitPolicy,
        no_address: bool,
    ) -> Result<Option<Policy>, ParseError> {
        let unknown = no_address && policy.counted == CountedBy::Address;
        let quotas = policy.unknown.as_ref().filter(|_| unknown);
        let Some(quotas) = quotas.or(policy.quotas.as_ref()) else {
            return Ok(None);
        };
        let quotas = quotas.as_ref().map_err(Clone::clone)?;
        let class_prefix = class.map(|class| format!("{}-", self.names[class]));
        let class_prefix = class_prefix.unwrap_or_default();
        let unknown_prefix = if unknown { "unknown-" } else { "" };
        let who = match (policy.anonymous, policy.counted) {
            (true, CountedBy::Shared) => "anonymous-shared-".to_owned(),
            (true, _) => "anonymous-".to_owned(),
            (false, CountedBy::Key) => String::new(),
            (false, counted) => format!("{}-", word(counted)),
        };
        // Names that the host chose are shown as they are.
        let renamed = quotas.as_slice().iter().map(|quota| {
            let name = match quota.name() {
                name @ ("minute" | "hour") => format!("{class_prefix}{unknown_prefix}{who}{name}"),
                name => format!("{unknown_prefix}{name}"),
            };
            Quota::new(&name, quota.limit(), quota.window())
        });
        let quotas = Quotas::new(renamed.collect::<Result<Vec<_>, _>>()?)?;
        let slot = self
            .slots
            .iter()
            .position(|slot| *slot == (policy.counted, class));
        let place = match policy.counted {
            CountedBy::Shared if !policy.anonymous => {
                Place::Policy(Arc::clone(&self.shared[class.unwrap_or(self.names.len())]))
            }
            _ => slot.map_or(Place::Nowhere, Place::Entry),
        };
        Ok(Some(Policy {
            counter: Counter::of(policy.counted, policy.anonymous),
            class: class.map(|class| Arc::clone(&self.names[class])),
            quotas,
            place,
        }))
    }
}

impl Policy {
    /// Returns the order of the policy's bucket among those of a request.
    fn order(&self) -> (Counter, Option<&str>) {
        (self.counter, self.class.as_deref())
    }
}

impl PolicySet {
    fn new(mut policies: Vec<Policy>) -> Result<Self, ParseError> {
        policies.sort_by(|one, other| one.order().cmp(&other.order()));
        let mut names: Vec<&str> = Vec::new();
        for quota in policies.iter().flat_map(|policy| policy.quotas.as_slice()) {
            if names.contains(&quota.name()) {
                let why = format!(
                    "two quotas that apply to one request are named {}",
                    quota.name()
                );
                return Err(refused(why));
            }
            names.push(quota.name());
        }
        if policies.len() > MOST_POLICIES {
            return Err(refused(format!(
                "at most {MOST_POLICIES} policies for one request"
            )));
        }
        Ok(Self::named(policies))
    }

    pub(super) fn named(policies: Vec<Policy>) -> Self {
        let each: Vec<_> = policies
            .iter()
            .map(|policy| policy.quotas.to_string())
            .collect();
        let field = each.join(", ");
        Self { policies, field }
    }

    /// Returns the set without a policy.
    pub(crate) const fn empty() -> &'static Self {
        const EMPTY: &PolicySet = &PolicySet {
            policies: Vec::new(),
            field: String::new(),
        };
        EMPTY
    }

    /// Returns a set of one policy.
    pub(super) fn of(quotas: &Quotas) -> Self {
        Self::named(vec![Policy {
            counter: Counter::Shared,
            class: None,
            quotas: quotas.clone(),
            place: Place::Nowhere,
        }])
    }

    fn is_same(&self, other: &Self) -> bool {
        self.field == other.field && self.policies.len() == other.policies.len()
    }

    /// Returns the quotas of all policies, in order.
    pub(crate) fn quotas(&self) -> impl Iterator<Item = &Quota> {
        self.policies
            .iter()
            .flat_map(|policy| policy.quotas.as_slice())
    }

    /// Returns this set for a key with quotas of its own.
    fn with_own(&self, own: &Quotas) -> Self {
        let mut policies = self.policies.clone();
        match policies.first_mut() {
            Some(first) if first.counter == Counter::Key && first.class.is_none() => {
                first.quotas = own.clone();
            }
            _ => policies.insert(
                0,
                Policy {
                    counter: Counter::Key,
                    class: None,
                    quotas: own.clone(),
                    // The first slot, see `LimitTable::new`.
                    place: Place::Entry(0),
                },
            ),
        }
        Self::named(policies)
    }
}

impl PlanLimits {
    /// Returns whether no policy applies to any request.
    pub(crate) fn is_empty(&self) -> bool {
        self.sets.iter().all(|set| set.policies.is_empty())
    }

    /// Returns the policies that apply.
    pub(crate) fn set(&self, variant: Variant) -> &PolicySet {
        // `class` is a number that the table gave out.
        self.sets.get(variant.index()).unwrap_or(&self.sets[0])
    }

    /// Returns the limits of a plan that is not declared, to be shown.
    pub(crate) fn undeclared() -> Self {
        Self {
            name: None,
            sets: [Arc::new(PolicySet::named(Vec::new()))].into(),
            per_key: None,
            own_at_most: None,
            active_keys: None,
            lifetime: None,
        }
    }

    /// Returns every quota that applies to requests with a key of this owner, of any class.
    pub(crate) fn all_quotas(&self, owner: &Owner) -> Vec<Quota> {
        let mut all: Vec<Quota> = Vec::new();
        for set in &self.sets {
            let applies =
                |policy: &&Policy| policy.counter != Counter::User || owner.user_id.is_some();
            let quotas = set.policies.iter().filter(applies);
            for quota in quotas.flat_map(|policy| policy.quotas.as_slice()) {
                if all.iter().all(|known| known.name() != quota.name()) {
                    all.push(quota.clone());
                }
            }
        }
        all
    }

    /// Returns these limits for a key with quotas of its own.
    pub(crate) fn with_own(&self, own: &Quotas) -> Self {
        let mut sets: Vec<Arc<PolicySet>> = Vec::new();
        for (place, set) in self.sets.iter().enumerate() {
            let known =
                (place.saturating_sub(3)..place).find(|at| Arc::ptr_eq(&self.sets[*at], set));
            let set = known.map_or_else(|| Arc::new(set.with_own(own)), |at| Arc::clone(&sets[at]));
            sets.push(set);
        }
        Self {
            name: self.name.clone(),
            sets: sets.into(),
            per_key: Some(own.clone()),
            own_at_most: self.own_at_most.clone(),
            active_keys: self.active_keys,
            lifetime: self.lifetime,
        }
    }
}

impl PolicySource for PlanLimits {
    fn set(&self, variant: Variant) -> &PolicySet {
        self.set(variant)
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
