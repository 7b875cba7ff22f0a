//! The order of an API's plans, and the minimum plan that a route requires.

use std::fmt;
use std::sync::Arc;

use super::Requirement;
use crate::key::PlanName;
use crate::text::{ParseError, start};

/// The plans of an API in ascending order. Clones share the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanOrder(Arc<[PlanName]>);

impl PlanOrder {
    /// Creates an order from plan names, lowest plan first.
    ///
    /// # Errors
    /// Returns an error if a name is not a valid plan name or occurs twice.
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
                let why = format!("duplicate plan {name}");
                Err(ParseError::new("plans", why))
            }
            None => Ok(Self(names.into())),
        }
    }

    /// Returns whether the order contains the plan.
    #[must_use]
    pub fn knows(&self, plan: &PlanName) -> bool {
        self.0.contains(plan)
    }

    /// Creates a requirement for this plan or a higher one.
    ///
    /// # Errors
    /// Returns an error if the order does not contain the plan.
    pub fn at_least(&self, least: &str) -> Result<Requirement, ParseError> {
        let rank = self.0.iter().position(|plan| plan.as_str() == least);
        let rank = rank.ok_or_else(|| {
            let why = format!("unknown plan {:?}", start(least, 40));
            ParseError::new("plan", why)
        })?;
        Ok(Requirement::plan(AtLeast {
            order: self.clone(),
            rank,
        }))
    }
}

/// A minimum plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AtLeast {
    order: PlanOrder,
    rank: usize,
}

impl AtLeast {
    /// Returns whether a plan is high enough. A missing plan and a plan outside the order are not.
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
