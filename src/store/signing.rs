//! Where the states that sign events are read: they are secrets, and stand apart from records.

use std::fmt;

use async_trait::async_trait;

use super::StoreError;
use crate::key::{KeyId, SigningState};
use crate::pointer::to_the_pointee;

/// Reads what keys sign events with. Beside a [`KeyStore`](crate::store::KeyStore), whose
/// [`Change::SetSigning`](crate::store::Change::SetSigning) writes it.
///
/// # What an implementation promises
/// - No other call returns the state, and `Debug` does not show it.
/// - The state of a key that is deleted is gone with it.
///
/// `Arc` and `Box` of a store are stores.
#[async_trait]
pub trait SigningStore: fmt::Debug + Send + Sync + 'static {
    /// What a key signs events with, a secret; `None` where it signs none, or is not there.
    ///
    /// # Errors
    /// Where storage gives no answer.
    async fn signing_state(&self, id: &KeyId) -> Result<Option<SigningState>, StoreError>;
}

to_the_pointee! {
    SigningStore {
        async fn signing_state(&self, id: &KeyId) -> Result<Option<SigningState>, StoreError>;
    }
}
