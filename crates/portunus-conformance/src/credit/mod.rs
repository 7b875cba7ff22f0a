//! The suite for a [`CreditStore`]: versions, ledgers, and accounts that many tasks change at once.

mod checks;

use std::future::Future;
use std::sync::Arc;

use super::report::Violations;
use super::runner::{Calls, Suite, Watched};
use checks::{CHECKS, Tried};
use portunus::credit::CreditStore;

/// Checks a [`CreditStore`] against all promises of the trait.
///
/// `make` returns a store without accounts; for a database, an empty one for each call.
///
/// ```
/// # async fn run() {
/// use portunus::credit::MemoryCreditStore;
///
/// portunus_conformance::credit_store(|| async { MemoryCreditStore::new() }).await.unwrap();
/// # }
/// # tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap().block_on(run());
/// ```
///
/// # Errors
/// Returns every check that failed, with what was observed.
pub async fn credit_store<S, F, Fut>(make: F) -> Result<(), Violations>
where
    S: CreditStore,
    F: Fn() -> Fut,
    Fut: Future<Output = S>,
{
    let mut suite = Suite::new("credit store");
    let mut fresh = |calls: Calls| {
        let making = make();
        async move {
            Tried {
                store: Arc::new(Watched::new(making.await, calls)),
            }
        }
    };
    suite.run(CHECKS, &mut fresh).await;
    suite.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_depend_on_earlier_ones_and_have_unique_names() {
        crate::runner::assert_grounds(&[CHECKS]);
    }
}
