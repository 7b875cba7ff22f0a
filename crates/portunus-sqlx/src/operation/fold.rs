//! One spelling for each user whose id is a UUID, in records that were written before ids were
//! lower-cased.
//!
//! One transaction moves one spelling of one owner: its records, and its primary key. It locks the
//! tenant, as every other write of records and primary keys does, so that a concurrent write of one
//! of the records finds another version and retries with the new owner.

use std::cmp::Reverse;
use std::time::SystemTime;

use async_trait::async_trait;
use portunus::actor::UserIds;
use portunus::key::{KeyRecord, TenantId, UserId};
use portunus::store::{Invalidation, OwnerRef};

use super::Operation;
use super::apply::{TENANTS, tell};
use super::make::{live, set_primary, touched};
use super::primary::Primary;
use crate::fault::Fault;
use crate::record::{self, TABLE};
use crate::sql;
use crate::value::{Row, Session, Value};

/// The largest number of owners that one statement reads.
const MOST_OWNERS: i64 = 1000;

/// Reads the next users that own keys, after a position.
pub(crate) struct Owners<'a>(pub(crate) Option<&'a (TenantId, UserId)>);

#[async_trait]
impl Operation for Owners<'_> {
    type Answer = Vec<(TenantId, UserId)>;

    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault> {
        let (tenant, user) = self
            .0
            .map_or(("", ""), |(tenant, user)| (tenant.as_str(), user.as_str()));
        let values = vec![tenant.into(), user.into(), MOST_OWNERS.into()];
        let owner = |row: Row| {
            let mut row = row.of(TABLE, "of an owner");
            let (tenant, user) = (row.text("tenant_id")?, row.text("user_id")?);
            Ok((
                TenantId::new(&tenant).map_err(|_| row.corrupt("tenant_id"))?,
                UserId::new(&user).map_err(|_| row.corrupt("user_id"))?,
            ))
        };
        let rows = session.rows(sql::OWNERS, values).await?;
        rows.into_iter().map(owner).collect()
    }
}

/// Whether an id already has the canonical spelling.
pub(crate) fn is_folded(id: &UserId) -> bool {
    UserIds::Uuid.canonical(id.clone()) == *id
}

/// Gives the keys of one spelling of a user to the canonical one; returns the number of keys.
pub(crate) struct FoldOwner<'a> {
    pub(crate) tenant: &'a TenantId,
    pub(crate) user: &'a UserId,
    /// The instant at which keys can still be primary.
    pub(crate) at: SystemTime,
    /// Whether the change is recorded for the host's own bus.
    pub(crate) records: bool,
}

#[async_trait]
impl Operation for FoldOwner<'_> {
    type Answer = u64;

    async fn run(&self, session: &mut dyn Session) -> Result<u64, Fault> {
        if let Some(hold) = session.dialect().hold {
            let tenants = serde_json::json!([self.tenant.as_str()]).to_string();
            session
                .change(hold, vec![tenants.into(), TENANTS.into()])
                .await?;
        }
        let folded = UserIds::Uuid.canonical(self.user.clone());
        let of = |user: &UserId| OwnerRef::User(self.tenant.clone(), user.clone());
        let (old, new) = (of(self.user), of(&folded));
        let primary = self.newer_primary(session, &old, &new).await?;

        let values: Vec<Value> = vec![self.tenant.as_str().into(), self.user.as_str().into()];
        let mut what = Invalidation::default();
        for mut row in session.rows(sql::RECORDS_OF_USER, values).await? {
            let mut record = record::read(&mut row)?;
            record.owner.user_id = Some(folded.clone());
            record.version = record.version.saturating_add(1);
            let replaced = session
                .change(sql::REPLACE, record::values(&record)?)
                .await?;
            touched(replaced, &record.id)?;
            what.keys.push(record.id);
        }
        if what.keys.is_empty() {
            // Another process was faster.
            return Ok(0);
        }
        set_primary(session, &old, None).await?;
        set_primary(session, &new, primary.as_ref().map(|record| &record.id)).await?;
        tell(session, &what, self.records).await?;
        Ok(what.keys.len().try_into().unwrap_or(u64::MAX))
    }
}

impl FoldOwner<'_> {
    /// Of the primary keys of two owners, the one created later; if both were created at the same
    /// instant, the first one in list order.
    async fn newer_primary(
        &self,
        session: &mut dyn Session,
        one: &OwnerRef,
        other: &OwnerRef,
    ) -> Result<Option<KeyRecord>, Fault> {
        let mut newest: Option<KeyRecord> = None;
        for owner in [one, other] {
            let primary = Primary { owner, at: self.at }.run(session).await?;
            let Some(id) = primary else { continue };
            let record = live(session, &id).await?;
            let age = |record: &KeyRecord| (record.created_at, Reverse(record.id.clone()));
            if newest
                .as_ref()
                .is_none_or(|known| age(known) < age(&record))
            {
                newest = Some(record);
            }
        }
        Ok(newest)
    }
}
