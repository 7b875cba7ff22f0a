//! The suite for an [`InvalidationBus`](portunus::store::InvalidationBus): two nodes on one fabric,
//! listeners that keep what they hear, and caches.
//!
//! What a bus tells is tried by its one promise: whoever is told that everything up to some moment
//! was heard has heard it.

mod caches;
mod faults;
mod nodes;
mod promises;
mod recording_listener;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::report::Violations;
use super::runner::{Calls, Suite};
pub use nodes::BusNodes;

/// Tries an [`InvalidationBus`](portunus::store::InvalidationBus) against all that the trait promises.
///
/// `make` returns two nodes of a fresh fabric each time: on a new channel, prefix or database. It
/// is called once for each of about fifteen checks, which run one after the other, each in at most
/// 30 seconds. Run the suite on a runtime with several threads and with time enabled. Messages that
/// are lost when a connection fails are tried only where [`BusNodes::with_faults`] says how one is
/// made to.
///
/// ```
/// # async fn run() {
/// use portunus_conformance::BusNodes;
/// use portunus::store::LocalBus;
///
/// // In the place of `LocalBus`: connect twice, to a channel of a new name.
/// let make = || async {
///     let bus = LocalBus::new();
///     BusNodes::new(bus.clone(), bus)
/// };
/// portunus_conformance::invalidation_bus(make).await.unwrap();
/// # }
/// # tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap().block_on(run());
/// ```
///
/// Left open, since no cache depends on it: the order of changes among themselves, and that a
/// change is heard once, by itself and alone. What cannot be tried from outside is left to the
/// bus's own tests: that what strangers say on its channel proves nothing, and that a bus that is
/// dropped ends its tasks and connections.
///
/// # Errors
/// Every check that failed, with what was seen.
pub async fn invalidation_bus<F, Fut>(make: F) -> Result<(), Violations>
where
    F: Fn() -> Fut,
    Fut: Future<Output = BusNodes>,
{
    let mut suite = Suite::new("invalidation bus");
    let can_fail = Arc::new(AtomicBool::new(false));
    let mut fresh = |calls: Calls| {
        let (making, can_fail) = (make(), Arc::clone(&can_fail));
        async move {
            let nodes = making.await;
            can_fail.store(nodes.can_fail(), Ordering::Relaxed);
            nodes.watched(&calls)
        }
    };
    for group in [promises::CHECKS, caches::CHECKS] {
        suite.run(group, &mut fresh).await;
    }
    if can_fail.load(Ordering::Relaxed) {
        suite.run(faults::CHECKS, &mut fresh).await;
    }
    suite.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_rest_on_earlier_ones_and_no_two_have_one_name() {
        crate::runner::assert_grounds(&[promises::CHECKS, caches::CHECKS, faults::CHECKS]);
    }
}
