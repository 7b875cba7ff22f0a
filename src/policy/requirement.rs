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
/// A key of some workspaces only is refused with 403 `WORKSPACE_FORBIDDEN` by every requirement that
/// says nothing about workspaces, [`none`](Self::none) included: it would otherwise reach all of the
/// organization there. [`workspace`](Self::workspace) names the one that a request is about,
/// [`organization`](Self::organization) lets such keys read, and
/// [`any_workspace`](Self::any_workspace) says that the handler looks after them itself.
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
    AnyWorkspace,
    /// Only missing, never stated: what a requirement wants that says nothing about workspaces.
    WholeOrganization,
    Plan(AtLeast),
}

/// The ways on which a requirement is met, by what each of them says: whether the route reads or
/// writes, and about workspaces. One that says enough must be enough by itself: what different
/// alternatives say never counts together.
///
/// There are four kinds of ways, so a set of them has four bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ways(u8);

impl Ways {
    const NONE: Self = Self(0);
    const SAYS_NOTHING: Self = Self(1);
    const SAYS_ACCESS: Self = Self(1 << 1);
    const SAYS_WORKSPACE: Self = Self(1 << 2);

    /// Any of these or those: of alternatives.
    const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Each of these with each of those: of parts.
    fn and(self, other: Self) -> Self {
        let kinds = |ways: Self| (0..4_u8).filter(move |kind| ways.0 & (1 << kind) != 0);
        let both = kinds(self).flat_map(|one| kinds(other).map(move |two| 1 << (one | two)));
        Self(both.fold(0, |all, kind| all | kind))
    }

    /// Whether one of them says what it must.
    pub(super) fn suffice(self, must: Must) -> bool {
        let says = |kind: u8| {
            (kind & 1 != 0 || !must.say_access) && (kind & 2 != 0 || !must.say_workspace)
        };
        (0..4).any(|kind| self.0 & (1 << kind) != 0 && says(kind))
    }
}

/// What a requirement must say to let a key pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Must {
    /// That the route reads, or writes: the key only reads, and the method writes.
    say_access: bool,
    /// Which workspaces: the key reaches some of them only.
    say_workspace: bool,
}

impl Must {
    pub(super) fn of<P: Principal + ?Sized>(
        principal: &P,
        request: Option<&dyn RequestHead>,
    ) -> Self {
        Self {
            say_access: request.is_some_and(writes) && principal.access() != Access::FullAccess,
            say_workspace: request.is_some() && principal.workspaces().is_some(),
        }
    }
}

/// Whether a request writes, by its method.
pub(super) fn writes(request: &dyn RequestHead) -> bool {
    !matches!(request.method(), "GET" | "HEAD" | "OPTIONS")
}

impl Requirement {
    /// Nothing but a valid key of the whole organization: a visible choice, never a default.
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

