//! The statements about events.
//!
//! A page is read from the one index that leaves the least: of the key, of whom took part, of the
//! tenant, and of outcomes and actions where these are rare. Whatever else is asked for is compared
//! row by row.

use portunus::audit::{Action, AuditOutcome, EventQuery};

/// A page: before place `$1`; with the outcome `$2`, of the action `$3`, of the tenant `$4`; at
/// most `$5`; and what follows, about `$6`. The place is that of the table that is read first.
macro_rules! events {
    ($and:literal) => {
        events!("portunus_events", "portunus_events.place", $and)
    };
    ($from:literal, $place:literal, $and:literal) => {
        concat!(
            "SELECT portunus_events.place, id, at, action, outcome, tenant_id, key_id, event FROM ",
            $from,
            " WHERE ",
            $place,
            " < $1 AND ($2 IS NULL OR outcome = $2) AND ($3 IS NULL OR action = $3) \
             AND ($4 IS NULL OR tenant_id = $4)",
            $and,
            " ORDER BY ",
            $place,
            " DESC LIMIT $5"
        )
    };
}

const ALL: &str = events!("");
const OF_KEY: &str = events!(" AND key_id = $6");
const OF_PARTY: &str = events!(
    "portunus_event_parties JOIN portunus_events ON portunus_events.place = portunus_event_parties.place",
    "portunus_event_parties.place",
    " AND who = $6"
);
const OF_TENANT: &str = events!(" AND tenant_id = $6");
const REFUSED: &str = events!(" AND outcome = $6 AND outcome <> 'OK'");
const REFUSED_OF_TENANT: &str = events!(" AND tenant_id = $7 AND outcome = $6 AND outcome <> 'OK'");
const ACTS: &str = events!(" AND action = $6 AND action <> 'request'");
const ACTS_OF_TENANT: &str = events!(" AND tenant_id = $7 AND action = $6 AND action <> 'request'");

/// The statement for a query, and the values of `$6` and what follows. `who` is how the name is
/// kept of whom took part.
pub(crate) fn page<'a>(
    query: &'a EventQuery,
    who: Option<&'a str>,
) -> (&'static str, Vec<&'a str>) {
    let tenant = query.tenant.as_ref().map(portunus::key::TenantId::as_str);
    let refused = query.outcome.filter(|outcome| *outcome != AuditOutcome::Ok);
    let act = query.action.filter(|action| *action != Action::Request);
    if let Some(key) = &query.key_id {
        (OF_KEY, vec![key.as_str()])
    } else if let Some(who) = who {
        (OF_PARTY, vec![who])
    } else if let Some(refused) = refused {
        match tenant {
            Some(tenant) => (REFUSED_OF_TENANT, vec![refused.as_str(), tenant]),
            None => (REFUSED, vec![refused.as_str()]),
        }
    } else if let Some(act) = act {
        match tenant {
            Some(tenant) => (ACTS_OF_TENANT, vec![act.as_str(), tenant]),
            None => (ACTS, vec![act.as_str()]),
        }
    } else if let Some(tenant) = tenant {
        (OF_TENANT, vec![tenant])
    } else {
        (ALL, Vec::new())
    }
}

/// The places of the oldest events before `$1`, at most `$2`.
pub(crate) const OLDEST: &str =
    "SELECT place FROM portunus_events WHERE at < $1 ORDER BY at LIMIT $2";

/// The statements about events that the two databases spell differently.
pub(crate) struct Events {
    /// Keeps the events of a JSON array `$1` of objects, in its order, but for those that are kept
    /// already.
    pub(crate) insert: &'static str,
    /// Keeps who took part in them.
    pub(crate) insert_parties: &'static str,
    /// Deletes the events at the places of the JSON array `$1`.
    pub(crate) delete: &'static str,
    /// Deletes who took part in them.
    pub(crate) delete_parties: &'static str,
}

macro_rules! insert {
    ($columns:literal, $from:literal, $order:literal) => {
        concat!(
            "INSERT INTO portunus_events (id, at, action, outcome, tenant_id, key_id, event) SELECT ",
            $columns,
            " FROM ",
            $from,
            " WHERE 1 = 1 ORDER BY ",
            $order,
            " ON CONFLICT (id) DO NOTHING"
        )
    };
}

