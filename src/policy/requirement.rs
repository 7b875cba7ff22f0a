//! What a route requires, as a value that can be combined, checked, listed and explained.

use std::fmt;

use super::plan::AtLeast;
use super::workspace::WorkspaceOf;
use crate::actor::ActorMode;
use crate::error::{AuthError, ErrorCode};
use crate::key::Access;
use crate::principal::Principal;
use crate::request::RequestHead;
use crate::scope::{Scope, ScopeSet};

/// A requirement: a scope, a workspace, a plan, a user, or some or all of several requirements.
///
/// A read-only key is refused on every method but `GET`, `HEAD` and `OPTIONS`, whatever else is
/// required, unless the requirement says [`reading`](Self::reading).
///
/// ```
/// use portunus::{Requirement, scope};
///
/// let write = Requirement::any_of([scope!("document:write"), scope!("document:*")]);
/// let send = Requirement::scope(scope!("signature:write"));
/// let both = write.and(send);
/// assert_eq!(both.to_string(), "(any of document:write, document:*) and signature:write");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a requirement does nothing until a route demands it"]
pub struct Requirement(pub(super) Node);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Scope(Scope),
    Any(Vec<Requirement>),
    All(Vec<Requirement>),
    Reading,
    Writing,
    User,
    Workspace(WorkspaceOf),
    Organization,
    Plan(AtLeast),
}

