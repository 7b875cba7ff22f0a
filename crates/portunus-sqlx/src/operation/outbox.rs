//! The changes that are recorded until they are published on the host's own bus.

use async_trait::async_trait;
use portunus::store::Invalidation;

use super::Operation;
use crate::bus::message::{self, Message};
use crate::fault::Fault;
use crate::share::Purpose;
use crate::sql;
use crate::value::{Session, Value};

/// The largest number of changes that are read at a time.
const MOST: i64 = 500;

/// Reads the oldest recorded changes, with their places. Does not wait for lists.
pub(crate) struct Recorded;

#[async_trait]
impl Operation for Recorded {
    type Answer = Vec<(u64, Invalidation)>;
    const PURPOSE: Purpose = Purpose::Request;

    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault> {
        let rows = session.rows(sql::outbox::OLDEST, vec![0_i64.into(), MOST.into()]);
        let mut changes = Vec::new();
        for row in rows.await? {
            let mut row = row.of("portunus_outbox", "of a change");
            let (place, what) = (row.int("place")?, row.text("what")?);
            let place = u64::try_from(place).map_err(|_| row.corrupt("place"))?;
            // As on the store's own bus, what cannot be read may be a change of anything.
            let what = match message::read(&what) {
                Message::Changed(what) => what,
                Message::Beat(..) | Message::NoBeat => Invalidation::everything(),
            };
            changes.push((place, what));
        }
        Ok(changes)
    }
}

/// Deletes recorded changes by their places.
pub(crate) struct ForgetRecorded<'a>(pub(crate) &'a [u64]);

#[async_trait]
impl Operation for ForgetRecorded<'_> {
    type Answer = ();

    async fn run(&self, session: &mut dyn Session) -> Result<(), Fault> {
        let places = Value::from(serde_json::Value::from(self.0).to_string());
        let forget = session.dialect().forget_recorded;
        session.change(forget, vec![places]).await?;
        Ok(())
    }
}
