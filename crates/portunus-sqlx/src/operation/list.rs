//! Pages of records.
//!
//! The database evaluates all filters except workspaces, and may return too much;
//! [`ListQuery::selects`] makes the final decision, except about usage. If one of the filters matches
//! few keys, only these are read. Otherwise one page examines at most [`ListQuery::MOST_SCANNED`]
//! rows, however much is rejected: if a filter could reject many, the index is first asked where that
//! many rows end, and the filtering statement stays before that position. A query can ask for less
//! ([`ListQuery::scanned`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portunus::key::{
    Environment, KeyFamily, KeyId, KeyKind, KeyStatus, PlanName, TenantId, UserId,
};
use portunus::store::{Cursor, ListQuery, Page, Usage};

use super::Operation;
use crate::fault::Fault;
use crate::record::{self, TABLE};
use crate::sql::lists::{Lane, Of, Span};
use crate::time;
use crate::value::{Row, Session, Value};

/// The largest number of rows that one statement reads.
const MOST_ROWS: usize = 500;
/// The number of keys of one instant that are examined at a time: nearly always there are fewer.
const MOST_AT_ONCE: usize = 1_000;
/// A filter that matches at most this number of keys is read as a whole.
const FEW: usize = 500;
/// The milliseconds of a day.
const DAY: i64 = 24 * 60 * 60 * 1000;
/// Sorts after every id.
const LAST_ID: &str = "\u{10FFFF}";

/// Reads one page.
pub(crate) struct List<'a>(pub(crate) &'a ListQuery);

/// Rows that are adjacent in the index, or few.
enum Strip {
    /// Created at one instant, with ids after one and up to another.
    At(i64, String, String),
    /// Created before one instant and after another.
    Before(i64, i64),
    /// With a value after one and before another, and a position after this one.
    Few(&'static Span, i64, i64, Place),
}

/// From where a page is read.
struct Source {
    lane: &'static Lane,
    strips: Vec<Strip>,
    /// Where the strips end; `None` if no key follows.
    end: Option<Cursor>,
    /// Whether the strips may have any length, because nearly all of their rows are in the list, or
    /// because they are few.
    is_open: bool,
}

/// A position in the order of the list: milliseconds and id.
type Place = (i64, String);

#[async_trait]
impl Operation for List<'_> {
    type Answer = Page;

    async fn run(&self, session: &mut dyn Session) -> Result<Page, Fault> {
        let Source {
            lane,
            strips,
            end,
            is_open,
        } = self.source(session).await?;
        let mut page = Filling::new(self.0);
        let (mut strips, mut scanned) = (VecDeque::from(strips), 0);
        while let Some(strip) = strips.pop_front() {
            let rows = page.rows();
            let sql = match strip {
                Strip::At(..) => lane.at,
                Strip::Before(..) => lane.before,
                Strip::Few(span, ..) => span.rows,
            };
            let read = session.rows(sql, self.values(&strip, rows)).await?;
            let is_last = read.len() < rows;
            scanned += read.len();
            for row in read {
                if page.is_full_with(row)? {
                    return Ok(page.page);
                }
            }
            if !is_last {
                let (at, id) = page.place.clone();
                // Rows that are rejected because they are corrupt count, too.
                if is_open
                    && scanned >= self.0.most_scanned()
                    && let Some(end) = cursor(at, &id)
                {
                    page.page.next = Some(end);
                    return Ok(page.page);
                }
                let (until, rest) = match strip {
                    Strip::At(_, _, until) => (until, None),
                    Strip::Before(_, after) => (LAST_ID.into(), Some(Strip::Before(at, after))),
                    Strip::Few(span, low, high, _) => {
                        strips.push_front(Strip::Few(span, low, high, (at, id)));
                        continue;
                    }
                };
                rest.into_iter().for_each(|rest| strips.push_front(rest));
                strips.push_front(Strip::At(at, id, until));
            }
        }
        page.page.next = end;
        Ok(page.page)
    }
}

