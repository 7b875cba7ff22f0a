//! A connection of a pool for one operation, and the server behind it. Whatever is waited for has a
//! limit of time: a server that falls silent, without a reset, costs nobody more than that.
//!
//! sqlx itself gives connections back after a question that it waits for without a limit, forgets a
//! `BEGIN` whose future was dropped, and tries a refused connection again until its time is up.

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
use crate::share::Place;
use crate::sql::{self, Dialect};
use crate::store::READ_LIMIT;
use crate::value::{Row, Session, Value, bound, cells};

/// The longest that a server may take to say that a connection works, or to take one back.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// The longest that connecting may take.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Whose connection gives no answer for that long while another is in a transaction, and then does,
/// waited for the other.
const HELD_FOR: Duration = Duration::from_secs(2);
/// The longest that a statement may take, which is what the server is told, too.
const STATEMENT_LIMIT: Duration = Duration::from_secs(10);
/// The longest that beginning a transaction may take.
const BEGIN_LIMIT: Duration = Duration::from_secs(3);
/// A connection that was idle for longer is asked whether it still works before it is used. That is
/// sooner than any connection is found dead: all that were idle since before are asked then.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// Who waits for a connection for longer asks whether the server takes any.
const PATIENT_FOR: Duration = Duration::from_millis(100);
/// How often the server is asked that at most, however many wait.
const ASKED_EVERY: Duration = Duration::from_millis(250);

/// Begins whatever is sent through a pooler. Some other client may have left the connection of the
/// server listening; sqlx takes a notification that it did not ask for as a broken answer. Where
/// nothing listens, the server does nothing.
pub(crate) const UNLISTEN: &str = "UNLISTEN *; ";

/// The fault of a connection that gave no answer.
pub(crate) fn lost() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}

/// Pools whose connections are asked whether they work, unless they did a moment ago.
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

/// A connection of no pool.
pub(crate) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Fault> {
    let connected = timeout(CONNECT_LIMIT, PgConnection::connect_with(options)).await;
    Ok(connected.map_err(|_| Refusal::TooLong(CONNECT_LIMIT))??)
}

/// A limit of time, which begins when it is made.
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

    /// What comes of a piece of work that ends by then.
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

