//! Requirements of routes, as values that can be combined, checked, listed and explained.

use std::fmt;

use super::plan::AtLeast;
use super::principal::Principal;
use super::workspace::WorkspaceOf;
use crate::actor::ActorMode;
use crate::error::{AuthError, ErrorCode};
use crate::key::Access;
use crate::request::RequestHead;
use crate::scope::{Scope, ScopeRequirement, write_all, write_any};

/// A requirement of a route: a scope, a workspace, a plan, a user, or any or all of several
/// requirements.
///
/// A read-only key is refused on every method except `GET`, `HEAD` and `OPTIONS`, whatever else is
/// required, unless the requirement includes [`reading`](Self::reading).
///
/// A key that is restricted to specific workspaces is refused with 403 `WORKSPACE_FORBIDDEN` by
/// every requirement that makes no statement about workspaces, including [`none`](Self::none);
/// otherwise it would have access to the whole organization there. [`workspace`](Self::workspace)
/// requires access to the workspace that the request names, [`organization`](Self::organization)
/// lets restricted keys read, and [`any_workspace`](Self::any_workspace) leaves the check to the
/// handler.
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
#[must_use = "a requirement has no effect until a route uses it"]
pub struct Requirement(pub(super) Node);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Scopes(ScopeRequirement),
    /// Alternatives, at least one of which is not a pure scope requirement.
    Any(Vec<Requirement>),
    /// Parts, at least one of which is not a pure scope requirement.
    All(Vec<Requirement>),
    Reading,
    Writing,
    User,
    Workspace(WorkspaceOf),
    Organization,
    AnyWorkspace,
    /// Used in explanations only: the implicit requirement of routes that make no statement about
    /// workspaces.
    WholeOrganization,
    Plan(AtLeast),
}

/// The set of ways in which a requirement is met, as a bit mask of their kinds.
///
/// A way picks one alternative at each `Any` such that every leaf it includes is met. Its kind is
/// the set of statements that its leaves make ([`READS`], [`WRITES`], [`WORKSPACE`],
/// [`READ_ONLY`]), as a number from 0 to 15. [`Requirement::met`] computes the kinds of all ways,
/// bottom up: a leaf that is met has one way; the ways of `Any` are those of all its alternatives
/// (union); a way of `All` takes one way of each part and states what any of them states (OR of
/// each pair of kinds). A leaf that is not met has no way, and neither has an `All` that includes
/// it.
///
/// This is exact, because [`Must::is_met_by`] looks at kinds only, and the kinds of a node follow
/// from the kinds of its children. Each node is evaluated once, although the number of ways can be
/// exponential, and the nesting of `All` makes no difference. A request passes only if a single way
/// states all that it must: what one alternative states never counts for another. For example,
/// "`search` and reading, or `write`" does not let a read-only key that has only the scope `write`
/// send a `POST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ways(u16);

/// The route only reads, whatever its method.
const READS: u8 = 1;
/// The route writes, whatever its method. If a way states both, the route writes.
const WRITES: u8 = 1 << 1;
/// Something about workspaces.
const WORKSPACE: u8 = 1 << 2;
/// The key may only read here: it is restricted to workspaces, and the route is about the
/// organization.
const READ_ONLY: u8 = 1 << 3;

impl Ways {
    const NONE: Self = Self(0);

    /// Returns the way of a leaf that is met and makes these statements.
    const fn one(kind: u8) -> Self {
        Self(1 << kind)
    }

    fn kinds(self) -> impl Iterator<Item = u8> {
        (0..16_u8).filter(move |kind| self.0 & (1 << kind) != 0)
    }

    /// Returns the ways of a choice between two requirements.
    const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the ways of two requirements together: each way of one with each way of the other.
    fn and(self, other: Self) -> Self {
        let pairs = self
            .kinds()
            .flat_map(|one| other.kinds().map(move |two| one | two));
        pairs.fold(Self::NONE, |all, kind| all.or(Self::one(kind)))
    }

    /// Returns whether any way that allows access states something about workspaces.
    pub(super) fn state_workspaces(self, must: Must) -> bool {
        self.kinds()
            .any(|kind| must.allows_access(kind) && kind & WORKSPACE != 0)
    }

    /// Returns whether a single way states all that it must.
    pub(super) fn suffice(self, must: Must) -> bool {
        self.kinds().any(|kind| must.is_met_by(kind))
    }
}

/// The statements that a way must make to let a key pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Must {
    /// Whether the route reads or writes. Needed by a read-only key on a method that writes.
    say_access: bool,
    /// Which workspaces the route is about. Needed by a key that is restricted to workspaces.
    say_workspace: bool,
    /// Whether the method writes.
    writes: bool,
}

impl Must {
    pub(super) fn of<P: Principal + ?Sized>(
        principal: &P,
        request: Option<&dyn RequestHead>,
    ) -> Self {
        let writes = request.is_some_and(writes);
        Self {
            say_access: writes && principal.access() != Access::FullAccess,
            say_workspace: request.is_some() && principal.workspaces().is_some(),
            writes,
        }
    }