impl List<'_> {
    /// The start of the page; a position between two milliseconds is before all keys of the earlier
    /// one.
    fn start(&self) -> (Option<Place>, i64) {
        let Some(after) = &self.0.after else {
            // A corrupt row may contain any time, and is then reported.
            return (Some((i64::MAX, String::new())), i64::MAX);
        };
        let (at, next) = (time::floor(after.created_at), time::ceil(after.created_at));
        if at == next {
            (Some((at, after.id.as_str().to_owned())), at)
        } else {
            (None, next)
        }
    }

    /// Finds out which filter matches few keys.
    async fn source(&self, session: &mut dyn Session) -> Result<Source, Fault> {
        let (lanes, query) = (session.dialect().lists, self.0);
        let (filters, whole) = (lanes.of(query), lanes.whole(query));
        let open = |lane, strips| Source {
            lane,
            strips,
            end: None,
            is_open: true,
        };
        let lane = filters.first().copied().unwrap_or(whole);
        if self.is_whole(filters.len()) {
            return Ok(open(lane, self.strips()));
        }
        for few in &filters {
            let values = self.place_values(FEW + 1, i64::MAX, None);
            if session.rows(few.far_before, values).await?.is_empty() {
                return Ok(open(few, self.strips()));
            }
        }
        for (of, low, high) in self.spans() {
            let span = lanes.span(query, of);
            let values = self.place_values(FEW + 1, low, Some(high.into()));
            if session.rows(span.far, values).await?.is_empty() {
                let place = match self.start() {
                    (Some(place), _) => place,
                    (None, before) => (before, LAST_ID.to_owned()),
                };
                return Ok(open(whole, vec![Strip::Few(span, low, high, place)]));
            }
        }
        let (strips, end) = self.bounded(session, lane).await?;
        Ok(Source {
            lane,
            strips,
            end,
            is_open: false,
        })
    }

    /// Whether this number of lanes contains exactly the keys of the list.
    fn is_whole(&self, lanes: usize) -> bool {
        let query = self.0;
        let filters = [
            query.status.is_some(),
            query.environment.is_some(),
            query.owner.is_some(),
            query.plan.is_some(),
            query.family.is_some(),
            query.kind.is_some(),
            query.expires_before.is_some(),
            query.unused_since.is_some(),
            query.text.is_some(),
            query.within_workspaces.is_some(),
        ];
        let filters = filters.into_iter().filter(|is_set| *is_set).count();
        // A disabled key may also be revoked.
        filters <= 1 && filters == lanes && query.status != Some(KeyStatus::Disabled)
    }

    /// The ranges of values that contain every key of the list.
    fn spans(&self) -> Vec<(Of, i64, i64)> {
        let (query, mut spans) = (self.0, Vec::new());
        let now = time::floor(query.now);
        let is_expired = query.status == Some(KeyStatus::Expired);
        let ends = [
            query.expires_before.map(time::ceil),
            is_expired.then_some(now.saturating_add(1)),
        ];
        if let Some(end) = ends.into_iter().flatten().min() {
            let is_current = matches!(
                query.status,
                Some(KeyStatus::Active | KeyStatus::NotYetValid | KeyStatus::Disabled)
            );
            spans.push((Of::End, if is_current { now } else { i64::MIN }, end));
        }
        if query.status == Some(KeyStatus::NotYetValid) {
            spans.push((Of::Start, now, i64::MAX));
        }
        if let Some(since) = query.unused_since {
            let last = time::ceil(since).saturating_sub(1).div_euclid(DAY);
            spans.push((Of::Use, i64::MIN, last + 1));
        }
        spans
    }

    /// The rest of the list.
    fn strips(&self) -> Vec<Strip> {
        let (start, before) = self.start();
        let at = start.map(|(at, id)| Strip::At(at, id, LAST_ID.into()));
        let older = Strip::Before(before, i64::MIN);
        at.into_iter().chain([older]).collect()
    }

    /// As much of the rest of the list as may be examined, and where that ends; `None` if it is all
    /// of it.
    async fn bounded(
        &self,
        session: &mut dyn Session,
        lane: &Lane,
    ) -> Result<(Vec<Strip>, Option<Cursor>), Fault> {
        let (start, before) = self.start();
        // Room for a few keys of one instant, and for some older ones.
        let left = self.0.most_scanned().max(3 * MOST_AT_ONCE);
        let (mut strips, mut left) = (Vec::new(), left);
        if let Some((at, mut after)) = start {
            loop {
                let values = self.place_values(MOST_AT_ONCE, at, Some(after.as_str().into()));
                let far = session.rows(lane.far_at, values).await?;
                left -= MOST_AT_ONCE;
                let Some(row) = far.into_iter().next() else {
                    strips.push(Strip::At(at, after, LAST_ID.into()));
                    break;
                };
                let mut row = row.of(TABLE, "of a page");
                let until = row.text("id")?;
                strips.push(Strip::At(at, after, until.clone()));
                if left < 2 * MOST_AT_ONCE {
                    let end = cursor(at, &until).ok_or_else(|| row.corrupt("id"))?;
                    return Ok((strips, Some(end)));
                }
                after = until;
            }
        }
        let values = self.place_values(left, before, None);
        let far = session.rows(lane.far_before, values).await?;
        let Some(row) = far.into_iter().next() else {
            strips.push(Strip::Before(before, i64::MIN));
            return Ok((strips, None));
        };
        let mut row = row.of(TABLE, "of a page");
        let (at, id) = (row.int("created_at")?, row.text("id")?);
        strips.push(Strip::Before(before, at));
        let end = match cursor(at, &id) {
            Some(end) => {
                strips.push(Strip::At(at, String::new(), id));
                end
            }
            // No key can have this position: end before all keys that were created at that time.
            None => before_all_of(at).ok_or_else(|| row.corrupt("created_at"))?,
        };
        Ok((strips, Some(end)))
    }

    /// The values of every statement except those that delimit a strip.
    fn first_values(&self, rows: usize) -> Vec<Value> {
        let query = self.0;
        let text = query.text.as_deref().filter(|text| !text.is_empty());
        let (environment, tenant) = (query.environment.as_ref(), query.tenant.as_ref());
        // Columns do not say which version wrote a record.
        let status = query
            .status
            .filter(|status| *status != KeyStatus::Unreadable);
        let (owner, plan) = (query.owner.as_ref(), query.plan.as_ref());
        let family = query.family.as_ref().map(KeyFamily::as_str);
        let name = |name: Option<&str>| Value::Text(name.map(str::to_owned));
        vec![
            name(environment.map(Environment::as_str)),
            name(status.map(KeyStatus::as_str)),
            time::floor(query.now).into(),
            Value::Text(text.map(|text| record::text(text).to_ascii_lowercase())),
            name(tenant.map(TenantId::as_str)),
            i64::try_from(rows).unwrap_or(i64::MAX).into(),
            name(owner.map(UserId::as_str)),
            name(plan.map(PlanName::as_str)),
            name(family),
            name(query.kind.map(KeyKind::as_str)),
            Value::Int(query.expires_before.map(time::ceil)),
            Value::Int(query.unused_since.map(time::ceil)),
        ]
    }

    fn values(&self, strip: &Strip, rows: usize) -> Vec<Value> {
        let mut values = self.first_values(rows);
        match strip {
            Strip::At(at, after, until) => {
                values.extend([(*at).into(), after.as_str().into(), until.as_str().into()]);
            }
            Strip::Before(before, after) => values.extend([(*before).into(), (*after).into()]),
            Strip::Few(_, low, high, (at, id)) => {
                values.extend([
                    (*low).into(),
                    (*high).into(),
                    (*at).into(),
                    id.as_str().into(),
                ]);
            }
        }
        values
    }

    /// The values for the position of the last of this many rows.
    fn place_values(&self, rows: usize, at: i64, after: Option<Value>) -> Vec<Value> {
        let mut values = self.first_values(rows - 1);
        values.push(at.into());
        values.extend(after);
        values
    }
}

