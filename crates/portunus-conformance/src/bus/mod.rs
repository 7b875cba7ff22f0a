//! The suite for an [`InvalidationBus`](portunus::store::InvalidationBus): two connected nodes,
//! listeners that record what they receive, and caches.
//!
//! A bus is judged by its one promise: when `caught_up` reports that everything up to a moment has
//! been received, it has been.

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

/// Checks an [`InvalidationBus`](portunus::store::InvalidationBus) against all promises of the
/// trait.
///
/// `make` returns two connected nodes that share nothing with earlier ones: on a new channel,
/// prefix or database. It is called once for each of about fifteen checks, which run one after the
/// other, each in at most 30 seconds. Run the suite on a multi-threaded runtime with time enabled.
/// The loss of messages when a connection fails is checked only if [`BusNodes::with_faults`]
/// provides a way to interrupt it.
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
/// Not required, since no cache depends on it: the order of changes, and that a change arrives
/// exactly once and separately. The bus's own tests must cover what cannot be checked from outside:
/// that messages from other clients on its channel prove nothing, and that a dropped bus ends its
/// tasks and connections.
///
/// # Errors
/// Returns every check that failed, with what was observed.
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
