//! What the exchange asks of a framework: requests and answers that carry values by their types,
//! and a service further in.
//!
//! The values are `Clone`, and the carrier says what else they must be: on tower `Send` and `Sync`,
//! on actix-web, whose requests stay on their worker, neither.

use std::borrow::Cow;
use std::fmt::Debug;
use std::future::Future;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use super::exchange::{Mapped, ResponseFields};
use crate::audit::RequestId;
use crate::error::AuthError;
use crate::principal::KeyPrincipal;
use crate::request::{RequestHead, TlsVersion};
use crate::respond::{Answer, Responder};

/// Marks a request that passed as nobody, and knows how to refuse it after all.
#[derive(Debug, Clone)]
pub struct Anonymous(pub(super) Arc<Responder>);

/// Marks a request to a service of which the host declared that it serves gRPC, for layers and
/// extractors further in.
#[derive(Debug, Clone, Copy)]
pub struct ServesGrpc;

/// Marks an answer that was counted, so that a layer further out does not count it again.
#[derive(Debug, Clone, Copy)]
pub struct Counted;

/// Carries at most one value of this type.
pub trait Holds<T: Clone> {
    /// The value: borrowed where that keeps nobody from changing others, else a clone.
    fn look(&self) -> Option<Cow<'_, T>>;
    /// Sets the value.
    fn put(&mut self, value: T);
    /// Removes the value.
    fn remove(&mut self);
}

/// Carries the values of a request.
pub trait Carrier:
    Holds<KeyPrincipal> + Holds<Anonymous> + Holds<RequestId> + Holds<ServesGrpc> + Clone + 'static
{
    /// The name of a header field.
    type FieldName: FromStr + Clone;
    /// A mapping at work; `Send` where requests are.
    type Mapping: Mapped<Self>;
}

/// A request.
pub trait Incoming {
    /// What carries its values.
    type Carrier: Carrier;

    /// Its values.
    fn carrier(&self) -> &Self::Carrier;
    /// Its values, to be changed.
    fn carrier_mut(&mut self) -> &mut Self::Carrier;
    /// Marks fields as sensitive, so that request logs redact them.
    fn hide(&mut self, names: &[<Self::Carrier as Carrier>::FieldName]);
    /// The view of it that the authenticator has.
    fn head(
        &self,
        peer: Option<IpAddr>,
        tls: Option<TlsVersion>,
        serves_grpc: bool,
    ) -> impl RequestHead;
    /// The view of it further in, which knows of no connection.
    fn head_inside(&self) -> impl RequestHead {
        self.head(None, None, carries::<ServesGrpc>(self.carrier()))
    }
}

/// An answer, from the service or a refusal.
pub trait Reply: Holds<AuthError> + Holds<Counted> + Holds<RequestId> {
    /// Its status.
    fn status_code(&self) -> u16;
    /// Sets a header field, whose name is in lower case.
    fn set_field(&mut self, name: &'static str, value: String);
}

/// The service further in.
pub trait Inward<Q> {
    /// What it answers.
    type Answer: Reply;
    /// What the adapter answers.
    type Response: Reply;
    /// Why there is no answer.
    type Error;
    /// Its future.
    type Future: Future<Output = Result<Self::Answer, Self::Error>>;

    /// Passes a request on.
    fn forward(&mut self, request: Q) -> Self::Future;
    /// Its answer, as the adapter's.
    fn passed(answer: Self::Answer) -> Self::Response;
    /// A refusal, as the adapter's answer.
    fn refused(request: Q, answer: Answer, error: &AuthError) -> Self::Response;
    /// Its error. Where the framework makes an answer of it further out, that answer has the
    /// fields.
    fn failed(error: Self::Error, fields: &ResponseFields) -> Self::Error;
}

/// Whether there is a value of this type.
pub(super) fn carries<T: Clone>(carrier: &impl Holds<T>) -> bool {
    carrier.look().is_some()
}