/// A page that is being filled.
struct Filling {
    /// What to check again in each row: everything except its usage, which is in another table.
    query: ListQuery,
    limit: usize,
    page: Page,
    /// The position of the last row that was read.
    place: Place,
    has_left_out: bool,
}

impl Filling {
    fn new(query: &ListQuery) -> Self {
        let limit = query.limit.clamp(1, MOST_ROWS);
        let mut query = query.clone();
        query.unused_since = None;
        Self {
            query,
            limit,
            page: Page::default(),
            place: Place::default(),
            has_left_out: false,
        }
    }

    /// Adds a row; true if the page was already full.
    fn is_full_with(&mut self, mut row: Row) -> Result<bool, Fault> {
        let place = place(&row);
        let read = match record::read(&mut row) {
            Ok(key) if !self.query.selects(&key, &Usage::default()) => None,
            Ok(key) => Some(Ok(key)),
            Err(Fault::Corrupt(what)) if self.is_foreign(&what) => None,
            Err(Fault::Corrupt(what)) => Some(Err(what)),
            Err(fault) => return Err(fault),
        };
        let shown = self.page.items.len() + self.page.corrupt.len();
        if read.is_some() && shown >= self.limit && self.page.next.is_some() {
            return Ok(true);
        }
        // Without its position, the next page could not continue after it.
        self.place = place.ok_or_else(|| row.corrupt("id"))?;
        match read {
            Some(Ok(key)) => self.page.items.push(Arc::new(key)),
            Some(Err(what)) => self.page.corrupt.push(what),
            None => {
                self.has_left_out = true;
                return Ok(false);
            }
        }
        let (at, id) = &self.place;
        if let Some(cursor) = cursor(*at, id) {
            self.page.next = Some(cursor);
        }
        Ok(false)
    }

    /// Whether a row may belong to another tenant and must not be revealed to this one.
    fn is_foreign(&self, what: &str) -> bool {
        self.query.tenant.is_some() && record::may_be_foreign(what)
    }

    /// The number of rows to read next: one more than the page can take, or many if most may be
    /// rejected.
    fn rows(&self) -> usize {
        let shown = self.page.items.len() + self.page.corrupt.len();
        if self.has_left_out {
            MOST_ROWS
        } else {
            self.limit.saturating_sub(shown) + 1
        }
    }
}

/// The position of a row by its columns, whatever else it contains.
fn place(row: &Row) -> Option<Place> {
    match (row.peek(0), row.peek(10)) {
        (Some(Value::Text(Some(id))), Some(Value::Int(Some(at)))) => Some((*at, id.clone())),
        _ => None,
    }
}

/// A position as a cursor; `None` if no key can have it.
fn cursor(at: i64, id: &str) -> Option<Cursor> {
    let at = time::from_millis(at).filter(|at| time::cut(*at) == Some(*at))?;
    Some(Cursor::new(at, KeyId::new(id).ok()?))
}

/// The position before all keys of an instant.
fn before_all_of(at: i64) -> Option<Cursor> {
    let mut before = cursor(at, "-")?;
    before.created_at += Duration::from_nanos(1);
    Some(before)
}
