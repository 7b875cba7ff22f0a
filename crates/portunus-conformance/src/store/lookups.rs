//! The suite for a [`KeyLookup`] over a table that another component writes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::tools::{at, digest, id, owned_by, peppered, record};
use crate::report::{Checked, Failure, Violations};
use crate::runner::{Calls, Suite, Watched};
use portunus::key::{DigestScheme, KeyDigest, KeyId, KeyRecord, Revocation};
use portunus::store::{KeyLookup, StoredKey};

type Put = dyn Fn(KeyDigest, KeyRecord) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// A lookup, and how its table is written.
#[derive(Clone)]
pub(super) struct Tried {
    lookup: Arc<dyn KeyLookup>,
    put: Arc<Put>,
}

impl fmt::Debug for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lookup.fmt(f)
    }
}

/// Checks a [`KeyLookup`] that is not a [`KeyStore`](portunus::KeyStore) against all promises of
/// the trait. For one that is, [`key_store`](crate::key_store) includes these checks and more.
///
/// `make` returns a lookup over an empty table each time. `put` writes a record with a digest into
/// the table of a lookup, and replaces the row with the record's id, if any. Once it is done, every
/// lookup must see the row.
///
/// # Errors
/// Returns every root cause of failed checks, with what was observed.
pub async fn key_lookup<L, F, Fut, P, Putting>(make: F, put: P) -> Result<(), Violations>
where
    L: KeyLookup,
    F: Fn() -> Fut,
    Fut: Future<Output = L>,
    P: Fn(Arc<L>, KeyDigest, KeyRecord) -> Putting + Send + Sync + 'static,
    Putting: Future<Output = ()> + Send + 'static,
{
    let (mut suite, put) = (Suite::new("key lookup"), Arc::new(put));
    let mut fresh = |calls: Calls| {
        let (making, put) = (make(), Arc::clone(&put));
        async move {
            let lookup = Arc::new(making.await);
            let table = Arc::clone(&lookup);
            Tried {
                lookup: Arc::new(Watched::new(lookup, calls)),
                put: Arc::new(move |digest, record| {
                    Box::pin(put(Arc::clone(&table), digest, record))
                }),
            }
        }
    };
    suite.run(CHECKS, &mut fresh).await;
    suite.finish()
}

checks!(CHECKS: Tried {
    "a key is found by its exact digest and by no similar one"
        => whole_digest,
    "every lookup sees earlier writes"
        => sees_writes depends on [whole_digest],
    "the same bytes under another scheme are a different digest"
        => other_scheme depends on [sees_writes],
    "a key is found under any of a lookup's candidate digests"
        => candidates depends on [other_scheme],
    "a secret revoked or deleted under one digest is so under all candidates of a lookup"
        => ended depends on [candidates],
    "the newest digest of a secret decides, whatever another tenant did to an older one"
        => foreign depends on [ended],
    "a found key lists the other keys on which the result depends"
        => others depends on [foreign],
    "a record is returned as it was written"
        => record_whole depends on [sees_writes],
    "no digest appears in a lookup's results or its Debug output"
        => shows_no_digest depends on [whole_digest],
});

impl Tried {
    async fn put(&self, digest: KeyDigest, record: KeyRecord) {
        (self.put)(digest, record).await;
    }

    /// The key that both lookup methods find.
    async fn found(&self, digests: &[KeyDigest]) -> Result<Option<Arc<StoredKey>>, Failure> {
        let found = self.lookup.find(digests).await?;
        if let Some(now) = self.lookup.find_now(digests) {
            let [seen, expected] =
                [&now?, &found].map(|key| key.as_ref().map(|k| k.record().clone()));
            ensure_eq!(seen, expected, "find_now compared to find");
        }
        if let Some(found) = &found {
            ensure!(
                digests.contains(found.digest()),
                "a key was found under a digest that was not requested"
            );
        }
        Ok(found)
    }

    async fn found_id(&self, digests: &[KeyDigest]) -> Result<Option<KeyId>, Failure> {
        let found = self.found(digests).await?;
        Ok(found.map(|key| key.record().id.clone()))
    }
}

fn revoked(mut record: KeyRecord) -> KeyRecord {
    record.version += 1;
    record.revoked = Some(Revocation::new(at(1_000), Some("lost".into())));
    record
}

async fn whole_digest(tried: Tried) -> Checked {
    ensure_eq!(tried.found_id(&[]).await?, None, "under no digest at all");
    tried.put(digest(1), record("a")).await;
    ensure_eq!(
        tried.found_id(&[digest(1)]).await?,
        Some(id("a")),
        "under its own digest"
    );
    for place in 0..32 {
        let mut bytes = digest(1).to_bytes();
        bytes[place] ^= 0x20;
        let near = KeyDigest::new(DigestScheme::Sha256, bytes);
        ensure_eq!(
            tried.found_id(&[near]).await?,
            None,
            "byte {place} of the digest changed"
        );
    }
    Ok(())
}

