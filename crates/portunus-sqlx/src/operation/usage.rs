//! Usage: totals, and counts by hour. It is stored separately from records, so that counting does
//! not change versions.
//!
//! Counts that no longer fit in 63 bits stay at the largest number, which is reported as
//! [`u64::MAX`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::SystemTime;

use async_trait::async_trait;
use portunus::key::KeyId;
use portunus::store::{HourOfUse, Usage, UsageDelta};
use serde::Serialize;

use super::Operation;
use super::make::live;
use crate::fault::{Fault, Refusal};
use crate::share::Purpose;
use crate::sql;
use crate::time;
use crate::value::{Row, Session};

/// The table of totals, for errors.
const TABLE: &str = "portunus_usage";
/// The largest number of keys in one statement.
const MOST_KEYS: usize = 1000;
/// The largest number of hours, of all keys, that one transaction deletes.
const MOST_FORGOTTEN: i64 = 2_000;

/// Adds counted usage.
pub(crate) struct RecordUsage<'a>(pub(crate) &'a [UsageDelta]);

impl<'a> RecordUsage<'a> {
    /// The deltas in rounds in which no key occurs twice: the first delta of each key, the second
    /// of each, and so on.
    fn rounds(all: impl IntoIterator<Item = &'a UsageDelta>) -> Vec<Vec<&'a UsageDelta>> {
        let mut seen: HashMap<&KeyId, usize> = HashMap::new();
        let mut rounds: Vec<Vec<&UsageDelta>> = Vec::new();
        for delta in all {
            let round = seen.entry(&delta.id).or_default();
            if rounds.len() == *round {
                rounds.push(Vec::new());
            }
            rounds[*round].push(delta);
            *round += 1;
        }
        for round in &mut rounds {
            // The same order everywhere, so that two nodes that count the same keys never deadlock.
            round.sort_by(|one, other| one.id.cmp(&other.id));
        }
        rounds
    }
}

/// A delta as the statements read it.
#[derive(Serialize)]
struct Delta<'a> {
    key: &'a str,
    uses: i64,
    at: i64,
    ip: Option<IpAddr>,
    hour: i64,
}

impl<'a> Delta<'a> {
    fn of(delta: &'a UsageDelta) -> Self {
        Self {
            key: delta.id.as_str(),
            uses: i64::try_from(delta.count).unwrap_or(i64::MAX),
            at: time::floor(delta.last_used_at),
            ip: delta.last_ip,
            hour: time::floor(HourOfUse::start_of(delta.last_used_at)),
        }
    }
}

#[async_trait]
impl Operation for RecordUsage<'_> {
    type Answer = ();

    async fn run(&self, session: &mut dyn Session) -> Result<(), Fault> {
        let dialect = session.dialect();
        for round in RecordUsage::rounds(self.0) {
            for part in round.chunks(MOST_KEYS) {
                let deltas: Vec<_> = part.iter().map(|delta| Delta::of(delta)).collect();
                let json = serde_json::to_string(&deltas).map_err(Refusal::UsageJson)?;
                // First, because it locks rows of keys, as a deletion does before those of usage.
                session
                    .change(dialect.note_use, vec![json.as_str().into()])
                    .await?;
                for sql in dialect.add_usage {
                    session.change(sql, vec![json.as_str().into()]).await?;
                }
            }
        }
        Ok(())
    }
}

/// The day since the Unix epoch of the last use, as rows of keys have it.
pub(super) fn day_of(delta: &UsageDelta) -> i64 {
    time::floor(delta.last_used_at).div_euclid(24 * 60 * 60 * 1000)
}

/// Adds uses to the totals of keys that exist, and to no hour. With `note`, their rows learn of it.
pub(super) async fn add_totals(
    session: &mut dyn Session,
    deltas: &[&UsageDelta],
    note: bool,
) -> Result<(), Fault> {
    let dialect = session.dialect();
    for round in RecordUsage::rounds(deltas.iter().copied()) {
        for part in round.chunks(MOST_KEYS) {
            let deltas: Vec<_> = part.iter().map(|delta| Delta::of(delta)).collect();
            let json = serde_json::to_string(&deltas).map_err(Refusal::UsageJson)?;
            if note {
                let values = vec![json.as_str().into()];
                session.change(dialect.note_use, values).await?;
            }
            let added = session
                .change(dialect.add_totals, vec![json.into()])
                .await?;
            if usize::try_from(added).is_ok_and(|added| added == part.len()) {
                continue;
            }
            for delta in part {
                live(session, &delta.id).await?;
            }
        }
    }
    Ok(())
}

/// Reads the totals of some keys, in their order.
pub(crate) struct UsageOf<'a>(pub(crate) &'a [KeyId]);

