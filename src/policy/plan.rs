//! Plans in their order, and the least one that a route needs.

use std::fmt;
use std::sync::Arc;

use super::Requirement;
use crate::key::PlanName;
use crate::text::{ParseError, start};

/// The plans of an API, the least first. Cloning shares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanOrder(Arc<[PlanName]>);

impl PlanOrder {
    /// An order of plans, the least first.
    ///
    /// # Errors
    /// A name that is none, or one that stands twice.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self, ParseError> {
        let names = names
            .into_iter()
            .map(PlanName::new)
            .collect::<Result<Vec<_>, _>>()?;
        match names
            .iter()
            .enumerate()
            .find(|(at, name)| names[..*at].contains(name))
        {
            Some((_, name)) => {
                let why = format!("plan {name} stands twice");
                Err(ParseError::new("plans", why))
            }
            None => Ok(Self(names.into())),
        }
    }

    /// Whether there is such a plan.
    #[must_use]
    pub fn knows(&self, plan: &PlanName) -> bool {
        self.0.contains(plan)
    }

    /// A requirement of this plan or a higher one.
    ///
    /// # Errors
    /// Where there is no such plan.
    pub fn at_least(&self, least: &str) -> Result<Requirement, ParseError> {
        let rank = self.0.iter().position(|plan| plan.as_str() == least);
        let rank = rank.ok_or_else(|| {
            let why = format!("there is no plan {:?}", start(least, 40));
            ParseError::new("plan", why)
        })?;
        Ok(Requirement::plan(AtLeast {
            order: self.clone(),
            rank,
        }))
    }
}

/// A plan or a higher one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AtLeast {
    order: PlanOrder,
    rank: usize,
}

impl AtLeast {
    /// Whether a plan is high enough. No plan, and one that is not in the order, are not.
    pub(super) fn is_met_by(&self, plan: Option<&PlanName>) -> bool {
        plan.is_some_and(|plan| {
            self.order
                .0
                .iter()
                .skip(self.rank)
                .any(|known| known == plan)
        })
    }
}

impl fmt::Display for AtLeast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "plan {} or higher",
            self.order.0.get(self.rank).map_or("?", PlanName::as_str)
        )
    }
}
