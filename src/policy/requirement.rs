//! What a route requires, as a value that can be combined, checked, listed and explained.

use std::fmt;

use super::plan::AtLeast;
use super::principal::Principal;
use super::workspace::WorkspaceOf;
use crate::actor::ActorMode;
use crate::error::{AuthError, ErrorCode};
use crate::key::Access;
use crate::request::RequestHead;
use crate::scope::{Scope, ScopeRequirement, write_all, write_any};

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
    Scopes(ScopeRequirement),
    /// Alternatives that are not all about scopes alone.
    Any(Vec<Requirement>),
    /// Parts that are not all about scopes alone.
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
        Self(Node::Scopes(ScopeRequirement::none()))
    }

    /// One scope.
    pub const fn scope(scope: Scope) -> Self {
        Self(Node::Scopes(ScopeRequirement::scope(scope)))
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
    pub(super) const fn plan(least: AtLeast) -> Self {
        Self(Node::Plan(least))
    }

    /// At least one of these. An empty list can never be met: it fails closed.
    pub fn any_of<R: Into<Self>>(alternatives: impl IntoIterator<Item = R>) -> Self {
        let alternatives = alternatives.into_iter().map(Into::into).collect();
        Self(match of_scopes(alternatives) {
            Ok(of_scopes) => Node::Scopes(ScopeRequirement::any_of(of_scopes)),
            Err(mixed) => Node::Any(mixed),
        })
    }

    /// All of these.
    pub fn all_of<R: Into<Self>>(parts: impl IntoIterator<Item = R>) -> Self {
        let parts = parts.into_iter().map(Into::into).collect();
        Self(match of_scopes(parts) {
            Ok(of_scopes) => Node::Scopes(ScopeRequirement::all_of(of_scopes)),
            Err(mixed) => Node::All(mixed),
        })
    }

    /// This one and another.
    pub fn and(self, other: impl Into<Self>) -> Self {
        Self::all_of([self, other.into()])
    }

    /// This one or another.
    pub fn or(self, other: impl Into<Self>) -> Self {
        Self::any_of([self, other.into()])
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
            Node::Scopes(required) => {
                return match required.is_met_by(principal.scopes()) {
                    true => Ok(Way::Unsaid),
                    false => Err(AuthError::insufficient_scope(required, principal.scopes())),
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

    /// The part of it that is about scopes: what it requires where everything else is met.
    pub fn scope_part(&self) -> ScopeRequirement {
        match &self.0 {
            Node::Scopes(required) => required.clone(),
            Node::Any(several) => ScopeRequirement::any_of(several.iter().map(Self::scope_part)),
            Node::All(several) => ScopeRequirement::all_of(several.iter().map(Self::scope_part)),
            _ => ScopeRequirement::none(),
        }
    }

    /// Whether its text has to stand in parentheses beside another.
    fn is_several(&self) -> bool {
        match &self.0 {
            Node::Scopes(required) => required.is_several(),
            Node::Any(several) | Node::All(several) => several.len() > 1,
            _ => false,
        }
    }
}

/// Requirements that are all about scopes alone, as those; else as they are.
fn of_scopes(requirements: Vec<Requirement>) -> Result<Vec<ScopeRequirement>, Vec<Requirement>> {
    let is_of_scopes = |one: &Requirement| matches!(one.0, Node::Scopes(_));
    if !requirements.iter().all(is_of_scopes) {
        return Err(requirements);
    }
    let as_scopes = |one: Requirement| match one.0 {
        Node::Scopes(required) => Some(required),
        _ => None,
    };
    Ok(requirements.into_iter().filter_map(as_scopes).collect())
}

impl From<ScopeRequirement> for Requirement {
    fn from(required: ScopeRequirement) -> Self {
        Self(Node::Scopes(required))
    }
}

impl From<Scope> for Requirement {
    fn from(scope: Scope) -> Self {
        Self::scope(scope)
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Node::Scopes(required) => required.fmt(f),
            Node::Reading => f.write_str("reading"),
            Node::Writing => f.write_str("full access"),
            Node::User => f.write_str("a user"),
            Node::Workspace(_) => f.write_str("access to the workspace"),
            Node::Organization => f.write_str("access to the organization for writing"),
            Node::Plan(least) => least.fmt(f),
            Node::Any(several) => write_any(f, several, Self::is_several),
            Node::All(several) => write_all(f, several, Self::is_several),
        }
    }
}
