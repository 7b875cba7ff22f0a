//! What the exchange requires of a framework: requests and responses that carry values by type, and
//! an inner service.
//!
//! Values are `Clone`. The carrier adds further bounds: `Send` and `Sync` on tower, neither on
//! actix-web, whose requests stay on their worker.

use std::borrow::Cow;
use std::fmt::Debug;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::exchange::{Mapped, ResponseFields};
use crate::audit::RequestId;
use crate::error::AuthError;
use crate::limit::Kept;
use crate::principal::{AnonymousCount, KeyPrincipal};
use crate::request::{RequestHead, TlsVersion};
use crate::respond::{Answer, Responder};

/// Marks a request that passed as anonymous, with the responder for inner layers that refuse it,
/// and the state of its limits if it was counted.
#[derive(Debug, Clone)]
pub struct Anonymous {
    pub(super) responder: Arc<Responder>,
    pub(super) count: Option<Arc<AnonymousCount>>,
    /// Whether the host declared that the service serves gRPC, as a principal says it, too.
    pub(super) grpc: bool,
}

/// Carries at most one value of this type.
pub trait Holds<T: Clone> {
    /// Returns the value: borrowed if that leaves other values free to change, otherwise cloned.
    fn look(&self) -> Option<Cow<'_, T>>;
    /// Calls `read` with the value, without copying it.
    fn with<R>(&self, read: impl FnOnce(Option<&T>) -> R) -> R {
        read(self.look().as_deref())
    }
    /// Sets the value.
    fn put(&mut self, value: T);
    /// Removes the value.
    fn remove(&mut self);
}

/// The carrier of a request's values.
pub trait Carrier:
    Holds<KeyPrincipal> + Holds<Anonymous> + Holds<RequestId> + Clone + 'static
{
    /// The framework's type for a header name.
    type FieldName: FromStr + Clone;
    /// A mapping in progress; `Send` if requests are.
    type Mapping: Mapped<Self>;
}

/// Finds the TLS version of a connection.
pub(super) type TlsOf<C> = dyn Fn(&C) -> Option<TlsVersion> + Send + Sync;

/// A request.
pub trait Incoming {
    /// The carrier of its values.
    type Carrier: Carrier;

    /// Returns its values.
    fn carrier(&self) -> &Self::Carrier;
    /// Returns its values for modification.
    fn carrier_mut(&mut self) -> &mut Self::Carrier;
    /// Marks headers as sensitive, so that request logs redact them.
    fn hide(&mut self, names: &[<Self::Carrier as Carrier>::FieldName]);
    /// Returns the authenticator's view of the request. The TLS version is found when it is asked
    /// for, which is rare.
    fn head<'r>(
        &'r self,
        peer: Option<IpAddr>,
        tls_of: Option<&'r TlsOf<Self::Carrier>>,
        serves_grpc: bool,
    ) -> impl RequestHead;
}

/// A response, from the inner service or of a refusal.
pub trait Reply: Holds<AuthError> + Holds<RequestId> {
    /// Returns its status code.
    fn status_code(&self) -> u16;
    /// Sets a header. The name must be lower case.
    fn set_field(&mut self, name: &'static str, value: &[u8]);
    /// Sets a header to a value of visible ASCII characters and spaces, which need not be copied.
    fn set_kept_field(&mut self, name: &'static str, value: &'static Kept);
}

/// The inner service.
pub trait Inward<Q> {
    /// The adapter's response.
    type Response: Reply;
    /// The inner service's error.
    type Error;
    /// The inner service's future.
    type Future: Future;

    /// Forwards a request to the inner service.
    fn forward(&mut self, request: Q) -> Self::Future;
    /// Polls the inner service's future, and converts its response into the adapter's. Responses are
    /// large: where nothing is converted, none is moved.
    fn poll(
        future: Pin<&mut Self::Future>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Response, Self::Error>>;
    /// Converts a refusal into the adapter's response.
    fn refused(request: Q, answer: Answer, error: &AuthError) -> Self::Response;
    /// Converts the inner service's error. If the framework turns it into a response further out,
    /// that response gets the given headers.
    fn failed(error: Self::Error, fields: &ResponseFields) -> Self::Error;
}

/// Whether the carrier has a value of this type.
pub(super) fn carries<T: Clone>(carrier: &impl Holds<T>) -> bool {
    carrier.with(|value| value.is_some())
}
