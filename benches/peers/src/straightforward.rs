//! The layer that people write by hand: a digest, a concurrent map, two limiters, a boxed future.

use std::collections::HashSet;
use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::SystemTime;

use dashmap::DashMap;
use governor::clock::{DefaultClock, QuantaInstant};
use governor::middleware::{
    NoOpMiddleware, RateLimitingMiddleware, StateInformationMiddleware, StateSnapshot,
};
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use http::{HeaderValue, Request, Response, StatusCode};
use ipnet::IpNet;
use subtle::ConstantTimeEq;
use tower::Service;

use crate::contender::{Check, Contender, Credentials};
use crate::shape::{
    Body, ENVIRONMENT, Inner, NEEDED, NETWORKS, SCOPES, Settings, bearer, digest, next_year, peer,
    refusal, secret,
};

/// The principal that handlers find in the extensions.
pub struct KeyInfo {
    id: u64,
    digest: [u8; 32],
    networks: Vec<IpNet>,
    scopes: HashSet<String>,
    environment: String,
    expires_at: SystemTime,
    uses: AtomicU64,
}

/// A limiter by the number of the key, which a database would have assigned.
pub type Keyed<M> = RateLimiter<u64, DashMapStateStore<u64>, DefaultClock, M>;

/// Whether fields are written.
pub trait Report: RateLimitingMiddleware<QuantaInstant> + Send + Sync + 'static {
    fn write(outcomes: &[Self::PositiveOutcome; 2], response: &mut Response<Body>);
}

impl Report for NoOpMiddleware {
    fn write(_: &[(); 2], _: &mut Response<Body>) {}
}

impl Report for StateInformationMiddleware {
    fn write([minute, hour]: &[StateSnapshot; 2], response: &mut Response<Body>) {
        let (most, more) = (minute.quota().burst_size(), hour.quota().burst_size());
        let policy = format!("\"minute\";q={most};w=60, \"hour\";q={more};w=3600");
        let left = minute.remaining_burst_capacity();
        let rest = hour.remaining_burst_capacity();
        let state = format!("\"minute\";r={left}, \"hour\";r={rest}");
        for (name, value) in [("ratelimit-policy", policy), ("ratelimit", state)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(name, value);
            }
        }
    }
}

struct State<M: Report> {
    keys: DashMap<[u8; 32], Arc<KeyInfo>>,
    minute: Keyed<M>,
    hour: Keyed<M>,
}

impl<M: Report> State<M> {
    fn new(settings: Settings) -> Self {
        let units = |units| NonZeroU32::new(units).expect("some");
        let minute = RateLimiter::keyed(Quota::per_minute(units(settings.per_minute)));
        let hour = RateLimiter::keyed(Quota::per_hour(units(settings.per_hour)));
        Self {
            keys: DashMap::new(),
            minute: minute.with_middleware(),
            hour: hour.with_middleware(),
        }
    }

    fn add(&self, id: u64, scopes: &[&str]) -> String {
        let secret = secret(id);
        let networks = NETWORKS.iter().map(|text| text.parse());
        let info = KeyInfo {
            id,
            digest: digest(&secret),
            networks: networks.collect::<Result<_, _>>().expect("valid networks"),
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            environment: ENVIRONMENT.to_owned(),
            expires_at: next_year(),
            uses: AtomicU64::new(0),
        };
        self.keys.insert(info.digest, Arc::new(info));
        format!("Bearer {secret}")
    }

    fn check(&self, request: &Request<Body>) -> Result<Checked<M>, StatusCode> {
        let secret = bearer(request).ok_or(StatusCode::UNAUTHORIZED)?;
        let digest = digest(secret);
        let found = self.keys.get(&digest).map(|entry| Arc::clone(&entry));
        let info = found.ok_or(StatusCode::UNAUTHORIZED)?;
        if !bool::from(info.digest.ct_eq(&digest)) || SystemTime::now() >= info.expires_at {
            return Err(StatusCode::UNAUTHORIZED);
        }
        let from: IpAddr = peer(request).ok_or(StatusCode::FORBIDDEN)?;
        let may_call_from = info.networks.iter().any(|network| network.contains(&from));
        if info.environment != ENVIRONMENT || !may_call_from {
            return Err(StatusCode::FORBIDDEN);
        }
        let limited = |_| StatusCode::TOO_MANY_REQUESTS;
        let minute = self.minute.check_key(&info.id).map_err(limited)?;
        let hour = self.hour.check_key(&info.id).map_err(limited)?;
        info.uses.fetch_add(1, Ordering::Relaxed);
        if !info.scopes.contains(NEEDED) {
            return Err(StatusCode::FORBIDDEN);
        }
        Ok((info, [minute, hour]))
    }
}

type Checked<M> = (
    Arc<KeyInfo>,
    [<M as RateLimitingMiddleware<QuantaInstant>>::PositiveOutcome; 2],
);

struct Straightforward<M: Report> {
    state: Arc<State<M>>,
    inner: Inner,
}

impl<M: Report> Clone for Straightforward<M> {
    fn clone(&self) -> Self {
        let state = Arc::clone(&self.state);
        Self { state, ..*self }
    }
}

impl<M: Report<PositiveOutcome: Send, NegativeOutcome: Send>> Service<Request<Body>>
    for Straightforward<M>
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match self.state.check(&request) {
            Ok((info, outcomes)) => {
                request.extensions_mut().insert(info);
                let answer = self.inner.call(request);
                Box::pin(async move {
                    let mut response = answer.await?;
                    M::write(&outcomes, &mut response);
                    Ok(response)
                })
            }
            Err(status) => Box::pin(async move { Ok(refusal(status)) }),
        }
    }
}

fn contender<M: Report<PositiveOutcome: Send, NegativeOutcome: Send>>(
    name: &'static str,
    checks: &'static [Check],
    settings: Settings,
) -> Contender {
    let state = Arc::new(State::<M>::new(settings));
    let numbers = 0..settings.keys as u64;
    let credentials = Credentials {
        good: numbers.map(|number| state.add(number, &SCOPES)).collect(),
        unknown: format!("Bearer {}", secret(u64::MAX)),
        without_scope: state.add(u64::MAX - 1, &SCOPES[..2]),
    };
    let inner = Inner;
    Contender::tower(name, checks, credentials, Straightforward { state, inner })
}

pub fn plain(settings: Settings) -> Contender {
    contender::<NoOpMiddleware>("straightforward", Check::COMPLETE, settings)
}

pub fn with_fields(settings: Settings) -> Contender {
    let checks = Check::COMPLETE_WITH_FIELDS;
    contender::<StateInformationMiddleware>("straightforward, fields", checks, settings)
}
