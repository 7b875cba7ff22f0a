//! A pool's connection for one operation. Every wait has a time limit: a
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
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Postgres};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::door::{Door, Trust};
use crate::fault::{Fault, Refusal};
use crate::postgres::Namespace;
use crate::share::Permit;
use crate::sql::{self, Dialect};
use crate::store::READ_LIMIT;
use crate::value::{Row, Session, Value, bound, cells};

/// The longest time that a server may take to confirm that a connection works, or to release one.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// The longest time that connecting may take.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A connection that does not answer for this long while another one is in a transaction, and does
/// afterwards, was waiting for the other.
const HELD_FOR: Duration = Duration::from_secs(2);
/// The longest time that a statement may take, which is also set on the server.
const STATEMENT_LIMIT: Duration = Duration::from_secs(10);
/// The longest time that beginning a transaction may take.
const BEGIN_LIMIT: Duration = Duration::from_secs(3);
/// A wait for a connection beyond this time checks whether the server accepts connections.
const PATIENT_FOR: Duration = Duration::from_millis(100);

/// Precedes everything that is sent through a pooler. Another client may have left the server
/// connection listening; sqlx treats a notification that it did not request as a malformed answer.
/// The server does nothing if the connection does not listen.
pub(crate) const UNLISTEN: &str = "UNLISTEN *; ";

/// The error of a connection that did not answer.
pub(crate) fn lost() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
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
    trust: Trust,
}

