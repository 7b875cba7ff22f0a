//! The rows that pages examine on PostgreSQL.

use std::collections::HashMap;
use std::fmt::Write as _;

use async_trait::async_trait;
use portunus_test_support::postgres::Postgres;
use serde_json::Value as Json;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row as _};

use super::Watched;
use crate::PostgresStore;
use crate::fault::Fault;
use crate::lease::{On, Statements, Watch};
use crate::postgres::SET_FIRST;
use crate::sql::{Dialect, POSTGRES};
use crate::value::{Row, Session, Value};

/// Explains each statement, with its generic plan, in addition to running it.
struct Explained {
    connection: PgConnection,
    judge: PgConnection,
    prepared: HashMap<&'static str, usize>,
    /// The rows examined to find out where a page ends, and for the page.
    looked_at: [u64; 2],
    most: [u64; 2],
    /// The plans since the last page, and what each step has read.
    steps: String,
}

impl Explained {
    fn session(&mut self) -> On<'_> {
        On {
            connection: &mut self.connection,
            statements: Statements::Named,
            watch: Watch {
                limit: Some(std::time::Duration::from_secs(60)),
                trust: None,
            },
        }
    }

    /// The number of a statement that is prepared for `EXPLAIN`.
    async fn prepared(&mut self, sql: &'static str, values: &[Value]) -> usize {
        if let Some(number) = self.prepared.get(sql) {
            return *number;
        }
        let types: Vec<_> = values.iter().map(|value| kind(value).0).collect();
        let number = self.prepared.len();
        let prepare = format!("PREPARE judged{number} ({}) AS {sql}", types.join(", "));
        let prepare = sqlx::raw_sql(AssertSqlSafe(prepare));
        prepare.execute(&mut self.judge).await.unwrap();
        self.prepared.insert(sql, number);
        number
    }
}

/// The type of a value, and its literal.
fn kind(value: &Value) -> (&'static str, String) {
    match value {
        Value::Int(value) => ("bigint", value.map_or("NULL".into(), |it| it.to_string())),
        Value::Text(Some(text)) => ("text", format!("'{}'", text.replace('\'', "''"))),
        Value::Text(None) => ("text", "NULL".into()),
        Value::Bytes(_) => panic!("no page is queried by bytes"),
    }
}

/// Adds up the rows that a plan has read from each table.
fn read(plan: &Json, of: &mut HashMap<String, u64>, steps: &mut String) {
    let number = |name: &str| plan[name].as_f64().unwrap_or_default();
    if let Some(table) = plan["Relation Name"].as_str() {
        let dropped = number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
        let rows = (number("Actual Rows") + dropped) * number("Actual Loops");
        *of.entry(table.to_owned()).or_default() += rows as u64;
        let index = plan["Index Name"].as_str().unwrap_or(table);
        let _ = write!(steps, "{index}, {rows} rows; ");
    } else {
        let _ = write!(steps, "{}: ", plan["Node Type"]);
    }
    for part in plan["Plans"].as_array().into_iter().flatten() {
        read(part, of, steps);
    }
}

#[async_trait]
impl Session for Explained {
    fn dialect(&self) -> &'static Dialect {
        &POSTGRES
    }

    async fn rows(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, Fault> {
        let number = self.prepared(sql, &values).await;
        let values_of: Vec<_> = values.iter().map(|value| kind(value).1).collect();
        let explain = format!(
            "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) EXECUTE judged{number} ({})",
            values_of.join(", ")
        );
        let explain = sqlx::raw_sql(AssertSqlSafe(explain));
        let told = explain.fetch_one(&mut self.judge).await.unwrap();
        let told = told.try_get_unchecked::<&str, _>(0).unwrap();
        let told: Json = serde_json::from_str(told).unwrap();
        let mut of = HashMap::new();
        self.steps.push_str("\n  ");
        read(&told[0]["Plan"], &mut of, &mut self.steps);
        let most = of.values().copied().max().unwrap_or_default();
        self.looked_at[usize::from(!sql.contains("OFFSET"))] += most;
        self.session().rows(sql, values).await
    }

    async fn change(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, Fault> {
        self.session().change(sql, values).await
    }

    async fn script(&mut self, sql: &'static str) -> Result<(), Fault> {
        self.session().script(sql).await
    }
}

#[async_trait]
impl Watched for Explained {
    async fn prepare(&mut self, sql: String) {
        let script = sqlx::raw_sql(AssertSqlSafe(sql));
        script.execute(&mut self.connection).await.unwrap();
    }

    fn assert_bounded(&mut self, what: &dyn std::fmt::Debug) {
        let looked_at = std::mem::take(&mut self.looked_at);
        let steps = std::mem::take(&mut self.steps);
        for (most, rows) in self.most.iter_mut().zip(looked_at) {
            *most = rows.max(*most);
            // Beside them, a few entries in the indexes of up to ten filters.
            assert!(
                rows <= 10_000 + 10 * 502,
                "{looked_at:?} rows: {what:?}{steps}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_of_postgresql_is_bounded_and_none_is_lost() {
    let server = Postgres::start();
    let address = server.address("postgres");
    PostgresStore::connect(&address).await.unwrap();
    let mut judge = PgConnection::connect(&address).await.unwrap();
    let first = sqlx::raw_sql(SET_FIRST).execute(&mut judge).await;
    first.unwrap();
    let mut explained = Explained {
        connection: PgConnection::connect(&address).await.unwrap(),
        judge,
        prepared: HashMap::new(),
        looked_at: [0; 2],
        most: [0; 2],
        steps: String::new(),
    };
    super::fill_keys(&mut explained, false).await;
    super::fill_events(&mut explained, false).await;
    explained.prepare("ANALYZE".into()).await;
    explained.prepare(SET_FIRST.into()).await;
    // Rows are counted here, however long the server takes on a busy machine.
    for session in [&mut explained.connection, &mut explained.judge] {
        let unlimited = sqlx::raw_sql("SET statement_timeout = 0").execute(session);
        unlimited.await.unwrap();
    }
    explained.looked_at = [0; 2];
    super::every_page_is_bounded_and_none_is_lost(&mut explained).await;
    println!("no page examined more than {:?} rows", explained.most);
}
