//! The primary key of an owner: the one that was set if it still can be primary, otherwise the
//! newest that can.

use std::time::SystemTime;

use async_trait::async_trait;
use portunus::key::{KeyId, KeyKind};
use portunus::store::OwnerRef;

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
        let (mut asked, mut primaries) = (Vec::new(), Vec::with_capacity(self.owners.len()));
        for (number, owner) in self.owners.iter().enumerate() {
            let (tenant, user) = match owner {
                OwnerRef::TenantItself(tenant) => (tenant, None),
                OwnerRef::User(tenant, user) => (tenant, Some(user.as_str())),
                // Lists ask for no other kinds.
                owner => {
                    let at = self.at;
                    primaries.push(match (Primary { owner, at }).run(session).await {
                        Err(Fault::Corrupt(_)) => None,
                        primary => primary?,
                    });
                    continue;
                }
            };
            primaries.push(None);
            let tenant = tenant.as_str();
            asked.push(serde_json::json!({ "number": number, "tenant": tenant, "user": user }));
        }
        if asked.is_empty() {
            return Ok(primaries);
        }
        let values = vec![
            serde_json::Value::from(asked).to_string().into(),
            time::floor(self.at).into(),
            KeyKind::AccessToken.as_str().into(),
        ];
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
            let Some(owner) = self.owners.get(number).filter(|_| !is_decided[number]) else {
                continue;
            };
            let read = record::read(&mut row);
            if let Ok(record) = &read
                && (!owner.includes(record) || !record.can_be_primary(self.at))
            {
                continue;
            }
            is_decided[number] = true;
            primaries[number] = read.ok().map(|record| record.id);
        }
        Ok(primaries)
    }
}

/// The columns of an owner: its kind, the tenant, and the user or an empty string.
pub(super) fn columns(owner: &OwnerRef) -> Result<[Value; 3], Refusal> {
    match owner {
        OwnerRef::Tenant(tenant) => Ok(["tenant".into(), tenant.as_str().into(), "".into()]),
        OwnerRef::TenantItself(tenant) => {
            Ok(["tenant_itself".into(), tenant.as_str().into(), "".into()])
        }
        OwnerRef::User(tenant, user) => {
            Ok(["user".into(), tenant.as_str().into(), user.as_str().into()])
        }
        _ => Err(Refusal::Unknown("owner")),
    }
}
