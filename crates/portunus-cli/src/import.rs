//! `keys import`: keys by their digests, one a line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, stdin};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use portunus::json::parse;
use serde_json::{Map, Value, json};

use crate::api::{Api, Call};
use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::output;

/// The longest line in bytes; a key has at most 16 KiB of metadata.
const LONGEST_LINE: u64 = 1 << 20;

/// The members of an import.
const MEMBERS: [&str; 16] = [
    "digest",
    "last_four",
    "name",
    "description",
    "kind",
    "environment",
    "owner",
    "scopes",
    "access",
    "workspaces",
    "allowed_ips",
    "rate_limit_config",
    "not_before",
    "expires_at",
    "plan",
    "metadata",
];

/// What was done so far.
#[derive(Default)]
struct Counts {
    imported: u64,
    skipped: u64,
    failures: Vec<(u64, Failure)>,
}

pub(crate) fn run(api: &Api, global: &Global, path: &Path) -> Result<(), Failure> {
    let cannot =
        |error: &std::io::Error| Failure::usage(format!("cannot read {}: {error}", path.display()));
    let (mut lines, size): (Box<dyn BufRead>, _) = if path.as_os_str() == "-" {
        (Box::new(stdin().lock()), None)
    } else {
        let file = File::open(path).map_err(|error| cannot(&error))?;
        let size = file.metadata().ok().map(|it| it.len());
        (Box::new(BufReader::new(file)), size)
    };
    let bar = progress(size);
    let (mut counts, mut number) = (Counts::default(), 0);
    let ended = loop {
        let mut line = Vec::new();
        let read = (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut line);
        match read {
            Ok(0) => break Ok(()),
            Ok(bytes) => bar.inc(bytes as u64),
            Err(error) => break Err(cannot(&error)),
        }
        number += 1;
        if line.len() as u64 == LONGEST_LINE && line.last() != Some(&b'\n') {
            break Err(Failure::usage(format!(
                "line {number} is longer than {LONGEST_LINE} bytes"
            )));
        }
        if let Err(failure) = import(api, global, &line, number, &mut counts) {
            break Err(failure.and(&format!("stopped at line {number}; run the file again")));
        }
        bar.set_message(format!("{} imported", counts.imported));
    };
    bar.finish_and_clear();
    report(global, &counts)?;
    ended?;
    match counts.failures.len() {
        0 => Ok(()),
        1 => Err(Failure::new(
            counts.failures[0].1.exit,
            "a line was not imported",
        )),
        more => Err(Failure::other(format!("{more} lines were not imported"))),
    }
}

/// Imports a line. An error ends the import: the lines after it would fail in the same way.
fn import(
    api: &Api,
    global: &Global,
    line: &[u8],
    number: u64,
    counts: &mut Counts,
) -> Result<(), Failure> {
    if line.trim_ascii().is_empty() {
        return Ok(());
    }
    let asked = match request(line, global.tenant.as_deref()) {
        Ok(Some(asked)) => asked,
        Ok(None) => {
            counts.skipped += 1;
            return Ok(());
        }
        Err(failure) => {
            counts.failures.push((number, failure));
            return Ok(());
        }
    };
    if matches!(api, Api::Local(_)) && asked.pointer("/owner/tenant_id").is_none() {
        let failure = Failure::usage("owner.tenant_id is missing: name it there, or by --tenant");
        counts.failures.push((number, failure));
        return Ok(());
    }
    match api.call_patiently(&Call::post("/import", &asked)) {
        Ok(_) => counts.imported += 1,
        Err(failure) => match failure.exit {
            Exit::Usage | Exit::Conflict | Exit::Other => counts.failures.push((number, failure)),
            _ => return Err(failure),
        },
    }
    Ok(())
}

/// Returns the import that a line asks for, or `None` for an exported key that does not work: it must
/// not become active again.
fn request(line: &[u8], tenant: Option<&str>) -> Result<Option<Value>, Failure> {
    let parsed = parse(line).map_err(|error| Failure::usage(format!("no JSON: {error}")))?;
    let Value::Object(members) = parsed else {
        return Err(Failure::usage("no JSON object"));
    };
    let mut members = match exported(&members) {
        Some(false) => return Ok(None),
        Some(true) => wanted(members),
        None => members,
    };
    if let Some(tenant) = tenant {
        let owner = members.entry("owner").or_insert(Value::Null);
        if owner.is_null() {
            *owner = json!({});
        }
        // Another type is refused by the service.
        if let Some(owner) = owner.as_object_mut() {
            let stated = owner.entry("tenant_id").or_insert(Value::Null);
            if stated.is_null() {
                *stated = tenant.into();
            } else if stated != tenant {
                return Err(Failure::usage(
                    "owner.tenant_id is not the tenant of --tenant",
                ));
            }
        }
    }
    Ok(Some(Value::Object(members)))
}

/// Whether a line is an exported record, and if so, whether the key works.
fn exported(members: &Map<String, Value>) -> Option<bool> {
    members.get("id")?;
    let status = members.get("status")?.as_str()?;
    Some(matches!(status, "active" | "not_yet_valid"))
}

/// The members of an exported record that an import takes.
fn wanted(members: Map<String, Value>) -> Map<String, Value> {
    let is_wanted = |(name, value): &(String, Value)| {
        let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
        MEMBERS.contains(&name.as_str()) && !is_empty
    };
    let mut wanted: Map<_, _> = members.into_iter().filter(is_wanted).collect();
    if let Some(Value::Object(limits)) = wanted.get_mut("rate_limit_config") {
        limits.retain(|_, limit| !limit.is_null());
        if limits.is_empty() {
            wanted.remove("rate_limit_config");
        }
    }
    wanted
}

/// A bar on standard error, hidden where that is no terminal.
fn progress(size: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr());
    let style = match size {
        Some(_) => "{bar:40} {percent:>3}%  {msg}  {eta}",
        None => "{spinner} {msg}",
    };
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

fn report(global: &Global, counts: &Counts) -> Result<(), Failure> {
    let failures = &counts.failures;
    if global.json {
        let failures: Vec<Value> = failures
            .iter()
            .map(|(line, failure)| json!({ "line": line, "detail": failure.to_string() }))
            .collect();
        return output::json(&json!({
            "imported": counts.imported,
            "skipped": counts.skipped,
            "failures": failures,
        }));
    }
    for (line, failure) in failures {
        output::note(&format!("line {line}: {failure}"));
    }
    let (imported, skipped) = (counts.imported, counts.skipped);
    output::line(&format!(
        "{imported} imported, {skipped} left out (revoked, expired or disabled), {} failed",
        failures.len()
    ))
}
