//! The operator who is proven to make a call, and what was seen of the call before.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use portunus::audit::Action;
use portunus::key::KeyRecord;
use portunus::manage::{KeyManager, Operator};

use crate::call::Call;
use crate::conditions::Conditions;
use crate::{Fault, Shared, origin};

/// The manager in the hands of the proven operator.
pub(crate) struct AuthenticatedOperator {
    pub(crate) shared: Shared,
    /// Its acts are under the conditions of the request.
    pub(crate) manager: KeyManager,
    pub(crate) conditions: Conditions,
}

impl AuthenticatedOperator {
    pub(crate) fn operator(&self) -> &Operator {
        self.manager.operator()
    }

    /// Notes an act that came to nothing before the manager was asked.
    pub(crate) fn noted<T>(
        &self,
        action: Action,
        about: Option<&KeyRecord>,
        done: Result<T, Fault>,
    ) -> Result<T, Fault> {
        done.inspect_err(|fault| self.manager.refused(action, about, fault.error()))
    }
}

impl FromRequestParts<Shared> for AuthenticatedOperator {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Fault> {
        let call = Call::of(parts, shared);
        // Before the proof: what a browser adds to a request of another site proves nothing.
        if let Err(fault) = origin::check(parts, &shared.trusted_origins) {
            return Err(shared.proofs.failed(call.client_ip, fault.into()).into());
        }
        let mut operator = shared.proofs.prove(parts, call.client_ip).await?;
        operator.client_ip = operator.client_ip.or(call.client_ip);
        operator.request_id = operator.request_id.or_else(|| call.request_id.clone());
        let conditions = Conditions::of(&parts.headers);
        let demanded = conditions.clone();
        let manager = shared
            .manager
            .by(operator)
            .only_if(move |version| demanded.hold(version));
        call.is_by(&manager);
        shared.limit(manager.operator())?;
        // Before a body is read: who may do nothing sends none.
        manager.admitted()?;
        Ok(Self {
            shared: shared.clone(),
            manager,
            conditions,
        })
    }
}
