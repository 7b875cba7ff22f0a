//! What a process that ends has not written, and how it says so.

use portunus::Maintenance;

/// How many events and uses of keys no storage has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unwritten {
    /// Events that are lost with the process.
    pub(crate) events: u64,
    /// Uses of keys that are lost with the process.
    pub(crate) uses: u64,
    /// Events that were left out while it served, because they could not be written in time.
    pub(crate) dropped_before: u64,
}

impl Unwritten {
    /// What the last round of the periodic jobs has left, where so many events had been dropped
    /// before the process was told to stop.
    pub(crate) fn of(done: &Maintenance, dropped_before: u64) -> Self {
        Self {
            events: done.events_waiting + done.events_lost.saturating_sub(dropped_before),
            uses: done.uses_waiting,
            dropped_before,
        }
    }

    /// Whether anything is lost with the process.
    pub(crate) const fn is_a_loss(self) -> bool {
        self.events > 0 || self.uses > 0
    }

    /// What is told on stderr, if anything.
    pub(crate) fn line(self) -> Option<String> {
        let Self {
            events,
            uses,
            dropped_before,
        } = self;
        let lost = self.is_a_loss().then(|| {
            format!("lost {events} audit events and {uses} uses of keys: they could not be written")
        });
        let dropped = (dropped_before > 0).then(|| {
            format!("{dropped_before} audit events had been dropped before it was told to stop")
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
    fn what_was_dropped_before_the_stop_is_told_apart_and_is_no_loss_of_the_stop() {
        for (events, uses, dropped_before, is_a_loss, line) in [
            (0, 0, 0, false, None),
            (
                2,
                3,
                0,
                true,
                Some("lost 2 audit events and 3 uses of keys: they could not be written"),
            ),
            (
                0,
                0,
                5,
                false,
                Some("5 audit events had been dropped before it was told to stop"),
            ),
            (
                0,
                1,
                5,
                true,
                Some(
                    "lost 0 audit events and 1 uses of keys: they could not be written; \
                     5 audit events had been dropped before it was told to stop",
                ),
            ),
        ] {
            let unwritten = Unwritten {
                events,
                uses,
                dropped_before,
            };
            assert_eq!(unwritten.is_a_loss(), is_a_loss, "{unwritten:?}");
            assert_eq!(unwritten.line().as_deref(), line, "{unwritten:?}");
        }
    }
}