    /// The same for keys of any workspaces: the route is about none of them, or its handler shows what
    /// the caller [reaches](Principal::reaches). It requires nothing.
    ///
    /// ```
    /// use portunus::{Requirement, scope};
    ///
    /// let mine = Requirement::scope(scope!("documents.read")).any_workspace();
    /// assert_eq!(mine.to_string(), "documents.read");
    /// ```
    pub fn any_workspace(self) -> Self {
        let said = Self(Node::AnyWorkspace);
        if self == Self::none() {
            return said;
        }
        Self(Node::All(vec![self, said]))
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

    /// All of these. An empty list can never be met: it fails closed, and [`none`](Self::none) is how
    /// to require nothing.
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

    /// Checks a principal on a request. Without the request, what needs one is not met; the method is
    /// not looked at, nor whether anything is said about workspaces: the route's own requirement is
    /// for that. Allocates nothing where it is met.
    ///
    /// # Errors
    /// What is missing: of several parts the first, of several alternatives the first, but of
    /// scopes all that are required.
    pub fn check<P: Principal + ?Sized>(
        &self,
        principal: &P,
        request: Option<&dyn RequestHead>,
    ) -> Result<(), AuthError> {
        let must = Must::of(principal, request);
        if must.say_access && !self.says_access() {
            return Err(AuthError::new(ErrorCode::ReadOnlyKey));
        }
        // Of several alternatives only the one that says so itself opens a writing method, and a
        // route to a key of some workspaces.
        let ways = self.met(principal, request, request.is_some_and(writes))?;
        let access_alone = Must {
            say_workspace: false,
            ..must
        };
        if ways.suffice(must) {
            Ok(())
        } else if ways.suffice(access_alone) {
            Err(AuthError::with_detail(
                ErrorCode::WorkspaceForbidden,
                "The API key reaches some workspaces only, and this is about none of them",
            ))
        } else {
            Err(AuthError::new(ErrorCode::ReadOnlyKey))
        }
    }

    /// How it is met, if it is; `writes` as far as is known here.
    pub(super) fn met<P: Principal + ?Sized>(
        &self,
        principal: &P,
        request: Option<&dyn RequestHead>,
        writes: bool,
    ) -> Result<Ways, AuthError> {
        let (says, refused) = match &self.0 {
            Node::Scopes(required) => {
                return match required.is_met_by(principal.scopes()) {
                    true => Ok(Ways::SAYS_NOTHING),
                    false => Err(AuthError::insufficient_scope(required, principal.scopes())),
                };
            }
            Node::Any(alternatives) => {
                let (mut ways, mut first) = (Ways::NONE, None);
                for alternative in alternatives {
                    match alternative.met(principal, request, writes) {
                        Ok(more) => ways = ways.or(more),
                        Err(error) => first = first.or(Some(error)),
                    }
                }
                return match ways {
                    Ways::NONE => {
                        Err(first.unwrap_or_else(|| AuthError::new(ErrorCode::Forbidden)))
                    }
                    ways => Ok(ways),
                };
            }
            Node::All(parts) => {
                let writes = self.says_writes().unwrap_or(writes);
                let mut ways = Ways::SAYS_NOTHING;
                for part in parts {
                    ways = ways.and(part.met(principal, request, writes)?);
                }
                return Ok(ways);
            }
            Node::Reading => (Ways::SAYS_ACCESS, None),
            Node::Writing => {
                let closed = principal.access() != Access::FullAccess;
                (Ways::SAYS_ACCESS, closed.then_some(ErrorCode::ReadOnlyKey))
            }
            Node::User => {
                let actor = principal.actor();
                let somebody = actor.user_id.is_some() && actor.mode != ActorMode::App;
                let missing = (!somebody).then_some(ErrorCode::ActorRequired);
                (Ways::SAYS_NOTHING, missing)
            }
            Node::Workspace(of) => {
                let reached = request
                    .and_then(|request| of.find(request, |workspace| principal.reaches(workspace)));
                let missing = (reached != Some(true)).then_some(ErrorCode::WorkspaceForbidden);
                (Ways::SAYS_WORKSPACE, missing)
            }
            Node::Organization => {
                let reads = request.is_some() && !writes;
                let closed = principal.workspaces().is_some() && !reads;
                let missing = closed.then_some(ErrorCode::WorkspaceForbidden);
                (Ways::SAYS_WORKSPACE, missing)
            }
            Node::AnyWorkspace => (Ways::SAYS_WORKSPACE, None),
            Node::WholeOrganization => {
                let some = principal.workspaces().is_some();
                let missing = some.then_some(ErrorCode::WorkspaceForbidden);
                (Ways::SAYS_WORKSPACE, missing)
            }
            Node::Plan(least) => {
                let missing =
                    (!least.is_met_by(principal.plan())).then_some(ErrorCode::PlanRequired);
                (Ways::SAYS_NOTHING, missing)
            }
        };
        match refused {
            None => Ok(says),
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
            Node::Any(several) => several.len() > 1,
            Node::All(parts) => match shown(parts).as_slice() {
                [one] => one.is_several(),
                parts => parts.len() > 1,
            },
            _ => false,
        }
    }
}

/// The parts that require something.
fn shown(parts: &[Requirement]) -> Vec<&Requirement> {
    let requires = |part: &&Requirement| part.0 != Node::AnyWorkspace;
    parts.iter().filter(requires).collect()
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
            Node::AnyWorkspace => f.write_str("nothing"),
            Node::WholeOrganization => f.write_str("access to the whole organization"),
            Node::Plan(least) => least.fmt(f),
            Node::Any(several) => write_any(f, several, Self::is_several),
            Node::All(parts) => write_all(f, &shown(parts), |part| part.is_several()),
        }
    }
}