impl Lease {
    /// Takes a connection of this pool.
    pub(crate) async fn of(pool: &PgPool, door: &Door, limit: Limit) -> Result<Self, Fault> {
        let trust = door.trust();
        let acquired = loop {
            let mut acquiring = pin!(pool.acquire());
            if let Ok(acquired) = timeout(PATIENT_FOR, &mut acquiring).await {
                break acquired;
            }
            // The pool may be opening a connection, again and again: stop after it was refused.
            tokio::select! {
                acquired = &mut acquiring => break acquired,
                refusal = door.refuses() => if let Some(refusal) = refusal {
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
            lent: door.lend(),
            trust,
        })
    }

    /// Holds this permit until the connection is usable again.
    pub(crate) fn keep(&mut self, permit: &Permit) {
        self.permit = Some(permit.clone());
    }

    /// Begins a transaction with this statement.
    pub(crate) async fn begin(&mut self, statement: String) -> Result<(), Fault> {
        self.in_transaction = true;
        let begun = timeout(BEGIN_LIMIT, self.run(statement)).await;
        let begun = begun.unwrap_or_else(|_| Err(lost().into()));
        let begun = begun.map_err(Fault::of_a_writer);
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
        if why.ends_the_connection() {
            self.is_lost = true;
        } else {
            self.is_lost = self.script("ROLLBACK").await.is_err();
            self.in_transaction = false;
        }
    }

    /// Executes a statement without values.
    pub(crate) async fn execute(&mut self, sql: String) -> Result<(), Fault> {
        let On {
            connection, watch, ..
        } = self.session(Statements::Unnamed)?;
        let statement = sqlx::raw_sql(AssertSqlSafe(sql));
        watch.answer(statement.execute(connection)).await?;
        Ok(())
    }

    async fn script(&mut self, sql: &'static str) -> Result<(), Fault> {
        self.session(Statements::Unnamed)?.script(sql).await
    }

    async fn run(&mut self, script: String) -> Result<(), Fault> {
        let on = self.session(Statements::Unnamed)?;
        let script = sqlx::raw_sql(AssertSqlSafe(script));
        on.watch.answer(script.execute(&mut *on.connection)).await?;
        Ok(())
    }

    /// Records how an operation outside of a transaction ended.
    pub(crate) fn ended<T>(&mut self, done: &Result<T, Fault>) {
        self.is_lost |= matches!(done, Err(fault) if fault.ends_the_connection());
    }

    pub(crate) fn session(&mut self, statements: Statements) -> Result<On<'_>, Fault> {
        let connection = self.connection.as_deref_mut();
        Ok(On {
            connection: connection.ok_or(sqlx::Error::PoolClosed)?,
            statements,
            watch: Watch {
                limit: Some(STATEMENT_LIMIT),
                trust: Some(&self.trust),
            },
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
            Ok(runtime) if !is_late && !self.is_lost && !self.trust.is_lost() => {
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Statements {
    /// Prepared under a name, on this connection.
    Named,
    /// Not kept by the server. The statement and its values are sent in two steps: both must be in
    /// one transaction if each may use a different server connection.
    Unnamed,
    /// In one step, with the values inlined: only for digests. The tables are in this schema.
    Inline(Option<Namespace>),
}

/// A connection as a [`Session`].
pub(crate) struct On<'c> {
    pub(crate) connection: &'c mut PgConnection,
    pub(crate) statements: Statements,
    pub(crate) watch: Watch<'c>,
}

/// How long a statement may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch<'c> {
    /// The longest time, if there is one.
    pub(crate) limit: Option<Duration>,
    /// The trust in the connection, without which it is given up earlier.
    pub(crate) trust: Option<&'c Trust>,
}

impl Watch<'_> {
    /// The server's answer; the connection is marked as lost if it takes too long.
    async fn answer<T>(
        self,
        answer: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, Fault> {
        // A single timer: one that is set for each statement wakes the thread that waits for all.
        let in_vain = async {
            match (self.limit, self.trust) {
                (None, _) => std::future::pending().await,
                (Some(limit), None) => sleep(limit).await,
                (Some(limit), Some(trust)) => trust.lost(limit).await,
            }
        };
        tokio::select! {
            biased;
            answer = answer => Ok(answer?),
            () = in_vain => Err(lost().into()),
        }
    }
}

#[async_trait]
impl Session for On<'_> {
    fn dialect(&self) -> &'static Dialect {
        &sql::POSTGRES
    }

    async fn rows(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, Fault> {
        let rows = if let Statements::Inline(namespace) = &self.statements {
            let query = inlined(sql, namespace.as_ref(), &values)?;
            let query = sqlx::raw_sql(AssertSqlSafe(query));
            let rows = self
                .watch
                .answer(query.fetch_all(&mut *self.connection))
                .await;
            rows.map_err(Fault::of_a_writer)?
        } else {
            let named = self.statements == Statements::Named;
            let query = bound(self.dialect(), sql, values).persistent(named);
            self.watch
                .answer(query.fetch_all(&mut *self.connection))
                .await?
        };
        Ok(rows.iter().map(cells::<Postgres>).collect())
    }

    async fn change(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, Fault> {
        let named = self.statements == Statements::Named;
        let query = bound(self.dialect(), sql, values).persistent(named);
        let changed = self
            .watch
            .answer(query.execute(&mut *self.connection))
            .await?;
        Ok(changed.rows_affected())
    }

    async fn script(&mut self, sql: &'static str) -> Result<(), Fault> {
        let script = sqlx::raw_sql(sql);
        self.watch
            .answer(script.execute(&mut *self.connection))
            .await?;
        Ok(())
    }
}

/// A lookup with its limits and its values inlined, which apply to the single transaction that the
/// server makes of it. The values are digests, so that only hexadecimal digits are added. A server
/// in recovery refuses the first setting.
fn inlined(
    sql: &'static str,
    namespace: Option<&Namespace>,
    values: &[Value],
) -> Result<String, Fault> {
    const LIMITS: &str = "SET LOCAL transaction_read_only = off; \
         SET LOCAL statement_timeout = '3s'; SET LOCAL lock_timeout = '3s'; ";
    let path = namespace.map(|namespace| namespace.set() + "; ");
    let mut text = format!("{UNLISTEN}{LIMITS}{}{sql}", path.unwrap_or_default());
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
        let made = inlined("SELECT $1, $2, $1", None, &[digest.clone(), digest.clone()]);
        let made = made.unwrap_or_default();
        let expected =
            "SELECT decode('0027ff', 'hex'), decode('0027ff', 'hex'), decode('0027ff', 'hex')";
        assert_eq!(
            made.rsplit_once("; ").map(|(_, statement)| statement),
            Some(expected)
        );
        for value in [Value::from("text"), Value::from(1), Value::Bytes(None)] {
            assert!(inlined("SELECT $1, $2", None, &[digest.clone(), value]).is_err());
        }
    }
}
