//! The primary key of an owner: the one that was set if it still can be primary, otherwise the
//! newest that can.

use std::collections::HashSet;
use std::time::SystemTime;

use async_trait::async_trait;
use portunus::key::{KeyId, KeyKind};
use portunus::store::{Change, OwnerRef};

use super::Operation;
use crate::fault::{Fault, Refusal};
use crate::record::{self, TABLE};
use crate::share::Purpose;
use crate::sql;
use crate::time;
use crate::value::{Session, Value};

/// Reads the primary key of an owner at an instant.
pub(crate) struct Primary<'a> {
    pub(crate) owner: &'a OwnerRef,
    pub(crate) at: SystemTime,
}

#[async_trait]
impl Operation for Primary<'_> {
    type Answer = Option<KeyId>;
    // Writes need it, and so does signing events.
    const PURPOSE: Purpose = Purpose::Request;

    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault> {
        let sql = sql::PRIMARY
            .of(self.owner)
            .ok_or(Refusal::Unknown("owner"))?;
        let [kind, tenant, user] = columns(self.owner)?;
        let values = vec![
            tenant,
            user,
            time::floor(self.at).into(),
            KeyKind::AccessToken.as_str().into(),
            kind,
        ];
        let mut rows = Vec::new();
        for mut row in session.rows(sql, values).await? {
            row.rename(TABLE, "of a primary key");
            rows.push((row.int("place")?, row));
        }
        // If the key that was set still can be primary, the newest key does not matter.
        rows.sort_by_key(|(place, _)| *place);
        for (place, mut row) in rows {
            let record = record::read(&mut row)?;
            if self.owner.includes(&record) && record.can_be_primary(self.at) {
                return Ok(Some(record.id));
            }
            if place != 0 {
                // The columns said that it can.
                return Err(row.corrupt("record"));
            }
        }
        Ok(None)
    }
}

/// Reads the primary keys of several owners, in their order; none for an owner whose record cannot
/// be read.
pub(crate) struct Primaries<'a> {
    pub(crate) owners: &'a [OwnerRef],
    pub(crate) at: SystemTime,
}

#[async_trait]
impl Operation for Primaries<'_> {
    type Answer = Vec<Option<KeyId>>;

    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault> {
        let owners: Vec<_> = self.owners.iter().collect();
        let primaries = read_all(session, &owners, self.at).await?;
        Ok(primaries.into_iter().map(Option::flatten).collect())
    }
}

/// The primary keys of several owners, in their order; `None` for an owner whose record cannot be
/// read.
async fn read_all(
    session: &mut dyn Session,
    owners: &[&OwnerRef],
    at: SystemTime,
) -> Result<Vec<Option<Option<KeyId>>>, Fault> {
    let mut primaries = Vec::with_capacity(owners.len());
    for owner in owners {
        primaries.push(match owner {
            OwnerRef::TenantItself(_) | OwnerRef::User(..) => Some(None),
            // Lists ask for no other kinds.
            owner => match (Primary { owner, at }).run(session).await {
                Err(Fault::Corrupt(_)) => None,
                primary => Some(primary?),
            },
        });
    }
    let Some(values) = asked(owners, at) else {
        return Ok(primaries);
    };
    // A key that was set precedes the newest key, also if it cannot be read.
    let mut rows = Vec::new();
    for mut row in session.rows(session.dialect().primaries, values).await? {
        row.rename(TABLE, "of a primary key");
        let number = usize::try_from(row.int("number")?).unwrap_or(usize::MAX);
        rows.push((row.int("place")?, number, row));
    }
    rows.sort_by_key(|(place, number, _)| (*place, *number));
    let mut is_decided = vec![false; primaries.len()];
    for (_, number, mut row) in rows {
        let Some(owner) = owners.get(number).filter(|_| !is_decided[number]) else {
            continue;
        };
        let read = record::read(&mut row);
        if let Ok(record) = &read
            && (!owner.includes(record) || !record.can_be_primary(at))
        {
            continue;
        }
        is_decided[number] = true;
        primaries[number] = read.ok().map(|record| Some(record.id));
    }
    Ok(primaries)
}

