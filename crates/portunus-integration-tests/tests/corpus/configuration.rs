//! The configurations that rows name: the five profiles, the default, and one for each choice of a
//! host.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use portunus::actor::{Directory, DirectoryError, OwnerStanding, Standing, User, UserRef};
use portunus::adapter::tower::AuthLayer;
use portunus::credit::{
    CreditAccount, CreditAccounts, Credits, MemoryCreditStore, NewGrant, Period,
};
use portunus::key::{Environment, KeyId, Owner, TenantId};
use portunus::limit::{
    Decision, LimitFields, LimitRequest, LimiterError, LocalLimiter, OnOutage, RateLimiter,
};
use portunus::network::{Cidr, ClientIp, ForwardedHeader, Transport};
use portunus::quota::{Quota, Quotas};
use portunus::request::TlsVersion;
use portunus::respond::ProblemDetails;
use portunus::verifier::{VerifiedToken, VerifierError};
use portunus::{
    AuthError, Authenticator, Clock, ErrorCode, KeyPrincipal, Portunus, Principal, TokenVerifier,
};
use portunus_profiles::Profile;

use crate::fixture::{Fixture, USER};
use portunus_test_support::{Setup, format, live, scope, tenant, user};

/// The prefix of the names of configurations whose host declares that it serves gRPC.
pub(crate) const SERVES_GRPC: &str = "grpc and ";

/// The trusted proxy, in configurations that have one.
const PROXY: &str = "127.0.0.2/32";

/// Builds the authenticator of a configuration. Each has its own limits.
pub(crate) fn authenticator(name: &str, fixture: &Fixture) -> Authenticator {
    match name.strip_prefix(SERVES_GRPC).unwrap_or(name) {
        // The defaults of a host that configures only a format and a store.
        "default" => Portunus::builder(format())
            .store(fixture.store.clone())
            .clock(fixture.clock.clone())
            .build()
            .unwrap()
            .authenticator()
            .clone(),
        name if name.starts_with("credits") => {
            let base = match name {
                "credits-and-windows" => "limited",
                "credits-and-actors" => "limited-and-delegating",
                "credits-and-mapped" => "mapped",
                _ => "neutral",
            };
            let mut service = builder(base, fixture).clock(fixture.clock.clone());
            if name == "credits-silently" {
                service = service.limit_fields(LimitFields::Off);
            }
            let service = service.builder().credits(credits(name, fixture));
            service.build().unwrap().authenticator().clone()
        }
        name => builder(name, fixture)
            .clock(fixture.clock.clone())
            .build()
            .unwrap(),
    }
}

/// Credits of the tenants `acme` and `closed`.
fn credits(name: &str, fixture: &Fixture) -> Credits {
    let grant = match name {
        // Nothing is granted.
        "credits" => return Credits::per_tenant(MemoryCreditStore::new()),
        "credits-monthly" => NewGrant::new(2).refilled(Period::monthly()),
        "credits-or-402" => NewGrant::new(2),
        "credits-monthly-or-402" => NewGrant::new(2).refilled(Period::monthly()),
        _ => NewGrant::new(10),
    };
    let store = Arc::new(MemoryCreditStore::new());
    let accounts = CreditAccounts::new(Arc::clone(&store));
    let accounts = accounts.with_clock(Arc::new(fixture.clock.clone()));
    for owner in ["acme", "closed"] {
        let account = CreditAccount::Tenant(tenant(owner));
        let granted = accounts.grant(&account, grant.clone()).now_or_never();
        granted.expect("the store in memory never waits").unwrap();
    }
    let credits = Credits::per_tenant(store);
    match name.ends_with("-or-402") {
        true => credits.payment_required(),
        false => credits,
    }
}

