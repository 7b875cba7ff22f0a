//! `keys export`: records without secrets, as JSON Lines or CSV.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write, stdout};

use portunus::key::KeyDigest;
use serde_json::{Value, json};

use crate::api::{Api, unless_complete};
use crate::args::{Export, Format};
use crate::failure::Failure;
use crate::keys::{cell, filters};
use crate::text::{inert_json, shown};

/// The columns of CSV: members of a record, by their paths.
const COLUMNS: [&str; 22] = [
    "/id",
    "/name",
    "/status",
    "/kind",
    "/environment",
    "/owner/tenant_id",
    "/owner/user_id",
    "/owner/user_email",
    "/masked",
    "/scopes",
    "/access",
    "/workspaces",
    "/plan",
    "/allowed_ips",
    "/primary",
    "/enabled",
    "/created_at",
    "/not_before",
    "/expires_at",
    "/revoked_at",
    "/last_used_at",
    "/request_count",
];

pub(crate) fn run(api: &Api, asked: &Export) -> Result<(), Failure> {
    if asked.with_digests && asked.format == Format::Csv {
        return Err(Failure::usage("--with-digests needs --format jsonl"));
    }
    if asked.with_digests && matches!(api, Api::Http(_)) {
        return Err(Failure::usage(
            "the management API shows no digests: export them from the store",
        ));
    }
    let mut out: Box<dyn Write> = match &asked.output {
        None => Box::new(BufWriter::new(stdout().lock())),
        Some(path) => {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let file = options.open(path);
            let file = file.map_err(|error| {
                Failure::other(format!("cannot create {}: {error}", path.display()))
            })?;
            Box::new(BufWriter::new(file))
        }
    };
    if asked.format == Format::Csv {
        let names = COLUMNS.map(|path| path.rsplit('/').next().unwrap_or_default());
        writeln!(out, "{}", names.join(","))?;
    }
    let corrupt = api.each(
        "/keys",
        &filters(&asked.filters),
        usize::MAX,
        &mut |mut record| {
            if let (true, Api::Local(local)) = (asked.with_digests, api) {
                let id = record["id"].as_str().unwrap_or_default().to_owned();
                // Deleted since it was listed.
                let Some(stored) = local.digest_of(&id)? else {
                    return Ok(());
                };
                let last_four = record["masked"]
                    .as_str()
                    .and_then(last_four)
                    .map(str::to_owned);
                record["digest"] = digest(&stored);
                record["last_four"] = last_four.map_or(Value::Null, Value::from);
            }
            match asked.format {
                Format::Jsonl => writeln!(out, "{}", inert_json(record.to_string()))?,
                Format::Csv => writeln!(out, "{}", csv(&record))?,
            }
            Ok(())
        },
    )?;
    out.flush()?;
    unless_complete(&corrupt)
}

fn digest(of: &KeyDigest) -> Value {
    let hex: String = of
        .to_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    json!({ "scheme": of.scheme().to_string(), "hex": hex })
}

/// The end of a masked key, as an import states it.
fn last_four(masked: &str) -> Option<&str> {
    let (_, end) = masked.rsplit_once('…')?;
    (!end.is_empty()).then_some(end)
}

fn csv(record: &Value) -> String {
    let fields = COLUMNS.map(|path| match record.pointer(path) {
        None | Some(Value::Null) => String::new(),
        Some(value) => field(&shown(&cell(value))),
    });
    fields.join(",")
}

/// Quotes a field (RFC 4180). What a spreadsheet would take for a formula begins with an apostrophe.
fn field(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = match is_formula {
        true => format!("'{text}"),
        false => text.to_owned(),
    };
    match text.contains([',', '"', '\n', '\r', '\'']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn a_field_ends_where_it_should_and_is_no_formula() {
        assert_eq!(field("a,\"b\"\nc"), "\"a,\"\"b\"\"\nc\"");
        assert_eq!(field("=cmd|'/c calc'!A1"), "\"'=cmd|'/c calc'!A1\"");
        assert_eq!(field("plain"), "plain");
    }
}
