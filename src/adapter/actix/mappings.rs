//! Host types created from the principal, for handlers.

use std::future::Future;

use super::Auth;
use crate::adapter::exchange::Mapping;
use crate::error::AuthError;
use crate::principal::KeyPrincipal;

impl Auth {
    /// Adds a mapping that creates a host type from the principal and puts it into the extensions
    /// as `Arc<T>`.
    pub fn map_principal<T: 'static>(
        mut self,
        map: impl Fn(&KeyPrincipal) -> T + Send + Sync + 'static,
    ) -> Self {
        self.change().mappings.at_once(map);
        self
    }

    /// Adds an asynchronous mapping, which may refuse the request: for example, one that loads a
    /// row from the host's database. Its value is put into the extensions as `Arc<T>`. It runs once
    /// per authenticated request, after every other check of the middleware. The future stays on
    /// its worker and need not be `Send`.
    ///
    /// A refusal is rendered like the library's own. An error with a [cause](AuthError::caused_by)
    /// reaches the renderer together with that cause.
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
