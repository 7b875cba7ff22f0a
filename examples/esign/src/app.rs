//! One profile, ready to serve: its authenticator, its manager, its routes.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{ConnectInfo, State};
use axum::http::{Extensions, Request};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{any, put};
use axum::{Json, Router};
use portunus::KeyStore;
use portunus::adapter::axum::{ProtectedRouter, get};
use portunus::adapter::tower::{AuthLayer, HttpHead};
use portunus::audit::{AuditReader, AuditTrail, TracingAudit};
use portunus::key::KeyHasher;
use portunus::limit::LocalLimiter;
use portunus::manage::KeyManager;
use portunus::policy::PlanOrder;
use portunus::respond::Answer;
use portunus::{AuthError, Authenticator, ErrorCode, Requirement};
use portunus_admin::{Admin, Fault, Origin};
use portunus_profiles::Profile;
use tracing::warn;

use crate::api::{self, Shelves};
use crate::cli::{Flags, Limiter};
use crate::directory::DemoDirectory;
use crate::operators::Operators;
use crate::storage::{Chain, Storage};
use crate::tls::Peer;
use crate::unwritten::Unwritten;
use crate::{admin, on_axum, operators};

/// What all handlers share. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) profile: Profile,
    pub(crate) authenticator: Authenticator,
    pub(crate) manager: KeyManager,
    store: Arc<dyn KeyStore>,
    pub(crate) operators: Arc<Operators>,
    pub(crate) shelves: Arc<Shelves>,
    pub(crate) directory: DemoDirectory,
    trail: AuditTrail,
    /// How many events that were dropped a warning has told of.
    dropped_told: Arc<AtomicU64>,
    events: Arc<dyn AuditReader>,
    pub(crate) plans: PlanOrder,
    pub(crate) standard_plan: Requirement,
    /// Other sites whose pages may write to the management API and read its answers.
    pub(crate) trusted_origins: Arc<[Origin]>,
}

