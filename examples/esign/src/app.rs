//! One profile, ready to serve: its authenticator, manager and routes.

use std::error::Error;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Extension, State};
use axum::http::{Extensions, Request};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::put;
use axum::{Json, Router};
use portunus::adapter::axum::{ProtectedRouter, get};
use portunus::adapter::tower::{AuthLayer, HttpHead};
use portunus::audit::{AuditReader, AuditTrail, TracingAudit};
use portunus::credit::Credits;
use portunus::key::KeyHasher;
use portunus::limit::Plan;
use portunus::manage::{KeyManager, own_keys};
use portunus::policy::PlanOrder;
use portunus::respond::Answer;
use portunus::{AuthError, Authenticator, ErrorCode, Portunus, Requirement};
use portunus_admin::{Admin, OperatorProof, Origin};
use portunus_profiles::Profile;
use portunus_redis::RedisLimiter;
use tracing::warn;

use crate::api::{self, DocumentStore};
use crate::cli::Flags;
use crate::directory::DemoDirectory;
use crate::operators::Operators;
use crate::sessions::{self, Area, DASHBOARD, ME, Sessions};
use crate::storage::Storage;
use crate::tls::Peer;
use crate::{admin, on_axum, operators, wording};

/// The state shared by all handlers. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) profile: Profile,
    pub(crate) keys: Portunus,
    pub(crate) authenticator: Authenticator,
    pub(crate) manager: KeyManager,
    pub(crate) operators: Arc<Operators>,
    /// Operators who manage their own keys.
    me: Sessions,
    /// Operators who manage the keys of their tenant in a browser.
    dashboard: Sessions,
    pub(crate) documents: Arc<DocumentStore>,
    pub(crate) directory: DemoDirectory,
    events: Arc<dyn AuditReader>,
    pub(crate) standard_plan: Requirement,
    /// Other sites whose pages may write to the management API and read its answers.
    pub(crate) trusted_origins: Arc<[Origin]>,
}

impl App {
    pub(crate) fn new(
        flags: &Flags,
        storage: &Storage,
        limiter: Option<RedisLimiter>,
        operators: Operators,
    ) -> Result<Self, Box<dyn Error>> {
        let profile = flags.profile;
        let directory = DemoDirectory::new(profile)?;
        let plans = PlanOrder::new(operators::PLANS.iter().copied())?;
        let standard_plan = plans.at_least(operators::TENANTS_PLAN)?;
        let trail = AuditTrail::builder()
            .sink(Arc::clone(&storage.sink))
            .sink(TracingAudit::new())
            .build();
        let limits = profile.limits().on_outage(flags.on_limiter_outage.into());
        let limits = match limiter {
            Some(limiter) => limits.limiter(limiter),
            None => limits,
        };
        // IUSign declares these plans itself. No plan of the demo changes a limit.
        let limits = match profile {
            Profile::IuSign => limits,
            _ => operators::PLANS.iter().fold(limits, |limits, name| {
                limits.plan(Plan::new(*name, []).own_quotas_stay())
            }),
        };
        let mut policy = profile.policy().client_ip(flags.client_ip());
        if flags.tls_cert.is_none() {
            if profile == Profile::IuSign {
                warn!(
                    "this API mandates TLS 1.3; without --tls-cert and --tls-key the demo does not enforce it"
                );
            }
            policy = policy.transport(None);
        }
        let mut management = profile
            .management()
            .operators(operators::DemoPolicy)
            .host_rules(admin::DemoRules { profile });
        if let Some(bound) = &flags.environment {
            policy = policy.serve_only(bound.clone());
            // The flag binds serving, not issuing: the bound environment is the default for new
            // keys, and the others can be requested.
            let others = profile
                .environments()
                .into_iter()
                .filter(|other| other != bound);
            management = management.environments(std::iter::once(bound.clone()).chain(others));
        }
        // Imported keys may have SHA-512 digests.
        let hasher = KeyHasher::sha256().accept_sha512()?;
        let actors = profile.actors().directory(directory.clone());
        let mut keys = Portunus::builder(profile.credentials().hasher(hasher))
            .store(Arc::clone(&storage.keys))
            .cache(storage.cache.clone())
            .limits(limits)
            .actors(actors.standing(directory.clone()))
            .policy(policy)
            .management(management)
            .responses(profile.responses())
            .audit(trail);
        if flags.credits {
            keys = keys.credits(Credits::per_tenant(Arc::clone(&storage.credits)));
        }
        let keys = keys.build()?;
        Ok(Self {
            profile,
            authenticator: keys.authenticator().clone(),
            manager: keys.manager().clone(),
            keys,
            operators: Arc::new(operators),
            me: Sessions::new(ME, directory.clone()),
            dashboard: Sessions::new(DASHBOARD, directory.clone()),
            documents: Arc::default(),
            directory,
            events: Arc::clone(&storage.events),
            standard_plan,
            trusted_origins: flags.trusted_origin.as_slice().into(),
        })
    }