fn builder(name: &str, fixture: &Fixture) -> Setup {
    let bare = || Setup::on(fixture.store.clone());
    let neutral = || bare().bearer([format()]);
    let behind = |header| neutral().client_ip(ClientIp::behind([proxy()], header));
    let limited = |builder: Setup| {
        builder
            .limiter(limiter(fixture))
            .on_limiter_outage(OnOutage::Closed)
    };
    let few = || Quotas::new([Quota::per_minute(3).unwrap(), Quota::per_hour(5).unwrap()]).unwrap();
    let profile = |profile: Profile| limited(Setup::of(fixture.store.clone(), profile));
    let directory = || People(Arc::clone(&fixture.directory_down));
    match name {
        // No choices and no limits.
        "neutral" | "mapped" => neutral(),
        "ways" => bare()
            .bearer([format()])
            .basic([format()])
            .header("X-API-Key", [format()])
            .realm("ac\"me\\ Ltd\u{e9}"),
        "basic" => bare().basic([format()]),
        "header" => bare().header("X-API-Key", [format()]),
        "typed" => neutral().renderer(ProblemDetails::with_type_base("https://errors.example/")),
        "live" => neutral().environment(live()),
        "optional" => neutral().optional(),
        "limited" => limited(neutral()).quotas(few()),
        "limited-default" => limited(neutral()),
        "limited-legacy" => limited(neutral())
            .quotas(few())
            .limit_fields(LimitFields::WithLegacy),
        "limited-silently" => limited(neutral())
            .quotas(few())
            .limit_fields(LimitFields::Off),
        "limited-or-local" => limited(neutral())
            .quotas(few())
            .on_limiter_outage(OnOutage::Local),
        "limited-or-open" => limited(neutral())
            .quotas(few())
            .on_limiter_outage(OnOutage::Open),
        "limited-by-tenant" => {
            let tenant =
                Quotas::new([Quota::new("tenant", 4, Duration::from_secs(60)).unwrap()]).unwrap();
            limited(neutral()).quotas(few()).tenant_quotas(tenant)
        }
        "limited-by-cost" => limited(neutral())
            .quotas(few())
            .cost(|head| match head.method() {
                "POST" => 2,
                "DELETE" => 4,
                _ => 1,
            }),
        "limited-and-delegating" => limited(neutral()).quotas(few()).directory(directory()),
        "failures" => neutral().failure_quotas(Quotas::new([Quota::per_minute(2).unwrap()]).ok()),
        "proxied-failures" => behind(ForwardedHeader::XForwardedFor)
            .failure_quotas(Quotas::new([Quota::per_minute(2).unwrap()]).ok()),
        "proxied" => behind(ForwardedHeader::XForwardedFor),
        "forwarded" => behind(ForwardedHeader::Forwarded),
        "edge" => behind(ForwardedHeader::single("CF-Connecting-IP")),
        "hops" => neutral().client_ip(ClientIp::behind_hops(2, ForwardedHeader::XForwardedFor)),
        "secure" => neutral().transport(tls()),
        "delegating" => neutral().directory(directory()),
        "standing" => neutral().owner_standing(Owners),
        "verifier" => neutral().token_verifier(Tokens {
            now: fixture.clock.now(),
        }),
        "allsign" => profile(Profile::AllSign).directory(directory()),
        "allsign-live" => profile(Profile::AllSign).environment(live()),
        "allsign-proxied" => profile(Profile::AllSign)
            .client_ip(ClientIp::behind([proxy()], ForwardedHeader::XForwardedFor)),
        "insigner" => Setup::of(fixture.store.clone(), Profile::InSigner),
        "insigner-limited" => profile(Profile::InSigner).quotas(few()),
        "yousign" => Setup::of(fixture.store.clone(), Profile::Yousign),
        "yousign-production" => Setup::of(fixture.store.clone(), Profile::Yousign)
            .environment(Environment::new("production").unwrap()),
        // Behind a proxy that terminates TLS and reports the version.
        "iusign" => Setup::of(fixture.store.clone(), Profile::IuSign)
            .transport(tls())
            .owner_standing(Owners),
        "iusign-production" => Setup::of(fixture.store.clone(), Profile::IuSign)
            .transport(tls())
            .environment(Environment::new("production").unwrap()),
        "dropbox-sign" => Setup::of(fixture.store.clone(), Profile::DropboxSign),
        "dropbox-sign-limited" => profile(Profile::DropboxSign).quotas(few()),
        _ => panic!("no configuration {name:?}"),
    }
}

fn proxy() -> Cidr {
    PROXY.parse().unwrap()
}

fn tls() -> Option<Transport> {
    Some(Transport::tls(TlsVersion::V1_3).or_proven_by([proxy()], "X-TLS-Version"))
}

/// Whether a configuration maps principals to a host's own type, with a mapping that may refuse.
pub(crate) fn is_mapped(name: &str) -> bool {
    let name = name.strip_prefix(SERVES_GRPC).unwrap_or(name);
    matches!(name, "mapped" | "credits-and-mapped")
}

/// Whether the host of a configuration declares that it serves gRPC.
pub(crate) fn serves_grpc(name: &str) -> bool {
    name.starts_with(SERVES_GRPC)
}

/// Builds the layer of a configuration, for tower and axum.
pub(crate) fn layer(name: &str, authenticator: Authenticator) -> AuthLayer {
    let layer = AuthLayer::new(authenticator);
    let layer = if serves_grpc(name) {
        layer.grpc()
    } else {
        layer
    };
    if is_mapped(name) {
        layer.try_map_principal(customer)
    } else {
        layer
    }
}

