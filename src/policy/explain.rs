//! Explanations of why a requirement is met or not: for people, not for decisions.

use std::fmt;

use super::principal::Principal;
use super::requirement::{Must, Node, Requirement};
use crate::error::ErrorCode;
use crate::request::RequestHead;
use crate::scope::ScopeExplanation;

/// The reason why a requirement is met or not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Explanation {
    /// The requirement is met: each part with the fact that meets it; for a scope, the grant.
    Met(Vec<(Requirement, String)>),
    /// The requirement is not met: the missing part.
    Missing(Requirement),
}

impl Requirement {
    /// Explains why a principal meets the requirement on a request, or what is missing. The result
    /// always agrees with [`check`](Self::check). It allocates; use it for people, not for
    /// decisions.
    ///
    /// ```
    /// # use portunus::policy::Requirement;
    /// # use portunus::{KeyPrincipal, Principal, RequestHead};
    /// # fn with(principal: &KeyPrincipal, request: &dyn RequestHead, requirement: &Requirement) {
    /// println!("{}", requirement.explain_for(principal, Some(request)));
    /// // document:write granted by document:*, plan standard or higher: the plan is enterprise
    /// # }
    /// ```
    #[must_use]
    pub fn explain_for<P: Principal + ?Sized>(
        &self,
        principal: &P,
        request: Option<&dyn RequestHead>,
    ) -> Explanation {
        let mut met = Vec::new();
        let missing = self.explain_in(principal, request, &mut met);
        match (self.check(principal, request), missing) {
            (Ok(()), _) => Explanation::Met(met),
            (Err(error), Some(missing)) if error.code() != ErrorCode::ReadOnlyKey => {
                Explanation::Missing(missing)
            }
            // All parts are met, but the request writes the organization, or no part is about
            // workspaces.
            (Err(error), None) if error.code() == ErrorCode::WorkspaceForbidden => {
                let ways = self.met(principal, request);
                let states_workspaces =
                    ways.is_ok_and(|ways| ways.state_workspaces(Must::of(principal, request)));
                Explanation::Missing(Self(if states_workspaces {
                    Node::Organization
                } else {
                    Node::WholeOrganization
                }))
            }
            // Regardless of other missing parts: the method writes, and the key is read-only.
            (Err(_), _) => Explanation::Missing(Self::writing()),
        }
    }

    /// Returns the missing part, or appends to `met` the facts that meet the requirement.
    fn explain_in<P: Principal + ?Sized>(
        &self,
        principal: &P,
        request: Option<&dyn RequestHead>,
        met: &mut Vec<(Self, String)>,
    ) -> Option<Self> {
        match &self.0 {
            Node::Any(alternatives) => {
                let ways = |one: &&Self| one.met(principal, request).ok();
                let must = Must::of(principal, request);
                let enough = |one: &&Self| ways(one).is_some_and(|ways| ways.suffice(must));
                let first = alternatives.iter().find(enough);
                let first = first.or_else(|| alternatives.iter().find(|one| ways(one).is_some()));
                match first {
                    Some(first) => first.explain_in(principal, request, met),
                    None => Some(self.clone()),
                }
            }
            Node::All(parts) => {
                let missing = parts
                    .iter()
                    .filter_map(|part| part.explain_in(principal, request, met));
                all_of(missing.collect())
            }
            Node::Scopes(required) => match required.explain(principal.scopes()) {
                ScopeExplanation::Met(by) => {
                    let of_scope = |(scope, by)| (Self::scope(scope), by);
                    met.extend(by.into_iter().map(of_scope));
                    None
                }
                ScopeExplanation::Missing(missing) => Some(missing.into()),
            },
            _ => match self.met(principal, request) {
                Ok(_) => {
                    met.extend(
                        self.because(principal, request)
                            .map(|because| (self.clone(), because)),
                    );
                    None
                }
                Err(_) => Some(self.clone()),
            },
        }
    }

    /// Returns the fact that meets a leaf, given that it is met.
    fn because<P: Principal + ?Sized>(
        &self,
        principal: &P,
        request: Option<&dyn RequestHead>,
    ) -> Option<String> {
        Some(match &self.0 {
            Node::Reading => "the route is read-only".into(),
            Node::Writing => "the key has full access".into(),
            Node::User => format!("the acting user is {}", principal.actor().user_id?),
            Node::Workspace(of) => match principal.workspaces() {
                None => "the key has access to the whole organization".into(),
                Some(_) => request.and_then(|request| {
                    of.find(request, |id| format!("the key has access to {id}"))
                })?,
            },
            Node::Organization if principal.workspaces().is_none() => {
                "the key has access to the whole organization".into()
            }
            Node::Organization => "the request is read-only".into(),
            Node::WholeOrganization => "the key has access to the whole organization".into(),
            Node::Plan(_) => format!("the plan is {}", principal.plan()?),
            Node::AnyWorkspace | Node::Scopes(_) | Node::Any(_) | Node::All(_) => return None,
        })
    }
}

fn all_of(mut parts: Vec<Requirement>) -> Option<Requirement> {
    match parts.len() {
        0 => None,
        1 => parts.pop(),
        _ => Some(Requirement::all(parts)),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(requirement) => write!(f, "missing {requirement}"),
            Self::Met(met) if met.is_empty() => f.write_str("nothing was required"),
            Self::Met(met) => {
                for (at, (required, because)) in met.iter().enumerate() {
                    let between = if at == 0 { "" } else { ", " };
                    let says = if matches!(required.0, Node::Scopes(_)) {
                        " granted by"
                    } else {
                        ":"
                    };
                    write!(f, "{between}{required}{says} {because}")?;
                }
                Ok(())
            }
        }
    }
}
