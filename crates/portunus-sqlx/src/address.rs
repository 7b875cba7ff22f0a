//! Addresses of PostgreSQL databases. They may contain passwords: no part of one that cannot be
//! parsed is reported or logged.

use std::net::IpAddr;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::fault::OpenError;

/// The parameters that sqlx knows. It logs others with their values.
const KNOWN: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// Parses an address.
pub(crate) fn read(address: &str) -> Result<PgConnectOptions, OpenError> {
    let known = match address.split_once('?') {
        None => address.to_owned(),
        Some((place, parameters)) => {
            let (known, unknown): (Vec<&str>, Vec<&str>) =
                parameters.split('&').partition(|pair| is_known(pair));
            if !unknown.is_empty() {
                let count = unknown.len();
                tracing::warn!(count, "the database address has unknown parameters");
            }
            format!("{place}?{}", known.join("&"))
        }
    };
    let scheme = known.split("//").next().unwrap_or_default();
    match known.parse() {
        Ok(options) if matches!(scheme, "postgres:" | "postgresql:") => Ok(options),
        _ => Err(OpenError::Unavailable {
            cause: "the database address is invalid: it must have the form \
                    postgres://USER:PASSWORD@HOST:PORT/DATABASE, with special characters \
                    percent-encoded"
                .into(),
        }),
    }
}

fn is_known(pair: &str) -> bool {
    let name = pair.split('=').next().unwrap_or_default();
    let is_option = name.starts_with("options[") || name.starts_with("options%5B");
    is_option || KNOWN.contains(&name)
}

/// Warns if digests of keys may be sent to the database over a network without encryption.
pub(crate) fn warn_of_clear_text(options: &PgConnectOptions) {
    let mode = options.get_ssl_mode();
    let may_be_clear = matches!(
        mode,
        PgSslMode::Allow | PgSslMode::Disable | PgSslMode::Prefer
    );
    let host = options.get_host();
    if may_be_clear && options.get_socket().is_none() && !is_here(host) {
        tracing::warn!(
            host,
            "digests of keys may go to the database in clear text (sslmode {mode:?}): use \
             sslmode=verify-full"
        );
    }
}

/// Whether a host is this machine.
fn is_here(host: &str) -> bool {
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    let is_loopback = address.is_some_and(|address| address.to_canonical().is_loopback());
    is_loopback || host.starts_with('/') || host == "localhost" || host.ends_with(".localhost")
}
