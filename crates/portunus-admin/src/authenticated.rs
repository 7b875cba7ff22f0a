//! Extractor for the authenticated operator of a call.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use portunus::audit::Action;
use portunus::key::KeyRecord;
use portunus::manage::{KeyManager, Operator};

use crate::call::Call;
use crate::conditions::Conditions;
use crate::{Fault, Shared, origin};

/// The manager acting for the authenticated operator.
pub(crate) struct AuthenticatedOperator {
    pub(crate) shared: Shared,
    /// Applies the preconditions of the request to each operation.
    pub(crate) manager: KeyManager,
    pub(crate) conditions: Conditions,
}

impl AuthenticatedOperator {
    pub(crate) fn operator(&self) -> &Operator {
        self.manager.operator()
    }

    /// Records the audit event of an operation that is refused before it reaches the manager.
    pub(crate) fn audited<T>(
        &self,
        action: Action,
        about: Option<&KeyRecord>,
        result: Result<T, Fault>,
    ) -> Result<T, Fault> {
        result.inspect_err(|fault| self.manager.refused(action, about, fault.error()))
    }
}

impl FromRequestParts<Shared> for AuthenticatedOperator {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Fault> {
        let call = Call::of(parts, shared);
        // Before the proof: credentials that a browser adds to a cross-site request prove nothing.
        if let Err(fault) = origin::check(parts, &shared.trusted_origins) {
            return Err(shared.proofs.failed(call.client_ip, fault.into()).into());
        }
        let mut operator = shared.proofs.prove(parts, call.client_ip).await?;
        operator.client_ip = operator.client_ip.or(call.client_ip);
        operator.request_id = operator.request_id.or_else(|| call.request_id.clone());
        let conditions = Conditions::of(&parts.headers);
        let preconditions = conditions.clone();
        let manager = shared
            .manager
            .by(operator)
            .only_if(move |version| preconditions.hold(version));
        call.set_manager(&manager);
        shared.limit(manager.operator())?;
        // Before the body is read: an operator without any permission need not send it.
        manager.admitted()?;
        Ok(Self {
            shared: shared.clone(),
            manager,
            conditions,
        })
    }
}
