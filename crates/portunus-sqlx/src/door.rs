//! The servers behind a pool: whether they accept connections, and whether they can be used.
//!
//! A standby server answers lookups with what it has received so far, which may lack a revocation.
//! PostgreSQL makes no primary server a standby without a restart, which ends its connections: it
//! is enough to ask when a connection is made, together with the first settings, and again when
//! an idle one is tested anyway. A pooler may use another server for each transaction: there, each
//! transaction asks for permission to write, in the message that begins it, which a server in
//! recovery refuses.
//!
//! A statement that gets no answer may be on a connection to a server that is gone. What the address
//! leads to by now tells: if that is a primary server which was started at another time than the one
//! of the pool's newest connection, everything that was connected before is given up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Row};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::fault::{Fault, Refusal};
use crate::lease::{ANSWER_LIMIT, UNLISTEN, lost};
use crate::sql::ABOUT_SERVER;

/// A connection that was idle for longer is tested before it is used. This is shorter than the time
/// in which a dead connection is detected: all that have been idle since then are tested.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// The minimum interval between checks of a server, however many operations wait.
const ASKED_EVERY: Duration = Duration::from_millis(250);
/// A statement that takes longer than this checks whether the address leads to another server, and
/// then again at this interval.
const WATCHED_EVERY: Duration = Duration::from_secs(1);

/// What a server says about itself.
pub(crate) struct Server {
    pub(crate) is_in_recovery: bool,
    /// When it was started, in microseconds.
    pub(crate) started: i64,
}

impl Server {
    /// Reads the first two columns of a row.
    pub(crate) fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            is_in_recovery: row.try_get::<i64, _>(0)? == 1,
            started: row.try_get(1)?,
        })
    }
}

/// Asks a server about itself.
async fn ask(connection: &mut PgConnection) -> Result<Server, sqlx::Error> {
    let ask = AssertSqlSafe(format!("{UNLISTEN}{ABOUT_SERVER}"));
    Server::of(&sqlx::raw_sql(ask).fetch_one(connection).await?)
}

/// The primary server of the pool's newest connection.
#[derive(Debug, Default)]
pub(crate) struct Primary {
    /// When it was started; `None` if the pool does not tell.
    started: Mutex<Option<i64>>,
    /// How often open connections were found to lead to another server.
    distrusted: AtomicU64,
    /// Whether the idle ones are to be closed.
    sweeps: AtomicBool,
}

impl Primary {
    /// Records a server to which a new connection leads. If it is another one than before, the
    /// other connections lead to the wrong server.
    pub(crate) fn is(&self, server: &Server) {
        let mut known = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if known
            .replace(server.started)
            .is_some_and(|known| known != server.started)
        {
            tracing::warn!("the database server was replaced or restarted");
            self.distrust();
        }
    }

    fn distrust(&self) {
        self.distrusted.fetch_add(1, Ordering::SeqCst);
        self.sweeps.store(true, Ordering::SeqCst);
    }

    fn is_known(&self) -> bool {
        let known = self.started.lock();
        known.unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The same for a connection outside of the pool.
    fn may_be(&self, server: &Server) {
        if self.is_known() && !server.is_in_recovery {
            self.is(server);
        }
    }
}

/// Returns an error if the server is in recovery.
pub(crate) async fn refuse_recovery(connection: &mut PgConnection) -> Result<(), Fault> {
    match timeout(ANSWER_LIMIT, ask(connection)).await {
        Ok(Ok(server)) if server.is_in_recovery => Err(Refusal::Replica.into()),
        Ok(asked) => Ok(asked.map(drop)?),
        Err(_) => Err(Refusal::TooLong(ANSWER_LIMIT).into()),
    }
}

/// Pool options with which a connection is tested before use, unless it worked a moment ago. One
/// that stays on its server, which is `primary`, is closed if that is in recovery; if one does not
/// answer, the other idle ones are closed too.
pub(crate) fn asking_first(options: PgPoolOptions, primary: Option<Arc<Primary>>) -> PgPoolOptions {
    options
        .test_before_acquire(false)
        .before_acquire(move |connection, about| {
            let primary = primary.clone();
            Box::pin(async move {
                if about.idle_for < TRUSTED_FOR {
                    return Ok(true);
                }
                let asked = async {
                    if primary.is_some() {
                        return Ok(!ask(connection).await?.is_in_recovery);
                    }
                    connection.ping().await.map(|()| true)
                };
                let asked = timeout(ANSWER_LIMIT, asked).await;
                if let (Err(_), Some(primary)) = (&asked, &primary) {
                    primary.sweeps.store(true, Ordering::SeqCst);
                }
                asked.map_err(|_| lost())?
            })
        })
}

/// The address of a pool: what it leads to, asked once for all operations that wait.
#[derive(Debug, Clone)]
pub(crate) struct Door(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: PgPool,
    last: tokio::sync::Mutex<Option<Asked>>,
    /// Has one reference for each connection in use, and one more.
    lent: Arc<()>,
    primary: Arc<Primary>,
}

#[derive(Debug)]
struct Asked {
    at: Instant,
    /// Why the server refused a connection, if it did.
    refused: Option<Refused>,
}

#[derive(Debug)]
struct Refused {
    /// The server's error; `None` if it is in recovery.
    cause: Option<String>,
    /// Whether existing connections may still work: the server has reached its limit, or they lead
    /// to another one.
    others_work: bool,
}

impl Door {
    pub(crate) fn new(pool: PgPool, primary: Arc<Primary>) -> Self {
        Self(Arc::new(Inner {
            pool,
            last: tokio::sync::Mutex::default(),
            lent: Arc::default(),
            primary,
        }))
    }

