//! Where the keys are: a SQLite file, a PostgreSQL database, or a management API.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::secret::Source;

/// The value of `--store`.
pub(crate) enum Target {
    Sqlite(PathBuf),
    Postgres(Zeroizing<String>),
    /// The address of the API, without a slash at its end.
    Http(String),
}

/// Returns an address from its flag, from the file of another flag, or from the environment, or
/// `None`. One with a password is not accepted from the flag.
pub(crate) fn address(
    name: &str,
    flag: Option<&str>,
    file: Option<&Path>,
    variable: &str,
) -> Result<Option<Zeroizing<String>>, Failure> {
    match flag {
        Some(text) if has_password(text) => Err(Failure::usage(format!(
            "the address of --{name} has a password, which other users of this machine can read: set \
             {variable} in the environment{}",
            match name {
                "store" => ", name a file by --store-file, or give the password in PGPASSWORD",
                _ => "",
            }
        ))),
        Some(text) => Ok(Some(Zeroizing::new(text.to_owned()))),
        None => Source {
            what: "address",
            file,
            flag: "--store-file",
            variable,
        }
        .given(),
    }
}

/// Whether an address may have a password: in its authority, also where special characters of the
/// password are not encoded, or as a parameter.
fn has_password(text: &str) -> bool {
    let (scheme, rest) = text.split_once(':').unwrap_or_default();
    match scheme {
        "sqlite" => return false,
        // A comma of a password that is not encoded ends no address.
        "cluster" | "sentinel" => {
            let parts: Vec<&str> = rest.split(',').collect();
            let mut addresses = parts.chunk_by(|_, next| !next.contains("://"));
            return addresses.any(|parts| {
                let address = parts.join(",");
                let rest = address
                    .split_once("://")
                    .map_or(&*address, |(_, rest)| rest);
                has_password(&format!("redis:{rest}"))
            });
        }
        _ => {}
    }
    let in_authority = rest
        .rsplit_once('@')
        .is_some_and(|(before, _)| before.contains(':'));
    let parameters = text.split_once('?').map_or("", |(_, all)| all);
    let as_parameter = parameters.split(['&', ';']).any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        // Also where characters of the name are percent-encoded.
        name.contains('%') || name.to_ascii_lowercase().contains("pass")
    });
    in_authority || as_parameter
}

impl Target {
    /// Parses an address. No part of one that cannot be parsed is reported.
    pub(crate) fn parse(text: &Zeroizing<String>) -> Result<Self, Failure> {
        match text.split_once(':') {
            Some(("sqlite", path)) => file(path).map(Self::Sqlite),
            Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => {
                Ok(Self::Postgres(text.clone()))
            }
            Some(("http" | "https", rest)) if rest.starts_with("//") => api(text).map(Self::Http),
            _ => Err(Failure::usage(
                "the address of the store must be sqlite:PATH, postgres://USER@HOST/DATABASE, or that \
                 of a management API such as https://HOST/admin",
            )),
        }
    }
}

/// Parses the path of `sqlite:PATH`, which may also be written `sqlite://PATH`.
fn file(text: &str) -> Result<PathBuf, Failure> {
    let path = text.strip_prefix("//").unwrap_or(text);
    // Other tools parse these; here they would become part of the file name.
    let is_special = path.starts_with("file:") || path.starts_with(":memory:");
    match path.is_empty() || path.contains('?') || is_special {
        true => Err(Failure::usage("sqlite:PATH takes the plain path of a file")),
        false => Ok(path.into()),
    }
}

fn api(text: &str) -> Result<String, Failure> {
    let authority = text.split('/').nth(2).unwrap_or_default();
    if text.contains('@') {
        return Err(Failure::usage(
            "the address of a management API has no user and password: set PORTUNUS_TOKEN",
        ));
    }
    if authority.is_empty() || text.contains(['?', '#']) || text.contains(char::is_whitespace) {
        return Err(Failure::usage(
            "the address of a management API must have the form https://HOST/PATH",
        ));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_password_is_noticed() {
        for address in [
            "postgres://u:p@host/db",
            "postgres://u:p@ss@host/db",
            "postgres://u:p/x@host/db",
            "postgres://host/db?user=u&password=p",
            "postgres://host/db?PASSWORD=p",
            "postgres://host/db?p%61ssword=p",
            "postgres://host/db?a=b&passfile=p",
            "redis://:p@host",
            "https://u:p@host/admin",
            "postgres:u:p@host",
            "cluster:redis://a:1,redis://:p@b:2",
            "cluster:redis://u:p,p@a",
            "cluster:u:p@a",
            "sentinel:redis://u:p@main,redis://a",
            "sentinel:redis://main,rediss://u:p@a:1",
        ] {
            assert!(has_password(address), "{address}");
        }
        for address in [
            "postgres://u@host:5432/db?sslmode=disable&host=%2Ftmp",
            "sqlite:/a:b@c.db",
            "cluster:redis://a:7000,redis://u@b:7001",
            "sentinel:redis://u@main/2,redis://[::1]:26379",
            "http://[::1]:8080/admin",
        ] {
            assert!(!has_password(address), "{address}");
        }
    }
}
