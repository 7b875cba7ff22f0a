//! Checks the query plan of every statement: none may scan a whole table.

#![allow(clippy::unwrap_used)]

use super::registry::statements;

/// The highest parameter of a statement.
#[cfg(feature = "postgres")]
fn parameters(sql: &str) -> usize {
    let has = |number: &usize| sql.contains(&format!("${number}"));
    (1..=19).filter(has).max().unwrap_or(0)
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use portunus::audit::{Action, AuditOutcome, EventQuery};
    use portunus::key::{
        Environment, KeyFamily, KeyId, KeyKind, KeyStatus, PlanName, TenantId, UserId,
    };
    use portunus::store::ListQuery;
    use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

    use super::super::lists::Of;
    use super::super::{COUNT_FAMILIES, SQLITE, credit, events, lists};
    use super::statements;

    async fn database() -> SqliteConnection {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let scripts = SQLITE.migrations.iter().map(|migration| migration.script);
        for script in std::iter::once(SQLITE.version_table).chain(scripts) {
            sqlx::raw_sql(script)
                .execute(&mut connection)
                .await
                .unwrap();
        }
        connection
    }

    /// With statistics, SQLite compiles a statement again whenever a value is bound that these may say
    /// something about, which makes a lookup take half as long again. Nothing that sqlx offers can tell
    /// that it did; `scripts/measure stores` shows it.
    #[test]
    fn lookups_hide_their_values_from_the_planner() {
        for sql in [SQLITE.find, SQLITE.find_one, SQLITE.find_each] {
            let hidden = (1..=8).fold(sql.to_owned(), |sql, number| {
                sql.replace(&format!("(SELECT ${number})"), "")
            });
            assert!(
                sql.contains("(SELECT $1)") && !hidden.contains('$'),
                "{sql}"
            );
        }
    }

    /// SQLite's plan for a statement, step by step.
    async fn plan(connection: &mut SqliteConnection, sql: &str) -> Vec<String> {
        let rows = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")))
            .fetch_all(connection)
            .await
            .unwrap();
        rows.iter().map(|row| row.get("detail")).collect()
    }

    /// Whether a step scans a whole table or index. The elements of a JSON array are not a table,
    /// nor are the rows of a subquery.
    fn is_scan(step: &str) -> bool {
        step.contains("SCAN")
            && !step.contains("VIRTUAL TABLE")
            && !step.contains("SCAN CONSTANT ROW")
            && ![
                "the_set",
                "the_newest",
                "(subquery",
                "SCAN used",
                "SCAN families",
                "SCAN given",
            ]
            .iter()
            .any(|part| step.contains(part))
    }

    #[tokio::test]
    async fn no_statement_reads_a_table_from_end_to_end_on_sqlite() {
        let mut connection = database().await;
        let mut scans = Vec::new();
        for sql in statements(&SQLITE) {
            let steps = plan(&mut connection, sql).await;
            if steps.iter().any(|step| is_scan(step)) {
                scans.push(format!("{sql}\n  {}", steps.join("\n  ")));
            }
        }
        assert!(scans.is_empty(), "{}", scans.join("\n"));
        for (sql, found) in [
            ("SELECT * FROM portunus_keys WHERE name = $1", true),
            ("SELECT count(*) FROM portunus_events", true),
            ("SELECT id FROM portunus_keys WHERE id = $1", false),
        ] {
            let steps = plan(&mut connection, sql).await;
            assert_eq!(
                steps.iter().any(|step| is_scan(step)),
                found,
                "{sql}: {steps:?}"
            );
        }
    }

    /// Asserts that each of these statements reads the given index in its order.
    async fn assert_read_from(
        connection: &mut SqliteConnection,
        statements: impl IntoIterator<Item = (&'static str, &'static str)>,
    ) {
        for (sql, part) in statements {
            let plan = plan(connection, sql).await.join("; ");
            assert!(
                plan.contains(part) && !plan.contains("TEMP B-TREE"),
                "{sql}: {part} is not in {plan}"
            );
        }
    }

    #[tokio::test]
    async fn the_families_of_a_user_are_counted_from_the_users_keys() {
        let mut connection = database().await;
        let [_, _, of_user] = COUNT_FAMILIES.0;
        let plan = plan(&mut connection, of_user).await.join("; ");
        let index = "portunus_keys_of_user (tenant_id=? AND user_id=?)";
        assert!(plan.contains(index), "{plan}");
    }

    #[tokio::test]
    async fn every_page_of_events_is_read_from_an_index_in_its_order() {
        let mut connection = database().await;
        let query = |change: fn(&mut EventQuery)| {
            let mut query = EventQuery::new();
            change(&mut query);
            query
        };
        let expired = AuditOutcome::Refused(portunus::ErrorCode::KeyExpired);
        assert_eq!(expired.as_str(), "KEY_EXPIRED");
        fn tenant(query: &mut EventQuery) {
            query.tenant = TenantId::new("acme").ok();
        }
        fn key(query: &mut EventQuery) {
            query.key_id = KeyId::new("key").ok();
        }
        fn refused(query: &mut EventQuery) {
            query.outcome = Some(AuditOutcome::Failed);
        }
        fn act(query: &mut EventQuery) {
            query.action = Some(Action::KeyRotate);
        }
        let cases = [
            (query(|_| {}), "INTEGER PRIMARY KEY (rowid"),
            (
                query(key),
                "INDEX portunus_events_of_key (key_id=? AND place",
            ),
            (
                query(|query| {
                    key(query);
                    refused(query);
                }),
                "INDEX portunus_events_refused_of_key (key_id=? AND outcome=? AND place",
            ),
            (
                query(|query| {
                    key(query);
                    act(query);
                }),
                "INDEX portunus_events_acts_of_key (key_id=? AND action=? AND place",
            ),
            (
                query(|query| query.actor = Some("ann".into())),
                "portunus_event_parties USING PRIMARY KEY (who=? AND place",
            ),
            (
                query(tenant),
                "INDEX portunus_events_of_tenant (tenant_id=? AND place",
            ),
            (
                query(refused),
                "INDEX portunus_events_refused (outcome=? AND place",
            ),
            (
                query(|query| {
                    tenant(query);
                    refused(query);
                }),
                "INDEX portunus_events_refused_of_tenant (tenant_id=? AND outcome=? AND place",
            ),
            (query(act), "INDEX portunus_events_acts (action=? AND place"),
            (
                query(|query| {
                    tenant(query);
                    act(query);
                }),
                "INDEX portunus_events_acts_of_tenant (tenant_id=? AND action=? AND place",
            ),
        ];
        for (query, part) in cases {
            let lane = events::SQLITE.lanes.of(&query).0;
            assert_read_from(&mut connection, [(lane.far, part), (lane.page, part)]).await;
        }
        let oldest = (events::OLDEST, "INDEX portunus_events_by_age (at<?)");
        assert_read_from(&mut connection, [oldest]).await;
    }

    #[tokio::test]
    async fn a_page_of_a_ledger_is_read_from_the_primary_key_in_its_order() {
        let mut connection = database().await;
        let part = "portunus_credit_entries USING PRIMARY KEY (account=? AND number>?)";
        assert_read_from(&mut connection, [(credit::ENTRIES, part)]).await;
    }

    #[tokio::test]
    async fn every_page_of_keys_is_read_from_an_index_in_its_order() {
        let mut connection = database().await;
        let query = |change: fn(&mut ListQuery)| {
            let mut query = ListQuery::new(std::time::UNIX_EPOCH);
            query.tenant = TenantId::new("acme").ok();
            change(&mut query);
            query
        };
        let cases = [
            (query(|query| query.tenant = None), "by_age ("),
            (query(|_| {}), "of_tenant (tenant_id=? AND "),
            (
                query(|query| query.environment = Environment::new("live").ok()),
                "of_environment (tenant_id=? AND environment=? AND ",
            ),
            (
                query(|query| query.owner = UserId::new("ann").ok()),
                "of_user (tenant_id=? AND user_id=? AND ",
            ),
            (
                query(|query| query.plan = PlanName::new("pro").ok()),
                "of_plan (tenant_id=? AND <expr>=? AND ",
            ),
            (
                query(|query| query.family = KeyFamily::new("key").ok()),
                "of_family (tenant_id=? AND family=? AND ",
            ),
            (
                query(|query| query.kind = Some(KeyKind::User)),
                "of_kind (tenant_id=? AND kind=? AND ",
            ),
            (
                query(|query| query.status = Some(KeyStatus::Revoked)),
                "revoked (tenant_id=? AND ",
            ),
            (
                query(|query| query.status = Some(KeyStatus::Disabled)),
                "disabled (tenant_id=? AND ",
            ),
            (
                query(|query| {
                    (query.tenant, query.environment) = (None, Environment::new("live").ok());
                }),
                "of_environment_of_all (environment=? AND ",
            ),
            (
                query(|query| (query.tenant, query.owner) = (None, UserId::new("ann").ok())),
                "of_user_of_all (user_id=? AND ",
            ),
            (
                query(|query| (query.tenant, query.plan) = (None, PlanName::new("pro").ok())),
                "of_plan_of_all (<expr>=? AND ",
            ),
            (
                query(|query| (query.tenant, query.family) = (None, KeyFamily::new("key").ok())),
                "of_family_of_all (family=? AND ",
            ),
            (
                query(|query| (query.tenant, query.kind) = (None, Some(KeyKind::User))),
                "of_kind_of_all (kind=? AND ",
            ),
            (
                query(|query| (query.tenant, query.status) = (None, Some(KeyStatus::Revoked))),
                "revoked_by_age (",
            ),
            (
                query(|query| (query.tenant, query.status) = (None, Some(KeyStatus::Disabled))),
                "disabled_by_age (",
            ),
        ];
        for (query, index) in cases {
            let whole = lists::SQLITE.whole(&query);
            let lane = lists::SQLITE.of(&query).first().copied().unwrap_or(whole);
            for (sql, range) in [
                (lane.far_at, "=? AND id>?"),
                (lane.far_before, "<?"),
                (lane.at, "=? AND id>? AND id<?"),
                (lane.before, ">? AND created_at<?"),
            ] {
                let plan = plan(&mut connection, sql).await.join("; ");
                let part = format!("portunus_keys_{index}created_at{range}");
                assert!(
                    plan.contains(&part) && !plan.contains("TEMP B-TREE"),
                    "{sql}: {part} is not in {plan}"
                );
            }
        }
        for (of, of_tenant, of_all) in [
            (
                Of::End,
                "expiring (tenant_id=? AND expires_at",
                "expiring_of_all (expires_at",
            ),
            (
                Of::Start,
                "starting (tenant_id=? AND not_before",
                "starting_of_all (not_before",
            ),
            (
                Of::Use,
                "used (tenant_id=? AND used_on",
                "used_of_all (used_on",
            ),
        ] {
            for (query, index) in [
                (query(|_| {}), of_tenant),
                (query(|query| query.tenant = None), of_all),
            ] {
                let span = lists::SQLITE.span(&query, of);
                let column = index.rsplit([' ', '(']).next().unwrap();
                let part = format!("portunus_keys_{index}>? AND {column}<?)");
                let (far, rows) = (
                    plan(&mut connection, span.far).await.join("; "),
                    plan(&mut connection, span.rows).await.join("; "),
                );
                assert!(far.contains(&part) && !far.contains("TEMP B-TREE"), "{far}");
                assert!(rows.contains(&part), "{rows}");
            }
        }
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use portunus_test_support::postgres::Postgres;
    use serde_json::Value;
    use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

    use super::super::POSTGRES;
    use super::{parameters, statements};

    /// Collects the steps of a plan that scan a whole table or index.
    fn scans(plan: &Value, found: &mut Vec<String>) {
        let text = |name: &str| plan[name].as_str().unwrap_or_default().to_owned();
        let node = text("Node Type");
        let is_index = node.contains("Index");
        if node == "Seq Scan" || (is_index && plan["Index Cond"].is_null()) {
            found.push(format!(
                "{node} {}{}",
                text("Relation Name"),
                text("Index Name")
            ));
        }
        for part in plan["Plans"].as_array().into_iter().flatten() {
            scans(part, found);
        }
    }

    /// PostgreSQL's generic plan for a statement.
    async fn plan(connection: &mut PgConnection, sql: &str) -> Value {
        let mut types = vec!["unknown"; parameters(sql)];
        let listed = |list: &[&str]| match list {
            [] => String::new(),
            list => format!("({})", list.join(", ")),
        };
        loop {
            let prepare = format!("PREPARE judged {} AS {sql}", listed(&types));
            let prepare = sqlx::raw_sql(AssertSqlSafe(prepare));
            let Err(error) = prepare.execute(&mut *connection).await else {
                break;
            };
            // The type of a parameter that the server cannot infer from the statement is text.
            let error = error.to_string();
            let number = error.rsplit_once("data type of parameter $");
            let number = number.unwrap_or_else(|| panic!("{sql}: {error}")).1;
            let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
            types[digits.parse::<usize>().unwrap() - 1] = "text";
        }
        let values = listed(&vec!["NULL"; types.len()]);
        let explain = format!("EXPLAIN (FORMAT JSON) EXECUTE judged {values}");
        let row = sqlx::raw_sql(AssertSqlSafe(explain))
            .fetch_one(&mut *connection)
            .await
            .unwrap();
        sqlx::raw_sql("DEALLOCATE judged")
            .execute(connection)
            .await
            .unwrap();
        serde_json::from_str(row.try_get_unchecked::<&str, _>(0).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn no_statement_reads_a_table_from_end_to_end_on_postgresql() {
        let server = Postgres::start();
        let address = server.address("postgres");
        crate::PostgresStore::connect(&address).await.unwrap();
        let mut connection = PgConnection::connect(&address).await.unwrap();
        // An empty table is cheapest to scan as a whole, so that hash and merge joins would be
        // preferred: the question is whether there is an index for a join.
        let settings = "SET enable_seqscan = off; SET enable_hashjoin = off; \
             SET enable_mergejoin = off; SET plan_cache_mode = force_generic_plan";
        sqlx::raw_sql(settings)
            .execute(&mut connection)
            .await
            .unwrap();
        let mut bad = Vec::new();
        for sql in statements(&POSTGRES) {
            let plan = plan(&mut connection, sql).await;
            let mut found = Vec::new();
            scans(&plan[0]["Plan"], &mut found);
            if !found.is_empty() {
                bad.push(format!("{sql}\n  {}", found.join("\n  ")));
            }
        }
        assert!(bad.is_empty(), "{}", bad.join("\n"));
        for (sql, is_bad) in [
            ("SELECT * FROM portunus_keys WHERE name = $1", true),
            ("SELECT id FROM portunus_keys ORDER BY id", true),
            ("SELECT id FROM portunus_keys WHERE id = $1", false),
        ] {
            let plan = plan(&mut connection, sql).await;
            let mut found = Vec::new();
            scans(&plan[0]["Plan"], &mut found);
            assert_eq!(!found.is_empty(), is_bad, "{sql}: {found:?}");
        }
    }
}
