//! Host types created from the principal, for handlers.

use std::future::Future;

use super::AuthLayer;
use crate::adapter::exchange::Mapping;
use crate::error::AuthError;
use crate::principal::KeyPrincipal;

impl AuthLayer {
    /// Adds a mapping that creates a host type from the principal and puts it into the extensions
    /// as `Arc<T>`.
    pub fn map_principal<T: Send + Sync + 'static>(
        mut self,
        map: impl Fn(&KeyPrincipal) -> T + Send + Sync + 'static,
    ) -> Self {
        self.change().mappings.at_once(map);
        self
    }

    /// Adds an asynchronous mapping, which may refuse the request: for example, one that loads a
    /// row from the host's database. Its value is put into the extensions as `Arc<T>`. It runs once
    /// per authenticated request, after every other check of the layer.
    ///
    /// A refusal is rendered like the library's own. An error with a [cause](AuthError::caused_by)
    /// reaches the renderer together with that cause.
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
