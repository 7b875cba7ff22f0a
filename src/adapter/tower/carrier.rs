//! Carrier implementations for `http` requests and responses, based on their extensions.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::{HeaderName, HeaderValue};
use http::{Extensions, Request, Response};

use super::HttpHead;
use super::request_head::are_few;
use super::response::name_of;
use crate::adapter::carrier::{Carrier, Holds, Incoming, Reply, TlsOf};
use crate::adapter::exchange::Mapped;
use crate::limit::Kept;
use crate::request::RequestHead;

impl<T: Clone + Send + Sync + 'static> Holds<T> for Extensions {
    fn look(&self) -> Option<Cow<'_, T>> {
        self.get().map(Cow::Borrowed)
    }
    #[inline]
    fn with<R>(&self, read: impl FnOnce(Option<&T>) -> R) -> R {
        read(self.get())
    }
    #[inline]
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

    fn hide(&mut self, names: &[HeaderName]) {
        let headers = self.headers_mut();
        if are_few(headers) {
            let secret = headers.iter_mut().filter(|(name, _)| names.contains(name));
            secret.for_each(|(_, value)| value.set_sensitive(true));
            return;
        }
        // The first line only: a request that repeats such a header is refused by this layer.
        for name in names {
            if let Some(value) = headers.get_mut(name) {
                value.set_sensitive(true);
            }
        }
    }

    fn head<'r>(
        &'r self,
        peer: Option<IpAddr>,
        tls_of: Option<&'r TlsOf<Extensions>>,
        serves_grpc: bool,
    ) -> impl RequestHead {
        HttpHead {
            method: self.method(),
            uri: self.uri(),
            headers: self.headers(),
            extensions: self.extensions(),
            peer,
            tls: None,
            tls_of,
            grpc: Some(serves_grpc),
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
