//! Explains why grants meet a requirement, or what is missing. Meant for people, not for decisions.

use std::fmt;

use super::name::Scope;
use super::requirement::{Node, ScopeRequirement};
use super::set::ScopeSet;

/// The reason why a scope requirement is met or not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScopeExplanation {
    /// The requirement is met: each scope with the grant that covers it.
    Met(Vec<(Scope, String)>),
    /// The requirement is not met: the missing part.
    Missing(ScopeRequirement),
}

impl ScopeRequirement {
    /// Explains which grants meet the requirement, or what is missing. Allocates; not meant for
    /// decisions.
    #[must_use]
    pub fn explain(&self, granted: &dyn ScopeSet) -> ScopeExplanation {
        if !self.is_met_by(granted) {
            return ScopeExplanation::Missing(self.missing(granted));
        }
        let mut met = Vec::new();
        self.collect_met(granted, &mut met);
        ScopeExplanation::Met(met)
    }

    /// Returns the parts that the grants do not meet.
    fn missing(&self, granted: &dyn ScopeSet) -> Self {
        let Node::All(parts) = &self.0 else {
            return self.clone();
        };
        let unmet = parts.iter().filter(|part| !part.is_met_by(granted));
        let mut left: Vec<_> = unmet.map(|part| part.missing(granted)).collect();
        match (left.len(), left.pop()) {
            (1, Some(one)) => one,
            (_, last) => Self::all(left.into_iter().chain(last).collect()),
        }
    }

    fn collect_met(&self, granted: &dyn ScopeSet, met: &mut Vec<(Scope, String)>) {
        match &self.0 {
            Node::Scope(scope) => {
                met.extend(granted.granted_by(scope).map(|by| (scope.clone(), by)));
            }
            Node::Any(alternatives) => {
                if let Some(first) = alternatives.iter().find(|r| r.is_met_by(granted)) {
                    first.collect_met(granted, met);
                }
            }
            Node::All(parts) => parts.iter().for_each(|r| r.collect_met(granted, met)),
        }
    }
}

impl fmt::Display for ScopeExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(requirement) => write!(f, "missing {requirement}"),
            Self::Met(met) if met.is_empty() => f.write_str("nothing was required"),
            Self::Met(met) => {
                for (at, (scope, by)) in met.iter().enumerate() {
                    let between = if at == 0 { "" } else { ", " };
                    write!(f, "{between}{scope} granted by {by}")?;
                }
                Ok(())
            }
        }
    }
}
