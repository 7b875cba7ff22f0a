//! Reading the states that sign events: they are secrets and are kept apart from records.

use std::fmt;

use async_trait::async_trait;

use super::StoreError;
use crate::key::{KeyId, SigningState};
use crate::pointer::to_the_pointee;

/// Reads the states that keys sign events with, for a [`KeyStore`](crate::store::KeyStore) whose
/// [`Change::SetSigning`](crate::store::Change::SetSigning) writes them.
///
/// # What an implementation promises
/// - No other call returns a state, and `Debug` does not show it.
/// - Deleting a key deletes its state.
/// - A state is returned exactly as it was last set until it is cleared. Updates and rehashes of
///   its key keep it, and setting it does not change the key's version.
///
/// `Arc` and `Box` of a store are stores.
#[async_trait]
pub trait SigningStore: fmt::Debug + Send + Sync + 'static {
    /// Returns the state that a key signs events with, which is a secret, or `None` if the key has
    /// no state or does not exist.
    ///
    /// # Errors
    /// Returns an error if the store does not respond.
    async fn signing_state(&self, id: &KeyId) -> Result<Option<SigningState>, StoreError>;
}

to_the_pointee! {
    SigningStore {
        async fn signing_state(&self, id: &KeyId) -> Result<Option<SigningState>, StoreError>;
    }
}
