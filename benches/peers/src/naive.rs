//! The first version that works: plaintext keys and logs of requests, each behind one lock.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use http::{Request, Response, StatusCode};
use ipnet::IpNet;
use tower::Service;

use crate::contender::{Check, Contender, Credentials};
use crate::shape::{
    Body, ENVIRONMENT, Inner, NEEDED, NETWORKS, SCOPES, Settings, bearer, next_year, peer, refusal,
    secret,
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The principal that handlers find in the extensions.
#[derive(Clone)]
pub struct KeyInfo {
    networks: Vec<IpNet>,
    scopes: HashSet<String>,
    environment: String,
    expires_at: SystemTime,
    uses: u64,
}

struct State {
    settings: Settings,
    keys: Mutex<HashMap<String, KeyInfo>>,
    /// The times of the requests within the last hour, for each key.
    logs: Mutex<HashMap<String, Vec<Instant>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn add(&self, number: u64, scopes: &[&str]) -> String {
        let networks = NETWORKS.iter().map(|text| text.parse());
        let info = KeyInfo {
            networks: networks.collect::<Result<_, _>>().expect("valid networks"),
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
            environment: ENVIRONMENT.to_owned(),
            expires_at: next_year(),
            uses: 0,
        };
        let secret = secret(number);
        lock(&self.keys).insert(secret.clone(), info);
        format!("Bearer {secret}")
    }

    fn check(&self, request: &Request<Body>) -> Result<KeyInfo, StatusCode> {
        let secret = bearer(request).ok_or(StatusCode::UNAUTHORIZED)?;
        let info = {
            let mut keys = lock(&self.keys);
            let info = keys.get_mut(secret).ok_or(StatusCode::UNAUTHORIZED)?;
            info.uses += 1;
            info.clone()
        };
        if SystemTime::now() >= info.expires_at {
            return Err(StatusCode::UNAUTHORIZED);
        }
        let from = peer(request).ok_or(StatusCode::FORBIDDEN)?;
        let may_call_from = info.networks.iter().any(|network| network.contains(&from));
        if info.environment != ENVIRONMENT || !may_call_from {
            return Err(StatusCode::FORBIDDEN);
        }
        if !self.count(secret) {
            return Err(StatusCode::TOO_MANY_REQUESTS);
        }
        if !info.scopes.contains(NEEDED) {
            return Err(StatusCode::FORBIDDEN);
        }
        Ok(info)
    }

    fn count(&self, secret: &str) -> bool {
        let now = Instant::now();
        let mut logs = lock(&self.logs);
        let log = logs.entry(secret.to_owned()).or_default();
        log.retain(|at| now.duration_since(*at) < HOUR);
        let recent = log.iter().filter(|at| now.duration_since(**at) < MINUTE);
        let admitted = recent.count() < self.settings.per_minute as usize
            && log.len() < self.settings.per_hour as usize;
        if admitted {
            log.push(now);
        }
        admitted
    }
}

#[derive(Clone)]
struct Naive {
    state: Arc<State>,
    inner: Inner,
}

impl Service<Request<Body>> for Naive {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let (state, mut inner) = (Arc::clone(&self.state), self.inner);
        Box::pin(async move {
            match state.check(&request) {
                Ok(info) => {
                    request.extensions_mut().insert(info);
                    inner.call(request).await
                }
                Err(status) => Ok(refusal(status)),
            }
        })
    }
}

/// The logs are emptied after each round, because the time of a request grows with their length:
/// what is measured is the best case.
pub fn contender(settings: Settings) -> Contender {
    let state = Arc::new(State {
        settings,
        keys: Mutex::default(),
        logs: Mutex::default(),
    });
    let numbers = 0..settings.keys as u64;
    let credentials = Credentials {
        good: numbers.map(|number| state.add(number, &SCOPES)).collect(),
        unknown: format!("Bearer {}", secret(u64::MAX)),
        without_scope: state.add(u64::MAX - 1, &SCOPES[..2]),
    };
    let (logs, inner) = (Arc::clone(&state), Inner);
    let service = Naive { state, inner };
    Contender::tower("naive", Check::COMPLETE, credentials, service)
        .settling(move || lock(&logs.logs).values_mut().for_each(Vec::clear))
}
