//! Why grants meet a requirement, or what is missing: for people, not for decisions.

use std::fmt;

use super::name::Scope;
use super::requirement::{Node, ScopeRequirement};
use super::set::ScopeSet;

/// Why a requirement of scopes is met, or is not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScopeExplanation {
    /// It is met: each scope with the grant that met it.
    Met(Vec<(Scope, String)>),
    /// It is not: what is missing.
    Missing(ScopeRequirement),
}

impl ScopeExplanation {
    pub(super) fn of(required: &ScopeRequirement, granted: &dyn ScopeSet) -> Self {
        if !required.is_met_by(granted) {
            return Self::Missing(missing(required, granted));
        }
        let mut met = Vec::new();
        collect_met(required, granted, &mut met);
        Self::Met(met)
    }
}

/// The parts of a requirement that the grants do not meet.
fn missing(required: &ScopeRequirement, granted: &dyn ScopeSet) -> ScopeRequirement {
    let Node::All(parts) = &required.0 else {
        return required.clone();
    };
    let unmet = parts.iter().filter(|part| !part.is_met_by(granted));
    let mut left: Vec<_> = unmet.map(|part| missing(part, granted)).collect();
    match (left.len(), left.pop()) {
        (1, Some(one)) => one,
        (_, last) => ScopeRequirement::all_of(left.into_iter().chain(last)),
    }
}

fn collect_met(
    required: &ScopeRequirement,
    granted: &dyn ScopeSet,
    met: &mut Vec<(Scope, String)>,
) {
    match &required.0 {
        Node::Scope(scope) => met.extend(granted.granted_by(scope).map(|by| (scope.clone(), by))),
        Node::Any(alternatives) => {
            if let Some(first) = alternatives.iter().find(|r| r.is_met_by(granted)) {
                collect_met(first, granted, met);
            }
        }
        Node::All(parts) => {
            for part in parts {
                collect_met(part, granted, met);
            }
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
