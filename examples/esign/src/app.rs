//! One profile, ready to serve: its authenticator, its manager, its routes.

use std::error::Error;
use std::sync::Arc;

use axum::extract::State;
use axum::http::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Json, Router};
use portunus::adapter::axum::{ProtectedRouter, get};
use portunus::adapter::tower::{AuthLayer, HttpHead};
use portunus::limit::LocalLimiter;
use portunus::manage::KeyManager;
use portunus::profile::Profile;
use portunus::{AuthError, Authenticator, ErrorCode, KeyPrincipal, KeyStore, Principal};
use serde_json::{Value, json};
use tracing::warn;

use crate::api::{self, Shelves};
use crate::cli::{Flags, Limiter};
use crate::operators::Operators;
use crate::{admin, operators};

/// What all handlers share. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) profile: Profile,
    pub(crate) authenticator: Authenticator,
    pub(crate) manager: KeyManager,
    pub(crate) operators: Arc<Operators>,
    pub(crate) shelves: Arc<Shelves>,
}

impl App {
    pub(crate) fn new(flags: &Flags, store: Arc<dyn KeyStore>, operators: Operators) -> Result<Self, Box<dyn Error>> {
        let profile = flags.profile;
        let limiter = match flags.limiter {
            Limiter::Local => LocalLimiter::default(),
        };
        let mut authenticator = profile
            .authenticator(Arc::clone(&store))
            .client_ip(flags.client_ip())
            .limiter(limiter)
            .on_limiter_outage(flags.on_limiter_outage.into());
        let mut manager = profile.manager(store);
        if let Some(bound) = &flags.environment {
            authenticator = authenticator.environment(bound.clone());
            // Serving is bound, issuing is not: the bound one is the default, the others can be asked for.
            let others = profile.environments().into_iter().filter(|other| other != bound);
            manager = manager.environments(std::iter::once(bound.clone()).chain(others));
        }
        Ok(Self {
            profile,
            authenticator: authenticator.build()?,
            manager: manager.build()?,
            operators: Arc::new(operators),
            shelves: Arc::default(),
        })
    }

    /// All routes, without CORS.
    pub(crate) fn router(&self) -> Router {
        let auth = AuthLayer::new(self.authenticator.clone());
        let routes = ProtectedRouter::new(auth)
            .route("/healthz", get(|| async { Json(json!({ "status": "ok" })) }).public())
            .route("/whoami", get(whoami).any_key());
        api::routes(self.profile, routes)
            .not_found(|State(app): State<Self>| async move { app.refuse(&AuthError::new(ErrorCode::NotFound)) })
            .into_router()
            .nest("/admin", admin::router())
            .route("/admin/", any(admin::unknown))
            .with_state(self.clone())
    }

    /// A refusal by a handler, in the profile's dialect.
    pub(crate) fn refuse(&self, error: &AuthError) -> Response {
        let answer = self.authenticator.responder().answer(error, &HttpHead::new(&Request::new(()), None));
        portunus::adapter::tower::into_response(answer, error)
    }

    /// Writes the usage that was counted.
    pub(crate) async fn flush(&self) {
        if let Err(error) = self.authenticator.usage().flush(&**self.authenticator.store()).await {
            warn!(%error, "usage could not be written; it is kept for the next time");
        }
    }

    /// Where the demo's own key belongs.
    pub(crate) fn demo_tenant() -> &'static str {
        operators::TENANT
    }
}

async fn whoami(principal: KeyPrincipal) -> impl IntoResponse {
    Json(describe(&principal))
}

fn describe(principal: &KeyPrincipal) -> Value {
    let actor = principal.actor();
    json!({
        "key_id": principal.key_id(),
        "environment": principal.environment(),
        "mode": principal.mode(),
        "owner": principal.owner(),
        "actor": { "user_id": actor.user_id, "user_email": actor.user_email },
        "tenant_id": principal.owner().tenant_id,
        "scopes": principal.scopes().names(),
    })
}
