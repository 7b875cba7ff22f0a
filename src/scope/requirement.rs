//! What a route requires of a key, as a value that can be combined, checked, listed and explained.

use std::fmt;

use super::name::Scope;
use super::set::ScopeSet;

/// A requirement: a scope, or some or all of several requirements.
///
/// ```
/// use portunus::scope;
/// use portunus::scope::Requirement;
///
/// let write = Requirement::any_of([scope!("document:write"), scope!("document:*")]);
/// let send = Requirement::scope(scope!("signature:write"));
/// let both = write.and(send);
/// assert_eq!(both.to_string(), "(any of document:write, document:*) and signature:write");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a requirement does nothing until a route demands it"]
pub struct Requirement(Node);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Scope(Scope),
    Any(Vec<Requirement>),
    All(Vec<Requirement>),
}

impl Requirement {
    /// Nothing but a valid key: a visible choice, never a default.
    pub const fn none() -> Self {
        Self(Node::All(Vec::new()))
    }

    /// One scope.
    pub const fn scope(scope: Scope) -> Self {
        Self(Node::Scope(scope))
    }

    /// At least one of these. An empty list can never be met: it fails closed.
    pub fn any_of<R: Into<Self>>(alternatives: impl IntoIterator<Item = R>) -> Self {
        Self(Node::Any(alternatives.into_iter().map(Into::into).collect()))
    }

    /// All of these.
    pub fn all_of<R: Into<Self>>(parts: impl IntoIterator<Item = R>) -> Self {
        Self(Node::All(parts.into_iter().map(Into::into).collect()))
    }

    /// This one and another.
    pub fn and(self, other: impl Into<Self>) -> Self {
        Self(Node::All(vec![self, other.into()]))
    }

    /// This one or another.
    pub fn or(self, other: impl Into<Self>) -> Self {
        Self(Node::Any(vec![self, other.into()]))
    }

    /// Whether the grants meet it. Allocates nothing.
    #[must_use]
    pub fn is_met_by(&self, granted: &dyn ScopeSet) -> bool {
        match &self.0 {
            Node::Scope(scope) => granted.grants(scope),
            Node::Any(alternatives) => alternatives.iter().any(|r| r.is_met_by(granted)),
            Node::All(parts) => parts.iter().all(|r| r.is_met_by(granted)),
        }
    }

    /// Which grants met it, or what was missing. Allocates: for people, not for decisions.
    #[must_use]
    pub fn explain(&self, granted: &dyn ScopeSet) -> Explanation {
        if !self.is_met_by(granted) {
            return Explanation::Missing(self.missing(granted));
        }
        let mut met = Vec::new();
        self.collect_met(granted, &mut met);
        Explanation::Met(met)
    }

    /// Whether anything could meet it.
    fn can_be_met(&self) -> bool {
        match &self.0 {
            Node::Any(alternatives) => alternatives.iter().any(Self::can_be_met),
            Node::All(parts) => parts.iter().all(Self::can_be_met),
            Node::Scope(_) => true,
        }
    }

    /// The scopes of the first alternative that can be met, as the `scope` parameter of a challenge names them (RFC 6750 §3).
    #[must_use]
    pub fn first_alternative(&self) -> Vec<&Scope> {
        match &self.0 {
            Node::Scope(scope) => vec![scope],
            Node::Any(alternatives) => {
                let first = alternatives.iter().find(|alternative| alternative.can_be_met());
                first.map_or_else(Vec::new, Self::first_alternative)
            }
            Node::All(parts) => parts.iter().flat_map(Self::first_alternative).collect(),
        }
    }

    /// Every scope that it names, in order.
    #[must_use]
    pub fn scopes(&self) -> Vec<&Scope> {
        match &self.0 {
            Node::Scope(scope) => vec![scope],
            Node::Any(several) | Node::All(several) => several.iter().flat_map(Self::scopes).collect(),
        }
    }

    /// The one scope that it consists of, if it does.
    #[must_use]
    pub fn single(&self) -> Option<&Scope> {
        match &self.0 {
            Node::Scope(scope) => Some(scope),
            Node::Any(several) | Node::All(several) => match several.as_slice() {
                [one] => one.single(),
                _ => None,
            },
        }
    }

    /// The scopes of which any one is enough, where it is a plain choice among scopes.
    #[must_use]
    pub fn alternatives(&self) -> Option<Vec<&Scope>> {
        match &self.0 {
            Node::Any(several) => several.iter().map(Self::single).collect(),
            Node::Scope(_) | Node::All(_) => None,
        }
    }

    /// The parts of it that the grants do not meet.
    fn missing(&self, granted: &dyn ScopeSet) -> Self {
        match &self.0 {
            Node::All(parts) => {
                let mut left: Vec<_> =
                    parts.iter().filter(|r| !r.is_met_by(granted)).map(|r| r.missing(granted)).collect();
                if left.len() == 1 { left.remove(0) } else { Self(Node::All(left)) }
            }
            Node::Scope(_) | Node::Any(_) => self.clone(),
        }
    }

    fn collect_met(&self, granted: &dyn ScopeSet, met: &mut Vec<(Scope, String)>) {
        match &self.0 {
            Node::Scope(scope) => met.extend(granted.granted_by(scope).map(|by| (scope.clone(), by))),
            Node::Any(alternatives) => {
                if let Some(first) = alternatives.iter().find(|r| r.is_met_by(granted)) {
                    first.collect_met(granted, met);
                }
            }
            Node::All(parts) => parts.iter().for_each(|r| r.collect_met(granted, met)),
        }
    }
}

impl From<Scope> for Requirement {
    fn from(scope: Scope) -> Self {
        Self::scope(scope)
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (between, several) = match &self.0 {
            Node::Scope(scope) => return scope.fmt(f),
            Node::Any(several) if several.is_empty() => return f.write_str("what nobody has"),
            Node::All(several) if several.is_empty() => return f.write_str("nothing"),
            Node::Any(several) => {
                if several.len() > 1 {
                    f.write_str("any of ")?;
                }
                (", ", several)
            }
            Node::All(several) => (" and ", several),
        };
        for (at, requirement) in several.iter().enumerate() {
            if at > 0 {
                f.write_str(between)?;
            }
            let nested = matches!(&requirement.0, Node::Any(inner) | Node::All(inner) if inner.len() > 1);
            if nested && several.len() > 1 { write!(f, "({requirement})")? } else { requirement.fmt(f)? }
        }
        Ok(())
    }
}

/// Why a requirement is met, or is not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Explanation {
    /// It is met: each required scope with the grant that met it.
    Met(Vec<(Scope, String)>),
    /// It is not: what is missing.
    Missing(Requirement),
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(requirement) => write!(f, "missing {requirement}"),
            Self::Met(met) if met.is_empty() => f.write_str("nothing was required"),
            Self::Met(met) => {
                for (at, (required, grant)) in met.iter().enumerate() {
                    let between = if at == 0 { "" } else { ", " };
                    write!(f, "{between}{required} granted by {grant}")?;
                }
                Ok(())
            }
        }
    }
}
