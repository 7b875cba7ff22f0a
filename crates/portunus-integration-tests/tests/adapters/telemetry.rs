//! Spans, log records and metrics: every name and label is as documented, every response is counted
//! once, and no secret appears in them.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::outside::{Down, Flapping, Full, Issuer, People};
use axum::body::Body;
use axum::response::Response;
use axum::{Router, routing};
use http::{HeaderValue, Request};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use portunus::actor::CachedDirectory;
use portunus::adapter::axum::RequireExt;
use portunus::adapter::tower::AuthLayer;
use portunus::audit::{AuditSink, AuditTrail, MemoryAudit, TracingAudit};
use portunus::key::{Delegation, Owner};
use portunus::limit::{LimitPolicy, LocalLimiter, OnOutage, Plan};
use portunus::manage::NewKey;
use portunus::quota::{Quota, Quotas};
use portunus::{AuthError, ErrorCode, KeyPrincipal, Limits};
use portunus_test_support::{FIND, Fixture, Setup, base64, format, scope, stranger, tenant};
use tower::ServiceExt;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Recorded metrics: name and labels, with the count or the number of measurements.
fn measured<F: Future>(run: F) -> BTreeMap<String, u64> {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || block_on(run));
    let mut all = BTreeMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let labels: Vec<_> = key
            .key()
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        let value = match value {
            DebugValue::Counter(count) => count,
            DebugValue::Histogram(values) => {
                assert_eq!(key.kind(), MetricKind::Histogram);
                assert!(
                    values
                        .iter()
                        .all(|seconds| (0.0..10.0).contains(&seconds.into_inner())),
                    "in seconds"
                );
                values.len() as u64
            }
            DebugValue::Gauge(_) => panic!("no gauges are documented"),
        };
        all.insert(
            format!("{}{{{}}}", key.key().name(), labels.join(",")),
            value,
        );
    }
    all
}

fn of<'a>(all: &'a BTreeMap<String, u64>, name: &str) -> Vec<(&'a str, u64)> {
    all.iter()
        .filter_map(|(key, count)| Some((key.strip_prefix(name)?, *count)))
        .collect()
}

/// Everything that is logged, down to TRACE.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

pub(crate) fn logged<F: Future>(run: F) -> String {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::NEW)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || block_on(run));
    String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
}

fn per_minute(limit: u64) -> Quotas {
    Quotas::new([Quota::per_minute(limit).unwrap()]).unwrap()
}

struct Door {
    fixture: Fixture,
    key: String,
    id: portunus::key::KeyId,
}

async fn door(late: bool) -> Door {
    let fixture = Fixture::new();
    let mut new = NewKey::new("key", Owner::tenant(tenant("acme"))).with_scopes([scope("a")]);
    new.delegation = Some(Delegation::On);
    let (key, record) = fixture.issue_new(new).await;
    if late {
        fixture.store.answer_late(1);
    }
    Door {
        fixture,
        key,
        id: record.id.clone(),
    }
}

fn app(builder: Setup) -> Router {
    let routes: Router = Router::new()
        .route("/a/{id}", routing::get(|| async {}).require(scope("a")))
        .route("/b", routing::get(|| async {}).require(scope("b")))
        .route("/gone", routing::get(|| async { http::StatusCode::GONE }));
    routes.route_layer(AuthLayer::new(builder.build().unwrap()))
}

