//! A pool's connection for one operation, and the server behind it. Every wait has a time limit: a
//! server that stops responding, without a reset, delays no operation beyond it.
//!
//! sqlx itself returns connections to the pool after a ping without a timeout, forgets a `BEGIN`
//! whose future was dropped, and retries a refused connection until its timeout.

use std::fmt::Write as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Postgres};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::fault::{Fault, Refusal};
use crate::share::Permit;
use crate::sql::{self, Dialect};
use crate::store::READ_LIMIT;
use crate::value::{Row, Session, Value, bound, cells};

/// The longest time that a server may take to confirm that a connection works, or to release one.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// The longest time that connecting may take.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A connection that does not answer for this long while another one is in a transaction, and does
/// afterwards, was waiting for the other.
const HELD_FOR: Duration = Duration::from_secs(2);
/// The longest time that a statement may take, which is also set on the server.
const STATEMENT_LIMIT: Duration = Duration::from_secs(10);
/// The longest time that beginning a transaction may take.
const BEGIN_LIMIT: Duration = Duration::from_secs(3);
/// A connection that was idle for longer is tested before it is used. This is shorter than the time
/// in which a dead connection is detected: all that have been idle since then are tested.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// A wait for a connection beyond this time checks whether the server accepts connections.
const PATIENT_FOR: Duration = Duration::from_millis(100);
/// The minimum interval between such checks, however many operations wait.
const ASKED_EVERY: Duration = Duration::from_millis(250);

/// Precedes everything that is sent through a pooler. Another client may have left the server
/// connection listening; sqlx treats a notification that it did not request as a malformed answer.
/// The server does nothing if the connection does not listen.
pub(crate) const UNLISTEN: &str = "UNLISTEN *; ";

/// The error of a connection that did not answer.
pub(crate) fn lost() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}

/// Pool options with which a connection is tested before use, unless it worked a moment ago.
pub(crate) fn asking_first(options: PgPoolOptions) -> PgPoolOptions {
    options
        .test_before_acquire(false)
        .before_acquire(|connection, about| {
            Box::pin(async move {
                if about.idle_for >= TRUSTED_FOR {
                    let asked = timeout(ANSWER_LIMIT, connection.ping()).await;
                    asked.map_err(|_| lost())??;
                }
                Ok(true)
            })
        })
}

/// Connects outside of a pool.
pub(crate) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Fault> {
    let connected = timeout(CONNECT_LIMIT, PgConnection::connect_with(options)).await;
    Ok(connected.map_err(|_| Refusal::TooLong(CONNECT_LIMIT))??)
}

/// A time limit that starts when it is created.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    until: Instant,
    of: Duration,
}

impl Limit {
    pub(crate) fn of(of: Duration) -> Self {
        Self {
            until: Instant::now() + of,
            of,
        }
    }

    /// The result of work that ends within the limit.
    pub(crate) async fn on<T>(
        self,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        match timeout_at(self.until, work).await {
            Ok(done) => done,
            Err(_) => Err(Refusal::TooLong(self.of).into()),
        }
    }
}

/// Whether a client connection stays on one server connection, as named statements and session
/// settings require.
pub(crate) async fn keeps_its_server(
    mut connection: PgConnection,
    options: &PgConnectOptions,
) -> Result<bool, Fault> {
    let asked = async {
        let before = process(&mut connection).await?;
        // The second connection takes the server connection that the first one released, and keeps
        // it. If no further connection can be opened, the check is inconclusive, and the check of
        // the bus has to detect the pooler.
        let Ok(mut other) = connect(options).await else {
            return Ok(true);
        };
        let begin = AssertSqlSafe(format!("{UNLISTEN}BEGIN"));
        sqlx::raw_sql(begin).execute(&mut other).await?;
        process(&mut other).await?;
        // The second connection may hold the only server connection of a pooler.
        let after = timeout(HELD_FOR, process(&mut connection)).await;
        sqlx::raw_sql("ROLLBACK").execute(&mut other).await?;
        let after = match after {
            Ok(after) => Some(after?),
            Err(_) => process(&mut connection).await.map(|_| None)?,
        };
        other.close().await?;
        connection.close().await?;
        Ok(after == Some(before))
    };
    Limit::of(CONNECT_LIMIT).on(asked).await
}

/// The server process that answers.
async fn process(connection: &mut PgConnection) -> Result<i32, Fault> {
    let ask = AssertSqlSafe(format!("{UNLISTEN}SELECT pg_backend_pid()"));
    let asked = sqlx::raw_sql(ask).fetch_one(connection);
    Ok(sqlx::Row::try_get(&asked.await?, 0)?)
}

/// Checks whether a server accepts connections, once for all operations that wait for one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Door {
    last: Arc<tokio::sync::Mutex<Option<Asked>>>,
    /// Has one reference for each connection in use, and one more.
    lent: Arc<()>,
}

#[derive(Debug)]
struct Asked {
    at: Instant,
    /// Why the server refused a connection, if it did.
    refused: Option<Refused>,
}

