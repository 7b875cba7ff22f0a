//! New keys: one by one, or many at a time.

use std::collections::HashMap;

use portunus::key::{KeyDigest, KeyId, KeyRecord};
use portunus::store::{Change, Rejected};
use serde_json::Value as Json;

use crate::fault::Fault;
use crate::record;
use crate::sql;
use crate::value::{Session, Value};

/// The largest number of keys in one statement.
const MOST_KEYS: usize = 500;

const BEFORE: &str = "SAVEPOINT portunus_inserts";
const KEEP: &str = "RELEASE SAVEPOINT portunus_inserts";
const UNDO: &str = "ROLLBACK TO SAVEPOINT portunus_inserts";

/// A key to insert.
pub(super) struct New<'a> {
    pub(super) digest: &'a KeyDigest,
    pub(super) record: &'a KeyRecord,
    /// The day since the Unix epoch on which the key was last used; 0 for none.
    pub(super) used_on: i64,
}

impl<'a> New<'a> {
    /// The key that a change inserts, with the day of its last use.
    pub(super) fn of(change: &'a Change, used: &HashMap<&KeyId, i64>) -> Option<Self> {
        match change {
            Change::Insert { digest, record } => Some(Self {
                digest,
                record,
                used_on: used.get(&record.id).copied().unwrap_or(0),
            }),
            _ => None,
        }
    }

    /// The columns as the statements for many keys read them.
    fn as_json(&self) -> Result<Json, Fault> {
        let cell = |value| match value {
            Value::Int(value) => Json::from(value),
            Value::Text(value) => Json::from(value),
            Value::Bytes(_) => Json::Null,
        };
        let digest = self.digest.to_bytes();
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut columns: serde_json::Map<_, _> = record::named(self.record)?
            .map(|(name, value)| (name.to_owned(), cell(value)))
            .collect();
        columns.insert("digest".into(), hex.into());
        columns.insert("used_on".into(), self.used_on.into());
        columns.insert("scheme".into(), self.digest.scheme().to_string().into());
        Ok(columns.into())
    }
}

/// Inserts keys, as if one by one.
pub(super) async fn many(session: &mut dyn Session, all: &[New<'_>]) -> Result<(), Fault> {
    for some in all.chunks(MOST_KEYS) {
        session.script(BEFORE).await?;
        if at_once(session, some).await? {
            session.script(KEEP).await?;
            continue;
        }
        // One of them is rejected: the first of those, with its reason.
        session.script(UNDO).await?;
        for new in some {
            one(session, new).await?;
        }
    }
    Ok(())
}

/// Inserts keys in three statements; `false` if any of them was not inserted.
async fn at_once(session: &mut dyn Session, all: &[New<'_>]) -> Result<bool, Fault> {
    let many = session.dialect().insert_many;
    let json: Vec<_> = all.iter().map(New::as_json).collect::<Result<_, _>>()?;
    let json = Json::from(json).to_string();
    let rows = || vec![Value::from(json.clone())];
    let is_every =
        |inserted| usize::try_from(inserted).is_ok_and(|number: usize| number == all.len());
    Ok(session.rows(many.known_id, rows()).await?.is_empty()
        && is_every(session.change(many.know_digests, rows()).await?)
        && is_every(session.change(many.insert, rows()).await?))
}

/// Inserts one key. Its row knows of no use.
pub(super) async fn one(session: &mut dyn Session, new: &New<'_>) -> Result<(), Fault> {
    let New { digest, record, .. } = new;
    let known = || Fault::from(Rejected::IdKnown(record.id.clone()));
    if !session
        .rows(sql::IS_ID_KNOWN, vec![record.id.as_str().into()])
        .await?
        .is_empty()
    {
        return Err(known());
    }
    know(session, digest, &record.id).await?;
    let mut values = record::values(record)?;
    values.extend([
        digest.to_bytes().to_vec().into(),
        digest.scheme().to_string().into(),
    ]);
    if session.change(sql::INSERT, values).await? == 0 {
        Err(known())
    } else {
        Ok(())
    }
}

/// Records a digest permanently.
pub(super) async fn know(
    session: &mut dyn Session,
    digest: &KeyDigest,
    id: &KeyId,
) -> Result<(), Fault> {
    let values = vec![
        digest.to_bytes().to_vec().into(),
        digest.scheme().to_string().into(),
        id.as_str().into(),
    ];
    if session.change(sql::KNOW_DIGEST, values).await? == 0 {
        Err(Rejected::DigestKnown.into())
    } else {
        Ok(())
    }
}
