//! The management API on a store, in this process: for setting up and for emergencies.
//!
//! A person with the credentials of the database may do everything. The operator is the user that
//! `--operator` or the environment names, in the tenant of the key, so that the audit names a person.

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::http::request::Parts;
use portunus::audit::{Action, AuditReader, AuditSink, AuditTrail};
use portunus::key::{KeyDigest, KeyId, KeyRecord, TenantId, UserId};
use portunus::manage::{Denied, Operator, OperatorPolicy, Role, Setting};
use portunus::store::{Cache, ListQuery};
use portunus::{AuthError, KeyStore, Limits, Portunus};
use portunus_admin::{Admin, OperatorProof};
use portunus_sqlx::{PostgresStore, SqliteStore};
use tokio::runtime::Runtime;
use tower::ServiceExt;
use zeroize::Zeroizing;

use crate::api::{Answer, Call, no_answer};
use crate::failure::{Exit, Failure};
use crate::service::Service;
use crate::target::Target;

/// The largest answer in bytes.
const MOST_BYTES: usize = 256 << 20;

/// A database.
#[derive(Clone)]
pub(crate) enum Database {
    Sqlite(SqliteStore),
    Postgres(PostgresStore),
}

impl Database {
    /// Opens a database, and neither creates nor migrates it.
    pub(crate) async fn open(target: &Target, schema: Option<&str>) -> Result<Self, Failure> {
        match (target, schema) {
            (Target::Sqlite(_), Some(_)) => Err(Failure::usage("--schema needs PostgreSQL")),
            (Target::Sqlite(path), None) => Ok(Self::Sqlite(SqliteStore::attach(path).await?)),
            (Target::Postgres(address), schema) => {
                let store = PostgresStore::attach(address).await?;
                Ok(Self::Postgres(match schema {
                    Some(name) => store.in_schema(name)?,
                    None => store,
                }))
            }
            (Target::Http(_), _) => Err(Failure::usage(
                "this command needs the address of a database: sqlite:PATH or postgres://…",
            )),
        }
    }

    /// Returns the version of the schema and the one that is needed.
    pub(crate) async fn schema(&self) -> Result<(i64, i64), Failure> {
        Ok(match self {
            Self::Sqlite(store) => store.schema().await?,
            Self::Postgres(store) => store.schema().await?,
        })
    }

    pub(crate) async fn migrate(&self) -> Result<(), Failure> {
        match self {
            Self::Sqlite(store) => store.migrate().await?,
            Self::Postgres(store) => store.migrate().await?,
        }
        Ok(())
    }

    /// Closes the connections: the last one to a file removes the files beside it.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(store) => store.close().await,
            Self::Postgres(store) => store.close().await,
        }
    }

    pub(crate) fn keys(&self) -> Arc<dyn KeyStore> {
        match self {
            Self::Sqlite(store) => Arc::new(store.clone()),
            Self::Postgres(store) => Arc::new(store.clone()),
        }
    }

    /// Returns the stored digest of a key.
    pub(crate) async fn digest_of(&self, id: &KeyId) -> Result<Option<KeyDigest>, Failure> {
        let found = match self {
            Self::Sqlite(store) => store.digest_of(id).await,
            Self::Postgres(store) => store.digest_of(id).await,
        };
        found.map_err(|error| Failure::new(Exit::Unavailable, chain(&error)))
    }

    fn log(&self) -> (Arc<dyn AuditSink>, Arc<dyn AuditReader>) {
        match self {
            Self::Sqlite(store) => (Arc::new(store.audit()), Arc::new(store.audit())),
            Self::Postgres(store) => (Arc::new(store.audit()), Arc::new(store.audit())),
        }
    }
}

/// Returns a runtime on this thread.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.map_err(|error| Failure::other(format!("cannot start: {error}")))
}

/// The management API of a store.
pub(crate) struct Local {
    runtime: Runtime,
    database: Database,
    router: Router,
    trail: AuditTrail,
    user: UserId,
    tenant: Option<TenantId>,
    /// Why events are not written.
    unwritten: RefCell<Option<String>>,
}

impl Local {
    /// Builds the API of a database whose schema is up to date.
    pub(crate) fn new(
        runtime: Runtime,
        database: Database,
        service: &Service,
        operator: &str,
        tenant: Option<&str>,
    ) -> Result<Self, Failure> {
        let (found, known) = runtime.block_on(database.schema())?;
        if found < known {
            let text = match found {
                0 => "the database has no schema".to_owned(),
                _ => format!("the database has schema {found}, and this program needs {known}"),
            };
            return Err(Failure::new(Exit::Conflict, text).and("run `portunus migrate`"));
        }
        let user = UserId::new(operator)
            .map_err(|error| Failure::usage(format!("--operator: {error}")))?;
        let tenant = tenant.map(TenantId::new).transpose();
        let tenant = tenant.map_err(|error| Failure::usage(format!("--tenant: {error}")))?;
        let keys = database.keys();
        if service.may_have_own_bus() {
            // Nodes that do not listen to the database learn of changes from its records.
            keys.record_changes();
        }
        let (sink, reader) = database.log();
        let trail = AuditTrail::builder().sink(sink).build();
        let entered = runtime.enter();
        let portunus = Portunus::builder(service.credentials()?)
            .store(keys)
            .cache(Cache::none())
            // Shows what the record itself says.
            .limits(Limits::none())
            .actors(service.actors())
            .management(service.management()?.operators(Everything))
            .audit(trail.clone())
            // The service deletes and reports what is old.
            .retention(None, None)
            .notices([], [])
            .build()
            .map_err(|error| Failure::usage(format!("the description of the service: {error}")))?;
        let admin = Admin::new(&portunus, Bearer).events(reader);
        let admin = admin.quotas(None).failures(None).failed_verifications(None);
        drop(entered);
        Ok(Self {
            router: admin.into_router(),
            runtime,
            database,
            trail,
            user,
            tenant,
            unwritten: RefCell::default(),
        })
    }