    /// A reference that is held while a connection is in use.
    pub(crate) fn lend(&self) -> Arc<()> {
        Arc::clone(&self.0.lent)
    }

    /// The trust in the connections that are open now. Closes idle ones that are not trusted.
    pub(crate) fn trust(&self) -> Trust {
        let Inner { primary, pool, .. } = &*self.0;
        let counted = primary.distrusted.load(Ordering::SeqCst);
        if primary.sweeps.swap(false, Ordering::SeqCst) {
            while let Some(idle) = pool.try_acquire() {
                drop(idle.detach());
            }
        }
        let door = self.clone();
        Trust { door, counted }
    }

    /// Closes all connections: those in use when they are returned.
    pub(crate) fn distrust(&self) {
        self.0.primary.distrust();
        drop(self.trust());
    }

    /// Waits until the server refuses connections. While it accepts them or does not respond, the
    /// caller keeps waiting. Returns `None` if a connection that is already open may become free.
    pub(crate) async fn refuses(&self) -> Option<Fault> {
        loop {
            let last = self.ask(ASKED_EVERY).await;
            let refused = last.as_ref().and_then(|asked| asked.refused.as_ref());
            if let Some(Refused { cause, others_work }) = refused {
                let refusal = match cause {
                    Some(cause) => Refusal::Unreachable(cause.clone()),
                    None => Refusal::Replica,
                };
                if *others_work {
                    drop(last);
                    if self.is_one_left().await {
                        return None;
                    }
                }
                return Some(refusal.into());
            }
            drop(last);
            sleep(ASKED_EVERY).await;
        }
    }

    /// Connects, unless that was tried a moment ago.
    async fn ask(&self, every: Duration) -> tokio::sync::MutexGuard<'_, Option<Asked>> {
        let mut last = self.0.last.lock().await;
        let is_old = |asked: &Asked| asked.at.elapsed() >= every;
        if last.as_ref().is_none_or(is_old) {
            let tried = timeout(ANSWER_LIMIT, self.try_to_connect()).await;
            let refused = tried.unwrap_or_default();
            let at = Instant::now();
            *last = Some(Asked { at, refused });
        }
        last
    }

    /// Returns why the server cannot be used, if it refuses or is in recovery.
    async fn try_to_connect(&self) -> Option<Refused> {
        let options = self.0.pool.connect_options();
        let mut connection = match PgConnection::connect_with(&options).await {
            Ok(connection) => connection,
            Err(error) => return refused(error),
        };
        let server = ask(&mut connection).await.ok()?;
        self.0.primary.may_be(&server);
        let _ = connection.close().await;
        server.is_in_recovery.then_some(Refused {
            cause: None,
            others_work: true,
        })
    }

    /// Whether any working connection is left.
    async fn is_one_left(&self) -> bool {
        let is_left = || Arc::strong_count(&self.0.lent) > 1 || self.0.pool.num_idle() > 0;
        // A connection that is being handed over is not counted for a moment.
        is_left() || {
            sleep(ASKED_EVERY).await;
            is_left()
        }
    }
}

/// The trust in the connections that were open at some time.
#[derive(Debug)]
pub(crate) struct Trust {
    door: Door,
    counted: u64,
}

impl Trust {
    /// Whether they lead to the wrong server.
    pub(crate) fn is_lost(&self) -> bool {
        self.door.0.primary.distrusted.load(Ordering::SeqCst) != self.counted
    }

    /// Waits until it is known that they lead to the wrong server, at most for this long.
    pub(crate) async fn lost(&self, limit: Duration) {
        let until = Instant::now() + limit;
        while !self.is_lost() && Instant::now() < until {
            sleep_until(until.min(Instant::now() + WATCHED_EVERY)).await;
            if Instant::now() < until && self.door.0.primary.is_known() {
                let _ = timeout_at(until, self.door.ask(WATCHED_EVERY)).await;
            }
        }
    }
}

/// The refusal in an error that sqlx would retry until its timeout.
fn refused(error: sqlx::Error) -> Option<Refused> {
    let others_work = match &error {
        sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => false,
        sqlx::Error::Database(answer) if answer.is_transient_in_connect_phase() => true,
        _ => return None,
    };
    let cause = Some(Fault::from(error).causes());
    Some(Refused { cause, others_work })
}
