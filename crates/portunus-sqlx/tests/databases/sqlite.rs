//! The promises of a store, on SQLite.

use crate::common::{SqliteHome, every_case};

macro_rules! as_tests {
    ($($module:ident::$case:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            crate::common::$module::$case(&SqliteHome::new()).await;
        }
    )*};
}
every_case!(as_tests);
