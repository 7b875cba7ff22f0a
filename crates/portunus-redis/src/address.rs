//! Addresses of servers. They may contain passwords: no part of one that cannot be parsed is
//! reported, and of others only the host and the port.

use std::fmt;

use redis::{ConnectionInfo, IntoConnectionInfo};

use crate::RedisError;

/// The form of an address.
const FORM: &str = "it must have the form redis://USER:PASSWORD@HOST:PORT/DATABASE or rediss://… \
                    (TLS), with special characters percent-encoded";

/// The port of a Sentinel whose address names none.
const SENTINEL_PORT: u16 = 26_379;

/// Lets rustls use ring in this process, unless the host has chosen something.
#[cfg(feature = "tls")]
fn choose_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may have chosen meanwhile.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// Where a server is. `Display` shows no credentials.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A parsed address: the place, and how to connect to a server with these credentials.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) place: Place,
    info: ConnectionInfo,
}

impl Address {
    /// Parses an address.
    pub(crate) fn read(address: &str) -> Result<Self, RedisError> {
        let invalid = || RedisError::Address(format!("the address of Redis is invalid: {FORM}"));
        let (scheme, rest) = address.split_once("://").ok_or_else(invalid)?;
        let is_tls = match scheme {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(invalid()),
        };
        if is_tls && cfg!(not(feature = "tls")) {
            let why = "the address of Redis asks for TLS (rediss://), which needs the feature `tls` \
                       of portunus-redis";
            return Err(RedisError::Address(why.to_owned()));
        }
        #[cfg(feature = "tls")]
        if is_tls {
            choose_cryptography();
        }
        // A special character of a password that is not encoded would end the authority: the rest
        // of the password would be a path, and its start a host or a port that errors show.
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let is_plain = |text: &str| !text.contains(['?', '#', '@', '\\']);
        let host = authority
            .rsplit_once('@')
            .map_or(
                authority,
                |(credentials, host)| {
                    if is_plain(credentials) { host } else { "" }
                },
            );
        let is_database = path.bytes().all(|byte| byte.is_ascii_digit());
        if host.is_empty() || !is_plain(host) || !is_database {
            return Err(invalid());
        }
        let info = address.into_connection_info().map_err(|_| invalid())?;
        let place = match info.addr() {
            redis::ConnectionAddr::Tcp(host, port) => (host, *port),
            redis::ConnectionAddr::TcpTls { host, port, .. } => (host, *port),
            _ => return Err(invalid()),
        };
        let place = Place {
            host: place.0.clone(),
            port: place.1,
        };
        // The connection's name is not needed, and the user may not be permitted to set it.
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
        let info = info.set_redis_settings(settings).set_tcp_settings(tcp);
        Ok(Self { place, info })
    }

    /// Parses the address of a Sentinel.
    pub(crate) fn of_sentinel(address: &str) -> Result<Self, RedisError> {
        let mut read = Self::read(address)?;
        if read.database() != 0 {
            let why = "the address of a Sentinel names no database";
            return Err(RedisError::Address(why.to_owned()));
        }
        let authority = address.trim_end_matches('/');
        if !authority.ends_with(&format!(":{}", read.place.port)) {
            read.place.port = SENTINEL_PORT;
        }
        Ok(read)
    }

    /// Returns the database's number.
    pub(crate) fn database(&self) -> i64 {
        self.info.redis_settings().db()
    }

    /// Returns how to connect to another server with the same credentials.
    pub(crate) fn at(&self, place: &Place) -> ConnectionInfo {
        let (host, port) = (place.host.clone(), place.port);
        let place = match self.info.addr() {
            redis::ConnectionAddr::TcpTls {
                insecure,
                tls_params,
                ..
            } => redis::ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => redis::ConnectionAddr::Tcp(host, port),
        };
        self.info.clone().set_addr(place)
    }
}