#[async_trait]
impl Operation for UsageOf<'_> {
    type Answer = Vec<Usage>;

    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault> {
        let mut known = HashMap::with_capacity(self.0.len());
        for part in self.0.chunks(MOST_KEYS) {
            let ids = part.iter().map(KeyId::as_str).collect::<Vec<_>>();
            let ids = serde_json::Value::from(ids).to_string();
            let rows = session
                .rows(session.dialect().usage_of, vec![ids.into()])
                .await?;
            for row in rows {
                let mut row = row.of(TABLE, "?");
                let id = row.text("key_id")?;
                row.rename(TABLE, &id);
                known.insert(id, read_usage(&mut row)?);
            }
        }
        let usage = |id: &KeyId| known.get(id.as_str()).copied().unwrap_or_default();
        Ok(self.0.iter().map(usage).collect())
    }
}

/// Reads the totals of one key, without waiting for lists.
pub(crate) struct UsageOfOne<'a>(pub(crate) UsageOf<'a>);

#[async_trait]
impl Operation for UsageOfOne<'_> {
    type Answer = Vec<Usage>;
    const PURPOSE: Purpose = Purpose::Request;

    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault> {
        self.0.run(session).await
    }
}

/// The next three columns of a row: uses, last_used_at, last_ip.
fn read_usage(row: &mut Row) -> Result<Usage, Fault> {
    let (uses, at, ip) = (
        row.int("uses")?,
        row.int("last_used_at")?,
        row.maybe_text("last_ip")?,
    );
    let mut usage = Usage::default();
    usage.count = count(row, uses)?;
    usage.last_used_at = Some(time::from_millis(at).ok_or_else(|| row.corrupt("last_used_at"))?);
    usage.last_ip = ip
        .map(|ip| ip.parse::<IpAddr>().map_err(|_| row.corrupt("last_ip")))
        .transpose()?;
    Ok(usage)
}

fn count(row: &Row, uses: i64) -> Result<u64, Fault> {
    match u64::try_from(uses) {
        Ok(_) if uses == i64::MAX => Ok(u64::MAX),
        Ok(uses) => Ok(uses),
        Err(_) => Err(row.corrupt("uses")),
    }
}

/// Reads the number of uses of a key by hour, and the hours that cannot be read.
pub(crate) struct UsageByHour<'a> {
    pub(crate) id: &'a KeyId,
    pub(crate) from: SystemTime,
    pub(crate) to: SystemTime,
}

#[async_trait]
impl Operation for UsageByHour<'_> {
    type Answer = portunus::store::UsageByHour;

    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault> {
        let (from, to) = (
            time::floor(HourOfUse::start_of(self.from)),
            time::ceil(self.to),
        );
        let values = vec![self.id.as_str().into(), from.into(), to.into()];
        let mut usage = Self::Answer::default();
        for row in session.rows(sql::usage::USAGE_BY_HOUR, values).await? {
            let mut row = row.of("portunus_usage_by_hour", self.id.as_str());
            match hour(&mut row) {
                Ok(hour) => usage.hours.push(hour),
                Err(Fault::Corrupt(what)) => usage.corrupt.push(what),
                Err(fault) => return Err(fault),
            }
        }
        Ok(usage)
    }
}

/// An hour with its count.
fn hour(row: &mut Row) -> Result<HourOfUse, Fault> {
    let (start, uses) = (row.int("start")?, row.int("uses")?);
    let start = time::from_millis(start).filter(|at| HourOfUse::start_of(*at) == *at);
    let start = start.ok_or_else(|| row.corrupt("start"))?;
    Ok(HourOfUse::new(start, count(row, uses)?))
}

/// Deletes some of the hours that ended before an instant, oldest first; returns the number, and
/// whether there may be more.
pub(crate) struct ForgetUsage(pub(crate) SystemTime);

#[async_trait]
impl Operation for ForgetUsage {
    type Answer = (u64, bool);

    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault> {
        if let Some(hold) = session.dialect().hold {
            // One statement after the other: none sees rows that another is about to delete.
            session
                .change(hold, vec!["[\"usage\"]".into(), super::apply::USAGE.into()])
                .await?;
        }
        let hour = i64::try_from(HourOfUse::LENGTH.as_millis()).unwrap_or(i64::MAX);
        let before = time::ceil(self.0).saturating_sub(hour);
        let values = vec![before.into(), MOST_FORGOTTEN.into()];
        let forgotten = session.change(sql::usage::FORGET_USAGE, values).await?;
        let more = i64::try_from(forgotten).is_ok_and(|forgotten| forgotten == MOST_FORGOTTEN);
        Ok((forgotten, more))
    }
}
