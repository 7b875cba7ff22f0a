//! Audit events and usage counts that a stopping process could not write, and how they are
//! reported.

use portunus::Maintenance;

/// Counts of audit events and key uses that were not written to storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unwritten {
    /// Events that are lost with the process.
    pub(crate) events: u64,
    /// Key uses that are lost with the process.
    pub(crate) uses: u64,
    /// Events that were dropped while serving because they could not be written in time.
    pub(crate) dropped_before: u64,
}

impl Unwritten {
    /// Computes the counts from the final run of the periodic jobs. `dropped_before` is the number
    /// of events that had been dropped before the stop signal.
    pub(crate) fn of(done: &Maintenance, dropped_before: u64) -> Self {
        Self {
            events: done.events_waiting + done.events_lost.saturating_sub(dropped_before),
            uses: done.uses_waiting,
            dropped_before,
        }
    }

    /// Whether anything is lost with the process.
    pub(crate) const fn has_losses(self) -> bool {
        self.events > 0 || self.uses > 0
    }

    /// Returns the line for stderr, if there is anything to report.
    pub(crate) fn line(self) -> Option<String> {
        let Self {
            events,
            uses,
            dropped_before,
        } = self;
        let lost = self.has_losses().then(|| {
            format!("lost {events} audit events and {uses} key uses: they could not be written")
        });
        let dropped = (dropped_before > 0).then(|| {
            format!("{dropped_before} audit events had been dropped before the stop signal")
        });
        match (lost, dropped) {
            (Some(lost), Some(dropped)) => Some(format!("{lost}; {dropped}")),
            (lost, dropped) => lost.or(dropped),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Unwritten;

    #[test]
    fn events_dropped_before_the_stop_are_reported_separately_and_are_not_a_loss() {
        for (events, uses, dropped_before, has_losses, line) in [
            (0, 0, 0, false, None),
            (
                2,
                3,
                0,
                true,
                Some("lost 2 audit events and 3 key uses: they could not be written"),
            ),
            (
                0,
                0,
                5,
                false,
                Some("5 audit events had been dropped before the stop signal"),
            ),
            (
                0,
                1,
                5,
                true,
                Some(
                    "lost 0 audit events and 1 key uses: they could not be written; \
                     5 audit events had been dropped before the stop signal",
                ),
            ),
        ] {
            let unwritten = Unwritten {
                events,
                uses,
                dropped_before,
            };
            assert_eq!(unwritten.has_losses(), has_losses, "{unwritten:?}");
            assert_eq!(unwritten.line().as_deref(), line, "{unwritten:?}");
        }
    }
}
