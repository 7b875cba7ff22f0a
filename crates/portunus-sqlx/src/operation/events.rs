//! Audit events: stored in the given order, and read from the last one.
//!
//! An event is stored whole, as JSON, with the facts that queries need in columns beside it; the
//! two are compared when it is read. The names of the participants are in a separate table, in
//! lower case and truncated, so that the database finds too much rather than too little:
//! [`EventQuery::selects`] makes the final decision, also about workspaces.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use portunus::audit::{AuditEvent, EventPage, EventQuery};
use portunus::key::{KeyId, TenantId};
use serde::Serialize;

use super::Operation;
use crate::fault::{Fault, Refusal};
use crate::record::{self, same, text};
use crate::sql::events::OLDEST;
use crate::time;
use crate::value::{Row, Session, Value};

/// The table name, for errors.
const TABLE: &str = "portunus_events";
/// The largest number of events that one statement stores.
const MOST_EVENTS: usize = 512;
/// The largest number of rows that one statement reads.
const MOST_ROWS: usize = 500;
/// The largest number of events that one transaction deletes.
const MOST_FORGOTTEN: i64 = 2_000;
/// The largest number of characters of a name that are compared in the database: an index entry is
/// limited to some kilobytes.
const MOST_CHARACTERS: usize = 200;

/// A name as it is stored beside events.
fn who(name: &str) -> String {
    text(&name.chars().take(MOST_CHARACTERS).collect::<String>()).to_ascii_lowercase()
}

/// The names by which an event is found: of its parties, and of the owner of the managed key.
fn parties(event: &AuditEvent) -> BTreeSet<String> {
    let owner = event.key_owner.as_ref().map(|id| who(id.as_str()));
    let parties = [&event.actor, &event.subject].into_iter().flatten();
    let names = |party: &portunus::audit::Party| {
        let id = party.user_id.as_ref().map(|id| who(id.as_str()));
        [
            id,
            party.user_email.as_deref().map(who),
            party.name.as_deref().map(who),
        ]
    };
    parties.flat_map(names).flatten().chain(owner).collect()
}

fn millis(at: SystemTime) -> i64 {
    time::floor(at).clamp(0, time::max_millis())
}

/// The columns of an event except the JSON, in the order in which they are read.
fn columns(event: &AuditEvent) -> [(&'static str, Value); 6] {
    [
        ("id", event.id.to_string().into()),
        ("at", millis(event.at).into()),
        ("action", event.action.as_str().into()),
        ("outcome", event.outcome.as_str().into()),
        (
            "tenant_id",
            Value::Text(
                event
                    .tenant_id
                    .as_ref()
                    .map(|tenant| tenant.as_str().to_owned()),
            ),
        ),
        (
            "key_id",
            Value::Text(event.key_id.as_ref().map(|key| key.as_str().to_owned())),
        ),
    ]
}

/// An event as the statement for many reads it.
#[derive(Serialize)]
struct Stored<'a> {
    number: usize,
    id: String,
    at: i64,
    action: &'a str,
    outcome: &'a str,
    tenant: Option<&'a str>,
    key: Option<&'a str>,
    event: String,
}

/// The names of an event as the statement for many reads them.
#[derive(Serialize)]
struct Parties {
    id: String,
    parties: BTreeSet<String>,
}

fn stored((number, event): (usize, &AuditEvent)) -> Result<Stored<'_>, Refusal> {
    Ok(Stored {
        number,
        id: event.id.to_string(),
        at: millis(event.at),
        action: event.action.as_str(),
        outcome: event.outcome.as_str(),
        tenant: event.tenant_id.as_ref().map(TenantId::as_str),
        key: event.key_id.as_ref().map(KeyId::as_str),
        event: serde_json::to_string(event).map_err(Refusal::EventJson)?,
    })
}

fn to_json(all: &impl Serialize) -> Result<Vec<Value>, Refusal> {
    let json = serde_json::to_string(all).map_err(Refusal::EventJson)?;
    Ok(vec![json.into()])
}

/// Stores events.
pub(crate) struct RecordEvents<'a>(pub(crate) &'a [AuditEvent]);

#[async_trait]
impl Operation for RecordEvents<'_> {
    type Answer = ();

    async fn run(&self, session: &mut dyn Session) -> Result<(), Fault> {
        let dialect = session.dialect();
        if let Some(hold) = dialect.hold {
            // One statement after the other, so that places are in the order in which they become
            // visible.
            session
                .change(
                    hold,
                    vec!["[\"events\"]".into(), super::apply::EVENTS.into()],
                )
                .await?;
        }
        for part in self.0.chunks(MOST_EVENTS) {
            let events: Result<Vec<_>, _> = part.iter().enumerate().map(stored).collect();
            session
                .change(dialect.events.insert, to_json(&events?)?)
                .await?;
            // Without the events, which are long.
            let of = |event: &AuditEvent| Parties {
                id: event.id.to_string(),
                parties: parties(event),
            };
            let parties: Vec<_> = part.iter().map(of).collect();
            if parties.iter().any(|one| !one.parties.is_empty()) {
                session
                    .change(dialect.events.insert_parties, to_json(&parties)?)
                    .await?;
            }
        }
        Ok(())
    }
}

/// Reads a page of events.
pub(crate) struct Events<'a>(pub(crate) &'a EventQuery);

