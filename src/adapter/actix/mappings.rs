//! Types of the host's own, made of the principal, for handlers to take.

use std::future::Future;

use super::Auth;
use crate::adapter::exchange::Mapping;
use crate::error::AuthError;
use crate::principal::KeyPrincipal;

impl Auth {
    /// Puts a type of the host's own, made of the principal, into the extensions too, as `Arc<T>`.
    pub fn map_principal<T: 'static>(
        mut self,
        map: impl Fn(&KeyPrincipal) -> T + Send + Sync + 'static,
    ) -> Self {
        self.change().mappings.at_once(map);
        self
    }

    /// Puts a type of the host's own into the extensions, as `Arc<T>`, that must be awaited and may
    /// refuse: a row of the host's database, say. It is asked once for each request that was let
    /// through so far, after everything else. The future stays on its worker and need not be
    /// `Send`.
    ///
    /// A refusal is answered like the library's own; an error that is [caused
    /// by](AuthError::caused_by) one of the host's reaches the renderer with it.
    pub fn try_map_principal<T, E, F>(
        mut self,
        map: impl Fn(KeyPrincipal) -> F + Send + Sync + 'static,
    ) -> Self
    where
        T: 'static,
        E: Into<AuthError>,
        F: Future<Output = Result<T, E>> + 'static,
    {
        let begin = move |principal| Box::new(Mapping::<F, T>::new(map(principal))) as _;
        self.change().mappings.awaited::<T>(begin);
        self
    }
}
