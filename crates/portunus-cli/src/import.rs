//! `keys import`: keys by their digests, a few hundred in a call.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Read, stdin, stdout};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use portunus::json::parse;
use portunus_admin::{ImportFormat, ImportRecord, ImportRecords};
use serde_json::{Map, Value, json};

use crate::api::{Api, Call, Lines};
use crate::args::{Format, Global};
use crate::failure::{Exit, Failure};
use crate::output;

/// The most keys and bytes of a call, which the service imports in one write.
const MOST_KEYS: usize = 500;
const MOST_BYTES: usize = 1 << 20;
/// The most bytes that are collected. On a store, calls are for one tenant each, and a file has those
/// of all tenants in any order.
const MOST_COLLECTED: usize = 16 << 20;

/// How many bytes are read at a time.
const PART: usize = 64 << 10;

/// What a record of the management API has that an import does not take.
const SHOWN_ONLY: [&str; 9] = [
    "id",
    "version",
    "masked",
    "policies",
    "primary",
    "enabled",
    "predecessor",
    "successor",
    "rotation_due_at",
];

/// A line that was refused: its number in the file, the class of the failure, and the reason.
type Refusal = (u64, Exit, String);

/// An import, and what was done so far.
struct Import<'a> {
    api: &'a Api,
    format: ImportFormat,
    tenant: Option<&'a str>,
    /// The header of CSV, with its lines.
    header: Part,
    /// The next call for each tenant. Over HTTP there is one, since the operator's token decides.
    parts: BTreeMap<Option<String>, Part>,
    collected: usize,
    created: u64,
    already_there: u64,
    refusals: Vec<Refusal>,
}

/// Records for a call.
#[derive(Default, Clone)]
struct Part {
    bytes: Vec<u8>,
    keys: usize,
    /// For each line, its number in the file.
    lines: Vec<u64>,
}

impl Part {
    fn push(&mut self, record: &ImportRecord, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.bytes.push(b'\n');
        self.keys += 1;
        self.lines.extend(record.line..=record.end);
    }
}

pub(crate) fn run(
    api: &Api,
    global: &Global,
    path: &Path,
    format: Option<Format>,
) -> Result<(), Failure> {
    let is_csv = path
        .extension()
        .is_some_and(|it| it.eq_ignore_ascii_case("csv"));
    let is_csv = format.map_or(is_csv, |format| format == Format::Csv);
    if is_csv && matches!(api, Api::Local(_)) != global.tenant.is_some() {
        return Err(Failure::usage(match api {
            Api::Local(_) => "CSV on a store is imported for one tenant: name it by --tenant",
            Api::Http(_) => "over HTTP, CSV names the tenant in its column owner.tenant_id",
        }));
    }
    let cannot =
        |error: &std::io::Error| Failure::usage(format!("cannot read {}: {error}", path.display()));
    let (mut file, size): (Box<dyn Read>, _) = if path.as_os_str() == "-" {
        (Box::new(stdin().lock()), None)
    } else {
        let file = File::open(path).map_err(|error| cannot(&error))?;
        let size = file.metadata().ok().map(|it| it.len());
        (Box::new(file), size)
    };
    let bar = progress(size);
    let mut import = Import {
        api,
        format: match is_csv {
            true => ImportFormat::Csv,
            false => ImportFormat::JsonLines,
        },
        tenant: global.tenant.as_deref(),
        header: Part::default(),
        parts: BTreeMap::new(),
        collected: 0,
        created: 0,
        already_there: 0,
        refusals: Vec::new(),
    };
    let mut records = ImportRecords::new(import.format);
    let mut all = || {
        let mut buffer = vec![0; PART];
        loop {
            let read = match file.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.map_err(|error| cannot(&error))?,
            };
            let mut part = &buffer[..read];
            while let Some(record) = records.next(&mut part) {
                import.take(&record)?;
            }
            bar.inc(read as u64);
            bar.set_message(format!("{} imported", import.created));
            if read == 0 {
                break;
            }
        }
        if let Some(record) = records.last() {
            import.take(&record)?;
        }
        import.send_all()
    };
    let ended = all();
    bar.finish_and_clear();
    import.refusals.sort_by_key(|(line, ..)| *line);
    import.report(global)?;
    ended?;
    match &import.refusals[..] {
        [] => Ok(()),
        [(_, exit, _)] => Err(Failure::new(*exit, "a line was refused")),
        more => Err(Failure::other(format!("{} lines were refused", more.len()))),
    }
}

