//! `doctor`: what is wrong with an installation, and how to fix it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use portunus::store::ListQuery;
use portunus_admin::parse_time;
use portunus_redis::Redis;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::api::{Api, Call, encoded};
use crate::args::{Doctor, Global};
use crate::failure::{Exit, Failure};
use crate::local::{Database, Local, chain, runtime};
use crate::service::Service;
use crate::target::{Target, address};
use crate::{output, text};

/// How far two clocks may be apart: lifetimes and limits would be wrong by as much.
const MOST_APART: Duration = Duration::from_secs(2);
/// How long a server of Redis may take to connect or to answer: a person waits for it, and a busy
/// machine must not look like a server that is down.
const REDIS_LIMIT: Duration = Duration::from_secs(10);
/// How old a use may be before it must have been written; services write every few seconds.
const WRITTEN_WITHIN: Duration = Duration::from_secs(60);
/// How many uses and keys are compared.
const EVENTS: usize = 200;
const KEYS: usize = 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Ok,
    /// Not checked, with the reason.
    Skipped,
    Warning,
    Failed,
}

/// The results so far.
#[derive(Default)]
struct Report(Vec<(&'static str, Status, String, &'static str)>);

impl Report {
    fn ok(&mut self, name: &'static str, what: impl Into<String>) {
        self.0.push((name, Status::Ok, what.into(), ""));
    }

    fn skipped(&mut self, name: &'static str, why: impl Into<String>) {
        self.0.push((name, Status::Skipped, why.into(), ""));
    }

    fn warn(&mut self, name: &'static str, what: impl Into<String>, fix: &'static str) {
        self.0.push((name, Status::Warning, what.into(), fix));
    }

    fn failed(&mut self, name: &'static str, what: impl Into<String>, fix: &'static str) {
        self.0.push((name, Status::Failed, what.into(), fix));
    }

    fn print(&self, global: &Global) -> Result<(), Failure> {
        let word = |status: &Status| match status {
            Status::Ok => "ok",
            Status::Skipped => "skipped",
            Status::Warning => "warning",
            Status::Failed => "failed",
        };
        if global.json {
            let checks = self.0.iter().map(|(name, status, what, fix)| {
                let what = text::redacted(what);
                let fix = (!fix.is_empty()).then_some(fix);
                json!({ "check": name, "status": word(status), "detail": what, "fix": fix })
            });
            output::json(&checks.collect())?;
        } else {
            let mut rows = Vec::new();
            for (name, status, what, fix) in &self.0 {
                rows.push(vec![
                    (*name).to_owned(),
                    word(status).to_owned(),
                    text::redacted(what),
                ]);
                if !fix.is_empty() {
                    rows.push(vec![String::new(), String::new(), format!("fix: {fix}")]);
                }
            }
            output::text(&text::table(&["CHECK", "STATUS", "DETAIL"], &rows))?;
        }
        let is_bad = |(_, status, ..): &&(_, Status, _, _)| {
            matches!(status, Status::Warning | Status::Failed)
        };
        match self.0.iter().filter(is_bad).count() {
            0 => Ok(()),
            count => Err(Failure::new(
                Exit::CheckFailed,
                format!("{count} checks found a problem"),
            )),
        }
    }
}

pub(crate) fn run(global: &Global, asked: &Doctor) -> Result<(), Failure> {
    let (target, runtime) = (crate::target(global)?, runtime()?);
    let bus = address("bus", asked.bus.as_deref(), None, "PORTUNUS_BUS")?;
    let limiter = address(
        "limiter",
        asked.limiter.as_deref(),
        None,
        "PORTUNUS_LIMITER",
    )?;
    let service = Service::read(global.service.as_deref())?;
    let mut report = Report::default();
    let redis = |address: &str| {
        let redis: Result<Redis, _> = address.parse();
        let redis = redis.and_then(|it| it.prefix(&asked.redis_prefix));
        // No request waits for it.
        let redis = redis.map(|it| it.deadline(REDIS_LIMIT));
        redis.map_err(|error| Failure::usage(chain(&error)))
    };
    match &limiter {
        None => report.skipped(
            "limiter",
            "no --limiter: requests are limited in each process",
        ),
        Some(address) => check_limiter(&mut report, &runtime, &redis(address)?),
    }
    let bus = bus.as_ref().map(|it| it.as_str());
    let redis_bus = bus.filter(|it| !it.starts_with("postgres"));
    if let Some(address) = redis_bus {
        let redis = redis(address)?;
        match runtime.block_on(async { redis.bus().check().await }) {
            Ok(()) => report.ok("bus", "Redis delivers what is published"),
            Err(error) => report.failed(
                "bus",
                chain(&error),
                "check the address and the permissions",
            ),
        }
    }
    let bus = bus.filter(|_| redis_bus.is_none());
    match &target {
        Target::Http(base) => over_http(&mut report, global, base)?,
        Target::Sqlite(_) | Target::Postgres(_) => {
            let opened = runtime.block_on(Database::open(&target, global.schema.as_deref()));
            match opened {
                Ok(database) => {
                    let is_current = runtime.block_on(on_store(&mut report, &database, &service));
                    if redis_bus.is_none() {
                        runtime.block_on(check_bus(&mut report, &database, bus));
                    }
                    if is_current {
                        let (operator, tenant) =
                            (crate::operator(global)?, global.tenant.as_deref());
                        let described = Service::default();
                        let local = Local::new(runtime, database, &described, &operator, tenant)?;
                        let api = Api::Local(Box::new(local));
                        check_usage(&mut report, &api);
                        api.finish()?;
                    }
                }
                Err(failure) if failure.exit == Exit::Usage => return Err(failure),
                Err(failure) => {
                    report.failed("connection", failure, "check the address and the server");
                }
            }
        }
    }
    report.print(global)
}

