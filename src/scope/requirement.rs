//! What is required of a [`ScopeSet`]: one scope, or any or all of several.

use std::fmt;

use super::name::Scope;
use super::set::ScopeSet;

/// A requirement of scopes alone.
///
/// A route states a [`Requirement`](crate::Requirement), which may be about more than scopes; this
/// is the part of it that grants meet.
///
/// ```
/// use portunus::scope;
/// use portunus::scope::{ScopeModel, ScopeRequirement, WildcardModel};
///
/// let write = ScopeRequirement::any_of([scope!("document:write"), scope!("document:*")]);
/// assert_eq!(write.to_string(), "any of document:write, document:*");
/// assert!(write.is_met_by(&*WildcardModel.compile(&[scope!("*")])?));
/// # Ok::<(), portunus::error::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a requirement does nothing until a set is checked against it"]
pub struct ScopeRequirement(pub(super) Node);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Scope(Scope),
    Any(Vec<ScopeRequirement>),
    All(Vec<ScopeRequirement>),
}

impl ScopeRequirement {
    /// No scope.
    pub const fn none() -> Self {
        Self(Node::All(Vec::new()))
    }

    /// One scope.
    pub const fn scope(scope: Scope) -> Self {
        Self(Node::Scope(scope))
    }

    /// At least one of these. An empty list can never be met: it fails closed.
    pub fn any_of<R: Into<Self>>(alternatives: impl IntoIterator<Item = R>) -> Self {
        Self(Node::Any(
            alternatives.into_iter().map(Into::into).collect(),
        ))
    }

    /// All of these. An empty list can never be met: it fails closed, and [`none`](Self::none) is how
    /// to require nothing.
    pub fn all_of<R: Into<Self>>(parts: impl IntoIterator<Item = R>) -> Self {
        let parts: Vec<_> = parts.into_iter().map(Into::into).collect();
        Self(match parts.is_empty() {
            true => Node::Any(parts),
            false => Node::All(parts),
        })
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

    /// Whether any set could meet it.
    fn can_be_met(&self) -> bool {
        match &self.0 {
            Node::Scope(_) => true,
            Node::Any(alternatives) => alternatives.iter().any(Self::can_be_met),
            Node::All(parts) => parts.iter().all(Self::can_be_met),
        }
    }

    /// The scopes of the first alternative that can be met, as the `scope` parameter of a challenge
    /// names them (RFC 6750 §3).
    #[must_use]
    pub fn first_alternative(&self) -> Vec<&Scope> {
        match &self.0 {
            Node::Scope(scope) => vec![scope],
            Node::Any(alternatives) => {
                let mut alternatives = alternatives.iter();
                let first = alternatives.find(|alternative| alternative.can_be_met());
                first.map_or_else(Vec::new, Self::first_alternative)
            }
            Node::All(parts) => parts.iter().flat_map(Self::first_alternative).collect(),
        }
    }

    /// All sets of scopes of which having one is enough: the choices of a document of an API. One
    /// that needs no scope has one empty set, one that nothing can meet has none. Where there would
    /// be more than 64 sets, it is the [first alternative](Self::first_alternative) alone.
    #[must_use]
    pub fn scope_sets(&self) -> Vec<Vec<&Scope>> {
        self.all_scope_sets()
            .unwrap_or_else(|| vec![self.first_alternative()])
    }

    fn all_scope_sets(&self) -> Option<Vec<Vec<&Scope>>> {
        const MOST: usize = 64;
        let mut sets: Vec<Vec<&Scope>> = Vec::new();
        match &self.0 {
            Node::Scope(scope) => sets.push(vec![scope]),
            Node::Any(alternatives) => {
                for alternative in alternatives {
                    sets.extend(alternative.all_scope_sets()?);
                }
            }
            Node::All(parts) => {
                sets.push(Vec::new());
                for part in parts {
                    let more = part.all_scope_sets()?;
                    if sets.len() * more.len() > MOST {
                        return None;
                    }
                    let both = |set: &Vec<_>| {
                        more.iter()
                            .map(|more| [set.as_slice(), more].concat())
                            .collect::<Vec<_>>()
                    };
                    sets = sets.iter().flat_map(both).collect();
                }
            }
        }
        (sets.len() <= MOST).then_some(sets)
    }

    /// Every scope that it names, in order.
    #[must_use]
    pub fn scopes(&self) -> Vec<&Scope> {
        match &self.0 {
            Node::Scope(scope) => vec![scope],
            Node::Any(several) | Node::All(several) => {
                several.iter().flat_map(Self::scopes).collect()
            }
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
            _ => None,
        }
    }

    /// Whether its text has to stand in parentheses beside another.
    pub(crate) fn is_several(&self) -> bool {
        matches!(&self.0, Node::Any(several) | Node::All(several) if several.len() > 1)
    }
}

impl From<Scope> for ScopeRequirement {
    fn from(scope: Scope) -> Self {
        Self::scope(scope)
    }
}

impl fmt::Display for ScopeRequirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Node::Scope(scope) => scope.fmt(f),
            Node::Any(several) if several.is_empty() => f.write_str("what nobody has"),
            Node::All(several) if several.is_empty() => f.write_str("nothing"),
            Node::Any(several) => write_any(f, several, Self::is_several),
            Node::All(several) => write_all(f, several, Self::is_several),
        }
    }
}

/// Writes alternatives: `any of a, (b and c)`.
pub(crate) fn write_any<R: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    alternatives: &[R],
    is_several: impl Fn(&R) -> bool,
) -> fmt::Result {
    if alternatives.len() > 1 {
        f.write_str("any of ")?;
    }
    write_joined(f, ", ", alternatives, is_several)
}

/// Writes what is required together: `(any of a, b) and c`.
pub(crate) fn write_all<R: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    parts: &[R],
    is_several: impl Fn(&R) -> bool,
) -> fmt::Result {
    write_joined(f, " and ", parts, is_several)
}

fn write_joined<R: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    between: &str,
    requirements: &[R],
    is_several: impl Fn(&R) -> bool,
) -> fmt::Result {
    for (at, requirement) in requirements.iter().enumerate() {
        if at > 0 {
            f.write_str(between)?;
        }
        if requirements.len() > 1 && is_several(requirement) {
            write!(f, "({requirement})")?;
        } else {
            requirement.fmt(f)?;
        }
    }
    Ok(())
}
