//! An audit trail whose events a test can read.

use super::valid;
use crate::audit::{AuditEvent, AuditTrail, MemoryAudit};

/// An audit trail that keeps every event, without a limit on their number. Clones share the events.
///
/// ```
/// use portunus::ErrorCode;
/// use portunus::audit::AuditOutcome;
/// use portunus::testing::{RecordedAudit, TestKeys, TestRequest};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (keys, audit) = (TestKeys::new(), RecordedAudit::new());
/// let service = keys.builder().audit(audit.trail()).build()?;
/// let authenticator = service.authenticator();
/// let request = TestRequest::get("/documents");
/// // What an adapter does:
/// let request_audit = authenticator.request_audit(&request).ok_or("an audit was set")?;
/// let refused = authenticator.authenticate(&request).await.err().ok_or("the request has no key")?;
/// request_audit.answered(401, Some(&refused));
/// assert_eq!(audit.events().await[0].outcome, AuditOutcome::Refused(ErrorCode::MissingKey));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct RecordedAudit {
    trail: AuditTrail,
    kept: MemoryAudit,
}

impl Default for RecordedAudit {
    fn default() -> Self {
        Self::new()
    }
}

impl RecordedAudit {
    /// Creates an empty trail, which takes its time from the clock of its service.
    #[must_use]
    pub fn new() -> Self {
        Self::with(AuditTrail::builder())
    }

    fn with(builder: crate::audit::AuditTrailBuilder) -> Self {
        let kept = MemoryAudit::new(usize::MAX);
        let trail = builder.sink(kept.clone()).failures_per_source(None).build();
        Self { trail, kept }
    }

    /// Returns the trail, for services and managers.
    #[must_use]
    pub fn trail(&self) -> AuditTrail {
        self.trail.clone()
    }

    /// Returns all events so far, oldest first.
    ///
    /// # Panics
    /// Never: the in-memory sink accepts every event.
    pub async fn events(&self) -> Vec<AuditEvent> {
        valid(self.trail.flush().await);
        self.kept.all()
    }
}
