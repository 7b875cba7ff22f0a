//! The arguments. None of them holds a secret.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  export PORTUNUS_STORE=https://api.example.com/admin
  portunus keys list --status active
  portunus keys issue billing --scope document:read --expires-in 90d
  portunus keys rotate key_… --grace 7d
  portunus keys revoke key_… --reason leaked
  portunus events tail --outcome KEY_REVOKED
  portunus doctor --store postgres://portunus@db/keys --limiter redis://limits

Secrets are read from the environment, a file, standard input or a prompt; never from a flag:
  PORTUNUS_TOKEN    the operator's token over HTTP (or --token-file)
  PORTUNUS_STORE    the address, which may contain a password (or --store-file); PGPASSWORD
  PORTUNUS_KEY      the key for `verify` (or --key-file)

HTTP is recommended, because the service's own rules apply: its scopes, plans, quotas and the
permissions of the operator. On a store, you act with the credentials of the database: any change is
permitted and is recorded under the name in --operator. Use this to set up a service and in
emergencies. Issuing, rotating, importing, `primary` and `verify` there need --service.";

/// Manage the API keys of a service that uses Portunus.
#[derive(Debug, Parser)]
#[command(name = "portunus", version, propagate_version = true)]
#[command(after_help = EXAMPLES, after_long_help = crate::help(EXAMPLES))]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// sqlite:PATH, postgres://USER@HOST/DATABASE, or a management API such as
    /// https://HOST/admin; without a password [env: PORTUNUS_STORE]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(crate) store: Option<String>,
    /// A file with the address, which may contain a password; `-` for standard input
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "store")]
    pub(crate) store_file: Option<PathBuf>,
    /// The PostgreSQL schema of the tables
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) schema: Option<String>,
    /// The description of the service, for commands on a store (below)
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) service: Option<PathBuf>,
    /// The tenant; over HTTP, for new keys only
    #[arg(long, global = true, value_name = "ID")]
    pub(crate) tenant: Option<String>,
    /// Who acts on a store, for the audit [default: USER in the environment]
    #[arg(long, global = true, value_name = "USER")]
    pub(crate) operator: Option<String>,
    /// A file with the operator's token, for HTTP; `-` for standard input
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Send the token over http:// to another machine
    #[arg(long, global = true)]
    pub(crate) allow_http: bool,
    /// Print JSON: the records of the management API
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Issue, list, change, import and export keys
    #[command(subcommand)]
    Keys(Keys),
    /// Read and follow audit events
    #[command(subcommand)]
    Events(Events),
    /// Say what a request with a key would get; the key is read from PORTUNUS_KEY, a file or a
    /// prompt
    Verify(Verify),
    /// Create the schema of a database, or bring it up to date
    Migrate,
    /// Check an installation, and say what is wrong and how to fix it
    Doctor(Doctor),
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Issue a key; its secret alone is printed on standard output, once
    Issue(Issue),
    /// List keys, newest first
    List(List),
    /// Show a key
    Show { id: String },
    /// Change the name of a key
    Rename { id: String, name: String },
    /// End a key for good
    Revoke(Revoke),
    /// Replace a key by a successor with a new secret, which is printed like that of `issue`
    Rotate(Rotate),
    /// Make a key the primary one of its owner. Events are then signed with it: receivers that
    /// verify `event_hash` must use this key from now on
    Primary { id: String },
    /// Import keys by their digests, with their history, from JSON Lines or CSV
    ///
    /// Each line has the members of the management API's `POST /import`, or is a line of `keys
    /// export --with-digests`, of which id, version, predecessor, successor, delegation and the start
    /// of the masked key are not kept, and families get new names. A line that is refused is reported,
    /// and the others are imported. Keys that are there already are recognized: run the same file
    /// again if it stopped.
    Import {
        /// The file; `-` for standard input
        file: PathBuf,
        /// The format; by default CSV for a file whose name ends in .csv, and otherwise JSON Lines.
        /// CSV has a header of members by their paths, such as `digest.hex`. On a store, it needs
        /// --tenant
        #[arg(long)]
        format: Option<Format>,
    },
    /// Export keys, without secrets
    Export(Export),
}