async fn ask(app: &Router, path: &str, fields: &[(&'static str, &str)]) -> Response {
    let mut request = Request::builder().uri(path);
    for (name, value) in fields {
        request = request.header(*name, HeaderValue::from_str(value).unwrap());
    }
    app.clone()
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap()
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

// ---- metrics ----

#[test]
fn each_answer_is_counted_once_by_its_outcome() {
    for late in [false, true] {
        let all = measured(async {
            let door = door(late).await;
            let app = app(door.fixture.bearer().directory(People));
            let key = bearer(&door.key);
            for path in ["/a/1", "/a/2?secret=1", "/gone"] {
                ask(&app, path, &[("authorization", &key)]).await;
            }
            ask(&app, "/b", &[("authorization", &key)]).await;
            ask(&app, "/b", &[]).await;
            ask(&app, "/nowhere", &[]).await;
            ask(&app, "/a/1", &[("authorization", &bearer(&stranger()))]).await;
            ask(
                &app,
                "/a/1",
                &[("authorization", &key), ("x-user-id", "who")],
            )
            .await;
            door.fixture.store.fail(FIND);
            ask(&app, "/a/1", &[("authorization", &key)]).await;
        });
        let codes = ["INSUFFICIENT_SCOPE", "INVALID_KEY", "MISSING_KEY"].map(|code| (code, 1));
        let more = [("OK", 3), ("STORE_UNAVAILABLE", 1), ("UNKNOWN_ACTOR", 1)];
        let expected: Vec<_> = codes
            .iter()
            .chain(&more)
            .map(|(c, n)| (format!("{{outcome={c}}}"), *n))
            .collect();
        let told = of(&all, "portunus_requests_total");
        assert_eq!(
            told,
            expected
                .iter()
                .map(|(code, count)| (code.as_str(), *count))
                .collect::<Vec<_>>()
        );
        let store = [
            ("{result=failed}", 1),
            ("{result=found}", 5),
            ("{result=missing}", 1),
        ];
        assert_eq!(of(&all, "portunus_store_seconds"), store, "late: {late}");
        assert_eq!(
            of(&all, "portunus_directory_seconds"),
            [("{result=missing}", 1)]
        );
    }
}

#[test]
fn an_answer_through_two_layers_is_one_answer() {
    let all = measured(async {
        let door = door(false).await;
        let by_header = door
            .fixture
            .bare()
            .header("x-api-key", [format()])
            .build()
            .unwrap();
        let routes: Router = Router::new().route("/", routing::get(|| async {}));
        let app = routes.route_layer(AuthLayer::new(by_header));
        let app = app.route_layer(AuthLayer::new(door.fixture.bearer().build().unwrap()));
        ask(
            &app,
            "/",
            &[
                ("authorization", &bearer(&door.key)),
                ("x-api-key", &door.key),
            ],
        )
        .await;
    });
    assert_eq!(of(&all, "portunus_requests_total"), [("{outcome=OK}", 1)]);
}

#[test]
fn limits_outages_directories_and_verifiers_are_measured_as_documented() {
    let all = measured(async {
        let door = door(false).await;
        let key = bearer(&door.key);
        let limiter = || {
            LocalLimiter::builder()
                .clock(door.fixture.clock.clone())
                .build()
        };
        let limited = app(door
            .fixture
            .bearer()
            .limiter(limiter())
            .quotas(per_minute(2)));
        for _ in 0..3 {
            ask(&limited, "/a/1", &[("authorization", &key)]).await;
        }
        for (mode, status) in [
            (OnOutage::Open, 200),
            (OnOutage::Local, 200),
            (OnOutage::Closed, 503),
        ] {
            let builder = door.fixture.bearer().limiter(Down).on_limiter_outage(mode);
            let authenticator = builder.build().unwrap();
            let routes: Router = Router::new().route("/", routing::get(|| async {}));
            let app = routes.route_layer(AuthLayer::new(authenticator.clone()));
            assert_eq!(
                ask(&app, "/", &[("authorization", &key)])
                    .await
                    .status()
                    .as_u16(),
                status
            );
            assert_eq!(authenticator.limiter_outages(), 1);
        }
        let directory = CachedDirectory::new(People, 100, Duration::from_secs(60));
        let acting = app(door
            .fixture
            .bearer()
            .directory(directory)
            .owner_standing(People)
            .token_verifier(Issuer));
        for user in ["u1", "u1", "who", "down"] {
            ask(
                &acting,
                "/a/1",
                &[("authorization", &key), ("x-user-id", user)],
            )
            .await;
        }
        for token in ["eyJ.good", "eyJ.bad", "eyJ.down"] {
            ask(&acting, "/gone", &[("authorization", &bearer(token))]).await;
        }
    });
    let limiter = [
        ("{result=admitted}", 2),
        ("{result=failed}", 3),
        ("{result=refused}", 1),
    ];
    assert_eq!(of(&all, "portunus_limiter_seconds"), limiter);
    let outages = [
        ("{mode=closed}", 1),
        ("{mode=local}", 1),
        ("{mode=open}", 1),
    ];
    assert_eq!(of(&all, "portunus_limiter_outages_total"), outages);
    assert_eq!(of(&all, "portunus_limiter_mode_changes_total"), outages);
    let verifier = [
        ("{result=failed}", 1),
        ("{result=found}", 1),
        ("{result=missing}", 1),
    ];
    assert_eq!(of(&all, "portunus_verifier_seconds"), verifier);
    let cache = [
        ("{cache=directory,result=hit}", 1),
        ("{cache=directory,result=miss}", 3),
    ];
    assert_eq!(of(&all, "portunus_cache_total"), cache);
    // Two users found (one in the cache), one missing, one outage; five owners in good standing.
    let directory = [
        ("{result=failed}", 1),
        ("{result=found}", 7),
        ("{result=missing}", 1),
    ];
    assert_eq!(of(&all, "portunus_directory_seconds"), directory);
}

#[test]
fn events_that_were_not_kept_are_counted_by_the_reason() {
    let all = measured(async {
        let door = door(false).await;
        let trail = AuditTrail::builder().sink(Full).capacity(2);
        let trail = trail.failures_per_source(Some(per_minute(3))).build();
        let audited = app(door.fixture.bearer().audit(trail.clone()));
        for _ in 0..5 {
            ask(&audited, "/a/1", &[]).await;
        }
        trail.flush().await.unwrap_err();
        for _ in 0..2 {
            ask(&audited, "/a/1", &[("authorization", &bearer(&door.key))]).await;
        }
        trail.flush().await.unwrap_err();
    });
    let told: BTreeMap<_, _> = of(&all, "portunus_audit_left_out_total")
        .into_iter()
        .collect();
    assert_eq!(
        (told["{reason=queue_full}"], told["{reason=throttled}"]),
        (1, 2)
    );
    assert_eq!(
        told["{reason=sink_failed}"], 2,
        "two of four events, and nothing that was only said about them"
    );
}

/// Three requests with a key of the plan `pro`, of which the last one is refused, one with a key of a
/// tenant without a plan, and one without a key.
async fn by_plan(labelled: bool) {
    let door = door(false).await;
    let per_key = |limit| LimitPolicy::per_key([Quota::per_minute(limit)]);
    let limits = Limits::new([per_key(100)]).plan(Plan::new("pro", [per_key(2)]));
    let limits = match labelled {
        true => limits.plans_in_metrics(),
        false => limits,
    };
    let mut new = NewKey::new("key", Owner::tenant(tenant("acme"))).with_scopes([scope("a")]);
    new.plan = Some("pro".parse().unwrap());
    let (pro, _) = door.fixture.issue_new(new).await;
    let clock = door.fixture.clock.clone();
    let app = app(door.fixture.bearer().clock(clock).limits(limits));
    for key in [&pro, &pro, &pro, &door.key] {
        ask(&app, "/a/1", &[("authorization", &bearer(key))]).await;
    }
    ask(&app, "/a/1", &[]).await;
}

#[test]
fn responses_are_counted_by_plan_where_the_host_asks_for_it() {
    let all = measured(by_plan(true));
    assert_eq!(
        of(&all, "portunus_requests_total"),
        [
            ("{outcome=MISSING_KEY,plan=none}", 1),
            ("{outcome=OK,plan=none}", 1),
            ("{outcome=OK,plan=pro}", 2),
            ("{outcome=RATE_LIMITED,plan=pro}", 1),
        ]
    );
    let all = measured(by_plan(false));
    assert_eq!(
        of(&all, "portunus_requests_total"),
        [
            ("{outcome=MISSING_KEY}", 1),
            ("{outcome=OK}", 3),
            ("{outcome=RATE_LIMITED}", 1),
        ]
    );
}

#[test]
fn a_plan_that_is_not_declared_is_no_label() {
    // Without declared plans, operators can give keys any: their number is not bounded.
    let all = measured(async {
        let door = door(false).await;
        let mut new = NewKey::new("key", Owner::tenant(tenant("acme"))).with_scopes([scope("a")]);
        new.plan = Some("canary-plan".parse().unwrap());
        let (key, _) = door.fixture.issue_new(new).await;
        let limits = Limits::per_key([Quota::per_minute(100)]).plans_in_metrics();
        let app = app(door.fixture.bearer().limits(limits));
        ask(&app, "/a/1", &[("authorization", &bearer(&key))]).await;
    });
    let counted = of(&all, "portunus_requests_total");
    assert_eq!(counted, [("{outcome=OK,plan=none}", 1)]);
}

/// Keeps what is described to it: the unit and the meaning of each metric.
#[derive(Default)]
struct Described(Mutex<BTreeMap<String, String>>);

impl Described {
    fn add(&self, kind: &str, name: &KeyName, unit: Option<Unit>, meaning: &str) {
        let text = format!("{kind} in {:?}: {meaning}", unit.unwrap());
        let name = name.as_str().to_owned();
        self.0.lock().unwrap().insert(name, text.to_lowercase());
    }
}

impl Recorder for Described {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.add("counter", &name, unit, &meaning);
    }
    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        panic!("no gauges are documented: {}", name.as_str());
    }
    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, meaning: SharedString) {
        self.add("histogram", &name, unit, &meaning);
    }
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn every_metric_is_described_when_the_service_is_built_and_when_its_jobs_begin() {
    let fixture = Fixture::new();
    let keys = fixture.bearer().keys();
    let [built, maintained, run] = [(), (), ()].map(|()| Described::default());
    metrics::with_local_recorder(&built, || drop(fixture.bearer().keys()));
    // Recorders that are installed afterwards.
    metrics::with_local_recorder(&maintained, || drop(block_on(keys.maintain())));
    metrics::with_local_recorder(&run, || drop(block_on(keys.run(std::future::ready(())))));
    let documented = include_str!("../../../../src/telemetry.rs");
    let rows = documented.lines().filter_map(|line| {
        let cells: Vec<_> = line
            .strip_prefix("//! | `portunus_")?
            .split(" | ")
            .collect();
        let name = format!("portunus_{}", cells[0].trim_end_matches('`'));
        let kind = match name.ends_with("_seconds") {
            true => "histogram in seconds",
            false => "counter in count",
        };
        let meaning = cells.last()?.trim_end_matches(" |");
        Some((name, format!("{kind}: {meaning}").to_lowercase()))
    });
    let rows: BTreeMap<_, _> = rows.collect();
    assert_eq!(rows.len(), 9, "{rows:?}");
    for recorder in [built, maintained, run] {
        assert_eq!(*recorder.0.lock().unwrap(), rows);
    }
}

#[test]
fn nothing_is_measured_under_a_name_that_is_not_documented() {
    let documented = include_str!("../../../../src/telemetry.rs");
    let all = measured(every_path());
    assert!(all.len() > 15, "{all:?}");
    for key in all.keys() {
        let (name, labels) = key.split_once('{').unwrap();
        let row = documented
            .lines()
            .find(|line| line.contains(&format!("| `{name}` |")))
            .unwrap_or_else(|| panic!("{name}"));
        for label in labels.trim_end_matches('}').split(',') {
            let (label, value) = label.split_once('=').unwrap();
            assert!(row.contains(&format!("`{label}`")), "{key}");
            assert!(
                label == "outcome" || row.contains(&format!("`{value}`")),
                "{key}"
            );
            assert!(
                label != "outcome" || value == "OK" || value.parse::<ErrorCode>().is_ok(),
                "{key}"
            );
        }
    }
}

// ---- changes of the outage mode ----

/// A service whose limiter answers every second request, then every request, then none.
async fn flapping() {
    let door = door(false).await;
    let (key, clock) = (bearer(&door.key), &door.fixture.clock);
    let down = Arc::new(AtomicBool::new(false));
    let limiter = Flapping {
        down: Arc::clone(&down),
        local: LocalLimiter::builder().clock(clock.clone()).build(),
    };
    let app = app(door.fixture.bearer().limiter(limiter));
    let ask = async |is_down: bool| {
        down.store(is_down, Ordering::SeqCst);
        ask(&app, "/a/1", &[("authorization", &key)]).await;
    };
    for _ in 0..10 {
        ask(true).await;
        clock.advance(Duration::from_millis(2_400));
        ask(false).await;
        clock.advance(Duration::from_millis(2_400));
    }
    clock.advance(Duration::from_secs(1));
    ask(false).await;
    ask(false).await;
    ask(true).await;
}

#[test]
fn an_outage_of_the_limiter_is_counted_and_logged_once_however_often_it_answers_in_between() {
    let all = measured(flapping());
    let changes = [("{mode=local}", 2), ("{mode=normal}", 1)];
    assert_eq!(of(&all, "portunus_limiter_mode_changes_total"), changes);
    assert_eq!(
        of(&all, "portunus_limiter_outages_total"),
        [("{mode=local}", 11)]
    );
    let log = logged(flapping());
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(
        lines("the rate limiter does not answer mode=\"local\""),
        2,
        "{log}"
    );
    assert_eq!(
        lines("the rate limiter answers again mode=\"normal\""),
        1,
        "{log}"
    );
}

// ---- log lines ----

#[test]
fn awaited_calls_run_in_documented_spans() {
    let log = logged(async {
        let door = door(true).await;
        let builder = door
            .fixture
            .bearer()
            .directory(People)
            .owner_standing(People)
            .limiter(Down)
            .token_verifier(Issuer);
        let app = app(builder);
        ask(
            &app,
            "/gone",
            &[("authorization", &bearer(&door.key)), ("x-user-id", "u1")],
        )
        .await;
        ask(&app, "/gone", &[("authorization", &bearer("eyJ.good"))]).await;
    });
    for span in [
        "store",
        "limiter",
        "directory",
        "owner_standing",
        "verifier",
    ] {
        let line = log
            .lines()
            .find(|line| line.contains(&format!("authenticate:{span}: portunus: new")));
        assert!(
            line.is_some_and(|line| line.contains("DEBUG")),
            "{span} in {log}"
        );
    }
}

/// The records of refusals, one each.
fn refusals(log: &str) -> Vec<&str> {
    log.lines()
        .filter(|line| line.contains("portunus: refused"))
        .collect()
}

#[test]
fn a_refusal_is_one_record_and_an_outage_has_its_cause() {
    let mut id = String::new();
    let log = logged(async {
        let door = door(false).await;
        id = door.id.to_string();
        let app = app(door.fixture.bearer().directory(People));
        let key = bearer(&door.key);
        ask(&app, "/a/1", &[("authorization", &key)]).await;
        ask(&app, "/a/1", &[]).await;
        ask(
            &app,
            "/a/1",
            &[("authorization", &key), ("x-user-id", "who")],
        )
        .await;
        ask(
            &app,
            "/a/1",
            &[("authorization", &key), ("x-user-id", "down")],
        )
        .await;
        door.fixture.store.fail(FIND);
        ask(&app, "/a/1", &[("authorization", &key)]).await;
    });
    let lines = refusals(&log);
    assert_eq!(lines.len(), 4, "{log}");
    let has = |at: usize, parts: &[&str]| {
        parts
            .iter()
            .for_each(|part| assert!(lines[at].contains(part), "{}", lines[at]));
    };
    has(0, &["DEBUG", "code=\"MISSING_KEY\""]);
    assert!(!lines[0].contains("key_id"));
    has(
        1,
        &["DEBUG", "code=\"UNKNOWN_ACTOR\"", &format!("key_id={id}")],
    );
    has(
        2,
        &[
            "WARN",
            "code=\"DIRECTORY_UNAVAILABLE\"",
            &format!("key_id={id}"),
            "user directory did not answer",
        ],
    );
    has(
        3,
        &[
            "WARN",
            "code=\"STORE_UNAVAILABLE\"",
            "key store is unavailable",
        ],
    );
}

#[test]
fn a_refusal_by_a_route_also_logs_the_key_id() {
    let mut id = String::new();
    let log = logged(async {
        let door = door(false).await;
        id = door.id.to_string();
        ask(
            &app(door.fixture.bearer()),
            "/b",
            &[("authorization", &bearer(&door.key))],
        )
        .await;
    });
    let [line] = refusals(&log)[..] else {
        panic!("{log}")
    };
    assert!(
        line.contains("code=\"INSUFFICIENT_SCOPE\"") && line.contains(&format!("key_id={id}")),
        "{line}"
    );
}

#[test]
fn that_requests_have_no_client_address_is_said_once() {
    for late in [false, true] {
        let log = logged(async {
            let door = door(late).await;
            let app = app(door.fixture.bearer());
            for _ in 0..3 {
                let unknown = bearer(&portunus_test_support::stranger());
                ask(&app, "/a/1", &[("authorization", &unknown)]).await;
            }
        });
        assert_eq!(log.matches("has no client address").count(), 1, "{log}");
        assert!(log.contains(" WARN "), "{log}");
    }
}

#[test]
fn that_a_policy_per_address_sees_none_is_said_once_with_the_fix() {
    let limits = || Limits::new([LimitPolicy::per_address([Quota::per_minute(9)])]);
    let log = logged(async {
        let door = door(false).await;
        let app = app(door.fixture.bearer().limits(limits()));
        for _ in 0..3 {
            ask(&app, "/a/1", &[("authorization", &bearer(&door.key))]).await;
        }
    });
    assert_eq!(log.matches("has no client address").count(), 1, "{log}");
    assert!(log.contains("into_make_service_with_connect_info"), "{log}");
    assert!(log.contains(" WARN "), "{log}");
    // No policy needs an address.
    let log = logged(async {
        let door = door(false).await;
        let app = app(door.fixture.bearer().quotas(per_minute(9)));
        ask(&app, "/a/1", &[("authorization", &bearer(&door.key))]).await;
    });
    assert!(!log.contains("has no client address"), "{log}");
}

#[test]
fn a_plan_that_is_not_declared_is_one_line() {
    let log = logged(async {
        let door = door(false).await;
        let mut new = NewKey::new("key", Owner::tenant(tenant("acme")));
        new.plan = Some("gold".parse().unwrap());
        let (key, _) = door.fixture.issue_new(new).await;
        let limits = Limits::default().plan(Plan::new("free", []));
        let app = app(door.fixture.bearer().limits(limits));
        for _ in 0..3 {
            let response = ask(&app, "/a/1", &[("authorization", &bearer(&key))]).await;
            assert_eq!(response.status(), 503);
        }
    });
    let lines = log.lines().filter(|line| line.contains("is not declared"));
    let lines: Vec<_> = lines
        .filter(|line| line.contains("requests with them get 503"))
        .collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(
        lines[0].contains("ERROR") && lines[0].contains("gold"),
        "{log}"
    );
}

#[test]
fn a_refusal_by_the_host_with_a_cause_is_not_an_outage() {
    let log = logged(async {
        let door = door(false).await;
        let layer = AuthLayer::new(door.fixture.bearer().build().unwrap());
        let layer = layer.try_map_principal(async |_: KeyPrincipal| {
            Err::<(), _>(
                AuthError::new(ErrorCode::Forbidden)
                    .caused_by(io::Error::other("the account is closed")),
            )
        });
        let app: Router = Router::new()
            .route("/", routing::get(|| async {}))
            .route_layer(layer);
        ask(&app, "/", &[("authorization", &bearer(&door.key))]).await;
    });
    assert!(refusals(&log)[0].contains("DEBUG"), "{log}");
}

#[test]
fn an_audit_event_is_always_one_line() {
    let log = logged(async {
        let log = MemoryAudit::new(10);
        let trail = AuditTrail::builder()
            .sink(TracingAudit::new())
            .sink(log.clone())
            .build();
        let door = door(false).await;
        let app = app(door.fixture.bearer().audit(trail.clone()));
        ask(
            &app,
            "/a/1%0a2027-01-01T00:00:00Z%20WARN%20forged",
            &[("x-request-id", "\"x\"")],
        )
        .await;
        ask(&app, "/gone", &[("authorization", &bearer(&door.key))]).await;
        trail.flush().await.unwrap();
        let mut hostile = log.all().remove(0);
        let text = "\n2027-01-01T00:00:00Z WARN forged\u{1b}[31m\r\u{202e}";
        (hostile.route, hostile.detail) = (Some(text.into()), Some(text.into()));
        hostile.actor = Some(portunus::audit::Party::operator(text));
        TracingAudit::new().record(&[hostile]).await.unwrap();
    });
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("portunus::audit"))
        .collect();
    assert_eq!(lines.len(), 3, "{log}");
    assert!(
        lines[0].contains(" WARN ")
            && lines[1].contains(" INFO ")
            && lines[1].contains("outcome=\"OK\"")
    );
    assert!(
        !log.contains("\n2027-01-01") && !log.contains('\u{1b}') && !log.contains('\u{202e}'),
        "{log}"
    );
}

