//! New keys: one by one, or many at a time.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use portunus::key::{DigestScheme, KeyDigest, KeyId, KeyRecord};
use portunus::store::{Change, Rejected};
use serde::{Serialize, Serializer};

use crate::fault::{Fault, Refusal};
use crate::record;
use crate::sql;
use crate::value::{Session, Value};

/// The largest number of keys in one statement.
const MOST_KEYS: usize = 500;

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

    fn digest(&self) -> (DigestScheme, Vec<u8>) {
        (self.digest.scheme(), self.digest.to_bytes().to_vec())
    }

    /// The digest as the statements about the digests of many keys read it.
    fn as_digest(&self) -> [(&'static str, Value); 3] {
        let bytes = self.digest.to_bytes();
        let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        [
            ("id", self.record.id.as_str().into()),
            ("digest", hex.into()),
            ("scheme", self.digest.scheme().to_string().into()),
        ]
    }

    /// The columns as the statement for many keys reads them.
    fn as_columns(&self) -> Result<Vec<(&'static str, Value)>, Refusal> {
        let [_, digest, scheme] = self.as_digest();
        let others = [digest, scheme, ("used_on", self.used_on.into())];
        Ok(record::named(self.record)?.chain(others).collect())
    }
}

/// A row as a JSON object.
struct Object<C>(C);

impl<C: AsRef<[(&'static str, Value)]>> Serialize for Object<C> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let cells = self.0.as_ref().iter();
        serializer.collect_map(cells.map(|(name, value)| (name, value)))
    }
}

fn json_array<C: AsRef<[(&'static str, Value)]>>(
    rows: impl Iterator<Item = Result<C, Refusal>>,
) -> Result<Value, Refusal> {
    let rows: Vec<_> = rows.map(|row| row.map(Object)).collect::<Result<_, _>>()?;
    let json = serde_json::to_string(&rows).map_err(Refusal::KeysJson)?;
    Ok(json.into())
}

/// Inserts keys, as if one by one.
pub(super) async fn many(session: &mut dyn Session, all: &[New<'_>]) -> Result<(), Fault> {
    for some in all.chunks(MOST_KEYS) {
        if !at_once(session, some).await? {
            // One of them is rejected: the first of those, with its reason.
            for new in some {
                one(session, new).await?;
            }
        }
    }
    Ok(())
}

/// Inserts keys in two statements; `false`, and none is inserted, if any of them is known. They are
/// looked up before: to undo the statements, SQLite would copy each page that they change.
async fn at_once(session: &mut dyn Session, all: &[New<'_>]) -> Result<bool, Fault> {
    let many = session.dialect().insert_many;
    let ids: HashSet<_> = all.iter().map(|new| &new.record.id).collect();
    let digests: HashSet<_> = all.iter().map(New::digest).collect();
    if ids.len() < all.len() || digests.len() < all.len() {
        return Ok(false);
    }
    // Without the records, which are long.
    let digests = json_array(all.iter().map(|new| Ok(new.as_digest())))?;
    if session
        .first(many.known, vec![digests.clone()])
        .await?
        .is_some()
    {
        return Ok(false);
    }
    let keys = json_array(all.iter().map(New::as_columns))?;
    let known = session.change(many.know_digests, vec![digests]).await?;
    let inserted = session.change(many.insert, vec![keys]).await?;
    // Another number was inserted only if a program wrote them meanwhile without holding their names.
    match usize::try_from(known.min(inserted)) {
        Ok(number) if number == all.len() => Ok(true),
        _ => Err(Rejected::DigestKnown.into()),
    }
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
