//! Types of the host's own, made of the principal, for handlers to take.

use std::future::Future;

use super::AuthLayer;
use crate::adapter::exchange::Mapping;
use crate::error::AuthError;
use crate::principal::KeyPrincipal;

impl AuthLayer {
    /// Puts a type of the host's own, made of the principal, into the extensions too, as `Arc<T>`.
    pub fn map_principal<T: Send + Sync + 'static>(
        mut self,
        map: impl Fn(&KeyPrincipal) -> T + Send + Sync + 'static,
    ) -> Self {
        self.change().mappings.at_once(map);
        self
    }

    /// Puts a type of the host's own into the extensions, as `Arc<T>`, that must be awaited and may
    /// refuse: a row of the host's database, say. It is asked once for each request that was let
    /// through so far, after everything else.
    ///
    /// A refusal is answered like the library's own; an error that is [caused
    /// by](AuthError::caused_by) one of the host's reaches the renderer with it.
    ///
    /// ```
    /// use portunus::{AuthError, ErrorCode, KeyPrincipal, Portunus, Principal};
    ///
    /// struct Customer { name: String }
    ///
    /// async fn load(principal: KeyPrincipal) -> Result<Customer, AuthError> {
    ///     match principal.owner().tenant_id.as_str() {
    ///         "acme" => Ok(Customer { name: "Acme".into() }),
    ///         _ => Err(AuthError::with_detail(ErrorCode::Forbidden, "The account is closed")),
    ///     }
    /// }
    ///
    /// # fn with(keys: &Portunus) {
    /// let layer = keys.layer().try_map_principal(load);
    /// # }
    /// ```
    pub fn try_map_principal<T, E, F>(
        mut self,
        map: impl Fn(KeyPrincipal) -> F + Send + Sync + 'static,
    ) -> Self
    where
        T: Send + Sync + 'static,
        E: Into<AuthError>,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let begin = move |principal| Box::new(Mapping::<F, T>::new(map(principal))) as _;
        self.change().mappings.awaited::<T>(begin);
        self
    }
}
