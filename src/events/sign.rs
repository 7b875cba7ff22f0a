//! Signing and verifying events.

use std::fmt::Write;
use std::time::SystemTime;

use serde::Serialize;
use subtle::ConstantTimeEq;

use crate::key::{KeyId, Owner, SigningState};
use crate::manage::{KeyManager, ManageError};

/// How often the primary key is determined again while it changes.
const ATTEMPTS: usize = 8;

/// The maximum length of an event type, in bytes.
const LONGEST_TYPE: usize = 200;

/// An event's time and type with their signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SignedEvent {
    /// Seconds since the Unix epoch, as a decimal string.
    pub event_time: String,
    /// The event type.
    pub event_type: String,
    /// The signature with the primary key, in lower-case hexadecimal.
    pub event_hash: String,
    /// The signatures with the predecessor and the successor of the primary key during a rotation,
    /// as long as they work. Customers who have already switched keys, or have not yet, find a
    /// matching signature here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_hashes: Vec<String>,
}

/// Returns whether an event was signed with this key. Hashes are compared in constant time.
#[must_use]
pub fn verify(key: &str, event_time: &str, event_type: &str, event_hash: &str) -> bool {
    let expected = hash(&SigningState::of(key.as_bytes()), event_time, event_type);
    expected.as_bytes().ct_eq(event_hash.as_bytes()).into()
}

fn hash(state: &SigningState, event_time: &str, event_type: &str) -> String {
    let mac = state.sign(format!("{event_time}{event_type}").as_bytes());
    mac.iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

impl KeyManager {
    /// Signs an event with the current time for an owner, with the primary key; during a rotation,
    /// with both keys.
    ///
    /// # Errors
    /// Returns [`ManageError::Invalid`] for a type that is empty, longer than 200 bytes, begins
    /// with a digit, or contains anything other than visible ASCII characters;
    /// [`ManageError::Conflict`] if the owner has no key that can sign; [`ManageError::Newer`] if a
    /// newer version wrote the key's record; or an error if the store does not respond.
    pub async fn sign_event(
        &self,
        owner: &Owner,
        event_type: &str,
    ) -> Result<SignedEvent, ManageError> {
        let fits = event_type.len() <= LONGEST_TYPE
            && event_type.bytes().all(|byte| byte.is_ascii_graphic());
        if !fits
            || event_type
                .bytes()
                .next()
                .is_none_or(|first| first.is_ascii_digit())
        {
            return Err(ManageError::Invalid {
                field: "event_type",
                reason: format!(
                    "must be 1 to {LONGEST_TYPE} visible ASCII characters, the first not a digit"
                ),
            });
        }
        let now = self.now();
        let seconds = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let (primary, others) = self.signing_keys(owner, now).await?;
        let event_time = seconds.to_string();
        let hash = |state: &SigningState| hash(state, &event_time, event_type);
        let (event_hash, other_hashes) = (hash(&primary), others.iter().map(hash).collect());
        Ok(SignedEvent {
            event_hash,
            other_hashes,
            event_type: event_type.to_owned(),
            event_time,
        })
    }

    /// Returns the state of the primary key, and those of its predecessor and successor if they
    /// still work.
    async fn signing_keys(
        &self,
        owner: &Owner,
        now: SystemTime,
    ) -> Result<(SigningState, Vec<SigningState>), ManageError> {
        const NONE: ManageError =
            ManageError::Conflict("the owner has no key that can sign events");
        // The primary key may end while its state is read; another key is primary then.
        let mut found = None;
        for _ in 0..ATTEMPTS {
            let primary = self.primary_of(owner, now).await?.ok_or(NONE)?;
            // The restrictions of such a record are unknown to this version.
            if let Some(needs) = primary.needs() {
                return Err(ManageError::Newer { needs });
            }
            if let Some(state) = self.signing_state(&primary.id).await? {
                found = Some((primary, state));
                break;
            }
        }
        let (primary, state) = found.ok_or(NONE)?;
        let mut others = Vec::new();
        for id in [&primary.predecessor, &primary.successor]
            .into_iter()
            .flatten()
        {
            if self.works(id, now).await? {
                others.extend(self.signing_state(id).await?);
            }
        }
        Ok((state, others))
    }

    async fn works(&self, id: &KeyId, now: SystemTime) -> Result<bool, ManageError> {
        match self.get(id).await {
            Ok(key) => Ok(key.record.can_be_primary(now) && key.record.needs().is_none()),
            Err(ManageError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