/// A host's own customer type; a closed account is refused.
#[derive(Debug)]
pub(crate) struct Customer;

pub(crate) async fn customer(principal: KeyPrincipal) -> Result<Customer, AuthError> {
    match principal.owner().tenant_id.as_str() {
        "closed" => Err(AuthError::with_detail(
            ErrorCode::Forbidden,
            "The account is closed",
        )),
        _ => Ok(Customer),
    }
}

/// A limiter that fails while it is down.
#[derive(Debug)]
struct Limiter {
    local: LocalLimiter,
    down: Arc<AtomicBool>,
}

fn limiter(fixture: &Fixture) -> Limiter {
    let local = LocalLimiter::builder().clock(fixture.clock.clone()).build();
    Limiter {
        local,
        down: Arc::clone(&fixture.limiter_down),
    }
}

#[async_trait]
impl RateLimiter for Limiter {
    async fn acquire(&self, request: &LimitRequest<'_>) -> Result<Decision, LimiterError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(LimiterError::Unavailable("redis: connection reset".into()));
        }
        self.local.acquire(request).await
    }
}

/// The directory: the tenants `acme` and `tenant_abc123`, each with its own users.
#[derive(Debug)]
struct People(Arc<AtomicBool>);

#[async_trait]
impl Directory for People {
    async fn resolve(
        &self,
        tenant_id: &TenantId,
        named: &UserRef,
    ) -> Result<Option<Arc<User>>, DirectoryError> {
        if self.0.load(Ordering::SeqCst) {
            return Err(DirectoryError::unavailable("ldap: no route to host"));
        }
        let all = [
            User::new(user("u1"), tenant("acme")).with_email("u1@acme.example"),
            User::new(user("u2"), tenant("acme")).with_scopes([scope("document:write")]),
            suspended(User::new(user("gone"), tenant("acme")).with_email("gone@acme.example")),
            User::new(user("x1"), tenant("other")).with_email("x1@other.example"),
            User::new(user("guest"), tenant("other")).collaborating(),
            User::new(user(USER), tenant("tenant_abc123")).with_email("user@example.com"),
            User::new(
                user("7d444840-9dc0-11d1-b245-5ffdce74fad2"),
                tenant("tenant_abc123"),
            )
            .with_email("member@example.com"),
            User::new(
                user("f47ac10b-58cc-4372-a567-0e02b2c3d479"),
                tenant("tenant_xyz789"),
            )
            .with_email("outsider@example.com"),
        ];
        let is_meant = |found: &User| match named {
            UserRef::Id(id) => found.id == *id,
            UserRef::Email(email) => found
                .email
                .as_ref()
                .is_some_and(|known| known.eq_ignore_ascii_case(email)),
            _ => false,
        };
        let found = all.into_iter().find(is_meant);
        Ok(found
            .filter(|found| found.tenant_id == *tenant_id || found.collaborates)
            .map(Arc::new))
    }
}

fn suspended(mut user: User) -> User {
    user.suspended = true;
    user
}

/// The standing of owners, by the name of their tenant.
#[derive(Debug)]
struct Owners;

#[async_trait]
impl OwnerStanding for Owners {
    async fn standing(&self, owner: &Owner) -> Result<Standing, DirectoryError> {
        match owner.tenant_id.as_str() {
            "suspended" => Ok(Standing::Suspended),
            "roleless" => Ok(Standing::RoleLost),
            "unknowable" => Err(DirectoryError::unavailable("ldap: no route to host")),
            _ => Ok(Standing::Good),
        }
    }
}

/// A host's OAuth server: its tokens begin with `oauth_`.
#[derive(Debug)]
struct Tokens {
    now: std::time::SystemTime,
}

#[async_trait]
impl TokenVerifier for Tokens {
    fn recognizes(&self, token: &str) -> bool {
        token.starts_with("oauth_")
    }

    async fn verify(&self, token: &str) -> Result<Option<VerifiedToken>, VerifierError> {
        let good = || {
            let owner = Owner::user(tenant("acme"), user("u1"));
            VerifiedToken::new(KeyId::new("grant_1").unwrap(), owner, live())
                .with_scopes([scope("document:read")])
        };
        match token {
            "oauth_good" => Ok(Some(good())),
            "oauth_old" => Ok(Some(good().until(self.now))),
            "oauth_down" => Err(VerifierError::unavailable("connection refused")),
            _ => Ok(None),
        }
    }
}
