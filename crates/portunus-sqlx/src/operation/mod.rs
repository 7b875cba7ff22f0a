//! The operations of a store, written once for both databases: each runs on a connection that its
//! store selected.

mod apply;
#[cfg(test)]
mod bounds;
mod bulk;
mod credit;
mod events;
mod find;
mod fold;
mod insert;
mod list;
mod make;
mod migrate;
mod outbox;
mod place;
mod primary;
mod usage;

use async_trait::async_trait;

pub(crate) use apply::Apply;
#[cfg(feature = "sqlite")]
pub(crate) use apply::Publish;
pub(crate) use bulk::{BulkOf, OpenBulk};
pub(crate) use credit::{Accounts, ForgetEntries, Ledger, LoadCredits, SaveCredits};
pub(crate) use events::{Events, FORGET_PAUSE, ForgetEvents, RecordEvents};
pub(crate) use find::{DIGESTS, DigestOf, Find, FindEach, Get, SigningOf};
pub(crate) use fold::{FoldOwner, Owners, is_folded};
pub(crate) use list::List;
#[cfg(feature = "postgres")]
pub(crate) use migrate::hold_schema;
pub(crate) use migrate::{Inspect, Migrate, Migration};
pub(crate) use outbox::{ForgetRecorded, Recorded};
pub(crate) use place::{Place, check_place};
pub(crate) use primary::{Primaries, Primary};
pub(crate) use usage::{ForgetUsage, RecordUsage, UsageByHour, UsageOf, UsageOfOne};

use crate::fault::Fault;
use crate::share::Purpose;
use crate::value::Session;
use crate::write_queue::Lane;

/// An operation on a connection; if it writes, in a transaction that the store commits afterwards.
#[async_trait]
pub(crate) trait Operation: Send + Sync {
    /// The result of the operation.
    type Answer: Send;

    /// The purpose of a read: management reads share only a part of the connections.
    const PURPOSE: Purpose = Purpose::Management;

    /// The class and the tenant of a write.
    fn lane(&self) -> Lane {
        Lane::default()
    }

    /// Runs the operation. It may run again, on another connection, if the first one was lost or
    /// the transaction was aborted.
    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault>;
}
