//! Carrier implementations for actix-web requests and responses, based on their extensions.
//!
//! The extensions are never borrowed mutably while host code runs, and only shared while a
//! requirement is checked, whose code does not get the request: handlers' values are cloned out of
//! them, and a replaced value is dropped after the borrow has ended.

use std::borrow::Cow;
use std::net::IpAddr;

use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpMessage, HttpRequest};

use super::ActixHead;
use super::response::name_of;
use crate::adapter::carrier::{Carrier, Holds, Incoming, Reply, TlsOf};
use crate::adapter::exchange::Mapped;
use crate::limit::Kept;
use crate::request::RequestHead;

impl<T: Clone + 'static> Holds<T> for HttpRequest {
    fn look(&self) -> Option<Cow<'_, T>> {
        self.extensions().get().cloned().map(Cow::Owned)
    }
    fn with<R>(&self, read: impl FnOnce(Option<&T>) -> R) -> R {
        read(self.extensions().get())
    }
    fn put(&mut self, value: T) {
        let before = self.extensions_mut().insert(value);
        drop(before);
    }
    fn remove(&mut self) {
        let before = self.extensions_mut().remove::<T>();
        drop(before);
    }
}

impl Carrier for HttpRequest {
    type FieldName = HeaderName;
    type Mapping = Box<dyn Mapped<Self>>;
}

impl Incoming for ServiceRequest {
    type Carrier = HttpRequest;

    fn carrier(&self) -> &HttpRequest {
        self.request()
    }

    fn carrier_mut(&mut self) -> &mut HttpRequest {
        self.parts_mut().0
    }

    /// Marks all lines: outer middleware still sees a refused request.
    fn hide(&mut self, names: &[HeaderName]) {
        let headers = self.headers_mut();
        // Few requests repeat a header. To count all takes less than to look up each name twice.
        let some_repeat = headers.len() > headers.len_keys();
        for name in names {
            if some_repeat && headers.get_all(name).nth(1).is_some() {
                for mut value in headers.remove(name).collect::<smallvec::SmallVec<[_; 2]>>() {
                    value.set_sensitive(true);
                    headers.append(name.clone(), value);
                }
            } else if let Some(value) = headers.get_mut(name) {
                value.set_sensitive(true);
            }
        }
    }

    fn head<'r>(
        &'r self,
        peer: Option<IpAddr>,
        tls_of: Option<&'r TlsOf<HttpRequest>>,
        serves_grpc: bool,
    ) -> impl RequestHead {
        ActixHead {
            tls_of,
            ..ActixHead::of(self.request(), peer, serves_grpc)
        }
    }
}

impl<B, T: Clone + 'static> Holds<T> for ServiceResponse<B> {
    fn look(&self) -> Option<Cow<'_, T>> {
        let extensions = self.response().extensions();
        extensions.get().cloned().map(Cow::Owned)
    }
    fn put(&mut self, value: T) {
        self.response_mut().extensions_mut().insert(value);
    }
    fn remove(&mut self) {
        self.response_mut().extensions_mut().remove::<T>();
    }
}

impl<B> Reply for ServiceResponse<B> {
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