#[derive(Debug)]
struct Refused {
    cause: String,
    /// Whether existing connections may still work: the server has reached its limit.
    others_work: bool,
}

impl Door {
    /// Waits until the server refuses connections. While it accepts them or does not respond, the
    /// caller keeps waiting. Returns `None` if a connection that is already open may become free.
    async fn refuses(&self, pool: &PgPool) -> Option<Fault> {
        let options = &pool.connect_options();
        loop {
            let mut last = self.last.lock().await;
            let is_old = |asked: &Asked| asked.at.elapsed() >= ASKED_EVERY;
            if last.as_ref().is_none_or(is_old) {
                let connected = timeout(ANSWER_LIMIT, PgConnection::connect_with(options)).await;
                let refused = match connected {
                    Ok(Err(error)) => refused(error),
                    Ok(Ok(connection)) => {
                        let _ = timeout(ANSWER_LIMIT, connection.close()).await;
                        None
                    }
                    Err(_) => None,
                };
                let at = Instant::now();
                *last = Some(Asked { at, refused });
            }
            let refused = last.as_ref().and_then(|asked| asked.refused.as_ref());
            if let Some(Refused { cause, others_work }) = refused {
                let refusal = Refusal::Unreachable(cause.clone());
                if *others_work {
                    drop(last);
                    if self.is_any_left(pool).await {
                        return None;
                    }
                }
                return Some(refusal.into());
            }
            drop(last);
            sleep(ASKED_EVERY).await;
        }
    }

