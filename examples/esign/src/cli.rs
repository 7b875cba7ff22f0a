//! The command line: the flags, and one-line errors for invalid ones.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, ValueEnum};
use portunus::key::Environment;
use portunus::limit::OnOutage;
use portunus::network::{Cidr, ClientIp, ForwardedHeader};
use portunus_admin::Origin;
use portunus_profiles::Profile;

use crate::redis::RedisServer;
use crate::storage::{BusAddress, Location};

/// Five e-signature APIs on Portunus.
#[derive(Debug, Parser)]
#[command(name = "esign")]
pub(crate) struct Flags {
    /// The API to serve: allsign, insigner, yousign, iusign or dropbox-sign.
    #[arg(long, default_value = "allsign", value_name = "NAME")]
    pub(crate) profile: Profile,
    /// The address to listen on; port 0 picks a free port.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "IP:PORT")]
    pub(crate) listen: SocketAddr,
    /// The web framework that serves the API.
    #[arg(long, default_value = "axum")]
    pub(crate) adapter: Adapter,
    /// The store for keys, usage and audit events: sqlite:PATH, postgres://… or memory [default:
    /// sqlite:esign.db for allsign, sqlite:esign-PROFILE.db for the other profiles].
    #[arg(long, value_name = "STORE")]
    pub(crate) store: Option<Location>,
    /// Where nodes publish changes to each other: Redis, with the forms of --limiter, or the database
    /// of --store with the server's own address, postgres://…, if --store goes through a connection
    /// pooler such as PgBouncer. By default, the database of --store.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) bus: Option<BusAddress>,
    /// Accept only keys of this environment. By default, all environments are served and their data
    /// is kept separate.
    #[arg(long, value_name = "NAME")]
    pub(crate) environment: Option<Environment>,
    /// Where requests are counted: local, which is in this process, or for all nodes together in
    /// redis://… or rediss://… (with TLS), cluster:redis://…,redis://… (some nodes of a cluster), or
    /// sentinel:redis://NAME,redis://… (the primary's name and its Sentinels).
    #[arg(long, default_value = "local", value_name = "LIMITER")]
    pub(crate) limiter: Limiter,
    /// How requests are handled while the rate limiter is unavailable.
    #[arg(long, default_value = "local")]
    pub(crate) on_limiter_outage: Outage,
    /// Each request costs one unit of its tenant's credits, which are in the store; an owner grants
    /// them in the management API.
    #[arg(long)]
    pub(crate) credits: bool,
    /// A network of trusted proxies whose forwarded header is used; repeatable.
    #[arg(long, value_name = "CIDR")]
    pub(crate) trusted_proxy: Vec<Cidr>,
    /// The header in which trusted proxies report the client's address.
    #[arg(long, default_value = "x-forwarded-for")]
    pub(crate) forwarded_header: Header,
    /// Another site whose pages may write to /admin (`https://host` or `https://host:8443`);
    /// repeatable.
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) trusted_origin: Vec<Origin>,
    /// A certificate chain (PEM): serves TLS 1.3 only.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Print one line of JSON instead of the banner when the server is ready.
    #[arg(long)]
    pub(crate) ready_json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Adapter {
    Axum,
    Actix,
}

/// The value of `--limiter`.
#[derive(Debug, Clone)]
pub(crate) enum Limiter {
    Local,
    Redis(RedisServer),
}

impl FromStr for Limiter {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "local" => Ok(Self::Local),
            _ if RedisServer::is_meant(text) => text.parse().map(Self::Redis),
            _ => Err(
                "expected local, redis://…, rediss://…, cluster:redis://… or \
                     sentinel:redis://…"
                    .into(),
            ),
        }
    }
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

/// Whether an error is about an invalid value of `--store`.
fn is_about_the_store(error: &clap::Error) -> bool {
    let flag = error.get(ContextKind::InvalidArg);
    error.kind() == ErrorKind::ValueValidation
        && matches!(flag, Some(ContextValue::String(flag)) if flag.starts_with("--store"))
}

impl Flags {
    /// Returns the store to open. Each profile has a default file of its own, because keys and
    /// quotas differ between the APIs.
    pub(crate) fn location(&self) -> Location {
        let file = match self.profile {
            Profile::AllSign => "esign.db".into(),
            profile => format!("esign-{profile}.db"),
        };
        self.store
            .clone()
            .unwrap_or_else(|| Location::Sqlite(file.into()))
    }

    /// Returns the configuration that resolves the client's address.
    pub(crate) fn client_ip(&self) -> ClientIp {
        let header = match self.forwarded_header {
            Header::XForwardedFor => ForwardedHeader::XForwardedFor,
            Header::Forwarded => ForwardedHeader::Forwarded,
        };
        ClientIp::behind(self.trusted_proxy.iter().copied(), header)
    }

    /// Parses the flags. On failure, returns the exit code: 0 after printing the help on stdout, 2
    /// after printing one line on stderr.
    pub(crate) fn parse() -> Result<Self, ExitCode> {
        let flags = match Self::try_parse() {
            Ok(flags) => flags,
            Err(error) if error.kind() == ErrorKind::DisplayHelp => {
                let _ = error.print();
                return Err(ExitCode::SUCCESS);
            }
            // The value is omitted, because a mistyped URL may contain a password.
            Err(error) if is_about_the_store(&error) => {
                let expected =
                    std::error::Error::source(&error).map_or_else(String::new, ToString::to_string);
                return Err(super::fail(&format!("--store: {expected}; see --help")));
            }
            Err(error) => {
                return Err(super::fail(&format!("{}; see --help", describe(&error))));
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
                    "--environment {asked}: unknown environment; {profile} has {}",
                    names.join(", ")
                )))
            }
            _ => Ok(flags),
        }
    }
}

/// Describes a command-line error on one line. URLs of databases and of Redis may contain passwords,
/// so one that cannot be parsed is never shown, regardless of the flag or position.
fn describe(error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let (flag, value) = (
        context(ContextKind::InvalidArg),
        context(ContextKind::InvalidValue),
    );
    if error.kind() == ErrorKind::ValueValidation {
        // The errors of these flags do not quote a URL.
        let flags = ["--store", "--bus", "--limiter"];
        if flags.iter().any(|name| flag.starts_with(name))
            && let Some(cause) = std::error::Error::source(error)
        {
            return format!("invalid value for {flag}: {cause}");
        }
        if looks_like_database_url(value) {
            return format!("invalid value for {flag}");
        }
    }
    if let (ErrorKind::MissingRequiredArgument, Some(ContextValue::Strings(missing))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
    {
        return format!("also required: {}", missing.join(", "));
    }
    let mut text = error.to_string();
    for argument in std::env::args() {
        let (flag, value) = argument.split_once('=').unwrap_or_default();
        let value = if flag.starts_with("--") {
            value
        } else {
            &argument
        };
        if looks_like_database_url(value) {
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
        .map_or("invalid flags", |line| line.trim_start_matches("error: "));
    let choices = lines
        .iter()
        .find(|line| line.starts_with("[possible values"))
        .copied()
        .unwrap_or_default();
    format!("{what} {choices}")
}

/// Whether a string may be intended as a database URL.
fn looks_like_database_url(text: &str) -> bool {
    let is_web_url = text.starts_with("http://") || text.starts_with("https://");
    text.contains('@')
        || text.contains("//") && !is_web_url
        || text.starts_with("postgres")
        || RedisServer::is_meant(text)
}
