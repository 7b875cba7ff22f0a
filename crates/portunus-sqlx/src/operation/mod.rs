//! What a store does, once for both databases: each operation runs on a connection that its store
//! chose.

mod apply;
#[cfg(test)]
mod bounds;
mod events;
mod find;
mod fold;
mod list;
mod migrate;
mod primary;
mod usage;

use async_trait::async_trait;

pub(crate) use apply::Apply;
pub(crate) use events::{Events, FORGET_PAUSE, ForgetEvents, RecordEvents};
pub(crate) use find::{Find, Get, SigningOf};
pub(crate) use fold::{FoldOwner, Owners, is_folded};
pub(crate) use list::List;
pub(crate) use migrate::{Inspect, Migrate, Migration};
pub(crate) use primary::{Primaries, Primary};
pub(crate) use usage::{ForgetUsage, RecordUsage, UsageByHour, UsageOf, UsageOfOne};

use crate::fault::Fault;
use crate::share::Purpose;
use crate::value::Session;
use crate::write_queue::Lane;

/// Something to do on a connection; when it writes, in a transaction that the store commits
/// afterwards.
#[async_trait]
pub(crate) trait Operation: Send + Sync {
    /// What comes of it.
    type Answer: Send;

    /// What it is for where it reads: management reads have but a part of the connections.
    const PURPOSE: Purpose = Purpose::Management;

    /// Where it waits for its turn to write.
    fn lane(&self) -> Lane {
        Lane::default()
    }

    /// Does it. It may be done again, on another connection, where the first was lost or the
    /// transaction given up.
    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault>;
}
