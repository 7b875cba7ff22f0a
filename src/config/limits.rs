//! Limits of a service: a list of policies, for all requests and for classes of requests, and the
//! plans that change them.

use std::fmt;
use std::sync::Arc;

use crate::limit::{ClassRules, LimitPolicy, LookupBudget, OnOutage, Plan, RateLimiter};
use crate::quota::{Quota, Quotas};
use crate::request::RequestHead;
use crate::text::ParseError;

pub(crate) type CostOf = dyn Fn(&dyn RequestHead) -> u64 + Send + Sync;

/// Rate limits of a service: a list of [policies](LimitPolicy), and the [plans](Plan) that change
/// them.
///
/// The default is 60 requests a minute and 1000 an hour for each key, counted in this process. A
/// key that has its own quotas is limited by those instead of the policy per key for all requests.
///
/// ```
/// use portunus::Limits;
/// use portunus::limit::{LimitPolicy, Plan};
/// use portunus::quota::Quota;
///
/// let limits = Limits::per_key([Quota::per_minute(600), Quota::per_hour(10_000)])
///     .policy(LimitPolicy::per_tenant([Quota::per_minute(3000)]))
///     .policy(LimitPolicy::per_address([Quota::per_minute(20)]).anonymous())
///     .class("reports", [LimitPolicy::per_tenant([Quota::per_hour(100)])])
///     .on("/reports/{id}")
///     .plan(Plan::new("free", [LimitPolicy::per_key([Quota::per_minute(60)])]));
/// ```
#[derive(Clone)]
#[must_use = "limits do nothing until they are given to a builder"]
pub struct Limits {
    /// Whether nothing is limited, whatever else is set.
    pub(crate) off: bool,
    /// Each with its class.
    pub(crate) policies: Vec<(Option<String>, LimitPolicy)>,
    pub(crate) classes: Vec<String>,
    pub(crate) rules: ClassRules,
    pub(crate) plans: Vec<Plan>,
    pub(crate) limiter: Option<Arc<dyn RateLimiter>>,
    pub(crate) on_outage: Option<OnOutage>,
    pub(crate) cost_of: Option<Arc<CostOf>>,
    pub(crate) lookups: LookupBudget,
    /// Whether metrics have the label `plan`.
    pub(crate) plans_in_metrics: bool,
    /// A mistake of the calls so far.
    pub(crate) mistake: Option<ParseError>,
}

impl Limits {
    /// Limits each key to these quotas, unless the key has its own. An invalid quota is reported
    /// when the service is built.
    pub fn per_key(quotas: impl IntoIterator<Item = Result<Quota, ParseError>>) -> Self {
        Self::new([LimitPolicy::per_key(quotas)])
    }

    /// Sets the policies for all requests. There may be none if a class or a plan has one; keys
    /// with their own quotas are limited in any case.
    pub fn new(policies: impl IntoIterator<Item = LimitPolicy>) -> Self {
        let policies = policies.into_iter().map(|policy| (None, policy));
        Self {
            off: false,
            policies: policies.collect(),
            classes: Vec::new(),
            rules: ClassRules::default(),
            plans: Vec::new(),
            limiter: None,
            on_outage: None,
            cost_of: None,
            lookups: LookupBudget::default(),
            plans_in_metrics: false,
            mistake: None,
        }
    }

    /// Disables limiting: every key may make any number of requests, even if it has its own quotas.
    pub fn none() -> Self {
        Self {
            off: true,
            ..Self::new([])
        }
    }

    /// Adds a policy for all requests.
    pub fn policy(mut self, policy: LimitPolicy) -> Self {
        self.policies.push((None, policy));
        self
    }

    /// Declares a class of requests, with policies that apply to these requests in addition to those
    /// for all requests. The name is 1 to 20 characters of a-z 0-9 - _.
    ///
    /// Which requests belong to the class is said by [`on`](Self::on) and
    /// [`on_request`](Self::on_request), which follow, or by `.class("reports")` on a route of a
    /// `ProtectedRouter`, which takes precedence. A request has at most one class: the first that
    /// matches, in the order of these calls.
    pub fn class(
        mut self,
        name: impl Into<String>,
        policies: impl IntoIterator<Item = LimitPolicy>,
    ) -> Self {
        let name = name.into();
        let class = Some(name.clone());
        let policies = policies.into_iter().map(|policy| (class.clone(), policy));
        self.policies.extend(policies);
        self.classes.push(name);
        self
    }

