//! `portunus`: the operator's command line.
//!
//! Reads the arguments, opens the way to the keys, runs one command and exits with a code that says
//! what went wrong.

mod api;
mod args;
mod doctor;
mod events;
mod export;
mod failure;
mod http;
mod import;
mod keys;
mod local;
mod output;
mod secret;
mod service;
mod target;
mod text;
mod verify;

use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind};
use clap::{CommandFactory, Parser};

use api::Api;
use args::{Cli, Command, Events, Global};
use failure::{EXIT_CODES, Exit, Failure};
use http::Http;
use local::{Database, Local, runtime};
use portunus_sqlx::SqliteStore;
use secret::Source;
use service::Service;
use target::{Target, address};

fn main() -> ExitCode {
    let done = match Cli::try_parse() {
        Ok(cli) => run(&cli),
        Err(error) => refuse(&error),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if failure.exit != Exit::Closed {
                output::note(&format!("portunus: {failure}"));
            }
            failure.code()
        }
    }
}

/// The end of `--help`.
fn help(examples: &str) -> String {
    format!(
        "{examples}\n\n{}\n\n{}\n\n{EXIT_CODES}",
        service::HELP,
        output::SHAPES
    )
}

/// Prints help, or says what is wrong with the arguments. A value is not repeated: it may be a secret
/// that was typed in the wrong place.
fn refuse(error: &clap::Error) -> Result<(), Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return Ok(error.print()?),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            return Err(Failure::usage("a command is missing"));
        }
        _ => {}
    }
    let flag = match error.get(ContextKind::InvalidArg) {
        Some(clap::error::ContextValue::String(name)) => Some(name.clone()),
        Some(clap::error::ContextValue::Strings(names)) => Some(names.join(" ")),
        _ => None,
    };
    let flag = flag.map(|name| name.split('=').next().unwrap_or_default().to_owned());
    let flag = flag.filter(|name| name.starts_with(['-', '<', '[']));
    let what = match error.kind() {
        ErrorKind::UnknownArgument => "unexpected argument",
        ErrorKind::InvalidSubcommand => "unknown command",
        ErrorKind::MissingRequiredArgument => "missing argument",
        ErrorKind::MissingSubcommand => "a command is missing",
        ErrorKind::ArgumentConflict => "these arguments exclude each other, or one is repeated",
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => "invalid or missing value",
        _ => "the arguments cannot be read",
    };
    let flag = flag.map_or_else(String::new, |name| format!(": {name}"));
    Err(Failure::usage(format!(
        "{what}{flag}; see `portunus --help`"
    )))
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let global = &cli.global;
    match &cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "portunus", &mut script);
            output::write(&script)
        }
        Command::Events(Events::Verify {
            file,
            head,
            key_file,
        }) => events::verify(file, head.as_deref(), key_file.as_deref()),
        Command::Migrate => migrate(global),
        Command::Doctor(asked) => doctor::run(global, asked),
        Command::Keys(command) => {
            let api = open(global, keys::described(command))?;
            let done = keys::run(&api, global, command);
            finish(&api, done)
        }
        Command::Events(Events::List(asked)) => {
            let api = open(global, None)?;
            let done = events::list(&api, global, asked);
            finish(&api, done)
        }
        Command::Events(Events::Tail(asked)) => {
            let api = open(global, None)?;
            let done = events::tail(&api, global, asked);
            finish(&api, done)
        }
        Command::Verify(asked) => {
            let api = open(global, Some("verify"))?;
            let done = verify::run(&api, global, asked);
            finish(&api, done)
        }
    }
}

/// A failure of the command counts more than an event that was not written, which is reported beside
/// it.
fn finish(api: &Api, done: Result<(), Failure>) -> Result<(), Failure> {
    match (done, api.finish()) {
        (Ok(()), finished) => finished,
        (Err(failure), Ok(())) => Err(failure),
        (Err(failure), Err(unwritten)) => Err(failure.and(&unwritten.to_string())),
    }
}

/// Reads where the keys are.
pub(crate) fn target(global: &Global) -> Result<Target, Failure> {
    let file = global.store_file.as_deref();
    match address("store", global.store.as_deref(), file, "PORTUNUS_STORE")? {
        Some(text) => Target::parse(&text),
        None => Err(Failure::usage(
            "no store: give --store, or set PORTUNUS_STORE; see `portunus --help`",
        )),
    }
}

/// Returns a way to the management API. `described` names a command that needs the description of the
/// service on a store.
fn open(global: &Global, described: Option<&str>) -> Result<Api, Failure> {
    let target = target(global)?;
    if let Target::Http(base) = &target {
        return over_http(global, base).map(Api::Http);
    }
    let service = Service::read(global.service.as_deref())?;
    if let Some(command) = described {
        service.need(command)?;
    }
    let runtime = runtime()?;
    let database = runtime.block_on(Database::open(&target, global.schema.as_deref()))?;
    let local = Local::new(
        runtime,
        database,
        &service,
        &operator(global)?,
        global.tenant.as_deref(),
    )?;
    Ok(Api::Local(Box::new(local)))
}

pub(crate) fn over_http(global: &Global, base: &str) -> Result<Http, Failure> {
    let token = Source {
        what: "operator's token",
        file: global.token_file.as_deref(),
        flag: "--token-file",
        variable: "PORTUNUS_TOKEN",
    };
    Http::new(base, &token.read()?, global.allow_http)
}

/// Returns who acts on a store.
pub(crate) fn operator(global: &Global) -> Result<String, Failure> {
    let named = global.operator.clone();
    let user = || std::env::var("USER").ok().filter(|user| !user.is_empty());
    named.or_else(user).ok_or_else(|| {
        Failure::usage("the audit needs to know who acts: give --operator, or set USER")
    })
}

fn migrate(global: &Global) -> Result<(), Failure> {
    let target = target(global)?;
    let schema = global.schema.as_deref();
    runtime()?.block_on(async {
        let is_new = matches!(&target, Target::Sqlite(path) if !path.exists());
        let (before, database) = if let (Target::Sqlite(path), true) = (&target, is_new) {
            (0, Database::Sqlite(SqliteStore::open(path).await?))
        } else {
            let database = Database::open(&target, schema).await?;
            (database.schema().await?.0, database)
        };
        database.migrate().await?;
        let (after, _) = database.schema().await?;
        database.close().await;
        match global.json {
            true => output::json(&serde_json::json!({"before": before, "after": after})),
            false if before == after => {
                output::line(&format!("the schema is up to date ({after})"))
            }
            false => output::line(&format!("migrated from schema {before} to {after}")),
        }
    })
}
