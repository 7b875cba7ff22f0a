//! The settings of connections and transactions.

use crate::sql;

/// Settings for each new connection, and what its server is. The server enforces these limits even if
/// the client is gone.
///
/// Each statement here concerns few rows, which one index returns in the requested order (see the
/// module `sql::plans`), whatever the values are. Based on its statistics, the server may prefer a
/// sequential scan if a page is a large part of the table, or an index that only provides the order
/// if its rows are closer together. A page would then examine more rows than allowed, up to
/// millions if its matches are rare. If disk pages cost nothing, the plan with the fewest rows is
/// the cheapest.
pub(crate) const SET_FIRST: &str = concat!(
    "SELECT ",
    sql::about_server!(),
    ", set_config('statement_timeout', '10s', false), \
     set_config('lock_timeout', '8s', false), \
     set_config('idle_in_transaction_session_timeout', '30s', false), \
     set_config('enable_seqscan', 'off', false), \
     set_config('enable_bitmapscan', 'off', false), \
     set_config('enable_hashjoin', 'off', false), \
     set_config('enable_mergejoin', 'off', false), \
     set_config('seq_page_cost', '0', false), \
     set_config('random_page_cost', '0', false), \
     set_config('plan_cache_mode', 'force_generic_plan', false)"
);

/// Statements that begin a transaction. Behind a pooler, they include the settings that a direct
/// connection receives once, limited to the transaction.
pub(super) struct Begin {
    pub(super) direct: &'static str,
    pub(super) pooled: &'static str,
}

macro_rules! begin {
    ($mode:literal, $then:literal) => {
        Begin {
            direct: concat!("BEGIN ISOLATION LEVEL ", $mode, $then),
            pooled: concat!(
                "BEGIN ISOLATION LEVEL ",
                $mode,
                "; UNLISTEN *; SET LOCAL statement_timeout = '10s'; SET LOCAL lock_timeout = '8s'; \
                 SET LOCAL idle_in_transaction_session_timeout = '30s'; \
                 SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; \
                 SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; \
                 SET LOCAL seq_page_cost = 0; SET LOCAL random_page_cost = 0; \
                 SET LOCAL plan_cache_mode = force_generic_plan",
                $then
            ),
        }
    };
}

/// If the database acknowledges a commit before it is on disk, enables `synchronous_commit`; a
/// stricter setting is kept.
pub(super) const WRITE: Begin = begin!(
    "READ COMMITTED READ WRITE",
    "; SELECT set_config('synchronous_commit', 'on', true) \
     WHERE current_setting('synchronous_commit') = 'off'"
);
/// A server in recovery refuses a transaction that may write: even a read begins as one.
pub(super) const READ: Begin = begin!("READ COMMITTED READ WRITE", "; SET TRANSACTION READ ONLY");
pub(super) const SNAPSHOT: Begin =
    begin!("REPEATABLE READ READ WRITE", "; SET TRANSACTION READ ONLY");
