//! Audit events for every decided request and every management operation.
//!
//! An event is created when the response head exists, so that it contains the whole outcome: a
//! route's refusal, the status that a handler chose, or that the client disconnected. Recording an
//! event never waits: events go into a queue that is bounded by number and size, and the periodic
//! jobs of the service ([`Portunus::maintain`](crate::Portunus::maintain)) write them to the sinks.
//! Events that do not fit into the queue are counted, and the trail records their number. Only
//! refusals are throttled: every admitted request leaves an event, however it ends.
//!
//! ```
//! use portunus::audit::{AuditReader, AuditTrail, EventQuery, MemoryAudit};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let log = MemoryAudit::new(10_000);
//! let trail = AuditTrail::new([log.clone()]);
//! // Portunus::builder(format).store(store).audit(trail.clone())
//!
//! trail.flush().await?; // in a test; a service's periodic jobs do it themselves
//! let page = log.events(&EventQuery::new()).await?;
//! # Ok(()) }
//! ```

mod event;
mod ids;
mod json_lines;
mod memory;
mod outlet;
mod own_file;
mod party;
mod queue;
mod request_audit;
mod request_id;
mod requests;
mod sink;
#[cfg(feature = "tracing")]
mod spans;
mod throttle;
mod trail;

pub use event::{Action, AuditEvent, AuditOutcome, EventId};
pub use json_lines::{Altered, ChainHead, ChainKey, JsonLines, VerifyError, verify};
pub use memory::MemoryAudit;
pub use party::Party;
pub use request_audit::RequestAudit;
pub(crate) use request_audit::shortened;
pub use request_id::RequestId;
pub use sink::{AuditError, AuditReader, AuditSink, EventPage, EventQuery};
#[cfg(feature = "tracing")]
pub use spans::TracingAudit;
pub use trail::{AuditTrail, AuditTrailBuilder};