fn check_limiter(report: &mut Report, runtime: &Runtime, redis: &Redis) {
    match runtime.block_on(async { redis.limiter().check().await }) {
        Ok(warnings) if warnings.is_empty() => {
            report.ok("limiter", "answers, and evicts no limits");
        }
        Ok(warnings) => report.warn(
            "limiter",
            warnings.join("; "),
            "set `maxmemory-policy noeviction` on the server",
        ),
        Err(error) => report.failed(
            "limiter",
            chain(&error),
            "check the address and the permissions",
        ),
    }
}

/// Checks a database; returns whether its schema can be used.
async fn on_store(report: &mut Report, database: &Database, service: &Service) -> bool {
    report.ok("connection", "the database answers");
    let is_current = match database.schema().await {
        Ok((found, known)) if found >= known => {
            report.ok("schema", format!("{found}"));
            true
        }
        Ok((found, known)) => {
            let what = format!("the database has schema {found}, and this program needs {known}");
            report.failed("schema", what, "run `portunus migrate`");
            false
        }
        Err(failure) => {
            report.failed(
                "schema",
                failure,
                "use a newer program, or a role that can read the tables",
            );
            false
        }
    };
    match database {
        Database::Sqlite(_) => report.ok("clock", "a file has that of this machine"),
        Database::Postgres(store) => {
            let before = SystemTime::now();
            let theirs = store.server_time().await;
            let half = before.elapsed().unwrap_or_default() / 2;
            match theirs {
                Ok(theirs) => check_clock(report, before + half, theirs, half + MOST_APART),
                Err(error) => report.failed("clock", error.to_string(), "check the server"),
            }
            match store.is_behind_pooler() {
                false => report.ok("pooler", "no pooler that assigns connections to transactions"),
                true => report.warn(
                    "pooler",
                    "a pooler assigns a connection to each transaction",
                    "services need PostgresStore::behind_pooler, and bus_on the server's own address",
                ),
            }
        }
    }
    if is_current {
        check_writing(report, database, service).await;
        check_format(report, database, service).await;
    }
    is_current
}

fn check_clock(report: &mut Report, ours: SystemTime, theirs: SystemTime, most: Duration) {
    let (apart, which) = match theirs.duration_since(ours) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(error) => (error.duration(), "behind"),
    };
    let millis = apart.as_millis();
    let what = format!("the server's clock is {millis} ms {which} that of this machine");
    match apart <= most {
        true => report.ok("clock", what),
        false => report.failed("clock", what, "synchronize both, for example with chrony"),
    }
}

/// Checks whether the database can be written, by a change of nothing, and which changes wait for a
/// bus of the service.
async fn check_writing(report: &mut Report, database: &Database, service: &Service) {
    let keys = database.keys();
    match keys.forget_changes(&[]).await {
        Ok(()) => report.ok("writing", "permitted"),
        Err(error) => report.failed(
            "writing",
            chain(&error),
            "make the file and its folder writable, or grant the role the privileges",
        ),
    }
    match keys.recorded_changes().await {
        Ok(waiting) if waiting.is_empty() => report.ok("changes", "none wait for a bus"),
        Ok(_) if !service.may_have_own_bus() => {
            report.ok(
                "changes",
                "some are recorded for a bus that the service does not have",
            );
        }
        Ok(waiting) => report.warn(
            "changes",
            format!(
                "{} or more wait to be published on a bus of the service",
                waiting.len()
            ),
            "start a node of the service, or check its bus; if the nodes listen to the database \
             itself, say `own_bus = false` in the description (--service)",
        ),
        Err(error) => report.failed("changes", chain(&error), "check the database"),
    }
}

