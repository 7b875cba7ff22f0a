//! Host types created from a principal, by a closure or by a future that may refuse.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::adapter::carrier::{Carrier, Holds};
use crate::authenticator::Authenticated;
use crate::error::AuthError;
use crate::principal::KeyPrincipal;

/// Sets the value created from a principal, or removes one that an outer layer's mapping set.
type Put<C> = dyn Fn(Option<&KeyPrincipal>, &mut C) + Send + Sync;
/// Starts a mapping that is awaited.
type Begin<C> = dyn Fn(KeyPrincipal) -> <C as Carrier>::Mapping + Send + Sync;

/// The mappings of a layer, in the order in which the host added them.
#[derive(Clone)]
pub(in crate::adapter) struct Mappings<C: Carrier> {
    at_once: Vec<Arc<Put<C>>>,
    awaited: Vec<Arc<Begin<C>>>,
}

impl<C: Carrier> Mappings<C> {
    /// Adds a synchronous mapping.
    pub(in crate::adapter) fn at_once<T>(
        &mut self,
        map: impl Fn(&KeyPrincipal) -> T + Send + Sync + 'static,
    ) where
        C: Holds<Arc<T>>,
    {
        self.at_once
            .push(Arc::new(move |principal, carrier| match principal {
                Some(principal) => carrier.put(Arc::new(map(principal))),
                None => Holds::<Arc<T>>::remove(carrier),
            }));
    }

    /// Adds an asynchronous mapping to `T`.
    pub(in crate::adapter) fn awaited<T>(
        &mut self,
        begin: impl Fn(KeyPrincipal) -> C::Mapping + Send + Sync + 'static,
    ) where
        C: Holds<Arc<T>>,
    {
        // Removes a `T` of an outer layer before this layer's own is set.
        self.at_once
            .push(Arc::new(|_, carrier| Holds::<Arc<T>>::remove(carrier)));
        self.awaited.push(Arc::new(begin));
    }

    /// Whether a mapping must be awaited before this request may pass.
    pub(super) fn must_wait(&self, admission: &Authenticated) -> bool {
        admission.principal.is_some() && !self.awaited.is_empty()
    }

    /// Starts the asynchronous mapping with this index.
    pub(super) fn begin(&self, number: usize, principal: &KeyPrincipal) -> Option<C::Mapping> {
        let begin = self.awaited.get(number)?;
        Some(begin(principal.clone()))
    }

    /// Sets the values of all mappings; for an anonymous request, removes those of outer layers.
    #[inline]
    pub(super) fn put(
        &self,
        principal: Option<&KeyPrincipal>,
        mapped: &mut [C::Mapping],
        carrier: &mut C,
    ) {
        for put in &self.at_once {
            put(principal, carrier);
        }
        for mapping in mapped {
            mapping.put(carrier);
        }
    }
}

impl<C: Carrier> Default for Mappings<C> {
    fn default() -> Self {
        Self {
            at_once: Vec::new(),
            awaited: Vec::new(),
        }
    }
}

/// A mapping in progress: polled to completion first, then put into a carrier.
pub trait Mapped<C> {
    /// Polls the mapping.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), AuthError>>;
    /// Sets the value that it created.
    fn put(&mut self, carrier: &mut C);
}

impl<C, M: Mapped<C> + ?Sized> Mapped<C> for Box<M> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), AuthError>> {
        (**self).poll(cx)
    }
    fn put(&mut self, carrier: &mut C) {
        (**self).put(carrier);
    }
}

/// A future of the host, and the value that it created.
#[derive(Debug)]
pub(in crate::adapter) struct Mapping<F, T> {
    future: Pin<Box<F>>,
    made: Option<Arc<T>>,
}

impl<F, T> Mapping<F, T> {
    pub(in crate::adapter) fn new(future: F) -> Self {
        let future = Box::pin(future);
        Self { future, made: None }
    }
}

impl<C, F, T, E> Mapped<C> for Mapping<F, T>
where
    C: Holds<Arc<T>>,
    F: Future<Output = Result<T, E>>,
    E: Into<AuthError>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), AuthError>> {
        let made = ready!(self.future.as_mut().poll(cx)).map_err(Into::into)?;
        self.made = Some(Arc::new(made));
        Poll::Ready(Ok(()))
    }

    fn put(&mut self, carrier: &mut C) {
        if let Some(made) = self.made.take() {
            carrier.put(made);
        }
    }
}