    /// Whether any working connection is left.
    async fn is_any_left(&self, pool: &PgPool) -> bool {
        let is_left = || Arc::strong_count(&self.lent) > 1 || pool.num_idle() > 0;
        // A connection that is being handed over is not counted for a moment.
        is_left() || {
            sleep(ASKED_EVERY).await;
            is_left()
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
    let cause = Fault::from(error).causes();
    Some(Refused { cause, others_work })
}

/// A connection until it is returned, which dropping does.
pub(crate) struct Lease {
    /// `None` only while this is dropped.
    connection: Option<PoolConnection<Postgres>>,
    limit: Limit,
    /// Whether a transaction may be open.
    in_transaction: bool,
    /// Whether it must not be used again.
    is_lost: bool,
    /// A permit for a management read, held until the connection is usable again.
    permit: Option<Permit>,
    lent: Arc<()>,
}

impl Lease {
    /// Takes a connection of this pool.
    pub(crate) async fn of(pool: &PgPool, door: &Door, limit: Limit) -> Result<Self, Fault> {
        let acquired = loop {
            let mut acquiring = pin!(pool.acquire());
            if let Ok(acquired) = timeout(PATIENT_FOR, &mut acquiring).await {
                break acquired;
            }
            // The pool may be opening a connection, again and again: stop after it was refused.
            tokio::select! {
                acquired = &mut acquiring => break acquired,
                refusal = door.refuses(pool) => if let Some(refusal) = refusal {
                    return Err(refusal);
                },
            }
        };
        Ok(Self {
            connection: Some(acquired?),
            limit,
            in_transaction: false,
            is_lost: false,
            permit: None,
            lent: Arc::clone(&door.lent),
        })
    }

    /// Holds this permit until the connection is usable again.
    pub(crate) fn keep(&mut self, permit: &Permit) {
        self.permit = Some(permit.clone());
    }

    fn connection(&mut self) -> Result<&mut PgConnection, Fault> {
        let connection = self.connection.as_deref_mut();
        Ok(connection.ok_or(sqlx::Error::PoolClosed)?)
    }

    /// Begins a transaction with this statement.
    pub(crate) async fn begin(&mut self, statement: &'static str) -> Result<(), Fault> {
        self.in_transaction = true;
        let begun = timeout(BEGIN_LIMIT, self.script(statement)).await;
        let begun = begun.unwrap_or_else(|_| Err(lost().into()));
        self.is_lost = begun.is_err();
        begun
    }

    pub(crate) async fn commit(&mut self) -> Result<(), Fault> {
        let committed = self.script("COMMIT").await;
        self.in_transaction = committed.is_err();
        self.is_lost = committed.is_err();
        committed
    }

    /// Ends the transaction of a failed operation.
    pub(crate) async fn roll_back(&mut self, why: &Fault) {
        if why.is_lost_connection() {
            self.is_lost = true;
        } else {
            self.is_lost = self.script("ROLLBACK").await.is_err();
            self.in_transaction = false;
        }
    }

    async fn script(&mut self, sql: &'static str) -> Result<(), Fault> {
        self.session(Statements::Unnamed)?.script(sql).await
    }

    /// Records how an operation outside of a transaction ended.
    pub(crate) fn ended<T>(&mut self, done: &Result<T, Fault>) {
        self.is_lost |= matches!(done, Err(fault) if fault.is_lost_connection());
    }

    pub(crate) fn session(&mut self, statements: Statements) -> Result<On<'_>, Fault> {
        Ok(On {
            connection: self.connection()?,
            statements,
            limit: STATEMENT_LIMIT,
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        let is_late = Instant::now() >= self.limit.until;
        match Handle::try_current() {
            Ok(runtime) if !is_late && !self.is_lost => {
                let (permit, lent) = (self.permit.take(), Arc::clone(&self.lent));
                let given_back = give_back(connection, self.in_transaction, permit);
                runtime.spawn(async move {
                    given_back.await;
                    drop(lent);
                });
            }
            // Closed without further messages.
            _ => drop(connection.detach()),
        }
    }
}

/// Returns a connection to its pool after the work in progress has ended: the statement of an
/// abandoned operation, and its transaction.
async fn give_back(
    mut connection: PoolConnection<Postgres>,
    in_transaction: bool,
    permit: Option<Permit>,
) {
    // An abandoned management read may have left the server a long statement: it continues there,
    // and keeps its permit, until it has ended.
    let counts = permit.as_ref().is_some_and(Permit::is_taken);
    let limit = if counts { READ_LIMIT } else { ANSWER_LIMIT };
    if in_transaction {
        let end = sqlx::raw_sql("ROLLBACK").execute(&mut *connection);
        if !matches!(timeout(limit, end).await, Ok(Ok(_))) {
            drop(connection.detach());
            return;
        }
    }
    // If this future is dropped, the connection is closed.
    let _ = timeout(limit, connection.return_to_pool()).await;
}

/// How statements are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Statements {
    /// Prepared under a name, on this connection.
    Named,
    /// Not kept by the server. The statement and its values are sent in two steps: both must be in
    /// one transaction if each may use a different server connection.
    Unnamed,
    /// In one step, with the values inlined: only for digests.
    Inline,
}

/// A connection as a [`Session`].
pub(crate) struct On<'c> {
    pub(crate) connection: &'c mut PgConnection,
    pub(crate) statements: Statements,
    /// The longest time that a statement may take.
    pub(crate) limit: Duration,
}

/// The server's answer; the connection is marked as lost if it takes too long.
async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, Fault> {
    let answer = timeout(limit, answer).await;
    Ok(answer.unwrap_or_else(|_| Err(lost()))?)
}

#[async_trait]
impl Session for On<'_> {
    fn dialect(&self) -> &'static Dialect {
        &sql::POSTGRES
    }

    async fn rows(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, Fault> {
        let rows = if self.statements == Statements::Inline {
            let query = sqlx::raw_sql(AssertSqlSafe(inlined(sql, &values)?));
            within(self.limit, query.fetch_all(&mut *self.connection)).await?
        } else {
            let named = self.statements == Statements::Named;
            let query = bound(self.dialect(), sql, values).persistent(named);
            within(self.limit, query.fetch_all(&mut *self.connection)).await?
        };
        Ok(rows.iter().map(cells::<Postgres>).collect())
    }

    async fn change(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, Fault> {
        let named = self.statements == Statements::Named;
        let query = bound(self.dialect(), sql, values).persistent(named);
        let changed = within(self.limit, query.execute(&mut *self.connection)).await?;
        Ok(changed.rows_affected())
    }

    async fn script(&mut self, sql: &'static str) -> Result<(), Fault> {
        let script = sqlx::raw_sql(sql);
        within(self.limit, script.execute(&mut *self.connection)).await?;
        Ok(())
    }
}

/// A lookup with its limits and its values inlined, which apply to the single transaction that the
/// server makes of it. The values are digests, so that only hexadecimal digits are added.
fn inlined(sql: &'static str, values: &[Value]) -> Result<String, Fault> {
    const LIMITS: &str = "SET LOCAL statement_timeout = '3s'; SET LOCAL lock_timeout = '3s'; ";
    let mut text = format!("{UNLISTEN}{LIMITS}{sql}");
    for (number, value) in (1..=9).zip(values) {
        let Value::Bytes(Some(bytes)) = value else {
            return Err(Refusal::Unknown("lookup").into());
        };
        let digits = bytes.iter().fold(String::new(), |mut digits, byte| {
            let _ = write!(digits, "{byte:02x}");
            digits
        });
        text = text.replace(&format!("${number}"), &format!("decode('{digits}', 'hex')"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_of_digests_become_part_of_a_statement() {
        let digest = Value::from(vec![0, 0x27, 0xff]);
        let made = inlined("SELECT $1, $2, $1", &[digest.clone(), digest.clone()]);
        let made = made.unwrap_or_default();
        let expected =
            "SELECT decode('0027ff', 'hex'), decode('0027ff', 'hex'), decode('0027ff', 'hex')";
        assert_eq!(
            made.rsplit_once("; ").map(|(_, statement)| statement),
            Some(expected)
        );
        for value in [Value::from("text"), Value::from(1), Value::Bytes(None)] {
            assert!(inlined("SELECT $1, $2", &[digest.clone(), value]).is_err());
        }
    }
}