    fn is_met_by(self, kind: u8) -> bool {
        let is_read_only = kind & READ_ONLY != 0;
        self.allows_access(kind)
            && (kind & WORKSPACE != 0 || !self.say_workspace)
            && !(is_read_only && self.writes_by(kind))
    }

    fn allows_access(self, kind: u8) -> bool {
        kind & (READS | WRITES) != 0 || !self.say_access
    }

    /// Returns whether the route writes, as this way states it.
    fn writes_by(self, kind: u8) -> bool {
        kind & WRITES != 0 || (kind & READS == 0 && self.writes)
    }
}

/// Checks scopes.
#[inline]
fn granted<P: Principal + ?Sized>(
    required: &ScopeRequirement,
    principal: &P,
) -> Result<(), AuthError> {
    let scopes = principal.scopes();
    match required.is_met_by(scopes) {
        true => Ok(()),
        false => Err(AuthError::insufficient_scope(required, scopes)),
    }
}

/// Returns whether the method of a request writes.
fn writes(request: &dyn RequestHead) -> bool {
    !matches!(request.method(), "GET" | "HEAD" | "OPTIONS")
}

impl Requirement {
    /// Requires a valid key that is not restricted to specific workspaces, and nothing else. This
    /// is an explicit choice, never a default.
    pub const fn none() -> Self {
        Self(Node::Scopes(ScopeRequirement::none()))
    }

    /// Requires one scope.
    pub const fn scope(scope: Scope) -> Self {
        Self(Node::Scopes(ScopeRequirement::scope(scope)))
    }

    /// States that the route only reads, whatever its method, such as a POST that searches.
    /// Read-only keys pass.
    pub const fn reading() -> Self {
        Self(Node::Reading)
    }

    /// States that the route writes, whatever its method, such as a GET that changes something.
    /// Read-only keys are refused.
    pub const fn writing() -> Self {
        Self(Node::Writing)
    }

    /// Requires that a user acts: the key's own user, or one that the request names. Otherwise the
    /// request is refused with 400 `ACTOR_REQUIRED`.
    pub const fn user() -> Self {
        Self(Node::User)
    }

    /// Requires access to the workspace that the request names.
    pub const fn workspace(of: WorkspaceOf) -> Self {
        Self(Node::Workspace(of))
    }

    /// States that the route is about the organization itself, its users or its workspaces. Keys
    /// that are restricted to specific workspaces can only read it.
    pub const fn organization() -> Self {
        Self(Node::Organization)
    }

    /// Also accepts keys that are restricted to specific workspaces: the route is not about a
    /// workspace, or its handler returns only what the caller [has access
    /// to](Principal::reaches). This adds no further requirement.
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

    /// Requires a minimum plan. Created by [`PlanOrder::at_least`](super::PlanOrder::at_least).
    pub(super) const fn plan(least: AtLeast) -> Self {
        Self(Node::Plan(least))
    }

    /// Requires at least one of these. An empty list is never met, so it fails closed.
    pub fn any_of<R: Into<Self>>(alternatives: impl IntoIterator<Item = R>) -> Self {
        let alternatives = alternatives.into_iter().map(Into::into).collect();
        Self(match of_scopes(alternatives) {
            Ok(of_scopes) => Node::Scopes(ScopeRequirement::any_of(of_scopes)),
            Err(mixed) => Node::Any(mixed),
        })
    }

    /// Requires all of these. An empty array does not compile: use [`none`](Self::none) to require
    /// nothing, and [`all_of_list`](Self::all_of_list) for a list that is only known at run time.
    ///
    /// ```compile_fail
    /// portunus::Requirement::all_of::<portunus::Scope, 0>([]);
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

    /// Requires all of these parts, of which there is at least one.
    pub(super) fn all(parts: Vec<Self>) -> Self {
        Self(match of_scopes(parts) {
            Ok(of_scopes) => Node::Scopes(ScopeRequirement::all(of_scopes)),
            Err(mixed) => Node::All(mixed),
        })
    }

    /// Requires both this and another requirement.
    pub fn and(self, other: impl Into<Self>) -> Self {
        Self::all_of([self, other.into()])
    }

    /// Requires this or another requirement.
    pub fn or(self, other: impl Into<Self>) -> Self {
        Self::any_of([self, other.into()])
    }

