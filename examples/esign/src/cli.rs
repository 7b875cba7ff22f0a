//! The command line: what can be chosen, and one clear line for what cannot.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, ValueEnum};
use portunus::key::Environment;
use portunus::limit::OnOutage;
use portunus::network::{Cidr, ClientIp, ForwardedHeader};
use portunus_admin::Origin;
use portunus_profiles::Profile;

use crate::storage::{BusAddress, Place};

/// Five e-signature APIs on Portunus.
#[derive(Debug, Parser)]
#[command(name = "esign")]
pub(crate) struct Flags {
    /// Which API: allsign, insigner, yousign, iusign, dropbox-sign.
    #[arg(long, default_value = "allsign", value_name = "NAME")]
    pub(crate) profile: Profile,
    /// Where to listen; port 0 picks one.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "IP:PORT")]
    pub(crate) listen: SocketAddr,
    /// The framework that serves.
    #[arg(long, default_value = "axum")]
    pub(crate) adapter: Adapter,
    /// Where keys, usage and events are kept: sqlite:PATH, postgres://… or memory [default:
    /// sqlite:esign.db, and for the other APIs a file of their own, sqlite:esign-NAME.db].
    #[arg(long, value_name = "PLACE")]
    pub(crate) store: Option<Place>,
    /// Where nodes hear of each other, if --store is the address of a connection pooler such as
    /// PgBouncer: that of the same database on the server itself, postgres://….
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) bus: Option<BusAddress>,
    /// Serve keys of this environment only; absent, all are served and their data is kept apart.
    #[arg(long, value_name = "NAME")]
    pub(crate) environment: Option<Environment>,
    /// Where requests are counted.
    #[arg(long, default_value = "local")]
    pub(crate) limiter: Limiter,
    /// What happens while the limiter gives no answer.
    #[arg(long, default_value = "local")]
    pub(crate) on_limiter_outage: Outage,
    /// Believe the forwarded header of proxies in this network; may be given again.
    #[arg(long, value_name = "CIDR")]
    pub(crate) trusted_proxy: Vec<Cidr>,
    /// The one header that trusted proxies set.
    #[arg(long, default_value = "x-forwarded-for")]
    pub(crate) forwarded_header: Header,
    /// Another site whose pages may write to /admin (`https://host` or `https://host:8443`); repeatable.
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) trusted_origin: Vec<Origin>,
    /// Serve TLS 1.3 only, with this certificate chain (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Make the first line of stdout machine-readable.
    #[arg(long)]
    pub(crate) ready_json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Adapter {
    Axum,
    Actix,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Limiter {
    Local,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Outage {
    Local,
    Closed,
    Open,
}

impl From<Outage> for OnOutage {
    fn from(outage: Outage) -> Self {
        match outage {
            Outage::Local => Self::Local,
            Outage::Closed => Self::Closed,
            Outage::Open => Self::Open,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Header {
    XForwardedFor,
    Forwarded,
}

/// Whether a value is refused that `--store` was given.
fn is_about_the_store(error: &clap::Error) -> bool {
    let flag = error.get(ContextKind::InvalidArg);
    error.kind() == ErrorKind::ValueValidation
        && matches!(flag, Some(ContextValue::String(flag)) if flag.starts_with("--store"))
}

impl Flags {
    /// Where everything is kept: the APIs share no file by accident, as they have keys and quotas
    /// of their own.
    pub(crate) fn place(&self) -> Place {
        let file = match self.profile {
            Profile::AllSign => "esign.db".into(),
            profile => format!("esign-{profile}.db"),
        };
        self.store
            .clone()
            .unwrap_or_else(|| Place::Sqlite(file.into()))
    }

    /// How the client's address is found.
    pub(crate) fn client_ip(&self) -> ClientIp {
        let header = match self.forwarded_header {
            Header::XForwardedFor => ForwardedHeader::XForwardedFor,
            Header::Forwarded => ForwardedHeader::Forwarded,
        };
        ClientIp::behind(self.trusted_proxy.iter().copied(), header)
    }

    /// The flags, or how to end: help on stdout with 0, one line on stderr with 2.
    pub(crate) fn parse() -> Result<Self, ExitCode> {
        let flags = match Self::try_parse() {
            Ok(flags) => flags,
            Err(error) if error.kind() == ErrorKind::DisplayHelp => {
                let _ = error.print();
                return Err(ExitCode::SUCCESS);
            }
            // Without the value: a mistyped address may hold a password.
            Err(error) if is_about_the_store(&error) => {
                let expected =
                    std::error::Error::source(&error).map_or_else(String::new, ToString::to_string);
                return Err(super::fail(&format!("--store: {expected}; see --help")));
            }
            Err(error) => {
                return Err(super::fail(&format!("{}; see --help", told(&error))));
            }
        };
        match &flags.environment {
            Some(asked) if !flags.profile.environments().contains(asked) => {
                let names: Vec<_> = flags
                    .profile
                    .environments()
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                let profile = flags.profile;
                Err(super::fail(&format!(
                    "--environment {asked}: {profile} has {}",
                    names.join(", ")
                )))
            }
            _ => Ok(flags),
        }
    }
}

/// What is wrong with the flags, on one line. Addresses of databases may hold passwords: of one
/// that cannot be read nothing is told, wherever it stands.
fn told(error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let (flag, value) = (
        context(ContextKind::InvalidArg),
        context(ContextKind::InvalidValue),
    );
    if error.kind() == ErrorKind::ValueValidation {
        // What these say of a value they say without it.
        if (flag.starts_with("--store") || flag.starts_with("--bus"))
            && let Some(cause) = std::error::Error::source(error)
        {
            return format!("invalid value for {flag}: {cause}");
        }
        if may_be_an_address(value) {
            return format!("invalid value for {flag}");
        }
    }
    let mut text = error.to_string();
    for argument in std::env::args() {
        let (flag, value) = argument.split_once('=').unwrap_or_default();
        let value = if flag.starts_with("--") {
            value
        } else {
            &argument
        };
        if may_be_an_address(value) {
            text = text.replace(value, "…");
        }
    }
    let lines: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let what = lines
        .first()
        .map_or("bad flags", |line| line.trim_start_matches("error: "));
    let choices = lines
        .iter()
        .find(|line| line.starts_with("[possible values"))
        .copied()
        .unwrap_or_default();
    format!("{what} {choices}")
}

/// Whether this may be meant as the address of a database.
fn may_be_an_address(text: &str) -> bool {
    let is_a_page = text.starts_with("http://") || text.starts_with("https://");
    text.contains('@') || text.contains("//") && !is_a_page || text.starts_with("postgres")
}
