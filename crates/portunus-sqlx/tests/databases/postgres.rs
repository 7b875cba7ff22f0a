//! The promises of a store, on PostgreSQL: one server for all cases, a database for each.

use std::sync::Arc;
use std::time::Instant;

use crate::common::{PostgresHome, every_case};
use portunus_test_support::postgres::Postgres;

macro_rules! one_after_the_other {
    ($($module:ident::$case:ident)*) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn postgres_keeps_every_promise_that_sqlite_keeps() {
            let server = Arc::new(Postgres::start());
            let mut failed = Vec::new();
            $(
                let started = Instant::now();
                let home = PostgresHome::new(&server);
                let case = tokio::spawn(async move { crate::common::$module::$case(&home).await });
                let outcome = case.await;
                println!(
                    "{} {} in {:?}",
                    if outcome.is_ok() { "ok" } else { "FAILED" },
                    stringify!($case),
                    started.elapsed()
                );
                if outcome.is_err() {
                    failed.push(stringify!($case));
                }
            )*
            drop(server);
            assert!(failed.is_empty(), "failed cases, see above: {failed:#?}");
        }
    };
}
every_case!(one_after_the_other);
