//! What a limited request costs: its time beside that of `PING` with the same settings of the
//! connection and as many at once, and the CPU time of the node beside that with the limiter in the
//! process. All take turns in each round.
//!
//! Many keys have the default quotas, and stay below them. One key is the worst case: admitted, it has
//! units in every slot of its windows.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portunus::clock::SystemClock;
use portunus::limit::OnOutage;
use portunus::quota::{Quota, Quotas};
use portunus::{Authenticator, ErrorCode};
use portunus_redis::Redis;
use portunus_test_support::redis::Redis as Server;
use portunus_test_support::{Fixture, Head};
use redis::IntoConnectionInfo;
use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;

const AT_ONCE: usize = 16;
const ROUNDS: usize = 40;
const REQUESTS: usize = 4_000;
/// The number of keys that take turns, so that none reaches its quota in all rounds.
const MANY: usize = 5_000;

/// What takes turns.
#[derive(Clone)]
enum Contender {
    Ping(MultiplexedConnection),
    Service(Arc<Service>),
}

struct Service {
    authenticator: Authenticator,
    keys: Vec<String>,
    next: AtomicUsize,
    unanswered: AtomicUsize,
}

impl Service {
    async fn act(&self) {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let head = Head::bearer(&self.keys[next % self.keys.len()]);
        let code = match self.authenticator.authenticate(&head).await {
            Ok(_) => return,
            Err(error) => error.code(),
        };
        if code == ErrorCode::LimiterUnavailable {
            self.unanswered.fetch_add(1, Ordering::Relaxed);
        } else {
            assert_eq!(code, ErrorCode::RateLimited);
        }
    }
}

impl Contender {
    async fn act(&mut self) {
        match self {
            Self::Ping(connection) => {
                let _: String = redis::cmd("PING").query_async(connection).await.unwrap();
            }
            Self::Service(service) => service.act().await,
        }
    }
}

/// What was measured of a contender.
struct Row {
    name: &'static str,
    contender: Contender,
    took: Vec<Duration>,
    cpu: Duration,
}

impl Row {
    fn new(name: &'static str, contender: Contender) -> Self {
        Self {
            name,
            contender,
            took: Vec::new(),
            cpu: Duration::ZERO,
        }
    }

    async fn round(&mut self) {
        let before = cpu_time();
        let mut tasks = JoinSet::new();
        for _ in 0..AT_ONCE {
            let mut contender = self.contender.clone();
            tasks.spawn(async move {
                let mut took = Vec::with_capacity(REQUESTS / AT_ONCE);
                for _ in 0..REQUESTS / AT_ONCE {
                    let began = Instant::now();
                    contender.act().await;
                    took.push(began.elapsed());
                }
                took
            });
        }
        self.took.extend(tasks.join_all().await.concat());
        self.cpu += cpu_time() - before;
    }

    fn percentile(&self, percent: usize) -> Duration {
        self.took[(self.took.len() * percent / 100).min(self.took.len() - 1)]
    }

    /// The CPU time of the process per request.
    fn cpu_each(&self) -> Duration {
        self.cpu / u32::try_from(self.took.len()).unwrap()
    }
}

/// The CPU time of this process, in ticks of 10 ms.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = [11, 12]
        .map(|at: usize| fields[at].parse::<u64>().unwrap())
        .iter()
        .sum();
    Duration::from_millis(10 * ticks)
}

/// The default windows with these limits.
fn quotas(minute: u64, hour: u64) -> Quotas {
    let quotas = [Quota::per_minute(minute), Quota::per_hour(hour)];
    Quotas::new(quotas.map(Result::unwrap)).unwrap()
}

async fn service(redis: Option<&Redis>, keys: usize, quotas: &Quotas) -> Contender {
    let fixture = Fixture::new();
    let mut setup = fixture
        .bearer()
        .clock(SystemClock::default())
        .quotas(quotas.clone())
        .on_limiter_outage(OnOutage::Closed);
    if let Some(redis) = redis {
        let limiter = redis.limiter();
        limiter.check().await.unwrap();
        setup = setup.limiter(limiter);
    }
    let mut all = Vec::new();
    for _ in 0..keys {
        all.push(fixture.issue(&[]).await.0);
    }
    Contender::Service(Arc::new(Service {
        authenticator: setup.build().unwrap(),
        keys: all,
        next: AtomicUsize::new(0),
        unanswered: AtomicUsize::new(0),
    }))
}

/// A connection with the settings of the limiter's.
async fn connection(server: &Server) -> MultiplexedConnection {
    let info = server.address().into_connection_info().unwrap();
    let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
    let client = redis::Client::open(info.set_tcp_settings(tcp)).unwrap();
    let config = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(1024);
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .unwrap()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let server = Server::start();
    let redis = Redis::single(&server.address()).unwrap();
    let (default, never) = (quotas(60, 1_000), quotas(1_000_000_000, 4_000_000_000));
    let mut rows = [
        Row::new("PING", Contender::Ping(connection(&server).await)),
        Row::new(
            "Redis, many keys",
            service(Some(&redis), MANY, &default).await,
        ),
        Row::new(
            "Redis, one, admitted",
            service(Some(&redis), 1, &never).await,
        ),
        Row::new(
            "Redis, one, refused",
            service(Some(&redis), 1, &default).await,
        ),
        Row::new("in process, many keys", service(None, MANY, &default).await),
        Row::new("in process, one key", service(None, 1, &never).await),
    ];
    for round in 0..=ROUNDS {
        if round == 1 {
            // The first round only warms up.
            for row in &mut rows {
                (row.took, row.cpu) = (Vec::new(), Duration::ZERO);
            }
        }
        rows.rotate_left(1);
        for row in &mut rows {
            row.round().await;
        }
    }
    rows.sort_by_key(|row| row.name);
    rows.iter_mut().for_each(|row| row.took.sort_unstable());
    let ping = rows
        .iter()
        .find(|row| row.name == "PING")
        .unwrap()
        .percentile(99);
    println!(
        "{} requests each, {AT_ONCE} at once, quotas per minute and per hour",
        rows[0].took.len()
    );
    println!(
        "{:<22}{:>12}{:>12}{:>14}{:>12}{:>14}",
        "", "p50", "p99", "p99 / PING", "node's CPU", "no decision"
    );
    for row in &rows {
        let [p50, p99] = [50, 99].map(|percent| row.percentile(percent));
        let ratio = p99.as_secs_f64() / ping.as_secs_f64();
        print!(
            "{:<22}{:>12}{:>12}{ratio:>14.2}{:>12}",
            row.name,
            format!("{p50:.1?}"),
            format!("{p99:.1?}"),
            format!("{:.2?}", row.cpu_each())
        );
        let unanswered = match &row.contender {
            Contender::Service(service) => service.unanswered.load(Ordering::Relaxed),
            Contender::Ping(_) => 0,
        };
        println!("{unanswered:>14}");
    }
}