    pub(crate) fn call(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        self.runtime.block_on(self.answer(call))
    }

    /// Waits for work on the database.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Returns the stored digest of a key.
    pub(crate) fn digest_of(&self, id: &str) -> Result<Option<KeyDigest>, Failure> {
        match KeyId::new(id) {
            Ok(id) => self.wait(self.database.digest_of(&id)),
            Err(_) => Ok(None),
        }
    }

    async fn answer(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let operator = self.operator(call).await?;
        let content = call.content();
        let mut request = Request::builder()
            .method(call.method)
            .uri(&call.path)
            .extension(operator);
        if let Some((media, _)) = &content {
            request = request.header("content-type", *media);
        }
        if let Some(key) = call.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let bytes = content.map_or_else(Vec::new, |(_, bytes)| bytes.to_vec());
        let request = request
            .body(Body::from(bytes))
            .map_err(|error| Failure::usage(format!("cannot send this: {error}")))?;
        let Ok(response) = self.router.clone().oneshot(request).await;
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after");
        let retry_after = retry_after.and_then(|it| it.to_str().ok()?.parse().ok());
        let body = axum::body::to_bytes(response.into_body(), MOST_BYTES).await;
        let body = body.map_err(|error| no_answer(call, &error.to_string()))?;
        if let Err(error) = self.trail.flush().await {
            *self.unwritten.borrow_mut() = Some(chain(&error));
        }
        Ok(Answer {
            status,
            body: Zeroizing::new(body.to_vec()),
            retry_after: retry_after.map(Duration::from_secs),
        })
    }

    /// Returns the operator of a call: the user in the tenant that is given, or else in the tenant of
    /// the key; the service itself for a call about all tenants.
    async fn operator(&self, call: &Call<'_>) -> Result<Operator, Failure> {
        let tenant = match &self.tenant {
            Some(tenant) => Some(tenant.clone()),
            None => self.tenant_of(call).await?,
        };
        Ok(match tenant {
            Some(tenant) => Operator::new(self.user.clone(), tenant, Role::Owner).in_organization(),
            None => Operator::host(),
        })
    }

    async fn tenant_of(&self, call: &Call<'_>) -> Result<Option<TenantId>, Failure> {
        let of_json = || call.body?.pointer("/owner/tenant_id")?.as_str();
        let of_lines = call.lines.and_then(|lines| lines.tenant.as_deref());
        if let Some(stated) = of_lines.or_else(of_json) {
            return Ok(TenantId::new(stated).ok());
        }
        let id = call.path.strip_prefix("/keys/");
        let id = id.and_then(|rest| KeyId::new(rest.split(['/', '?']).next()?).ok());
        let Some(id) = id else {
            return Ok(None);
        };
        match self.database.keys().get(&id).await {
            Ok(found) => Ok(found.map(|record| record.owner.tenant_id.clone())),
            Err(error) => Err(Failure::new(Exit::Unavailable, chain(&error))),
        }
    }

    /// Ends the work, and reports events that could not be written.
    pub(crate) fn finish(&self) -> Result<(), Failure> {
        self.wait(self.database.close());
        match self.unwritten.take() {
            None => Ok(()),
            Some(why) => {
                let text = format!("done, but the audit event could not be written: {why}");
                Err(Failure::new(Exit::NotRecorded, text))
            }
        }
    }
}

/// Returns an error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// The operator is determined before the call.
#[derive(Debug)]
struct Bearer;

#[async_trait]
impl OperatorProof for Bearer {
    async fn prove(&self, request: &Parts) -> Result<Operator, AuthError> {
        let operator = request.extensions.get::<Operator>().cloned();
        operator.ok_or(AuthError::new(portunus::ErrorCode::MissingKey))
    }
}

/// The policy of a person who could also write to the database directly.
#[derive(Debug)]
struct Everything;

impl OperatorPolicy for Everything {
    fn allows(&self, _: &Operator, _: Action, _: &KeyRecord) -> Result<(), Denied> {
        Ok(())
    }

    fn lists(&self, _: &Operator, query: ListQuery) -> Result<ListQuery, Denied> {
        Ok(query)
    }

    fn may_exceed(&self, _: &Operator, _: Setting) -> bool {
        true
    }
}
