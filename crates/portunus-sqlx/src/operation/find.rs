//! Lookups of one key: by digest, by id, and its signing state.

use std::sync::Arc;

use async_trait::async_trait;
use portunus::key::{DigestScheme, KeyDigest, KeyId, KeyRecord, SigningState, TenantId};
use portunus::store::{Match, StoredKey};

use super::Operation;
use crate::fault::Fault;
use crate::record::{self, TABLE};
use crate::share::Purpose;
use crate::sql::{self, Dialect};
use crate::value::{Row, Session, Value};

/// The number of digests that one statement compares.
pub(crate) const DIGESTS: usize = 8;

/// The key that was found.
type Answer = Option<Arc<StoredKey>>;

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
    type Answer = Answer;
    const PURPOSE: Purpose = Purpose::LookUp;

    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault> {
        if let [digest] = self.0 {
            return find_one(session, digest).await;
        }
        let dialect = session.dialect();
        let (mut keys, mut others) = (Vec::new(), Vec::new());
        for candidates in self.0.chunks(DIGESTS) {
            for mut row in session.rows(dialect.find, eight(candidates)).await? {
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
async fn find_one(session: &mut dyn Session, asked: &KeyDigest) -> Result<Answer, Fault> {
    let sql = session.dialect().find_one;
    let values = || vec![asked.to_bytes().to_vec().into()];
    match session.first(sql, values()).await? {
        None => return Ok(None),
        Some(row) => {
            if let Some(found) = with_digest(session.dialect(), row, asked)? {
                return Ok(Some(found));
            }
        }
    }
    // The same bytes under another scheme: there may be several such keys.
    for row in session.rows(sql, values()).await? {
        if let Some(found) = with_digest(session.dialect(), row, asked)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Finds the key with each of these digests, which belong to different secrets.
pub(crate) struct FindEach<'a>(pub(crate) &'a [KeyDigest]);

#[async_trait]
impl Operation for FindEach<'_> {
    /// For each digest, its key or why the row cannot be read.
    type Answer = Vec<Result<Answer, String>>;
    const PURPOSE: Purpose = Purpose::LookUp;

    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault> {
        let read = |found| match found {
            Ok(found) => Ok(Ok(found)),
            Err(Fault::Corrupt(what)) => Ok(Err(what)),
            Err(fault) => Err(fault),
        };
        if let [digest] = self.0 {
            return Ok(vec![read(find_one(session, digest).await)?]);
        }
        let mut answers = Vec::with_capacity(self.0.len());
        for asked in self.0.chunks(DIGESTS) {
            let dialect = session.dialect();
            let first = answers.len();
            answers.resize_with(first + asked.len(), || Ok(None));
            for mut row in session.rows(dialect.find_each, eight(asked)).await? {
                row.rename(TABLE, "of a digest");
                let bytes = row.bytes("digest")?;
                for (asked, answer) in asked.iter().zip(&mut answers[first..]) {
                    if asked.to_bytes()[..] != bytes[..] || matches!(answer, Ok(Some(_))) {
                        continue;
                    }
                    match read(with_digest(dialect, row.clone(), asked))? {
                        Ok(None) => {}
                        found => *answer = found,
                    }
                }
            }
        }
        Ok(answers)
    }
}

/// Eight digests, of which the first one is repeated.
fn eight(digests: &[KeyDigest]) -> Vec<Value> {
    let repeated = digests.iter().chain(std::iter::repeat(&digests[0]));
    let bytes = |digest: &KeyDigest| Value::from(digest.to_bytes().to_vec());
    repeated.take(DIGESTS).map(bytes).collect()
}

/// The key in a row with the bytes of this digest; `None` if it has another scheme.
fn with_digest(dialect: &Dialect, row: Row, asked: &KeyDigest) -> Result<Answer, Fault> {
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
    // An unknown scheme may be the one that is asked for.
    if scheme(&mut row)? != asked.scheme() {
        return Ok(None);
    }
    if is_of_another {
        return Err(row.corrupt("id"));
    }
    let found = StoredKey::new(*asked, record::read(&mut row)?);
    Ok(Some(Arc::new(found)))
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

/// Reads the digest of a key.
pub(crate) struct DigestOf<'a>(pub(crate) &'a KeyId);

#[async_trait]
impl Operation for DigestOf<'_> {
    type Answer = Option<KeyDigest>;

    async fn run(&self, session: &mut dyn Session) -> Result<Self::Answer, Fault> {
        let values = vec![self.0.as_str().into()];
        let row = session.first(sql::DIGEST_OF, values).await?;
        row.map(|row| digest(&mut row.of(TABLE, self.0.as_str())))
            .transpose()
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