macro_rules! insert_parties {
    ($who:literal, $from:literal, $id:literal) => {
        concat!(
            "INSERT INTO portunus_event_parties (who, place) SELECT DISTINCT ",
            $who,
            ", place FROM ",
            $from,
            " JOIN portunus_events ON portunus_events.id = ",
            $id,
            " WHERE 1 = 1 ON CONFLICT (who, place) DO NOTHING"
        )
    };
}

macro_rules! delete {
    ($table:literal, $places:literal) => {
        concat!(
            "DELETE FROM ",
            $table,
            " WHERE place IN (SELECT ",
            $places,
            ")"
        )
    };
}

#[cfg(feature = "sqlite")]
pub(crate) static SQLITE: Events = Events {
    insert: insert!(
        "value ->> 'id', value ->> 'at', value ->> 'action', value ->> 'outcome', \
         value ->> 'tenant', value ->> 'key', value ->> 'event'",
        "json_each($1)",
        "key"
    ),
    insert_parties: insert_parties!(
        "party.value",
        "json_each($1) AS given JOIN json_each(given.value, '$.parties') AS party",
        "(given.value ->> 'id')"
    ),
    delete: delete!("portunus_events", "value FROM json_each($1)"),
    delete_parties: delete!("portunus_event_parties", "value FROM json_each($1)"),
};

#[cfg(feature = "postgres")]
pub(crate) static POSTGRES: Events = Events {
    insert: insert!(
        "given.id, given.at, given.action, given.outcome, given.tenant, given.key, given.event",
        "json_to_recordset($1::json) AS given \
         (number bigint, id text, at bigint, action text, outcome text, tenant text, key text, event text)",
        "given.number"
    ),
    insert_parties: insert_parties!(
        "party.name",
        "json_to_recordset($1::json) AS given (id text, parties json) \
         CROSS JOIN json_array_elements_text(given.parties) AS party (name)",
        "given.id"
    ),
    delete: delete!(
        "portunus_events",
        "place::bigint FROM json_array_elements_text($1::json) AS places (place)"
    ),
    delete_parties: delete!(
        "portunus_event_parties",
        "place::bigint FROM json_array_elements_text($1::json) AS places (place)"
    ),
};

#[cfg(all(test, feature = "sqlite"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

    use super::*;

    /// How SQLite reads a statement.
    async fn plan(connection: &mut SqliteConnection, sql: &str) -> String {
        let rows = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")))
            .fetch_all(connection)
            .await
            .unwrap();
        rows.iter()
            .map(|row| row.get::<String, _>("detail"))
            .collect::<Vec<_>>()
            .join("; ")
    }

    #[tokio::test]
    async fn every_page_is_read_from_an_index_in_its_order() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::raw_sql(crate::sql::SQLITE.version_table)
            .execute(&mut connection)
            .await
            .unwrap();
        for migration in crate::sql::SQLITE.migrations {
            sqlx::raw_sql(migration.script)
                .execute(&mut connection)
                .await
                .unwrap();
        }
        let expected = [
            (ALL, "INTEGER PRIMARY KEY (rowid<?)"),
            (
                OF_KEY,
                "INDEX portunus_events_of_key (key_id=? AND place<?)",
            ),
            (
                OF_PARTY,
                "portunus_event_parties USING PRIMARY KEY (who=? AND place<?)",
            ),
            (
                OF_TENANT,
                "INDEX portunus_events_of_tenant (tenant_id=? AND place<?)",
            ),
            (
                REFUSED,
                "INDEX portunus_events_refused (outcome=? AND place<?)",
            ),
            (
                REFUSED_OF_TENANT,
                "INDEX portunus_events_refused_of_tenant (tenant_id=? AND outcome=? AND place<?)",
            ),
            (ACTS, "INDEX portunus_events_acts (action=? AND place<?)"),
            (
                ACTS_OF_TENANT,
                "INDEX portunus_events_acts_of_tenant (tenant_id=? AND action=? AND place<?)",
            ),
            (OLDEST, "INDEX portunus_events_by_age (at<?)"),
        ];
        for (sql, part) in expected {
            let plan = plan(&mut connection, sql).await;
            assert!(
                plan.contains(part) && !plan.contains("SCAN") && !plan.contains("TEMP B-TREE"),
                "{sql}: {plan}"
            );
        }
    }
}
