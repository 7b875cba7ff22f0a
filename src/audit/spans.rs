//! Audit events as log lines (feature `tracing`).

use async_trait::async_trait;

use super::{AuditError, AuditEvent, AuditOutcome, AuditSink};

/// An audit sink that writes each event as one `tracing` event with target `portunus::audit`, at
/// level `WARN` for refusals and losses and `INFO` otherwise. Text chosen by a caller is only in
/// fields, never in the message.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct TracingAudit;

impl TracingAudit {
    /// Creates the sink.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

macro_rules! write_event {
    ($level:ident, $event:expr) => {
        tracing::$level!(
            target: "portunus::audit",
            id = %$event.id,
            action = $event.action.as_str(),
            outcome = $event.outcome.as_str(),
            status = $event.status,
            key_id = $event.key_id.as_ref().map(tracing::field::display),
            tenant_id = $event.tenant_id.as_ref().map(tracing::field::display),
            mode = $event.mode.map(tracing::field::display),
            actor = $event.actor.as_ref().map(tracing::field::debug),
            subject = $event.subject.as_ref().map(tracing::field::debug),
            client_ip = $event.client_ip.map(tracing::field::display),
            method = $event.method.as_deref(),
            route = $event.route.as_deref(),
            request_id = $event.request_id.as_ref().map(tracing::field::display),
            detail = $event.detail.as_ref().map(tracing::field::debug),
            count = $event.count,
            "audit"
        )
    };
}

#[async_trait]
impl AuditSink for TracingAudit {
    async fn record(&self, events: &[AuditEvent]) -> Result<(), AuditError> {
        for event in events {
            match event.outcome {
                AuditOutcome::Ok if event.count.is_none() => write_event!(info, event),
                _ => write_event!(warn, event),
            }
        }
        Ok(())
    }
}