/// The values of the statements about owners that are tenants or users, with their numbers; `None` if
/// there are none.
fn asked(owners: &[&OwnerRef], at: SystemTime) -> Option<Vec<Value>> {
    let owner = |(number, owner): (usize, &&OwnerRef)| {
        let (tenant, user) = match owner {
            OwnerRef::TenantItself(tenant) => (tenant.as_str(), None),
            OwnerRef::User(tenant, user) => (tenant.as_str(), Some(user.as_str())),
            _ => return None,
        };
        Some(serde_json::json!({ "number": number, "tenant": tenant, "user": user }))
    };
    let asked: Vec<_> = owners.iter().enumerate().filter_map(owner).collect();
    (!asked.is_empty()).then(|| {
        let asked = serde_json::Value::from(asked).to_string();
        vec![
            asked.into(),
            time::floor(at).into(),
            KeyKind::AccessToken.as_str().into(),
        ]
    })
}

/// The pins at the beginning of these changes, at one instant and of different owners.
pub(super) fn pins(changes: &[Change]) -> Vec<(&OwnerRef, SystemTime)> {
    let mut pins: Vec<(&OwnerRef, SystemTime)> = Vec::new();
    let mut seen = HashSet::new();
    for change in changes {
        match change {
            Change::PinPrimary { owner, at }
                if pins.first().is_none_or(|(_, first)| first == at) && seen.insert(owner) =>
            {
                pins.push((owner, *at));
            }
            _ => break,
        }
    }
    pins
}

/// Sets the primary keys of owners to those that are primary at an instant. An unreadable key does
/// not prevent another one from being changed: the primary key of its owner stays as it was set.
pub(super) async fn pin_all(
    session: &mut dyn Session,
    pins: &[(&OwnerRef, SystemTime)],
) -> Result<(), Fault> {
    let Some((_, at)) = pins.first() else {
        return Ok(());
    };
    let owners = unpinned(session, pins, *at).await?;
    let (mut set, mut unset) = (Vec::new(), Vec::new());
    for (owner, primary) in owners.iter().zip(read_all(session, &owners, *at).await?) {
        let (kind, tenant, user) = names(owner)?;
        match primary {
            None => {}
            Some(None) => {
                unset.push(serde_json::json!({ "kind": kind, "tenant": tenant, "user": user }));
            }
            Some(Some(id)) => set.push(serde_json::json!({
                "kind": kind, "tenant": tenant, "user": user, "key": id.as_str(),
            })),
        }
    }
    let dialect = session.dialect();
    for (sql, owners) in [
        (dialect.set_primaries, set),
        (dialect.unset_primaries, unset),
    ] {
        if !owners.is_empty() {
            let owners = serde_json::Value::from(owners).to_string();
            session.change(sql, vec![owners.into()]).await?;
        }
    }
    Ok(())
}

/// Those owners whose primary key is not one that was set, and so has to be. The others, usually nearly
/// all, cost no record.
async fn unpinned<'p>(
    session: &mut dyn Session,
    pins: &[(&'p OwnerRef, SystemTime)],
    at: SystemTime,
) -> Result<Vec<&'p OwnerRef>, Fault> {
    let owners: Vec<_> = pins.iter().map(|(owner, _)| *owner).collect();
    let Some(values) = asked(&owners, at) else {
        return Ok(owners);
    };
    let is_asked =
        |owner: &OwnerRef| matches!(owner, OwnerRef::TenantItself(_) | OwnerRef::User(..));
    let mut left: Vec<_> = owners
        .iter()
        .copied()
        .filter(|owner| !is_asked(owner))
        .collect();
    for row in session.rows(session.dialect().unpinned, values).await? {
        let number = row.of(TABLE, "of a primary key").int("number")?;
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        left.extend(owners.get(number).copied());
    }
    Ok(left)
}

/// The columns of an owner: its kind, the tenant, and the user or an empty string.
pub(super) fn columns(owner: &OwnerRef) -> Result<[Value; 3], Refusal> {
    let (kind, tenant, user) = names(owner)?;
    Ok([kind.into(), tenant.into(), user.into()])
}

fn names(owner: &OwnerRef) -> Result<(&'static str, &str, &str), Refusal> {
    match owner {
        OwnerRef::Tenant(tenant) => Ok(("tenant", tenant.as_str(), "")),
        OwnerRef::TenantItself(tenant) => Ok(("tenant_itself", tenant.as_str(), "")),
        OwnerRef::User(tenant, user) => Ok(("user", tenant.as_str(), user.as_str())),
        _ => Err(Refusal::Unknown("owner")),
    }
}