#[async_trait]
impl Operation for Events<'_> {
    type Answer = EventPage;

    async fn run(&self, session: &mut dyn Session) -> Result<EventPage, Fault> {
        let query = self.0;
        let limit = query.limit.clamp(1, MOST_ROWS);
        let (lane, is_exact) = session.dialect().events.lanes.of(query);
        let mut place = query
            .before
            .map_or(i64::MAX, |before| i64::try_from(before).unwrap_or(i64::MAX));
        let mut end = None;
        if !is_exact {
            let values = self.values(place, EventQuery::MOST_SCANNED - 1);
            let far = session.rows(lane.far, values).await?.into_iter().next();
            let far = far.map(|row| row.of(TABLE, "of a page").int("place"));
            end = far.transpose()?;
        }
        let mut page = EventPage::default();
        let (mut shown, mut rows, mut scanned) = (place, limit + 1, 0);
        while scanned < EventQuery::MOST_SCANNED {
            let mut values = self.values(place, rows);
            values.push(end.unwrap_or(i64::MIN).into());
            let read = session.rows(lane.page, values).await?;
            let is_last = read.len() < rows;
            scanned += read.len();
            for row in read {
                let (here, event) = event(row)?;
                place = here;
                let is_shown = match &event {
                    Ok(event) => query.selects(event),
                    // A query for one tenant must not reveal a row that may belong to another
                    // tenant.
                    Err(what) => query.tenant.is_none() || !record::may_be_foreign(what),
                };
                if !is_shown {
                    continue;
                }
                if page.items.len() + page.corrupt.len() == limit {
                    // The place of the last event on the page: everything after it was stored
                    // earlier.
                    page.next = Some(shown.unsigned_abs());
                    return Ok(page);
                }
                match event {
                    Ok(event) => page.items.push(event),
                    Err(what) => page.corrupt.push(what),
                }
                shown = here;
            }
            if is_last {
                page.next = end.map(i64::unsigned_abs);
                return Ok(page);
            }
            rows = MOST_ROWS.min(EventQuery::MOST_SCANNED.saturating_sub(scanned));
        }
        page.next = Some(place.unsigned_abs());
        Ok(page)
    }
}

impl Events<'_> {
    /// The values of both statements: this many events before a place.
    fn values(&self, place: i64, rows: usize) -> Vec<Value> {
        let query = self.0;
        let key = query.key_id.as_ref().map(|key| key.as_str().to_owned());
        let tenant = query.tenant.as_ref();
        let owner = || query.owner.as_ref().map(|user| who(user.as_str()));
        let party = query.actor.as_deref().map(who).or_else(owner);
        vec![
            place.into(),
            Value::Text(query.outcome.map(|outcome| outcome.as_str().to_owned())),
            Value::Text(query.action.map(|action| action.as_str().to_owned())),
            Value::Text(tenant.map(|tenant| tenant.as_str().to_owned())),
            Value::Text(key.or(party)),
            i64::try_from(rows).unwrap_or(i64::MAX).into(),
        ]
    }
}

/// A row as its place and its event, or a description of what cannot be read.
fn event(row: Row) -> Result<(i64, Result<AuditEvent, String>), Fault> {
    let mut row = row.of(TABLE, "?");
    let place = row.int("place")?;
    row.rename(TABLE, &place.to_string());
    match readable(row) {
        Ok(event) => Ok((place, Ok(event))),
        Err(Fault::Corrupt(what)) => Ok((place, Err(what))),
        Err(fault) => Err(fault),
    }
}

/// Decodes the rest of a row as an event.
fn readable(mut row: Row) -> Result<AuditEvent, Fault> {
    let mut stored = Vec::new();
    for name in ["id", "at", "action", "outcome", "tenant_id", "key_id"] {
        stored.push(row.value(name)?);
    }
    let json = row.text("event")?;
    let event: AuditEvent = serde_json::from_str(&json)
        .map_err(|_| row.corrupt(record::unreadable(&json, "/tenant_id", &stored[4], "event")))?;
    let derived = columns(&event);
    let wrong = derived
        .iter()
        .zip(&stored)
        .filter(|((_, derived), stored)| !same(derived, stored))
        .map(|((column, _), _)| *column);
    match record::first_wrong(wrong) {
        Some(column) => Err(row.corrupt(column)),
        None => Ok(event),
    }
}

/// Deletes some of the events before an instant, oldest first; returns the number, and whether
/// there may be more.
pub(crate) struct ForgetEvents(pub(crate) SystemTime);

#[async_trait]
impl Operation for ForgetEvents {
    type Answer = (u64, bool);

    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault> {
        let dialect = session.dialect();
        let rows = session
            .rows(
                OLDEST,
                vec![time::ceil(self.0).into(), MOST_FORGOTTEN.into()],
            )
            .await?;
        let places: Result<Vec<i64>, Fault> = rows
            .into_iter()
            .map(|row| row.of(TABLE, "?").int("place"))
            .collect();
        let places = places?;
        let json = serde_json::Value::from(places.clone()).to_string();
        session
            .change(dialect.events.delete_parties, vec![json.clone().into()])
            .await?;
        let forgotten = session
            .change(dialect.events.delete, vec![json.into()])
            .await?;
        Ok((
            forgotten,
            i64::try_from(places.len()).is_ok_and(|found| found == MOST_FORGOTTEN),
        ))
    }
}

/// The pause for other writers between two transactions that delete.
pub(crate) const FORGET_PAUSE: Duration = Duration::from_millis(5);
