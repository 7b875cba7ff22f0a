//! Lookups of one key: by digest, by id, and its signing state.

use std::sync::Arc;

use async_trait::async_trait;
use portunus::key::{DigestScheme, KeyDigest, KeyId, KeyRecord, SigningState, TenantId};
use portunus::store::{Match, StoredKey};

use super::Operation;
use crate::fault::Fault;
use crate::record::{self, TABLE};
use crate::share::Purpose;
use crate::sql;
use crate::value::{Row, Session, Value};

/// The number of digests that one statement compares.
const DIGESTS: usize = 8;

/// Finds the key with one of these digests.
pub(crate) struct Find<'a>(pub(crate) &'a [KeyDigest]);

impl Find<'_> {
    /// More digests than one statement takes need a snapshot, so that a key that is rehashed from
    /// one to another is not missed.
    pub(crate) fn fits_one_statement(&self) -> bool {
        self.0.len() <= DIGESTS
    }
}

#[async_trait]
impl Operation for Find<'_> {
    type Answer = Option<Arc<StoredKey>>;
    const PURPOSE: Purpose = Purpose::LookUp;

    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault> {
        if let [digest] = self.0 {
            return find_one(session, digest).await;
        }
        let (mut keys, mut others) = (Vec::new(), Vec::new());
        for candidates in self.0.chunks(DIGESTS) {
            let bytes = |digest: &KeyDigest| Value::from(digest.to_bytes().to_vec());
            let repeated = candidates.iter().chain(std::iter::repeat(&candidates[0]));
            let values = repeated.take(DIGESTS).map(bytes).collect();
            for mut row in session.rows(sql::FIND, values).await? {
                let ended = row.int("ended")?;
                let id = row.text("id")?;
                row.rename(TABLE, &id);
                let digest = digest(&mut row)?;
                if !candidates.contains(&digest) {
                    continue;
                }
                match ended {
                    0 => keys.push((digest, row)),
                    1 => others.push((digest, Match::Deleted(tenant(&mut row)?))),
                    _ => {
                        let tenant = tenant(&mut row)?.ok_or_else(|| row.corrupt("tenant_id"))?;
                        let id = KeyId::new(&id).map_err(|_| row.corrupt("id"))?;
                        others.push((digest, Match::Former(id, tenant)));
                    }
                }
            }
        }
        // A digest that one key had before is never another key's.
        let is_both = |(digest, _): &&(KeyDigest, Row)| others.iter().any(|of| of.0 == *digest);
        if let Some((_, row)) = keys.iter().find(is_both) {
            return Err(row.corrupt("id"));
        }
        let read = |(digest, mut row): (KeyDigest, Row)| {
            let key = StoredKey::new(digest, record::read(&mut row)?);
            Ok::<_, Fault>((digest, Arc::new(key)))
        };
        let keys: Vec<_> = keys.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(StoredKey::of_one_secret(self.0, |digest| {
            let key = keys.iter().find(|(known, _)| known == digest);
            let key = key.map(|(_, key)| Match::Key(Arc::clone(key)));
            let other = || others.iter().find(|(known, _)| known == digest);
            key.or_else(|| other().map(|(_, other)| other.clone()))
        }))
    }
}

/// Finds the key with this digest. Without other digests, the rule of
/// [`StoredKey::of_one_secret`] comes down to this: only a key that has the digest now counts.
async fn find_one(
    session: &mut dyn Session,
    asked: &KeyDigest,
) -> Result<Option<Arc<StoredKey>>, Fault> {
    let dialect = session.dialect();
    let values = vec![asked.to_bytes().to_vec().into()];
    let mut found = None;
    for row in session.rows(dialect.find_one, values).await? {
        let row = row.of(TABLE, "of a digest");
        let mut row = if dialect.is_packed {
            row.unpacked()?
        } else {
            row
        };
        if let Some(Value::Text(Some(id))) = row.peek(2) {
            let id = id.clone();
            row.rename(TABLE, &id);
        }
        let is_of_another = row.int("id")? != 0;
        // Also of keys with another scheme: an unknown one may be the one that is asked for.
        if scheme(&mut row)? != asked.scheme() {
            continue;
        }
        if is_of_another {
            return Err(row.corrupt("id"));
        }
        found = Some(Arc::new(StoredKey::new(*asked, record::read(&mut row)?)));
    }
    Ok(found)
}

/// The tenant in a row about a digest that no key has any more.
fn tenant(row: &mut Row) -> Result<Option<TenantId>, Fault> {
    for column in ["id", "family", "version", "kind", "environment"] {
        row.value(column)?;
    }
    let tenant = row.maybe_text("tenant_id")?;
    tenant
        .map(|tenant| TenantId::new(&tenant).map_err(|_| row.corrupt("tenant_id")))
        .transpose()
}

/// The next two columns of a row: a scheme and a digest.
pub(super) fn digest(row: &mut Row) -> Result<KeyDigest, Fault> {
    let scheme = scheme(row)?;
    let bytes = <[u8; 32]>::try_from(row.bytes("digest")?).map_err(|_| row.corrupt("digest"))?;
    Ok(KeyDigest::new(scheme, bytes))
}

/// The next column of a row: a scheme.
fn scheme(row: &mut Row) -> Result<DigestScheme, Fault> {
    let name = row.text("scheme")?;
    name.parse().map_err(|_| row.corrupt("scheme"))
}

/// Reads one record: writes need it too, so it does not wait for management reads.
pub(crate) struct Get<'a>(pub(crate) &'a KeyId);

#[async_trait]
impl Operation for Get<'_> {
    type Answer = Option<Arc<KeyRecord>>;
    const PURPOSE: Purpose = Purpose::Request;

    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault> {
        let id = self.0.as_str();
        let rows = session.rows(sql::RECORD, vec![id.into()]).await?;
        let read = |mut row| record::read(&mut row).map(Arc::new);
        rows.into_iter().next().map(read).transpose()
    }
}

/// Reads the signing state of a key.
pub(crate) struct SigningOf<'a>(pub(crate) &'a KeyId);

#[async_trait]
impl Operation for SigningOf<'_> {
    type Answer = Option<SigningState>;
    const PURPOSE: Purpose = Purpose::Request;

    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault> {
        let rows = session
            .rows(sql::SIGNING, vec![self.0.as_str().into()])
            .await?;
        let Some(row) = rows.into_iter().next() else {
            return Ok(None);
        };
        let mut row = row.of(TABLE, self.0.as_str());
        let state = row.maybe_bytes("signing")?;
        state
            .map(|bytes| SigningState::from_bytes(&bytes).map_err(|_| row.corrupt("signing")))
            .transpose()
    }
}