/// Whether all that is done on a connection is done on one connection of the server, as it must be
/// for names of statements and settings.
pub(crate) async fn keeps_its_server(
    mut connection: PgConnection,
    options: &PgConnectOptions,
) -> Result<bool, Fault> {
    let asked = async {
        let before = process(&mut connection).await?;
        // It takes what the first one left, and keeps it. Where there is no room for another
        // connection nothing is found out, which the bus makes up for.
        let Ok(mut other) = connect(options).await else {
            return Ok(true);
        };
        sqlx::raw_sql("BEGIN").execute(&mut other).await?;
        process(&mut other).await?;
        // The other one may hold the only connection of the server that a pooler has.
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

/// The process of the server that answers.
async fn process(connection: &mut PgConnection) -> Result<i32, Fault> {
    let ask = AssertSqlSafe(format!("{UNLISTEN}SELECT pg_backend_pid()"));
    let asked = sqlx::raw_sql(ask).fetch_one(connection);
    Ok(sqlx::Row::try_get(&asked.await?, 0)?)
}

/// Asks whether a server takes connections, once for all who wait for one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Door {
    last: Arc<tokio::sync::Mutex<Option<Asked>>>,
    /// As many references as connections that are lent, and one.
    lent: Arc<()>,
}

#[derive(Debug)]
struct Asked {
    at: Instant,
    /// Why it took none, where it refused.
    refused: Option<Refused>,
}

#[derive(Debug)]
struct Refused {
    cause: String,
    /// Whether the connections that there are may work all the same: the server takes no more.
    others_work: bool,
}

impl Door {
    /// Waits until the server refuses connections. Where it takes them, or says nothing, whoever
    /// waits goes on waiting. `None` where one that others have may be had.
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

    /// Whether anybody has a connection that works.
    async fn is_any_left(&self, pool: &PgPool) -> bool {
        let is_left = || Arc::strong_count(&self.lent) > 1 || pool.num_idle() > 0;
        // One that goes from one to another is nobody's for a moment.
        is_left() || {
            sleep(ASKED_EVERY).await;
            is_left()
        }
    }
}

/// Why no connection was made, where sqlx would try again until its time is up.
fn refused(error: sqlx::Error) -> Option<Refused> {
    let others_work = match &error {
        sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => false,
        sqlx::Error::Database(answer) if answer.is_transient_in_connect_phase() => true,
        _ => return None,
    };
    let cause = Fault::from(error).causes();
    Some(Refused { cause, others_work })
}

/// A connection until it is given back, which dropping does.
pub(crate) struct Lease {
    /// Absent only while this is dropped.
    connection: Option<PoolConnection<Postgres>>,
    limit: Limit,
    /// Whether a transaction may be open.
    in_transaction: bool,
    /// Whether it must not be used again.
    is_lost: bool,
    /// A place among the management reads, until the connection can be used again.
    place: Option<Place>,
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
            // It may be making a connection of its own, again and again: not after that was refused.
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
            place: None,
            lent: Arc::clone(&door.lent),
        })
    }

    /// Keeps this place until the connection can be used again.
    pub(crate) fn keep(&mut self, place: &Place) {
        self.place = Some(place.clone());
    }

    fn connection(&mut self) -> Result<&mut PgConnection, Fault> {
        let connection = self.connection.as_deref_mut();
        Ok(connection.ok_or(sqlx::Error::PoolClosed)?)
    }

    /// Begins a transaction by this statement.
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

    /// Ends the transaction of an operation that failed.
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

    /// Takes note of how an operation ended that was in no transaction.
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
                let (place, lent) = (self.place.take(), Arc::clone(&self.lent));
                let given_back = give_back(connection, self.in_transaction, place);
                runtime.spawn(async move {
                    given_back.await;
                    drop(lent);
                });
            }
            // Closed, and nothing is said any more.
            _ => drop(connection.detach()),
        }
    }
}

/// Gives a connection back to its pool after whatever goes on there has ended: the statement of an
/// operation that nobody waits for any more, and its transaction.
async fn give_back(
    mut connection: PoolConnection<Postgres>,
    in_transaction: bool,
    place: Option<Place>,
) {
    // Who asks for management may have left the server a long statement: it goes on there, and
    // counts, until it has ended.
    let counts = place.as_ref().is_some_and(Place::is_taken);
    let limit = if counts { READ_LIMIT } else { ANSWER_LIMIT };
    if in_transaction {
        let end = sqlx::raw_sql("ROLLBACK").execute(&mut *connection);
        if !matches!(timeout(limit, end).await, Ok(Ok(_))) {
            drop(connection.detach());
            return;
        }
    }
    // Where this is dropped, the connection is closed.
    let _ = timeout(limit, connection.return_to_pool()).await;
}

/// How statements are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Statements {
    /// The server keeps each by a name, on this connection.
    Named,
    /// The server keeps none. It is told of a statement and of its values in two steps: both must
    /// be in one transaction, where each may have another connection to the server.
    Unnamed,
    /// In one step, with their values in them: digests only.
    Inline,
}

/// A connection as a [`Session`].
pub(crate) struct On<'c> {
    pub(crate) connection: &'c mut PgConnection,
    pub(crate) statements: Statements,
    /// The longest that one may take.
    pub(crate) limit: Duration,
}

/// What a server answers; the connection is lost where that takes too long.
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

/// A look-up with its limits and its values in it, which hold for the one transaction that the
/// server makes of it. The values are digests, so that all that is added are hexadecimal digits.
fn inlined(sql: &'static str, values: &[Value]) -> Result<String, Fault> {
    const LIMITS: &str = "SET LOCAL statement_timeout = '3s'; SET LOCAL lock_timeout = '3s'; ";
    let mut text = format!("{UNLISTEN}{LIMITS}{sql}");
    for (number, value) in (1..=9).zip(values) {
        let Value::Bytes(Some(bytes)) = value else {
            return Err(Refusal::Unknown("look-up").into());
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