// ---- no secret ----

/// All collected output, and the secrets that must not appear in it.
#[derive(Default)]
struct Shown {
    text: String,
    canaries: Vec<String>,
}

impl Shown {
    fn add(&mut self, what: &dyn std::fmt::Debug) {
        self.text += &format!("{what:?}\n{what:#?}\n");
    }
    /// All of the key except its end, in every possible encoding.
    fn must_not_have(&mut self, key: &str, fixture: &Fixture) {
        let digest = portunus_test_support::text::hex(fixture.hasher.digest(key).to_bytes());
        let encoded = base64(key.as_bytes());
        self.canaries
            .extend([key[..30].to_owned(), encoded[..36].to_owned(), digest]);
    }
    fn check(&self, text: &str) {
        assert!(!self.canaries.is_empty() && text.len() > 1000);
        for canary in &self.canaries {
            assert!(!text.contains(canary), "{canary} is in {text}");
        }
    }
}

/// Presents keys in every way, and collects everything that can be printed.
async fn every_path() -> Shown {
    let mut shown = Shown::default();
    for late in [false, true] {
        let door = door(late).await;
        let log = MemoryAudit::new(1000);
        let trail = AuditTrail::builder()
            .sink(log.clone())
            .sink(TracingAudit::new())
            .sink(Full)
            .capacity(12);
        let trail = trail.failures_per_source(Some(per_minute(5))).build();
        let limiter = LocalLimiter::builder()
            .clock(door.fixture.clock.clone())
            .build();
        let builder = || {
            let builder = door
                .fixture
                .bearer()
                .basic([format()])
                .header("x-api-key", [format()])
                .audit(trail.clone());
            let builder = builder
                .directory(CachedDirectory::new(People, 100, Duration::from_secs(60)))
                .owner_standing(People);
            builder.token_verifier(Issuer).quotas(per_minute(8))
        };
        let (key, unknown) = (&door.key, &stranger());
        let wrong = portunus_test_support::with_last_character_wrong(key);
        for secret in [key, unknown] {
            shown.must_not_have(secret, &door.fixture);
        }
        let basic = |pair: String| format!("Basic {}", base64(pair.as_bytes()));
        for app in [
            app(builder().limiter(limiter.clone())),
            app(builder().limiter(Down)),
        ] {
            for path in ["/a/1", "/b"] {
                let mut all: Vec<Vec<(&str, String)>> = Vec::new();
                for key in [key, unknown, &wrong] {
                    let pairs = [
                        format!("{key}:"),
                        format!("{key}:{key}"),
                        key.clone(),
                        format!(":{key}"),
                    ];
                    let values = [
                        bearer(key),
                        format!("Token {key}"),
                        format!("Bearer {key}, Bearer {key}"),
                        key.clone(),
                    ];
                    all.extend(
                        pairs
                            .map(basic)
                            .into_iter()
                            .chain(values)
                            .map(|value| vec![("authorization", value)]),
                    );
                    all.push(vec![("x-api-key", key.clone())]);
                    all.push(vec![
                        ("x-api-key", key.clone()),
                        ("authorization", bearer(key)),
                    ]);
                    for user in ["u1", "who", "down", ""] {
                        all.push(vec![
                            ("authorization", bearer(key)),
                            ("x-on-behalf-of", user.into()),
                        ]);
                    }
                }
                all.extend(
                    ["eyJ.good", "eyJ.down", "eyJ.bad"]
                        .map(|token| vec![("authorization", bearer(token))]),
                );
                for fields in all {
                    let fields: Vec<_> = fields
                        .iter()
                        .map(|(name, value)| (*name, value.as_str()))
                        .collect();
                    let response = ask(&app, path, &fields).await;
                    shown.add(&response);
                    shown.add(&response.extensions().get::<AuthError>());
                }
                let _ = trail.flush().await;
                door.fixture.clock.advance(Duration::from_secs(120));
            }
        }
        let authenticator = builder().build().unwrap();
        let head = portunus_test_support::Head::bearer(key);
        let attempt = authenticator.attempt(&head);
        shown.add(&(
            &authenticator,
            &attempt,
            authenticator.request_audit(&head),
            AuthLayer::new(authenticator.clone()),
        ));
        shown.add(&attempt.outcome().await);
        door.fixture.store.fail(FIND);
        shown.add(&authenticator.authenticate(&head).await);
        let _ = trail.flush().await;
        shown.add(&(&trail, &log, log.all()));
        shown.text += &serde_json::to_string(&log.all()).unwrap();
    }
    shown
}

#[test]
fn no_secret_is_in_anything_that_is_shown_logged_or_measured() {
    let shown = Mutex::new(Shown::default());
    let log = Mutex::new(String::new());
    let all = measured(async {
        // The subscriber and the recorder are local to this thread.
        let text = Log::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(text.clone());
        let guard =
            tracing::subscriber::set_default(subscriber.with_span_events(FmtSpan::FULL).finish());
        *shown.lock().unwrap() = every_path().await;
        drop(guard);
        *log.lock().unwrap() = String::from_utf8(text.0.lock().unwrap().clone()).unwrap();
    });
    let (shown, log) = (shown.into_inner().unwrap(), log.into_inner().unwrap());
    assert!(
        log.contains("portunus::audit") && log.contains("refused") && log.contains("authenticate")
    );
    shown.check(&log);
    shown.check(&shown.text);
    shown.check(&format!("{all:?}"));
}