#[derive(Debug, Args)]
pub(crate) struct Issue {
    /// The name of the key
    pub(crate) name: String,
    /// A scope; may be repeated
    #[arg(long = "scope", value_name = "SCOPE")]
    pub(crate) scopes: Vec<String>,
    /// app, user or access_token
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// The service's default if absent
    #[arg(long)]
    pub(crate) environment: Option<String>,
    /// The user that the key belongs to
    #[arg(long, value_name = "ID")]
    pub(crate) user: Option<String>,
    /// The user's e-mail address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) email: Option<String>,
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// Only reading requests
    #[arg(long)]
    pub(crate) read_only: bool,
    /// A workspace; may be repeated. Without it, the whole organization
    #[arg(long = "workspace", value_name = "ID")]
    pub(crate) workspaces: Vec<String>,
    /// A network or address; may be repeated. Without it, any address
    #[arg(long = "allow-ip", value_name = "CIDR")]
    pub(crate) allowed_ips: Vec<String>,
    #[arg(long)]
    pub(crate) plan: Option<String>,
    /// How long the key is valid, such as 90d, 12h, 30m
    #[arg(long, value_name = "TIME", conflicts_with = "expires_at")]
    pub(crate) expires_in: Option<String>,
    /// When the key expires, such as 2030-01-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) expires_at: Option<String>,
    /// Makes the call safe to repeat: one key is issued, and its secret shown once
    #[arg(long, value_name = "TEXT")]
    pub(crate) idempotency_key: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Filters {
    /// active, not_yet_valid, expired, disabled, revoked or unreadable
    #[arg(long)]
    pub(crate) status: Option<String>,
    #[arg(long)]
    pub(crate) environment: Option<String>,
    /// Only keys of this user
    #[arg(long, value_name = "USER")]
    pub(crate) owner: Option<String>,
    #[arg(long)]
    pub(crate) plan: Option<String>,
    /// Only a key and its successors
    #[arg(long)]
    pub(crate) family: Option<String>,
    #[arg(long)]
    pub(crate) kind: Option<String>,
    #[arg(long, value_name = "TIME")]
    pub(crate) expires_before: Option<String>,
    #[arg(long, value_name = "TIME")]
    pub(crate) unused_since: Option<String>,
    /// Text in the name, the description or the masked secret
    #[arg(long, value_name = "TEXT")]
    pub(crate) query: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) filters: Filters,
    /// The most keys
    #[arg(long, default_value_t = 50, value_name = "NUMBER")]
    pub(crate) limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    pub(crate) id: String,
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Do not ask; needed without a terminal
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Rotate {
    pub(crate) id: String,
    /// How long the old key still works, such as 7d; otherwise it is revoked at once
    #[arg(long, value_name = "TIME")]
    pub(crate) grace: Option<String>,
    /// Do not ask before the old key ends at once; needed without a terminal
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[arg(long, value_name = "TEXT")]
    pub(crate) idempotency_key: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// JSON Lines: the records of the management API
    Jsonl,
    Csv,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) filters: Filters,
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    pub(crate) format: Format,
    /// Add the digests, from a store only, so that the keys can be imported elsewhere. Keep such a
    /// file as safe as the database
    #[arg(long)]
    pub(crate) with_digests: bool,
    /// A new file, readable by you only, instead of standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Events {
    /// List audit events, newest first
    List(EventList),
    /// Print the latest events and then every new one, oldest first
    Tail(EventList),
    /// Verify a chain of JSON Lines, as written by the library's `JsonLines`
    ///
    /// The secret of a keyed chain is read from PORTUNUS_CHAIN_KEY or --key-file.
    Verify {
        file: PathBuf,
        /// The end of the chain that is known from elsewhere: a number of lines and a hash
        #[arg(long, value_name = "HEAD")]
        head: Option<String>,
        /// A file with the secret of the chain
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct EventList {
    /// Only events about this key
    #[arg(long, value_name = "ID")]
    pub(crate) key: Option<String>,
    /// Only events of this user, by id, e-mail address or name
    #[arg(long)]
    pub(crate) actor: Option<String>,
    /// OK, or an error code such as KEY_REVOKED
    #[arg(long)]
    pub(crate) outcome: Option<String>,
    /// Such as request, key.issue, key.revoke
    #[arg(long)]
    pub(crate) action: Option<String>,
    /// The most events; of `tail`, the number of events before the new ones
    #[arg(long, default_value_t = 20, value_name = "NUMBER")]
    pub(crate) limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// A file with the key; `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// A scope that the route requires; may be repeated
    #[arg(long = "require", value_name = "SCOPE")]
    pub(crate) require: Vec<String>,
    /// The client's address
    #[arg(long)]
    pub(crate) ip: Option<String>,
    #[arg(long)]
    pub(crate) method: Option<String>,
    #[arg(long)]
    pub(crate) workspace: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The server's own address for the bus, if the store is behind a pooler, or the Redis servers of
    /// the bus, as for the limiter; without a password [env: PORTUNUS_BUS]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) bus: Option<String>,
    /// The Redis server of the limiter, `cluster:` with the addresses of some nodes, or `sentinel:`
    /// with `redis://NAME` of the primary and the addresses of Sentinels, with commas between them;
    /// without a password [env: PORTUNUS_LIMITER]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) limiter: Option<String>,
    /// What the service's keys in Redis begin with
    #[arg(long, default_value = "portunus", value_name = "TEXT")]
    pub(crate) redis_prefix: String,
}