    /// Adds a route to the class declared last: the pattern of the route as it is given to the
    /// framework, with the prefixes of the routers that it is nested in (`/v1/reports/{id}`). After a
    /// method and a space (`POST /v1/reports`), only requests with this method are added; `GET`
    /// includes `HEAD`.
    ///
    /// Where no framework reports the route that matched (plain tower), the pattern is compared with
    /// the path: `{name}` stands for one segment, `{*rest}` for one or more.
    pub fn on(mut self, route: &str) -> Self {
        match self.last_class() {
            Some(class) => {
                let added = self.rules.on_route(class, route);
                self.mistake = self.mistake.or(added.err());
            }
            None => self.class_is_missing("on()"),
        }
        self
    }

    /// Adds the requests for which a function returns `true` to the class declared last. It runs for
    /// each counted request whose class is not known by then: with a well-formed key, even an unknown
    /// one, or without a key if such requests are counted.
    pub fn on_request(
        mut self,
        matches: impl Fn(&dyn RequestHead) -> bool + Send + Sync + 'static,
    ) -> Self {
        match self.last_class() {
            Some(class) => self.rules.on_request(class, Arc::new(matches)),
            None => self.class_is_missing("on_request()"),
        }
        self
    }

    /// Returns the number of the class declared last, from 1.
    fn last_class(&self) -> Option<u8> {
        // More than 255 classes are refused anyway.
        u8::try_from(self.classes.len())
            .ok()
            .filter(|class| *class > 0)
    }

    fn class_is_missing(&mut self, call: &str) {
        let why = format!("{call} follows class(), which declares the class");
        self.mistake.get_or_insert(ParseError::new("limits", why));
    }

    /// Adds a plan. With at least one plan, a key's own plan or else the tenant's
    /// ([`Directory::plan`](crate::actor::Directory::plan)) decides which policies apply; without
    /// either, those of this list. A plan that is not declared is answered with 503
    /// `LIMITER_UNAVAILABLE`.
    pub fn plan(mut self, plan: Plan) -> Self {
        self.plans.push(plan);
        self
    }

    /// Adds the label `plan` to the metric `portunus_requests_total` ([`telemetry`](crate::telemetry)):
    /// the plan of the request's key, or `none` without a key or a plan that is declared here. Without
    /// this call there is no such label, because each plan multiplies the time series of the metric.
    pub fn plans_in_metrics(mut self) -> Self {
        self.plans_in_metrics = true;
        self
    }

    /// Sets how many units a request costs. The default is 1. The function runs for each counted
    /// request: with a well-formed key, even an unknown one, or without a key if such requests are
    /// counted. A request that costs more than one of
    /// its quotas can never pass and is refused with 403 `FORBIDDEN`. A cost of 0 is a host error and
    /// is answered with 503.
    pub fn cost(
        mut self,
        cost_of: impl Fn(&dyn RequestHead) -> u64 + Send + Sync + 'static,
    ) -> Self {
        self.cost_of = Some(Arc::new(cost_of));
        self
    }

    /// Sets the limiter. The default counts in this process.
    pub fn limiter(mut self, limiter: impl RateLimiter) -> Self {
        self.limiter = Some(Arc::new(limiter));
        self
    }

    /// Sets what happens while the limiter does not answer. The default is to count in this
    /// process.
    pub fn on_outage(mut self, mode: OnOutage) -> Self {
        self.on_outage = Some(mode);
        self
    }

    /// Sets how many lookups of unknown keys clients may cause.
    pub fn lookups(mut self, budget: LookupBudget) -> Self {
        self.lookups = budget;
        self
    }

    /// Returns whether a setting has no effect because nothing is limited.
    pub(crate) fn contradict(&self) -> bool {
        self.off
            && (!self.policies.is_empty()
                || !self.classes.is_empty()
                || !self.plans.is_empty()
                || self.limiter.is_some()
                || self.on_outage.is_some()
                || self.cost_of.is_some())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::from(Quotas::default())
    }
}

/// Limits each key to these quotas.
impl From<Quotas> for Limits {
    fn from(quotas: Quotas) -> Self {
        Self::per_key(quotas.as_slice().iter().cloned().map(Ok))
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits")
            .field("policies", &self.policies)
            .field("plans", &self.plans)
            .field("limiter", &self.limiter)
            .field("on_outage", &self.on_outage)
            .field("plans_in_metrics", &self.plans_in_metrics)
            .finish_non_exhaustive()
    }
}
