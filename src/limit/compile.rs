//! Compiles the policies of a service into sets for each plan and class, and checks them.

use std::sync::Arc;

use super::LimiterSlot;
use super::plan::Plan;
use super::policy::{CountedBy, LimitPolicy};
use super::table::{Counter, Place, PlanLimits, Policy, PolicySet, VARIANTS};
use crate::key::PlanName;
use crate::quota::Quotas;
use crate::text::{ParseError, start};

/// The maximum number of classes.
const MOST_CLASSES: usize = 100;

/// The maximum number of policies that apply to one request.
const MOST_POLICIES: usize = 16;

/// A policy as the host gave it, with the index of its class.
pub(super) type Given<'p> = (Option<usize>, &'p LimitPolicy);

/// Creates the error for limits that cannot be built.
pub(super) fn refused(why: String) -> ParseError {
    ParseError::new("limits", why)
}

/// Replaces the name of each policy's class by its index, and checks the list.
pub(super) fn placed<'p>(
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
pub(super) fn merged<'p>(base: &[Given<'p>], plan: &[Given<'p>]) -> Vec<Given<'p>> {
    let stays = |(class, policy): &Given<'p>| {
        let same = |(of, other): &Given<'p>| (class, policy.counted) == (of, other.counted);
        !plan.iter().any(same)
    };
    let stays = base.iter().copied().filter(stays);
    stays.chain(plan.iter().copied()).collect()
}

/// Checks the names of classes, which become parts of the names of quotas.
pub(super) fn class_names(classes: &[String]) -> Result<Vec<Arc<str>>, ParseError> {
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

pub(super) struct Compiler<'c> {
    pub(super) names: &'c [Arc<str>],
    pub(super) slots: &'c [(CountedBy, Option<usize>)],
    /// By class; the last one without a class.
    pub(super) shared: &'c [Arc<LimiterSlot>],
}

impl Compiler<'_> {
    pub(super) fn plan(
        &self,
        plan: Option<(&PlanName, &Plan)>,
        policies: &[Given<'_>],
    ) -> Result<PlanLimits, ParseError> {
        let mut sets: Vec<Arc<PolicySet>> = Vec::new();
        for class in 0..=self.names.len() {
            let first = sets.len();
            for variant in 0..VARIANTS {
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
                // Most variants of a class are the same as another.
                let known = sets[first..].iter().find(|known| known.is_same(&set));
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
            own: None,
            own_field: None,
            own_stay: plan.is_some_and(|(_, plan)| plan.own_stay),
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
            quota.renamed(&name)
        });
        let quotas = Quotas::new(renamed)?;
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
    /// Creates a set from its policies, in any order.
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

    fn is_same(&self, other: &Self) -> bool {
        let mut others = other.policies.iter();
        self.policies.len() == other.policies.len()
            && self.policies.iter().all(|policy| {
                let same = |other: &Policy| {
                    policy.order() == other.order() && policy.quotas == other.quotas
                };
                others.next().is_some_and(same)
            })
    }
}