impl Import<'_> {
    fn take(&mut self, record: &ImportRecord) -> Result<(), Failure> {
        let Some(bytes) = &record.bytes else {
            let why = "longer than 256 KiB".to_owned();
            self.refusals.push((record.line, Exit::Usage, why));
            return Ok(());
        };
        if bytes.trim_ascii().is_empty() {
            return Ok(());
        }
        if self.format == ImportFormat::Csv {
            if self.header.keys == 0 {
                self.header.push(record, bytes);
                return Ok(());
            }
            return self.collect(self.tenant, record, bytes);
        }
        match self.request(bytes) {
            Ok(asked) => {
                let stated = asked.pointer("/owner/tenant_id").and_then(Value::as_str);
                let of = stated.filter(|_| matches!(self.api, Api::Local(_)));
                self.collect(of, record, asked.to_string().as_bytes())
            }
            Err(failure) => {
                let refusal = (record.line, failure.exit, failure.to_string());
                self.refusals.push(refusal);
                Ok(())
            }
        }
    }

    fn collect(
        &mut self,
        tenant: Option<&str>,
        record: &ImportRecord,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        let tenant = tenant.map(str::to_owned);
        let (header, collected) = (&self.header, &mut self.collected);
        let part = self.parts.entry(tenant.clone()).or_insert_with(|| Part {
            keys: 0,
            ..header.clone()
        });
        part.push(record, bytes);
        *collected += bytes.len();
        let is_full = part.keys == MOST_KEYS || part.bytes.len() >= MOST_BYTES;
        if *collected >= MOST_COLLECTED {
            return self.send_all();
        }
        if is_full && let Some((tenant, part)) = self.parts.remove_entry(&tenant) {
            return self.send(tenant, part);
        }
        Ok(())
    }

    fn send_all(&mut self) -> Result<(), Failure> {
        while let Some((tenant, part)) = self.parts.pop_first() {
            self.send(tenant, part)?;
        }
        Ok(())
    }

    /// Imports the keys of a part. An error ends the import: the next call would fail in the same way.
    fn send(&mut self, tenant: Option<String>, part: Part) -> Result<(), Failure> {
        self.collected = self.collected.saturating_sub(part.bytes.len());
        let lines = Lines {
            media: match self.format {
                ImportFormat::Csv => "text/csv",
                _ => "application/x-ndjson",
            },
            bytes: part.bytes,
            tenant,
        };
        let call = Call {
            method: "POST",
            lines: Some(&lines),
            ..Call::get("/import")
        };
        let first = part
            .lines
            .get(self.header.lines.len())
            .or(part.lines.first());
        let report = self.api.call_patiently(&call).map_err(|failure| {
            let first = first.copied().unwrap_or(1);
            failure.and(&format!("stopped at line {first}; run the file again"))
        })?;
        let count = |name: &str| report[name].as_u64().unwrap_or(0);
        self.created += count("created");
        self.already_there += count("already_there");
        for refusal in report["refusals"].as_array().into_iter().flatten() {
            let text = |name: &str| refusal[name].as_str().unwrap_or_default();
            let at = refusal["line"]
                .as_u64()
                .and_then(|line| line.checked_sub(1));
            let at = at.and_then(|at| part.lines.get(usize::try_from(at).ok()?));
            let reason = format!("{} ({})", text("detail"), text("code"));
            let exit = match text("code") {
                "CONFLICT" => Exit::Conflict,
                "FORBIDDEN" => Exit::Refused,
                _ => Exit::Usage,
            };
            self.refusals.push((at.copied().unwrap_or(0), exit, reason));
        }
        Ok(())
    }

    /// Returns the import that a line of JSON asks for.
    fn request(&self, line: &[u8]) -> Result<Value, Failure> {
        let parsed = parse(line).map_err(|error| Failure::usage(format!("no JSON: {error}")))?;
        let Value::Object(members) = parsed else {
            return Err(Failure::usage("no JSON object"));
        };
        let is_exported = members.contains_key("id") && members.contains_key("masked");
        let mut members = if is_exported {
            imported(members)
        } else {
            members
        };
        if let Some(tenant) = self.tenant {
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
        let asked = Value::Object(members);
        let has_tenant = asked
            .pointer("/owner/tenant_id")
            .is_some_and(|it| !it.is_null());
        if matches!(self.api, Api::Local(_)) && !has_tenant {
            let why = "owner.tenant_id is missing: name it there, or by --tenant";
            return Err(Failure::usage(why));
        }
        Ok(asked)
    }

    fn report(&self, global: &Global) -> Result<(), Failure> {
        let (created, already_there) = (self.created, self.already_there);
        if global.json {
            let refusals = self.refusals.iter();
            let refusals: Vec<Value> = refusals
                .map(|(line, _, why)| json!({ "line": line, "detail": why }))
                .collect();
            return output::json(&json!({
                "created": created,
                "already_there": already_there,
                "refused": refusals.len(),
                "refusals": refusals,
            }));
        }
        for (line, _, why) in &self.refusals {
            output::note(&format!("line {line}: {why}"));
        }
        output::line(&format!(
            "{created} imported, {already_there} already there, {} refused",
            self.refusals.len()
        ))
    }
}

/// Returns what an import takes of an exported record.
fn imported(mut record: Map<String, Value>) -> Map<String, Value> {
    let is_absent = |name: &str| record.get(name).is_none_or(Value::is_null);
    let is_disabled = is_absent("revoked_at") && record.get("enabled") == Some(&Value::Bool(false));
    let is_unused = is_absent("last_used_at");
    // The times tell the rest.
    let status = is_disabled.then(|| "disabled".into());
    record.insert("status".to_owned(), status.unwrap_or_default());
    if is_unused {
        record.remove("request_count");
    }
    if let Some(Value::Object(limits)) = record.get_mut("rate_limit_config") {
        limits.retain(|_, limit| !limit.is_null());
    }
    let is_empty = |value: &Value| value.is_null() || value.as_object().is_some_and(Map::is_empty);
    record.retain(|name, value| !SHOWN_ONLY.contains(&name.as_str()) && !is_empty(value));
    record
}

/// A bar on standard error, hidden where that or standard output is no terminal.
fn progress(size: Option<u64>) -> ProgressBar {
    let target = match stdout().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(size, target);
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
