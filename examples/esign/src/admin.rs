//! The demo's part of the management API: rules for its workspaces and addresses, and the call that
//! changes a user.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use portunus::audit::AuditEvent;
use portunus::key::{KeyRecord, PlanName, WorkspaceId};
use portunus::manage::{KeyChange, NewKey, Operator, Role};
use portunus::{AuthError, ErrorCode};
use portunus_admin::{Fault, HostRules, OperatorProof};
use portunus_profiles::{Profile, RequestMetadata};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::directory::UserRole;
use crate::operators::{HIGHEST_PLAN, WORKSPACES};

/// The rules that the demo adds to the manager's.
#[derive(Debug, Clone)]
pub(crate) struct DemoRules {
    pub(crate) profile: Profile,
}

fn invalid(field: &str, reason: impl fmt::Display) -> AuthError {
    AuthError::with_detail(ErrorCode::InvalidBody, format!("{field}: {reason}"))
}

fn forbidden(detail: &'static str) -> AuthError {
    AuthError::with_detail(ErrorCode::Forbidden, detail)
}

impl DemoRules {
    /// Rejects `allowed_ips` where IUSign's plan does not include IP restrictions.
    fn addresses(&self, listed: bool, plan: Option<&PlanName>) -> Result<(), AuthError> {
        if listed
            && self.profile == Profile::IuSign
            && plan.is_none_or(|plan| plan.as_str() != HIGHEST_PLAN)
        {
            let detail = format!("allowed_ips: IP restrictions require plan {HIGHEST_PLAN}");
            return Err(AuthError::with_detail(ErrorCode::PlanRequired, detail));
        }
        Ok(())
    }
}

fn workspaces(asked: Option<&[WorkspaceId]>) -> Result<(), AuthError> {
    match asked
        .into_iter()
        .flatten()
        .find(|id| !WORKSPACES.contains(&id.as_str()))
    {
        Some(unknown) => Err(invalid(
            "workspaces",
            format!("unknown workspace {unknown}"),
        )),
        None => Ok(()),
    }
}

#[async_trait]
impl HostRules for DemoRules {
    async fn issuing(&self, _: &Operator, new: &mut NewKey) -> Result<(), AuthError> {
        workspaces(new.workspaces.as_deref())?;
        self.addresses(new.allowed_ips.is_some(), new.plan.as_ref())
    }

    async fn changing(
        &self,
        _: &Operator,
        before: &KeyRecord,
        change: &mut KeyChange,
    ) -> Result<(), AuthError> {
        if let Some(asked) = &change.workspaces {
            workspaces(asked.as_deref())?;
        }
        let plan = change
            .plan
            .as_ref()
            .map_or(before.plan.as_ref(), Option::as_ref);
        let listed = change
            .allowed_ips
            .as_ref()
            .map_or(before.allowed_ips.is_some(), Option::is_some);
        // Only a change to one of the two fields is checked; an existing combination is kept.
        let touched = change.plan.is_some() || change.allowed_ips.is_some();
        self.addresses(listed && touched, plan)
    }
}

/// Adds the request metadata that AllSign logs to an event.
pub(crate) fn allsign_view(event: &AuditEvent, members: &mut Map<String, Value>) {
    if let Some(metadata) = RequestMetadata::of(event) {
        members.insert("metadata".into(), json!(metadata));
    }
}

/// An operator with the role Owner.
pub(crate) struct TenantOwner(Operator);

impl FromRequestParts<App> for TenantOwner {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Fault> {
        let proof = parts.extensions.get::<Arc<dyn OperatorProof>>().cloned();
        let proof = proof.ok_or_else(|| forbidden("Users cannot be changed here"))?;
        let operator = proof.prove(parts).await?;
        match operator.role() {
            Role::Owner => Ok(Self(operator)),
            _ => Err(forbidden("Only the owner may change users").into()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserBody {
    role: Option<UserRole>,
    suspended: Option<bool>,
}

/// `PUT /demo/users/{id}`: changes a user's standing, and with it the keys that depend on it.
pub(crate) async fn change_user(
    State(app): State<App>,
    TenantOwner(operator): TenantOwner,
    id: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Result<Response, Fault> {
    let not_json =
        |_| AuthError::with_detail(ErrorCode::InvalidRequest, "The body is not valid JSON");
    let whole = serde_json::from_slice::<Value>(&body).map_err(not_json)?;
    if !whole.is_object() {
        return Err(invalid("body", "must be a JSON object").into());
    }
    // Parsed from the bytes, not from the `Value`, which keeps only the last of duplicate members.
    let asked =
        serde_json::from_slice::<UserBody>(&body).map_err(|error| invalid("body", error))?;
    let tenant = operator
        .tenant()
        .ok_or_else(|| forbidden("The operator must belong to a tenant"))?;
    let changed = id.ok().and_then(|Path(id)| {
        let directory = &app.directory;
        directory.change(tenant, &id, asked.role, asked.suspended)
    });
    let user =
        changed.ok_or_else(|| AuthError::with_detail(ErrorCode::NotFound, "User not found"))?;
    Ok(([(CACHE_CONTROL, "no-store")], Json(json!(user))).into_response())
}