impl App {
    pub(crate) fn new(
        flags: &Flags,
        storage: &Storage,
        operators: Operators,
    ) -> Result<Self, Box<dyn Error>> {
        let store = Arc::clone(&storage.keys);
        let profile = flags.profile;
        let directory = DemoDirectory::new(profile)?;
        let plans = PlanOrder::new(operators::PLANS.iter().copied())?;
        let limiter = match flags.limiter {
            Limiter::Local => LocalLimiter::default(),
        };
        let mut authenticator = profile
            .authenticator(Arc::clone(&store))
            .owner_standing(directory.clone())
            .directory(directory.clone())
            .client_ip(flags.client_ip())
            .limiter(limiter)
            .on_limiter_outage(flags.on_limiter_outage.into());
        let trail = AuditTrail::builder()
            .sink(Arc::clone(&storage.sink))
            .sink(TracingAudit::new())
            .build();
        // Keys that are imported may come as SHA-512.
        let hasher = KeyHasher::sha256().accept_sha512()?;
        authenticator = authenticator.hasher(hasher.clone()).audit(trail.clone());
        let mut manager = profile
            .manager(store)
            .hasher(hasher)
            .policy(operators::DemoPolicy)
            .audit(trail.clone());
        if flags.tls_cert.is_none() {
            if profile == Profile::IuSign {
                warn!(
                    "this API mandates TLS 1.3; without --tls-cert and --tls-key the demo does not demand it"
                );
            }
            authenticator = authenticator.transport(None);
        }
        if let Some(bound) = &flags.environment {
            authenticator = authenticator.environment(bound.clone());
            // Serving is bound, issuing is not: the bound one is the default, the others can be
            // asked for.
            let others = profile
                .environments()
                .into_iter()
                .filter(|other| other != bound);
            manager = manager.environments(std::iter::once(bound.clone()).chain(others));
        }
        Ok(Self {
            profile,
            authenticator: authenticator.build()?,
            manager: manager.build()?,
            store: Arc::clone(&storage.keys),
            operators: Arc::new(operators),
            shelves: Arc::default(),
            directory,
            trail,
            dropped_told: Arc::default(),
            events: Arc::clone(&storage.events),
            standard_plan: plans.at_least(operators::TENANTS_PLAN)?,
            plans,
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
        // Around the router, not behind it: what it decides first is which path it is.
        let named = from_fn_with_state(self.clone(), on_axum::every_segment_named);
        Router::new().fallback_service(routes).layer(named)
    }

    /// There is nothing at this path.
    pub(crate) fn unknown_path(&self) -> Response {
        self.refuse(&AuthError::new(ErrorCode::NotFound))
    }

    /// The routes that operators' tokens open, whichever framework serves the others.
    pub(crate) fn management(&self) -> Router<Self> {
        Router::new()
            .nest("/admin", self.admin().into_router())
            .route(
                "/admin/",
                any(|| async { Fault::from(AuthError::new(ErrorCode::NotFound)) }),
            )
            .route("/demo/users/{id}", put(admin::change_user))
    }

    /// The management API, with the demo's rules.
    fn admin(&self) -> Admin {
        let (profile, plans) = (self.profile, self.plans.clone());
        let peer = |extensions: &Extensions| {
            extensions
                .get::<ConnectInfo<Peer>>()
                .map(|ConnectInfo(peer)| peer.address.ip())
        };
        let admin = Admin::new(
            self.manager.clone(),
            self.authenticator.clone(),
            Arc::clone(&self.operators),
        )
        .rules(admin::DemoRules { profile, plans })
        .events(Arc::clone(&self.events))
        .trusted_origins(self.trusted_origins.iter().cloned())
        .peer(peer);
        if profile == Profile::AllSign {
            admin.event_view(admin::allsign_view)
        } else {
            admin
        }
    }

    /// A refusal by a handler, in the profile's dialect.
    pub(crate) fn answer(&self, error: &AuthError) -> Answer {
        self.authenticator
            .responder()
            .answer(error, &HttpHead::new(&Request::new(()), None))
    }

    /// The same as axum's response.
    pub(crate) fn refuse(&self, error: &AuthError) -> Response {
        portunus::adapter::tower::into_response(self.answer(error), error)
    }

    /// Waits until somebody wants to read the events that were noted.
    pub(crate) async fn events_requested(&self) {
        self.trail.flush_requested().await;
    }

    /// Writes the events that were noted; whether they could be written.
    pub(crate) async fn flush_events(&self) -> bool {
        let written = self.trail.flush().await;
        if let Err(error) = &written {
            warn!(error = %Chain(error), "events could not be written; they are kept for the next time");
        }
        let dropped = self.dropped();
        if self.dropped_told.swap(dropped, Ordering::Relaxed) < dropped {
            warn!(dropped, "events were lost: there were too many to keep");
        }
        written.is_ok()
    }

    /// How many events were left out so far, because they could not be written in time.
    pub(crate) fn dropped(&self) -> u64 {
        self.trail.dropped()
    }

    /// Writes the usage that was counted, and the events that were noted; whether they could be
    /// written.
    pub(crate) async fn flush(&self) -> bool {
        let events = self.flush_events().await;
        let usage = self.authenticator.usage();
        let written = match self.store.usage() {
            Some(counts) => usage.flush(&*counts).await,
            None => Ok(()),
        };
        if let Err(error) = &written {
            warn!(error = %Chain(error), "usage could not be written; it is kept for the next time");
        }
        events && written.is_ok()
    }

    /// Whether something was counted or noted that is not written yet.
    pub(crate) async fn has_unwritten(&self) -> bool {
        self.trail.pending().await > 0 || self.authenticator.usage().pending() > 0
    }

    /// What is lost if the process ends now, where so many events had been dropped before it was
    /// told to stop.
    pub(crate) async fn unwritten(&self, dropped_before: u64) -> Unwritten {
        let waiting = u64::try_from(self.trail.pending().await).unwrap_or(u64::MAX);
        let dropped_since = self.dropped().saturating_sub(dropped_before);
        Unwritten {
            events: waiting.saturating_add(dropped_since),
            uses: self.authenticator.usage().pending(),
            dropped_before,
        }
    }

    /// Where the demo's own key belongs.
    pub(crate) fn demo_tenant() -> &'static str {
        operators::TENANT
    }
}
