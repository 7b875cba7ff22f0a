//! Bulk operations: how far they are, in JSON beside the columns that statements need.

use std::time::Duration;

use async_trait::async_trait;
use portunus::key::KeyId;
use portunus::store::{BulkOperation, Rejected};

use super::Operation;
use crate::fault::Fault;
use crate::share::Purpose;
use crate::sql;
use crate::time;
use crate::value::{Session, Value};

const TABLE: &str = "portunus_bulk";

/// How long an operation is kept after its end.
const KEPT: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Stores a step, or adds an operation.
pub(super) async fn store(session: &mut dyn Session, what: &BulkOperation) -> Result<(), Fault> {
    let rejected = || Fault::from(Rejected::Bulk(what.id.clone()));
    let sql = if what.step == 0 {
        if let Some(before) = what.started_at.checked_sub(KEPT) {
            session
                .change(sql::bulk::FORGET, vec![time::floor(before).into()])
                .await?;
        }
        sql::bulk::ADD
    } else {
        sql::bulk::STEP
    };
    let json = what.to_json().map_err(|_| rejected())?;
    let values = vec![
        what.id.as_str().into(),
        i64::try_from(what.step).map_err(|_| rejected())?.into(),
        time::floor(what.started_at).into(),
        Value::Int(what.ended_at.map(time::floor)),
        json.into(),
    ];
    match session.change(sql, values).await? {
        0 => Err(rejected()),
        _ => Ok(()),
    }
}

fn read(json: &str, id: &str) -> Result<BulkOperation, Fault> {
    BulkOperation::from_json(json)
        .map_err(|_| Fault::Corrupt(format!("{TABLE} row {id}, column operation")))
}

/// Reads one operation.
pub(crate) struct BulkOf<'a>(pub(crate) &'a KeyId);

#[async_trait]
impl Operation for BulkOf<'_> {
    type Answer = Option<BulkOperation>;
    const PURPOSE: Purpose = Purpose::Request;

    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault> {
        let id = self.0.as_str();
        let rows = session.rows(sql::bulk::OF_ID, vec![id.into()]).await?;
        let row = rows.into_iter().next();
        row.map(|row| read(&row.of(TABLE, id).text("operation")?, id))
            .transpose()
    }
}

/// Reads the operations that have not ended. Does not wait for lists.
pub(crate) struct OpenBulk;

#[async_trait]
impl Operation for OpenBulk {
    type Answer = Vec<BulkOperation>;
    const PURPOSE: Purpose = Purpose::Request;

    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault> {
        let mut open = Vec::new();
        let sql = session.dialect().open_bulk;
        for row in session.rows(sql, vec![i64::MIN.into()]).await? {
            let mut row = row.of(TABLE, "of an operation");
            let id = row.text("id")?;
            match read(&row.text("operation")?, &id) {
                Ok(operation) => open.push(operation),
                // The others must not wait for it.
                Err(_) => tracing::error!(id, "a bulk operation cannot be read, and is omitted"),
            }
        }
        Ok(open)
    }
}
