//! The management API over HTTP.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use ureq::Agent;
use ureq::http::{Request, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use zeroize::Zeroizing;

use crate::api::{Answer, Call, no_answer};
use crate::failure::{Exit, Failure};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long a call may take: writes wait for the service's store and bus.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// The largest answer in bytes: a page of 500 of the largest records.
const MOST_BYTES: u64 = 256 << 20;

/// A management API and the token of its operator.
pub(crate) struct Http {
    agent: Agent,
    base: String,
    authorization: Zeroizing<String>,
}

impl Http {
    /// Describes the API at an address; nothing is sent yet.
    pub(crate) fn new(base: &str, token: &str, allow_http: bool) -> Result<Self, Failure> {
        let uri: Uri = base
            .parse()
            .map_err(|_| Failure::usage("the address of the management API is invalid"))?;
        let is_tls = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default();
        if !is_tls && !is_here(host) && !allow_http {
            return Err(Failure::usage(
                "http:// would send the token over the network in clear text: use https://, or \
                 --allow-http on a network that you trust",
            ));
        }
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Failure::usage(
                "the token must be visible ASCII characters without spaces",
            ));
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // The token is for this address only.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_global(Some(CALL_LIMIT))
            .user_agent(concat!("portunus/", env!("CARGO_PKG_VERSION")));
        if is_tls {
            config = config.tls_config(tls()?);
        } else if is_here(host) {
            config = config.proxy(None);
        }
        Ok(Self {
            agent: config.build().into(),
            base: base.to_owned(),
            authorization: Zeroizing::new(format!("Bearer {token}")),
        })
    }

    pub(crate) fn call(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        self.send(call).map(|(answer, _)| answer)
    }

    /// Returns the time that the server states in an answer.
    pub(crate) fn time(&self) -> Result<Option<SystemTime>, Failure> {
        self.send(&Call::get("/keys?limit=1")).map(|(_, date)| date)
    }

    fn send(&self, call: &Call<'_>) -> Result<(Answer, Option<SystemTime>), Failure> {
        let mut request = Request::builder()
            .method(call.method)
            .uri(format!("{}{}", self.base, call.path))
            .header("authorization", self.authorization.as_str())
            .header("accept", "application/json");
        let content = call.content();
        if let Some((media, _)) = &content {
            request = request.header("content-type", *media);
        }
        if let Some(key) = call.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let sent = match &content {
            Some((_, bytes)) => request.body(&bytes[..]).map(|it| self.agent.run(it)),
            None => request.body(()).map(|it| self.agent.run(it)),
        };
        let sent = sent.map_err(|error| Failure::usage(format!("cannot send this: {error}")))?;
        let lost = |error: &ureq::Error| {
            no_answer(
                call,
                &format!("the management API does not answer: {error}"),
            )
        };
        let mut response = sent.map_err(|error| match was_sent(&error) {
            true => lost(&error),
            false => {
                let text = format!("no connection to the management API: {error}");
                Failure::new(Exit::Unavailable, text)
            }
        })?;
        let field = |name: &str| response.headers().get(name)?.to_str().ok();
        let retry_after = field("retry-after").and_then(|text| text.parse().ok());
        let date = field("date").and_then(http_time);
        let status = response.status().as_u16();
        let body = response
            .body_mut()
            .with_config()
            .limit(MOST_BYTES)
            .read_to_vec();
        let answer = Answer {
            status,
            body: Zeroizing::new(body.map_err(|error| lost(&error))?),
            retry_after: retry_after.map(Duration::from_secs),
        };
        Ok((answer, date))
    }
}

/// Whether the request may have reached the service.
fn was_sent(error: &ureq::Error) -> bool {
    use ureq::Error;
    let is_refused = |error: &std::io::Error| {
        let inner = error.get_ref().and_then(|it| it.downcast_ref());
        error.kind() == std::io::ErrorKind::ConnectionRefused
            || matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
    };
    match error {
        Error::HostNotFound | Error::ConnectionFailed | Error::BadUri(_) => false,
        Error::Tls(_) | Error::Rustls(_) | Error::InvalidProxyUrl => false,
        Error::Io(error) => !is_refused(error),
        _ => true,
    }
}

/// Trusts the certificates that the system trusts.
fn tls() -> Result<TlsConfig, Failure> {
    // Another library of this process may have chosen already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let found = rustls_native_certs::load_native_certs();
    let certificates: Vec<_> = found
        .certs
        .iter()
        .map(|it| Certificate::from_der(it).to_owned())
        .collect();
    if certificates.is_empty() {
        return Err(Failure::other(
            "the system has no root certificates: install ca-certificates, or set SSL_CERT_FILE",
        ));
    }
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&certificates))
        .build())
}

/// Whether a host is this machine.
fn is_here(host: &str) -> bool {
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    address.is_some_and(|it| it.to_canonical().is_loopback())
        || host == "localhost"
        || host.ends_with(".localhost")
}

/// Parses the preferred format of `Date` (RFC 9110 §5.6.7).
fn http_time(text: &str) -> Option<SystemTime> {
    let time = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(time.timestamp().into())
}