    /// Checks the requirement for a principal and a request. Without a request, parts that depend
    /// on one are not met, and the implicit rules for methods and workspaces do not apply, because
    /// the route's own requirement enforces them. Does not allocate on success.
    ///
    /// # Errors
    /// Returns an error for the missing part: the first of several parts or alternatives, but all
    /// required scopes of a scope requirement.
    pub fn check<P: Principal + ?Sized>(
        &self,
        principal: &P,
        request: Option<&dyn RequestHead>,
    ) -> Result<(), AuthError> {
        // The usual case depends on neither the method nor the workspace.
        if let Node::Scopes(required) = &self.0
            && principal.access() == Access::FullAccess
            && principal.workspaces().is_none()
        {
            return granted(required, principal);
        }
        let must = Must::of(principal, request);
        if must.say_access && !self.says_access() {
            return Err(AuthError::new(ErrorCode::ReadOnlyKey));
        }
        // A read-only key on a method that writes, and a key that is restricted to workspaces, pass
        // only by an alternative that itself makes the statement.
        let ways = self.met(principal, request)?;
        if ways.suffice(must) {
            Ok(())
        } else if !ways.kinds().any(|kind| must.allows_access(kind)) {
            Err(AuthError::new(ErrorCode::ReadOnlyKey))
        } else if ways.state_workspaces(must) {
            Err(AuthError::new(ErrorCode::WorkspaceForbidden))
        } else {
            Err(AuthError::with_detail(
                ErrorCode::WorkspaceForbidden,
                "This route does not accept API keys that are restricted to specific workspaces",
            ))
        }
    }

    /// Returns the ways in which the requirement is met, or the first error if there is none.
    pub(super) fn met<P: Principal + ?Sized>(
        &self,
        principal: &P,
        request: Option<&dyn RequestHead>,
    ) -> Result<Ways, AuthError> {
        let (says, refused) = match &self.0 {
            Node::Scopes(required) => {
                return granted(required, principal).map(|()| Ways::one(0));
            }
            Node::Any(alternatives) => {
                let (mut ways, mut first) = (Ways::NONE, None);
                for alternative in alternatives {
                    match alternative.met(principal, request) {
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
                let mut ways = Ways::one(0);
                for part in parts {
                    ways = ways.and(part.met(principal, request)?);
                }
                return Ok(ways);
            }
            Node::Reading => (READS, None),
            Node::Writing => {
                let closed = principal.access() != Access::FullAccess;
                (WRITES, closed.then_some(ErrorCode::ReadOnlyKey))
            }
            Node::User => {
                let actor = principal.actor();
                let is_user = actor.user_id.is_some() && actor.mode != ActorMode::App;
                let missing = (!is_user).then_some(ErrorCode::ActorRequired);
                (0, missing)
            }
            Node::Workspace(of) => {
                let reached = request
                    .and_then(|request| of.find(request, |workspace| principal.reaches(workspace)));
                let missing = (reached != Some(true)).then_some(ErrorCode::WorkspaceForbidden);
                (WORKSPACE, missing)
            }
            Node::Organization => {
                let is_restricted = principal.workspaces().is_some();
                let closed = is_restricted && request.is_none();
                let missing = closed.then_some(ErrorCode::WorkspaceForbidden);
                let says = if is_restricted {
                    WORKSPACE | READ_ONLY
                } else {
                    WORKSPACE
                };
                (says, missing)
            }
            Node::AnyWorkspace => (WORKSPACE, None),
            Node::WholeOrganization => {
                let restricted = principal.workspaces().is_some();
                let missing = restricted.then_some(ErrorCode::WorkspaceForbidden);
                (WORKSPACE, missing)
            }
            Node::Plan(least) => {
                let missing =
                    (!least.is_met_by(principal.plan())).then_some(ErrorCode::PlanRequired);
                (0, missing)
            }
        };
        match refused {
            None => Ok(Ways::one(says)),
            Some(ErrorCode::PlanRequired) => Err(AuthError::with_detail(
                ErrorCode::PlanRequired,
                format!("This requires {self}"),
            )),
            Some(code) => Err(AuthError::new(code)),
        }
    }

    /// Returns whether a part states that the route reads or writes.
    fn says_access(&self) -> bool {
        match &self.0 {
            Node::Reading | Node::Writing => true,
            Node::Any(several) | Node::All(several) => several.iter().any(Self::says_access),
            _ => false,
        }
    }

    /// Returns the scope part of the requirement: what remains if everything else is met.
    pub fn scope_part(&self) -> ScopeRequirement {
        match &self.0 {
            Node::Scopes(required) => required.clone(),
            Node::Any(several) => ScopeRequirement::any_of(several.iter().map(Self::scope_part)),
            Node::All(several) => {
                ScopeRequirement::all(several.iter().map(Self::scope_part).collect())
            }
            _ => ScopeRequirement::none(),
        }
    }

    /// Returns whether its text needs parentheses next to another.
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

/// Returns the parts that require something.
fn shown(parts: &[Requirement]) -> Vec<&Requirement> {
    let requires = |part: &&Requirement| part.0 != Node::AnyWorkspace;
    parts.iter().filter(requires).collect()
}

/// Converts pure scope requirements; returns the list unchanged if one of them is not.
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
            Node::Organization => f.write_str("write access to the organization"),
            Node::AnyWorkspace => f.write_str("nothing"),
            Node::WholeOrganization => f.write_str("access to the whole organization"),
            Node::Plan(least) => least.fmt(f),
            Node::Any(several) => write_any(f, several, Self::is_several),
            Node::All(parts) => write_all(f, &shown(parts), |part| part.is_several()),
        }
    }
}
