//! The changes of a batch, in their order. Changes of the same kind that follow each other are made
//! together, where that saves statements.

use std::collections::{HashMap, HashSet};

use portunus::key::{KeyDigest, KeyId, KeyRecord};
use portunus::store::{Change, OwnerRef, Rejected};

use super::find::digest;
use super::insert::{self, New, know};
use super::primary::{self, Primary, columns};
use super::{Operation, bulk, usage};
use crate::fault::{Fault, Refusal};
use crate::record::{self, TABLE};
use crate::sql;
use crate::value::{Session, Value};

/// The largest number of usage hours that are deleted with their key, as many as a year has: the
/// rest is no longer visible, and is deleted when it is old.
const MOST_HOURS: i64 = 366 * 24;

/// Makes the changes of a batch.
pub(super) async fn make(session: &mut dyn Session, all: &[Change]) -> Result<(), Fault> {
    // New rows are written with the day of their last use, because each index of the table makes
    // another write of a row expensive.
    let mut used: HashMap<&KeyId, i64> = HashMap::new();
    for change in all {
        if let Change::AddUsage(delta) = change {
            let day = used.entry(&delta.id).or_default();
            *day = usage::day_of(delta).max(*day);
        }
    }
    let mut know_their_use = HashSet::new();
    let mut changes = all;
    while let Some(change) = changes.first() {
        let inserts = changes.iter().map_while(|change| New::of(change, &used));
        let inserts: Vec<_> = inserts.collect();
        let pins = primary::pins(changes);
        let uses = changes.iter().map_while(|change| match change {
            Change::AddUsage(delta) => Some(delta),
            _ => None,
        });
        let uses: Vec<_> = uses.collect();
        let made = inserts.len().max(pins.len()).max(uses.len()).max(1);
        if inserts.len() > 1 {
            insert::many(session, &inserts).await?;
            know_their_use.extend(inserts.iter().map(|new| &new.record.id));
        } else if pins.len() > 1 {
            primary::pin_all(session, &pins).await?;
        } else if uses.len() > 1 {
            let are_known = uses.iter().all(|delta| know_their_use.contains(&delta.id));
            usage::add_totals(session, &uses, !are_known).await?;
        } else {
            one(session, change).await?;
        }
        changes = &changes[made..];
    }
    Ok(())
}

/// The record of a key that must exist.
pub(super) async fn live(session: &mut dyn Session, id: &KeyId) -> Result<KeyRecord, Fault> {
    let rows = session.rows(sql::RECORD, vec![id.as_str().into()]).await?;
    match rows.into_iter().next() {
        Some(mut row) => record::read(&mut row),
        None => Err(Rejected::Missing(id.clone()).into()),
    }
}

async fn one(session: &mut dyn Session, change: &Change) -> Result<(), Fault> {
    match change {
        Change::Insert { digest, record } => {
            let used_on = 0;
            let new = New {
                digest,
                record,
                used_on,
            };
            insert::one(session, &new).await
        }
        Change::Replace(record) => {
            let stored = live(session, &record.id).await?;
            if !stored.is_of_the_same_owner(record) {
                return Err(Rejected::Owner(record.id.clone()).into());
            }
            touched(
                session
                    .change(sql::REPLACE, record::values(record)?)
                    .await?,
                &record.id,
            )
        }
        Change::Rehash { id, from, to } => rehash(session, id, from, to).await,
        Change::Delete(id) => {
            session
                .change(sql::KNOW_DELETED, vec![id.as_str().into()])
                .await?;
            touched(
                session
                    .change(sql::DELETE, vec![id.as_str().into()])
                    .await?,
                id,
            )?;
            session
                .change(sql::usage::DELETE_USAGE, vec![id.as_str().into()])
                .await?;
            session
                .change(
                    sql::usage::DELETE_USAGE_BY_HOUR,
                    vec![id.as_str().into(), MOST_HOURS.into()],
                )
                .await?;
            session
                .change(sql::DELETE_PRIMARY, vec![id.as_str().into()])
                .await?;
            Ok(())
        }
        Change::SetPrimary { owner, key } => {
            if !owner.includes(&live(session, key).await?) {
                return Err(Rejected::Owner(key.clone()).into());
            }
            set_primary(session, owner, Some(key)).await
        }
        Change::PinPrimary { owner, at } => match (Primary { owner, at: *at }).run(session).await {
            // An unreadable key does not prevent another one from being revoked or replaced.
            Err(Fault::Corrupt(_)) => Ok(()),
            primary => set_primary(session, owner, primary?.as_ref()).await,
        },
        Change::SetSigning { id, state } => {
            let state = state.as_ref().map(|state| state.as_bytes().to_vec());
            touched(
                session
                    .change(sql::SET_SIGNING, vec![id.as_str().into(), state.into()])
                    .await?,
                id,
            )
        }
        Change::AddUsage(delta) => usage::add_totals(session, &[delta], true).await,
        Change::Bulk(operation) => bulk::store(session, operation).await,
        _ => Err(Refusal::Unknown("change").into()),
    }
}

/// An error if a change affected no row: the key does not exist.
pub(super) fn touched(rows: u64, id: &KeyId) -> Result<(), Fault> {
    if rows == 0 {
        Err(Rejected::Missing(id.clone()).into())
    } else {
        Ok(())
    }
}

async fn rehash(
    session: &mut dyn Session,
    id: &KeyId,
    from: &KeyDigest,
    to: &KeyDigest,
) -> Result<(), Fault> {
    let bytes = || Value::from(to.to_bytes().to_vec());
    let scheme = || Value::from(to.scheme().to_string());
    let missing = || Fault::from(Rejected::Missing(id.clone()));
    let rows = session
        .rows(sql::DIGEST_OF, vec![id.as_str().into()])
        .await?;
    let mut row = rows
        .into_iter()
        .next()
        .ok_or_else(missing)?
        .of(TABLE, id.as_str());
    // First, whether a concurrent rehash was faster.
    if digest(&mut row)? != *from {
        return Err(missing());
    }
    if from != to
        && !session
            .rows(sql::IS_DIGEST_KNOWN, vec![bytes(), scheme()])
            .await?
            .is_empty()
    {
        return Err(Rejected::DigestKnown.into());
    }
    if from == to {
        return Ok(());
    }
    know(session, to, id).await?;
    touched(
        session
            .change(sql::REHASH, vec![id.as_str().into(), bytes(), scheme()])
            .await?,
        id,
    )
}

pub(super) async fn set_primary(
    session: &mut dyn Session,
    owner: &OwnerRef,
    key: Option<&KeyId>,
) -> Result<(), Fault> {
    let owner = columns(owner)?;
    match key {
        Some(key) => {
            let values = owner.into_iter().chain([key.as_str().into()]).collect();
            session.change(sql::SET_PRIMARY, values).await?;
        }
        None => {
            session.change(sql::UNSET_PRIMARY, owner.into()).await?;
        }
    }
    Ok(())
}
