//! Pages of records.
//!
//! The database filters by everything but workspaces, and may let through too much;
//! [`ListQuery::selects`] has the last word. Where that leaves a page short, the next rows are
//! read, at most 500 at a time.

use async_trait::async_trait;
use portunus::key::KeyStatus;
use portunus::store::{Cursor, ListQuery, Page};

use super::Operation;
use super::find::listed;
use crate::fault::Fault;
use crate::record;
use crate::time;
use crate::value::{Session, Value};

/// The most rows that one statement reads.
const MOST_ROWS: usize = 500;

/// One page.
pub(crate) struct List<'a>(pub(crate) &'a ListQuery);

/// After which place: milliseconds and id.
type Place = (i64, String);

impl List<'_> {
    /// Where to start. A place between two milliseconds is before everything of the earlier one.
    fn start(&self) -> Place {
        match &self.0.after {
            None => (i64::MAX, String::new()),
            Some(after) if time::floor(after.created_at) == time::ceil(after.created_at) => {
                (time::floor(after.created_at), after.id.as_str().to_owned())
            }
            Some(after) => (time::floor(after.created_at), String::new()),
        }
    }

    fn values(&self, (millis, id): &Place, rows: usize) -> Vec<Value> {
        let query = self.0;
        let text = query.text.as_deref().filter(|text| !text.is_empty());
        let mut values: Vec<Value> = vec![
            (*millis).into(),
            id.as_str().into(),
            Value::Text(
                query
                    .environment
                    .as_ref()
                    .map(|environment| environment.as_str().to_owned()),
            ),
            Value::Text(
                // Columns do not say which version wrote a record.
                (query
                    .status
                    .filter(|status| *status != KeyStatus::Unreadable))
                .map(|status| status.as_str().to_owned()),
            ),
            time::floor(query.now).into(),
            Value::Text(text.map(|text| record::text(text).to_ascii_lowercase())),
            i64::try_from(rows).unwrap_or(i64::MAX).into(),
        ];
        values.extend(query.tenant.as_ref().map(|tenant| tenant.as_str().into()));
        values
    }
}

#[async_trait]
impl Operation for List<'_> {
    type Answer = Page;

    async fn run(&self, session: &mut dyn Session) -> Result<Page, Fault> {
        let limit = self.0.limit.clamp(1, MOST_ROWS);
        let dialect = session.dialect();
        let sql = if self.0.tenant.is_some() {
            dialect.list_of_tenant
        } else {
            dialect.list
        };
        let (mut items, mut place, mut rows) = (Vec::new(), self.start(), limit + 1);
        loop {
            let read = session.rows(sql, self.values(&place, rows)).await?;
            let is_last = read.len() < rows;
            for mut row in read {
                let item = listed(&mut row)?;
                place = (
                    time::floor(item.record.created_at),
                    item.record.id.as_str().to_owned(),
                );
                if self.0.selects(&item.record) {
                    items.push(item);
                }
            }
            if items.len() > limit {
                items.truncate(limit);
                let next = items
                    .last()
                    .map(|last| Cursor::new(last.record.created_at, last.record.id.clone()));
                return Ok(Page::new(items, next));
            }
            if is_last {
                return Ok(Page::new(items, None));
            }
            rows = MOST_ROWS;
        }
    }
}
