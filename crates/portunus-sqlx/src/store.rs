//! What the two stores share: a limit of time, and the trait, told once.

use std::time::Duration;

/// The longest that a read may take.
pub(crate) const READ_LIMIT: Duration = Duration::from_secs(10);

/// `KeyStore` and the other things that a store does, by its `read`, `read_snapshot` and `write`.
macro_rules! key_store {
    ($store:ident) => {
        impl $store {
            /// Makes the schema, or brings it up to date, which `open` and `connect` do already:
            /// for a store on a pool of the host's own. Doing so again, or in several processes at
            /// once, is harmless. Where there is nothing to do, nothing is written, so that a role
            /// that may only read and write rows is enough. Look-ups go on meanwhile.
            ///
            /// # Errors
            /// [`OpenError::Newer`](crate::OpenError::Newer) where a newer version of this crate
            /// wrote the database for programs that know more than this one,
            /// [`OpenError::Schema`](crate::OpenError::Schema) where the schema could not be
            /// changed, or the database giving no answer.
            pub async fn migrate(&self) -> Result<(), crate::OpenError> {
                let (found, known) = self.read(crate::operation::Inspect).await?;
                if found.is_behind(known)? {
                    let made = self.make_schema().await;
                    made.map_err(|fault| crate::OpenError::Schema {
                        found: found.version,
                        known,
                        cause: fault.causes(),
                    })?;
                }
                Ok(self.make_indexes().await?)
            }
        }

        impl $store {
            /// Lower-cases the user ids of owners that are UUIDs
            /// ([`UserIds::Uuid`](portunus::actor::UserIds::Uuid)), in records that were written
            /// before the host said that they are; returns how many records changed. No migration does
            /// this. Other ids stay byte for byte.
            ///
            /// The records and the primary key of one spelling of one owner change in one step. Of
            /// two primary keys the newer one stays, by when it was made, and each record's version
            /// is raised by one. Caches are told as of any other write, so that it is safe while
            /// nodes are running, in several processes at once, and again after it was cut off.
            /// Nodes that do not know of `UserIds::Uuid` yet may add other spellings: call it again
            /// after the last of them is gone. Events keep the ids that they were written with.
            ///
            /// # Errors
            /// The database giving no answer, or a record of such an owner that cannot be read. What
            /// was changed until then stays changed.
            pub async fn fold_user_ids(&self) -> Result<u64, portunus::store::StoreError> {
                use crate::operation::{FoldOwner, Owners, is_folded};
                let (mut place, mut changed) = (None, 0);
                loop {
                    let owners = self.read(Owners(place.as_ref())).await?;
                    for (tenant, user) in owners.iter().filter(|(_, user)| !is_folded(user)) {
                        let at = std::time::SystemTime::now();
                        changed += self.write(FoldOwner { tenant, user, at }).await?;
                    }
                    match owners.into_iter().last() {
                        Some(last) => place = Some(last),
                        None => return Ok(changed),
                    }
                }
            }
        }

        #[async_trait::async_trait]
        impl portunus::store::KeyStore for $store {
            async fn find(
                &self,
                digests: &[portunus::key::KeyDigest],
            ) -> Result<
                Option<std::sync::Arc<portunus::store::StoredKey>>,
                portunus::store::StoreError,
            > {
                let find = crate::operation::Find(digests);
                if find.fits_one_statement() {
                    Ok(self.read(find).await?)
                } else {
                    Ok(self.read_snapshot(find).await?)
                }
            }

            async fn get(
                &self,
                id: &portunus::key::KeyId,
            ) -> Result<Option<portunus::store::Listed>, portunus::store::StoreError> {
                Ok(self.read(crate::operation::Get(id)).await?)
            }

            async fn list(
                &self,
                query: &portunus::store::ListQuery,
            ) -> Result<portunus::store::Page, portunus::store::StoreError> {
                Ok(self.read(crate::operation::List(query)).await?)
            }

            async fn primary(
                &self,
                owner: &portunus::store::OwnerRef,
                at: std::time::SystemTime,
            ) -> Result<Option<portunus::key::KeyId>, portunus::store::StoreError> {
                Ok(self.read(crate::operation::Primary { owner, at }).await?)
            }

            async fn primaries(
                &self,
                owners: &[portunus::store::OwnerRef],
                at: std::time::SystemTime,
            ) -> Result<Vec<Option<portunus::key::KeyId>>, portunus::store::StoreError> {
                Ok(self
                    .read(crate::operation::Primaries { owners, at })
                    .await?)
            }

            async fn signing_state(
                &self,
                id: &portunus::key::KeyId,
            ) -> Result<Option<portunus::key::SigningState>, portunus::store::StoreError> {
                Ok(self.read(crate::operation::SigningOf(id)).await?)
            }

            async fn apply(
                &self,
                batch: &portunus::store::WriteBatch,
            ) -> Result<(), portunus::store::StoreError> {
                Ok(self.write(crate::operation::Apply(batch)).await?)
            }

            async fn record_usage(
                &self,
                batch: &[portunus::store::UsageDelta],
            ) -> Result<(), portunus::store::StoreError> {
                if batch.is_empty() {
                    return Ok(());
                }
                Ok(self.write(crate::operation::RecordUsage(batch)).await?)
            }

            async fn usage_by_hour(
                &self,
                id: &portunus::key::KeyId,
                from: std::time::SystemTime,
                to: std::time::SystemTime,
            ) -> Result<Vec<portunus::store::HourOfUse>, portunus::store::StoreError> {
                Ok(self
                    .read(crate::operation::UsageByHour { id, from, to })
                    .await?)
            }

            async fn hours_of_use(
                &self,
                id: &portunus::key::KeyId,
                from: std::time::SystemTime,
                to: std::time::SystemTime,
            ) -> Result<portunus::store::UsageByHour, portunus::store::StoreError> {
                let usage = crate::operation::UsageByHour { id, from, to };
                Ok(self.read(crate::operation::HoursOfUse(usage)).await?)
            }

            async fn forget_usage_before(
                &self,
                before: std::time::SystemTime,
            ) -> Result<u64, portunus::store::StoreError> {
                let mut all = 0;
                loop {
                    let step = crate::operation::ForgetUsage(before);
                    let (forgotten, more) = self.write(step).await?;
                    all += forgotten;
                    if !more {
                        return Ok(all);
                    }
                    tokio::time::sleep(crate::operation::FORGET_PAUSE).await;
                }
            }
        }
    };
}
pub(crate) use key_store;