async fn sees_writes(tried: Tried) -> Checked {
    for number in 0..5 {
        let name = format!("key{number}");
        let (old, new) = (digest(number), digest(100 + number));
        ensure_eq!(tried.found_id(&[old]).await?, None, "before it was written");
        tried.put(old, record(&name)).await;
        ensure_eq!(
            tried.found_id(&[old]).await?,
            Some(id(&name)),
            "after it was written"
        );
        tried.put(old, revoked(record(&name))).await;
        let found = tried.found(&[old]).await?;
        let seen = found.and_then(|key| key.record().revoked.clone());
        ensure_eq!(
            seen,
            revoked(record(&name)).revoked,
            "the revocation, when looked up"
        );
        tried.put(new, revoked(record(&name))).await;
        ensure_eq!(
            tried.found_id(&[old]).await?,
            None,
            "under the digest that it had"
        );
        ensure_eq!(
            tried.found_id(&[new]).await?,
            Some(id(&name)),
            "under its new digest"
        );
    }
    Ok(())
}

async fn other_scheme(tried: Tried) -> Checked {
    tried.put(digest(1), record("a")).await;
    let peppers = [0, 1, u32::MAX].map(|pepper| DigestScheme::HmacSha256 { pepper });
    for (number, scheme) in peppers
        .into_iter()
        .chain([DigestScheme::Sha512])
        .enumerate()
    {
        let (same, name) = (
            KeyDigest::new(scheme, digest(1).to_bytes()),
            format!("key{number}"),
        );
        ensure_eq!(
            tried.found_id(&[same]).await?,
            None,
            "the same bytes under {scheme}"
        );
        tried.put(same, record(&name)).await;
        ensure_eq!(
            tried.found_id(&[same]).await?,
            Some(id(&name)),
            "its own key under {scheme}"
        );
    }
    ensure_eq!(
        tried.found_id(&[digest(1)]).await?,
        Some(id("a")),
        "under sha256, as before"
    );
    Ok(())
}

async fn candidates(tried: Tried) -> Checked {
    tried.put(digest(1), record("a")).await;
    let others: Vec<_> = (2..9).map(peppered).collect();
    for place in 0..=others.len() {
        let mut asked = others.clone();
        asked.insert(place, digest(1));
        let found = tried.found(&asked).await?;
        let under = found.map(|key| (key.record().id.clone(), *key.digest()));
        ensure_eq!(
            under,
            Some((id("a"), digest(1))),
            "as candidate {}",
            place + 1
        );
    }
    ensure_eq!(
        tried.found_id(&others).await?,
        None,
        "under candidates none of which is its digest"
    );
    Ok(())
}

async fn ended(tried: Tried) -> Checked {
    tried.put(peppered(1), record("new")).await;
    tried.put(digest(1), record("old")).await;
    let asked = [peppered(1), digest(1)];
    ensure_eq!(
        tried.found_id(&asked).await?,
        Some(id("new")),
        "that of the newest digest"
    );
    tried.put(digest(1), revoked(record("old"))).await;
    ensure_eq!(
        tried.found_id(&asked).await?,
        Some(id("old")),
        "the one that was revoked"
    );
    Ok(())
}

async fn foreign(tried: Tried) -> Checked {
    tried.put(peppered(1), record("ours")).await;
    tried
        .put(digest(1), revoked(owned_by("theirs", "evil", "eve")))
        .await;
    let asked = [peppered(1), digest(1)];
    ensure_eq!(
        tried.found_id(&asked).await?,
        Some(id("ours")),
        "after another tenant revoked its older key"
    );
    Ok(())
}

async fn others(tried: Tried) -> Checked {
    let keys = [
        (peppered(1), record("a")),
        (peppered(2), owned_by("theirs", "evil", "eve")),
        (digest(1), record("b")),
    ];
    let asked = keys.each_ref().map(|(digest, _)| *digest);
    for (digest, record) in keys {
        tried.put(digest, record).await;
    }
    let found = tried.found(&asked).await?;
    let named = found.map(|key| (key.record().id.clone(), key.others().to_vec()));
    ensure_eq!(
        named,
        Some((id("a"), vec![id("b")])),
        "the key, and the others that it names"
    );
    Ok(())
}

async fn record_whole(tried: Tried) -> Checked {
    let mut full = record("full");
    full.name = "'\"\\%_;-- \u{e4}\u{1f511}".into();
    full.description = Some(String::new());
    full.workspaces = Some(Vec::new());
    full.created_at = at(1_000) + std::time::Duration::from_millis(1);
    full.expires_at = Some(at(9_000) + std::time::Duration::from_millis(999));
    full.not_before = Some(at(2_000));
    full.enabled = false;
    for (number, written) in [record("plain"), full].into_iter().enumerate() {
        let digest = digest(number as u64);
        tried.put(digest, written.clone()).await;
        let found = tried.found(&[digest]).await?;
        ensure_eq!(
            found.map(|key| (**key.record()).clone()),
            Some(written),
            "a record"
        );
    }
    Ok(())
}

async fn shows_no_digest(tried: Tried) -> Checked {
    tried.put(digest(1), record("a")).await;
    let found = tried.found(&[digest(1)]).await?;
    let bytes = &digest(1).to_bytes()[..8];
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let list: Vec<_> = bytes.iter().map(ToString::to_string).collect();
    for (what, shown) in [
        ("the lookup", format!("{tried:?}")),
        ("its result", format!("{found:?}")),
    ] {
        let plain = shown.to_lowercase().replace([' ', '\n', '\t'], "");
        let leaks = plain.contains(&hex) || plain.contains(&list.join(","));
        ensure!(!leaks, "the Debug output of {what} contains a digest");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_depend_on_earlier_ones_and_have_unique_names() {
        crate::runner::assert_grounds(&[CHECKS]);
    }
}
