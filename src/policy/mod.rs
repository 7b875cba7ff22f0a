//! Route requirements: scopes, access, workspaces, plans and users, as one composable
//! [`Requirement`].
//!
//! A requirement is a value that a layer, a router or a handler checks, and that can explain its
//! result. Decisions are not cached: every request is checked against the key's facts and the
//! request's head.
//!
//! ```
//! use portunus::policy::{PlanOrder, Requirement, WorkspaceOf};
//! use portunus::scope;
//!
//! // A scope, in a workspace that the path names: `/workspaces/{ws}/seals`.
//! let seal = Requirement::scope(scope!("seals:read"))
//!     .and(Requirement::workspace(WorkspaceOf::parameter("ws")));
//! assert_eq!(seal.to_string(), "seals:read and access to the workspace");
//!
//! // A plan.
//! let plans = PlanOrder::new(["free", "standard", "enterprise"])?;
//! let paid = plans.at_least("standard")?;
//!
//! // A POST that only searches: read-only keys are allowed.
//! let search = Requirement::scope(scope!("documents.read")).and(Requirement::reading());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod explain;
mod plan;
mod principal;
mod requirement;
mod workspace;

pub use explain::Explanation;
pub use plan::PlanOrder;
pub use principal::Principal;
pub use requirement::Requirement;
pub use workspace::WorkspaceOf;
