//! Carrier implementations for `http` requests and responses, based on their extensions.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::{HeaderName, HeaderValue};
use http::{Extensions, Request, Response};

use super::HttpHead;
use crate::adapter::carrier::{Carrier, Holds, Incoming, Reply};
use crate::adapter::exchange::Mapped;
use crate::limit::Kept;
use crate::request::{RequestHead, TlsVersion};

impl<T: Clone + Send + Sync + 'static> Holds<T> for Extensions {
    fn look(&self) -> Option<Cow<'_, T>> {
        self.get().map(Cow::Borrowed)
    }
    fn put(&mut self, value: T) {
        self.insert(value);
    }
    fn remove(&mut self) {
        self.remove::<T>();
    }
}

impl Carrier for Extensions {
    type FieldName = HeaderName;
    type Mapping = Box<dyn Mapped<Self> + Send>;
}

impl<B> Incoming for Request<B> {
    type Carrier = Extensions;

    fn carrier(&self) -> &Extensions {
        self.extensions()
    }

    fn carrier_mut(&mut self) -> &mut Extensions {
        self.extensions_mut()
    }

    /// Marks the first line only: a request that repeats such a header is refused by this layer.
    fn hide(&mut self, names: &[HeaderName]) {
        for name in names {
            if let Some(value) = self.headers_mut().get_mut(name) {
                value.set_sensitive(true);
            }
        }
    }

    fn head(
        &self,
        peer: Option<IpAddr>,
        tls: Option<TlsVersion>,
        serves_grpc: bool,
    ) -> impl RequestHead {
        HttpHead {
            method: self.method(),
            uri: self.uri(),
            headers: self.headers(),
            extensions: self.extensions(),
            peer,
            tls,
            grpc: serves_grpc,
        }
    }
}

impl<R, T: Clone + Send + Sync + 'static> Holds<T> for Response<R> {
    fn look(&self) -> Option<Cow<'_, T>> {
        self.extensions().look()
    }
    fn put(&mut self, value: T) {
        self.extensions_mut().put(value);
    }
    fn remove(&mut self) {
        Holds::<T>::remove(self.extensions_mut());
    }
}

static RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
static RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

impl<R> Reply for Response<R> {
    fn status_code(&self) -> u16 {
        self.status().as_u16()
    }

    fn set_field(&mut self, name: &'static str, value: &[u8]) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            self.headers_mut().insert(name_of(name), value);
        }
    }

    fn set_kept_field(&mut self, name: &'static str, value: &'static Kept) {
        let value = value.native(HeaderValue::from_static);
        self.headers_mut().insert(name_of(name), value);
    }
}

/// Returns the name of a field. Those of most responses are parsed once.
fn name_of(name: &'static str) -> HeaderName {
    match name {
        "ratelimit" => RATELIMIT.clone(),
        "ratelimit-policy" => RATELIMIT_POLICY.clone(),
        name => HeaderName::from_static(name),
    }
}