    /// All routes, without CORS.
    pub(crate) fn router(&self) -> Router {
        let peer = |extensions: &Extensions| {
            extensions
                .get::<ConnectInfo<Peer>>()
                .map(|ConnectInfo(peer)| *peer)
        };
        let auth = AuthLayer::new(self.authenticator.clone())
            .peer(move |extensions| peer(extensions).map(|peer| peer.address.ip()))
            .tls(move |extensions| peer(extensions).and_then(|peer| peer.tls));
        let routes = ProtectedRouter::new(auth)
            .route("/healthz", get(|| async { Json(api::health()) }).public());
        let routes = api::routes(self).into_iter().fold(routes, on_axum::add);
        let routes = routes
            .not_found(|State(app): State<Self>| async move { app.unknown_path() })
            .into_router()
            .merge(self.management())
            .with_state(self.clone());
        // Wraps the router, because it must run before the router matches the path.
        let named = from_fn_with_state(self.clone(), on_axum::reject_empty_segments);
        Router::new().fallback_service(routes).layer(named)
    }

    /// The 404 response for an unknown path.
    pub(crate) fn unknown_path(&self) -> Response {
        self.refuse(&AuthError::new(ErrorCode::NotFound))
    }

    /// The routes for operators, which axum serves with either adapter.
    pub(crate) fn management(&self) -> Router<Self> {
        let admin = self.admin(Arc::clone(&self.operators));
        let own = || {
            let own = self.admin(self.me.clone()).operators(own_keys());
            own.trusted_origins([]).cookie(ME.cookie)
        };
        let portal = self.pages(own(), ME);
        let own = own().into_router();
        let dashboard = self.admin(self.dashboard.clone());
        let dashboard = dashboard.trusted_origins([]).cookie(DASHBOARD.cookie);
        let dashboard = self.pages(dashboard, DASHBOARD);
        // Shared, so that failures on either route count against the same budget.
        let proof = admin.limited_proof();
        let admin = admin.into_router();
        let users = put(admin::change_user).layer(Extension(Arc::clone(&proof)));
        Router::new()
            .nest("/admin", admin.clone())
            .route_service("/admin/", admin.with_state(self.clone()))
            .nest("/me/api", own.clone())
            .route_service("/me/api/", own.with_state(self.clone()))
            .nest_service("/me/keys", portal)
            .merge(sessions::routes(&self.me, Arc::clone(&proof)))
            .nest_service("/dashboard", dashboard)
            .merge(sessions::routes(&self.dashboard, proof))
            .route("/demo/users/{id}", users)
    }

    /// The pages of a management API, for operators who sign in to an area.
    fn pages(&self, admin: Admin, area: &Area) -> Router {
        let pages = admin.dashboard().texts(wording::texts(self.profile));
        pages
            .login_at(area.login)
            .logout_at(area.logout)
            .into_router()
    }

    /// The management API, configured for the demo.
    fn admin(&self, proof: impl OperatorProof) -> Admin {
        let peer = |extensions: &Extensions| {
            extensions
                .get::<ConnectInfo<Peer>>()
                .map(|ConnectInfo(peer)| peer.address.ip())
        };
        let admin = Admin::new(&self.keys, proof)
            .events(Arc::clone(&self.events))
            .trusted_origins(self.trusted_origins.iter().cloned())
            .peer(peer);
        if self.profile == Profile::AllSign {
            admin.event_view(admin::allsign_view)
        } else {
            admin
        }
    }

    /// Renders a handler's error in the profile's format.
    pub(crate) fn answer(&self, error: &AuthError) -> Answer {
        self.authenticator
            .responder()
            .answer(error, &HttpHead::new(&Request::new(()), None))
    }

    /// Renders a handler's error as an axum response.
    pub(crate) fn refuse(&self, error: &AuthError) -> Response {
        portunus::adapter::tower::into_response(self.answer(error), error)
    }

    /// Returns how many events have been dropped so far because they could not be written in time.
    pub(crate) fn dropped(&self) -> u64 {
        self.keys.audit().map_or(0, AuditTrail::dropped)
    }

    /// The tenant of the key that the banner shows.
    pub(crate) fn demo_tenant() -> &'static str {
        operators::TENANT
    }
}
