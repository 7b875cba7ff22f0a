//! The log record that reports that the jobs are not run.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::desk::{Desk, poll};

/// Counts records of level ERROR that mention the call.
#[derive(Clone, Default)]
struct Errors(Arc<AtomicU64>);

struct Names(bool);

impl tracing::field::Visit for Names {
    fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        self.0 |= text.contains("Portunus::run") && text.contains("Portunus::maintain");
    }
}

impl tracing::Subscriber for Errors {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut names = Names(false);
        event.record(&mut names);
        self.0.fetch_add(u64::from(names.0), Ordering::SeqCst);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// Returns the number of records after uses at these seconds, with the jobs run at one of them.
async fn lines(uses: &[u64], run_at: Option<u64>) -> u64 {
    let errors = Errors::default();
    let _guard = tracing::subscriber::set_default(errors.clone());
    let desk = Desk::new(&[]).await;
    // Long before the first use.
    desk.clock.advance(Duration::from_secs(1000));
    for second in 0..60 {
        (run_at == Some(second)).then(|| poll(desk.keys.maintain(), 50));
        if uses.contains(&second) {
            desk.count(1).await;
        }
        desk.clock.advance(Duration::from_secs(1));
    }
    errors.0.load(Ordering::SeqCst)
}

#[tokio::test]
async fn jobs_that_are_not_run_within_ten_seconds_of_the_first_use_are_reported_once() {
    assert_eq!(lines(&[5, 14], None).await, 0);
    assert_eq!(lines(&[5, 15], None).await, 1);
    assert_eq!(lines(&[5, 14, 16, 30, 50], None).await, 1);
    assert_eq!(lines(&[5, 30], Some(2)).await, 0);
    assert_eq!(lines(&[5, 30], Some(20)).await, 0);
    assert_eq!(lines(&[5, 15, 30], Some(20)).await, 1);
}

#[tokio::test]
async fn a_time_of_day_that_is_set_back_does_not_keep_the_report_back() {
    let errors = Errors::default();
    let _guard = tracing::subscriber::set_default(errors.clone());
    let desk = Desk::new(&[]).await;
    let began = portunus::Clock::now(&desk.clock);
    desk.clock.advance(Duration::from_secs(1000));
    desk.count(1).await;
    desk.clock.advance(Duration::from_secs(10));
    desk.clock.step_to(began);
    desk.count(1).await;
    assert_eq!(errors.0.load(Ordering::SeqCst), 1);
}
