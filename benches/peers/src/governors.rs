//! `governor` alone, which checks no key, and `tower_governor`, its layer with one quota.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::num::NonZeroU32;
use std::task::{Context, Poll};

use governor::middleware::NoOpMiddleware;
use governor::{Quota, RateLimiter};
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, StatusCode};
use tower::{Layer, Service};
use tower_governor::governor::GovernorConfigBuilder;
use tower_governor::key_extractor::KeyExtractor;
use tower_governor::{GovernorError, GovernorLayer};

use crate::contender::{Check, Contender, Credentials, client};
use crate::gate::{Gate, Gated};
use crate::shape::{Body, Settings, answer, bearer, now, request, secret};
use crate::straightforward::Keyed;

fn credentials(settings: Settings) -> Credentials {
    let numbers = 0..settings.keys as u64;
    Credentials {
        good: numbers
            .map(|number| format!("Bearer {}", secret(number)))
            .collect(),
        ..Credentials::default()
    }
}

struct Twice {
    minute: Keyed<NoOpMiddleware>,
    hour: Keyed<NoOpMiddleware>,
}

impl Gate for Twice {
    fn admit(&self, request: &mut Request<Body>) -> Result<(), StatusCode> {
        // A service that limits keys has a number for each; here it is part of the key.
        let text = bearer(request).and_then(|secret| secret.get(16..32));
        let number = text.and_then(|text| u64::from_str_radix(text, 16).ok());
        let number = number.ok_or(StatusCode::UNAUTHORIZED)?;
        let limited = |_| StatusCode::TOO_MANY_REQUESTS;
        self.minute.check_key(&number).map_err(limited)?;
        self.hour.check_key(&number).map_err(limited)
    }
}

/// Two limiters in sequence, without authentication.
pub fn alone(settings: Settings) -> Contender {
    let units = |units| NonZeroU32::new(units).expect("some");
    let gate = Twice {
        minute: RateLimiter::keyed(Quota::per_minute(units(settings.per_minute))),
        hour: RateLimiter::keyed(Quota::per_hour(units(settings.per_hour))),
    };
    let service = Gated::new(gate);
    Contender::tower(
        "governor, twice",
        &[Check::Limits],
        credentials(settings),
        service,
    )
}

/// Limits by the whole header.
#[derive(Clone)]
struct ByHeader;

impl KeyExtractor for ByHeader {
    type Key = HeaderValue;

    fn extract<T>(&self, request: &Request<T>) -> Result<HeaderValue, GovernorError> {
        let value = request.headers().get(AUTHORIZATION).cloned();
        value.ok_or(GovernorError::UnableToExtractKey)
    }
}

/// Answers with axum's body, the only one that the layer can refuse with.
#[derive(Clone)]
struct AxumInner;

impl Service<Request<Body>> for AxumInner {
    type Response = Response<axum::body::Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        black_box(&request);
        ready(Ok(answer()))
    }
}

/// One quota, by the minute.
pub fn layer(settings: Settings) -> Contender {
    let each = 60_000_000_000 / u64::from(settings.per_minute);
    let config = GovernorConfigBuilder::default()
        .key_extractor(ByHeader)
        .per_nanosecond(each)
        .burst_size(settings.per_minute)
        .finish()
        .expect("a valid quota");
    let layer = GovernorLayer::new(config);
    let checks = &[Check::Limits];
    Contender::new("tower_governor", checks, credentials(settings), move || {
        let mut service = layer.layer(AxumInner);
        client(request, move |request| {
            let Ok(response) = now(service.call(request));
            response.status().as_u16()
        })
    })
}