/// Whether the way on which a requirement is met says itself if the route reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Said,
    Unsaid,
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

    /// The route only reads, whatever its method: a POST that searches. Read-only keys pass.
    pub const fn reading() -> Self {
        Self(Node::Reading)
    }

    /// The route writes, whatever its method: a GET that changes something. Read-only keys are
    /// refused.
    pub const fn writing() -> Self {
        Self(Node::Writing)
    }

    /// A user acts: the key's own, or one that the request names. Otherwise 400 `ACTOR_REQUIRED`.
    pub const fn user() -> Self {
        Self(Node::User)
    }

    /// The key reaches the workspace that the request names.
    pub const fn workspace(of: WorkspaceOf) -> Self {
        Self(Node::Workspace(of))
    }

    /// The route is about the organization itself, its users or its workspaces: a key of some
    /// workspaces only reads it.
    pub const fn organization() -> Self {
        Self(Node::Organization)
    }

    /// A plan: made by [`PlanOrder::at_least`](super::PlanOrder::at_least).
    pub const fn plan(least: AtLeast) -> Self {
        Self(Node::Plan(least))
    }

    /// At least one of these. An empty list can never be met: it fails closed.
    pub fn any_of<R: Into<Self>>(alternatives: impl IntoIterator<Item = R>) -> Self {
        Self(Node::Any(
            alternatives.into_iter().map(Into::into).collect(),
        ))
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

    /// Checks a principal on a request. Without the request, what needs one is not met, and the
    /// method is not looked at. Allocates nothing where it is met.
    ///
    /// # Errors
    /// What is missing: of several parts the first, of several alternatives the first, but of
    /// scopes all that are required.
    pub fn check<P: Principal + ?Sized>(
        &self,
        principal: &P,
        request: Option<&dyn RequestHead>,
    ) -> Result<(), AuthError> {
        let by_method =
            request.is_some_and(|request| !matches!(request.method(), "GET" | "HEAD" | "OPTIONS"));
        let closed = by_method && principal.access() != Access::FullAccess;
        if closed && !self.says_access() {
            return Err(AuthError::new(ErrorCode::ReadOnlyKey));
        }
        // Of several alternatives only the one that says so itself opens a writing method.
        match self.met(principal, request, by_method)? {
            Way::Unsaid if closed => Err(AuthError::new(ErrorCode::ReadOnlyKey)),
            Way::Unsaid | Way::Said => Ok(()),
        }
    }

    /// How it is met, if it is; `writes` as far as is known here.
    pub(super) fn met<P: Principal + ?Sized>(
        &self,
        principal: &P,
        request: Option<&dyn RequestHead>,
        writes: bool,
    ) -> Result<Way, AuthError> {
        let refused = match &self.0 {
            Node::Any(_) | Node::All(_) | Node::Scope(_) if self.is_of_scopes() => {
                return match self.is_met_by(principal.scopes()) {
                    true => Ok(Way::Unsaid),
                    false => Err(AuthError::insufficient_scope(self, principal.scopes())),
                };
            }
            Node::Any(alternatives) => {
                let (mut way, mut first) = (None, None);
                for alternative in alternatives {
                    match alternative.met(principal, request, writes) {
                        Ok(Way::Said) => return Ok(Way::Said),
                        Ok(Way::Unsaid) => way = Some(Way::Unsaid),
                        Err(error) => first = first.or(Some(error)),
                    }
                }
                return way
                    .ok_or_else(|| first.unwrap_or_else(|| AuthError::new(ErrorCode::Forbidden)));
            }
            Node::All(parts) => {
                let writes = self.says_writes().unwrap_or(writes);
                let mut way = Way::Unsaid;
                for part in parts {
                    if part.met(principal, request, writes)? == Way::Said {
                        way = Way::Said;
                    }
                }
                return Ok(way);
            }
            Node::Reading => return Ok(Way::Said),
            Node::Writing if principal.access() == Access::FullAccess => return Ok(Way::Said),
            Node::Writing => Some(ErrorCode::ReadOnlyKey),
            Node::Scope(_) => None,
            Node::User => {
                let actor = principal.actor();
                let somebody = actor.user_id.is_some() && actor.mode != ActorMode::App;
                (!somebody).then_some(ErrorCode::ActorRequired)
            }
            Node::Workspace(of) => {
                let reached = request
                    .and_then(|request| of.find(request, |workspace| principal.reaches(workspace)));
                (reached != Some(true)).then_some(ErrorCode::WorkspaceForbidden)
            }
            Node::Organization => {
                let reads = request.is_some() && !writes;
                (principal.workspaces().is_some() && !reads)
                    .then_some(ErrorCode::WorkspaceForbidden)
            }
            Node::Plan(least) => {
                (!least.is_met_by(principal.plan())).then_some(ErrorCode::PlanRequired)
            }
        };
        match refused {
            None => Ok(Way::Unsaid),
            Some(ErrorCode::PlanRequired) => Err(AuthError::with_detail(
                ErrorCode::PlanRequired,
                format!("This needs {self}"),
            )),
            Some(code) => Err(AuthError::new(code)),
        }
    }

    /// What it says on all of its ways: that the route writes, that it only reads, or nothing.
    pub(super) fn says_writes(&self) -> Option<bool> {
        match &self.0 {
            Node::Writing => Some(true),
            Node::Reading => Some(false),
            // Where both are said, it writes.
            Node::All(parts) => parts
                .iter()
                .filter_map(Self::says_writes)
                .reduce(|one, other| one || other),
            _ => None,
        }
    }

    /// Whether it says itself if the route reads or writes.
    fn says_access(&self) -> bool {
        match &self.0 {
            Node::Reading | Node::Writing => true,
            Node::Any(several) | Node::All(several) => several.iter().any(Self::says_access),
            _ => false,
        }
    }

    /// Whether it is about scopes and nothing else.
    fn is_of_scopes(&self) -> bool {
        match &self.0 {
            Node::Scope(_) => true,
            Node::Any(several) | Node::All(several) => several.iter().all(Self::is_of_scopes),
            _ => false,
        }
    }

    /// Whether grants alone meet it. What is not about scopes is not met. Allocates nothing.
    #[must_use]
    pub fn is_met_by(&self, granted: &dyn ScopeSet) -> bool {
        match &self.0 {
            Node::Scope(scope) => granted.grants(scope),
            Node::Any(alternatives) => alternatives.iter().any(|r| r.is_met_by(granted)),
            Node::All(parts) => parts.iter().all(|r| r.is_met_by(granted)),
            _ => false,
        }
    }

    /// Whether anything could meet it.
    fn can_be_met(&self) -> bool {
        match &self.0 {
            Node::Any(alternatives) => alternatives.iter().any(Self::can_be_met),
            Node::All(parts) => parts.iter().all(Self::can_be_met),
            _ => true,
        }
    }

    /// The scopes of the first alternative that can be met, as the `scope` parameter of a challenge
    /// names them (RFC 6750 §3).
    #[must_use]
    pub fn first_alternative(&self) -> Vec<&Scope> {
        match &self.0 {
            Node::Scope(scope) => vec![scope],
            Node::Any(alternatives) => {
                let first = alternatives
                    .iter()
                    .find(|alternative| alternative.can_be_met());
                first.map_or_else(Vec::new, Self::first_alternative)
            }
            Node::All(parts) => parts.iter().flat_map(Self::first_alternative).collect(),
            _ => Vec::new(),
        }
    }

    /// All sets of scopes of which having one is enough, as far as scopes go: the choices of a
    /// document of an API. One that needs no scope has one empty set, one that nothing can meet has
    /// none. Where there would be more than 64 sets, it is the [first
    /// alternative](Self::first_alternative) alone.
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
            _ => sets.push(Vec::new()),
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
            _ => Vec::new(),
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
            _ => None,
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
            Node::Reading => return f.write_str("reading"),
            Node::Writing => return f.write_str("full access"),
            Node::User => return f.write_str("a user"),
            Node::Workspace(_) => return f.write_str("access to the workspace"),
            Node::Organization => return f.write_str("access to the organization for writing"),
            Node::Plan(least) => return least.fmt(f),
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
            let nested =
                matches!(&requirement.0, Node::Any(inner) | Node::All(inner) if inner.len() > 1);
            if nested && several.len() > 1 {
                write!(f, "({requirement})")?;
            } else {
                requirement.fmt(f)?;
            }
        }
        Ok(())
    }
}
