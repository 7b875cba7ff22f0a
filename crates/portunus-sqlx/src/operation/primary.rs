//! The primary key of an owner: the one that was set, if it still can be, else the newest that can.

use std::time::SystemTime;

use async_trait::async_trait;
use portunus::key::{KeyId, KeyKind};
use portunus::store::OwnerRef;

use super::Operation;
use crate::fault::{Fault, Refusal};
use crate::record::{self, TABLE};
use crate::sql;
use crate::time;
use crate::value::{Session, Value};

/// Whose primary key, and when.
pub(crate) struct Primary<'a> {
    pub(crate) owner: &'a OwnerRef,
    pub(crate) at: SystemTime,
}

#[async_trait]
impl Operation for Primary<'_> {
    type Answer = Option<KeyId>;

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
        let (mut set, mut newest) = (None, None);
        for mut row in session.rows(sql, values).await? {
            row.rename(TABLE, "of a primary key");
            let place = row.int("place")?;
            let record = record::read(&mut row)?;
            if self.owner.includes(&record) && record.can_be_primary(self.at) {
                *(if place == 0 { &mut set } else { &mut newest }) = Some(record.id);
            } else if place != 0 {
                // The columns said that it can.
                return Err(row.corrupt("record"));
            }
        }
        Ok(set.or(newest))
    }
}

/// An owner as columns: its kind, the tenant, and the user or an empty text.
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
