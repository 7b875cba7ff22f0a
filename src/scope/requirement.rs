//! A requirement on a [`ScopeSet`]: one scope, or any or all of several.
//!
//! A requirement is a tree of `Any` and `All` nodes with scopes as leaves. An empty `Any` is never
//! met, and only [`ScopeRequirement::none`] creates an empty `All`, which is always met: a list that
//! was meant to have entries must not turn into "no requirement".

use std::fmt;

use super::name::Scope;
use super::set::ScopeSet;

/// A requirement on scopes only.
///
/// A route declares a [`Requirement`](crate::Requirement), which may include more than scopes; this
/// is its scope part.
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
    /// Requires no scope.
    pub const fn none() -> Self {
        Self(Node::All(Vec::new()))
    }

    /// Requires one scope.
    pub const fn scope(scope: Scope) -> Self {
        Self(Node::Scope(scope))
    }

    /// Requires at least one of these. An empty list can never be met: it fails closed.
    pub fn any_of<R: Into<Self>>(alternatives: impl IntoIterator<Item = R>) -> Self {
        Self(Node::Any(
            alternatives.into_iter().map(Into::into).collect(),
        ))
    }

    /// Requires all of these. An empty array does not compile: use [`none`](Self::none) to require
    /// nothing, and [`all_of_list`](Self::all_of_list) for a list that is only known at run time.
    ///
    /// ```compile_fail
    /// portunus::scope::ScopeRequirement::all_of::<portunus::Scope, 0>([]);
    /// ```
    pub fn all_of<R: Into<Self>, const N: usize>(parts: [R; N]) -> Self {
        const { assert!(N > 0, "all_of([]) requires nothing: say none() instead") };
        Self::all(parts.into_iter().map(Into::into).collect())
    }

    /// Requires all of a list; `None` if it is empty, because nothing would be required.
    pub fn all_of_list<R: Into<Self>>(parts: impl IntoIterator<Item = R>) -> Option<Self> {
        let parts: Vec<_> = parts.into_iter().map(Into::into).collect();
        (!parts.is_empty()).then(|| Self::all(parts))
    }

    /// Requires all of these parts, of which there is at least one. Fails closed without any.
    pub(crate) fn all(parts: Vec<Self>) -> Self {
        Self(match parts.is_empty() {
            true => Node::Any(parts),
            false => Node::All(parts),
        })
    }

    /// Whether the grants meet the requirement. Does not allocate.
    #[must_use]
    pub fn is_met_by(&self, granted: &dyn ScopeSet) -> bool {
        match &self.0 {
            Node::Scope(scope) => granted.grants(scope),
            Node::Any(alternatives) => alternatives.iter().any(|r| r.is_met_by(granted)),
            Node::All(parts) => parts.iter().all(|r| r.is_met_by(granted)),
        }
    }

    /// Whether any set can meet the requirement.
    fn can_be_met(&self) -> bool {
        match &self.0 {
            Node::Scope(_) => true,
            Node::Any(alternatives) => alternatives.iter().any(Self::can_be_met),
            Node::All(parts) => parts.iter().all(Self::can_be_met),
        }
    }

    /// Returns the scopes of the first alternative that can be met, for the `scope` parameter of a
    /// challenge (RFC 6750 §3).
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

    /// Returns all sets of scopes that are each sufficient: the choices in an API document. A
    /// requirement without scopes has one empty set; one that cannot be met has none. If there
    /// would be more than 64 sets, only the [first alternative](Self::first_alternative) is
    /// returned.
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

    /// Returns every scope in the requirement, in order.
    #[must_use]
    pub fn scopes(&self) -> Vec<&Scope> {
        match &self.0 {
            Node::Scope(scope) => vec![scope],
            Node::Any(several) | Node::All(several) => {
                several.iter().flat_map(Self::scopes).collect()
            }
        }
    }

    /// Returns the scope if the requirement consists of exactly one.
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

    /// Returns the scopes if the requirement is a plain choice among scopes.
    #[must_use]
    pub fn alternatives(&self) -> Option<Vec<&Scope>> {
        match &self.0 {
            Node::Any(several) => several.iter().map(Self::single).collect(),
            _ => None,
        }
    }

    /// Whether its text needs parentheses when combined with others.
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
            Node::Any(several) if several.is_empty() => {
                f.write_str("a scope that cannot be granted")
            }
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

/// Writes a conjunction: `(any of a, b) and c`.
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