/// Compares the description of the service with the newest keys.
async fn check_format(report: &mut Report, database: &Database, service: &Service) {
    let expected = match service.expected() {
        Ok(Some(expected)) => expected,
        Ok(None) => return report.skipped("description", "no --service"),
        Err(failure) => return report.failed("description", failure, "correct the description"),
    };
    let mut query = ListQuery::new(SystemTime::now());
    query.limit = KEYS;
    let page = match database.keys().list(&query).await {
        Ok(page) => page,
        Err(error) => return report.failed("description", chain(&error), "check the database"),
    };
    if page.items.is_empty() {
        return report.skipped("description", "there are no keys to compare it with");
    }
    for record in &page.items {
        let digest = database.digest_of(&record.id).await.ok().flatten();
        let has_scheme = digest.is_some_and(|it| it.scheme() == expected.1);
        if record.masked.starts_with(&expected.0) && has_scheme {
            return report.ok("description", "agrees with keys of the service");
        }
    }
    report.warn(
        "description",
        "none of the newest keys has its prefix and its digest scheme",
        "compare the file with the service's KeyFormat and KeyHasher",
    );
}

async fn check_bus(report: &mut Report, database: &Database, own: Option<&str>) {
    let checked = match (database, own) {
        (Database::Sqlite(_), _) => {
            return report.ok(
                "bus",
                "processes watch the file; it must be on a local disk",
            );
        }
        (Database::Postgres(store), None) if store.is_behind_pooler() => {
            return report.skipped("bus", "give the server's own address by --bus");
        }
        (Database::Postgres(store), None) => store.bus().check().await,
        (Database::Postgres(store), Some(address)) => match store.bus_on(address) {
            Ok(bus) => bus.check().await,
            Err(error) => Err(error),
        },
    };
    match checked {
        Ok(()) => report.ok("bus", "notifications of the database arrive"),
        Err(error) => report.failed(
            "bus",
            error.to_string(),
            "give the server's own address, not a pooler's",
        ),
    }
}

fn over_http(report: &mut Report, global: &Global, base: &str) -> Result<(), Failure> {
    let http = crate::over_http(global, base)?;
    let before = SystemTime::now();
    match http.time() {
        Ok(theirs) => {
            let half = before.elapsed().unwrap_or_default() / 2;
            report.ok("connection", "the management API answers");
            match theirs {
                // It states whole seconds.
                Some(theirs) => {
                    let most = half + MOST_APART + Duration::from_secs(1);
                    check_clock(report, before + half, theirs, most);
                }
                None => report.skipped("clock", "the server does not state its time"),
            }
        }
        Err(failure) => report.failed("connection", failure, "check the address and the network"),
    }
    let api = Api::Http(http);
    match api.call(&Call::get("/keys?limit=1")) {
        Ok(_) => {
            report.ok("operator", "may read keys");
            check_usage(report, &api);
        }
        Err(failure) => report.failed(
            "operator",
            failure,
            "check the token and the operator's role",
        ),
    }
    for name in ["schema", "pooler", "bus"] {
        report.skipped(name, "give the address of the database by --store");
    }
    Ok(())
}

/// Compares the latest recorded requests with the usage of their keys: a node that does not run the
/// periodic jobs writes no usage.
fn check_usage(report: &mut Report, api: &Api) {
    let mut used = BTreeMap::<String, SystemTime>::new();
    let filters = [("action", Some("request")), ("outcome", Some("OK"))];
    let read = api.each("/events", &filters, EVENTS, &mut |event| {
        let at = event["at"].as_str().and_then(|at| parse_time(at).ok());
        if let (Some(key), Some(at)) = (event["key_id"].as_str(), at) {
            let latest = used.entry(key.to_owned()).or_insert(at);
            *latest = at.max(*latest);
        }
        Ok(())
    });
    match read {
        Err(failure) if failure.exit == Exit::NotFound => {
            return report.skipped("usage", "the management API has no events");
        }
        Err(failure) => return report.failed("usage", failure, "check the database"),
        Ok(_) => {}
    }
    let now = SystemTime::now();
    let is_due = |at: SystemTime| {
        now.duration_since(at)
            .is_ok_and(|since| since > WRITTEN_WITHIN)
    };
    let mut compared = 0;
    for (key, at) in used.into_iter().filter(|(_, at)| is_due(*at)).take(KEYS) {
        let Ok(record) = api.call(&Call::get(format!("/keys/{}", encoded(&key)))) else {
            // Deleted since.
            continue;
        };
        compared += 1;
        let written = last_use(&record).is_some_and(|last| last + WRITTEN_WITHIN >= at);
        if !written {
            return report.failed(
                "usage",
                format!("requests with {key} are recorded, but their use was never written"),
                "run Portunus::run or maintain on every node, and see why it fails in the logs",
            );
        }
    }
    match compared {
        0 => report.skipped("usage", "no request older than a minute is recorded"),
        _ => report.ok("usage", format!("that of {compared} used keys is written")),
    }
}

fn last_use(record: &Value) -> Option<SystemTime> {
    parse_time(record["last_used_at"].as_str()?).ok()
}
