//! Standard output. A reader that closes it early ends the program silently.

use std::io::{Write, stdout};

use serde_json::Value;

use crate::failure::Failure;
use crate::text::{inert_json, shown};

/// What each command prints with `--json`, for `--help`.
pub(crate) const SHAPES: &str = "\
With --json, a command prints, by the names of the management API's OpenAPI document:
  keys list                             an array of KeyRecord
  keys show, rename, revoke, primary    a KeyRecord
  keys issue, keys rotate               an IssuedKey, a RotatedKey
  verify                                the answer of POST /verify
  events list, events tail              an array of Event, an Event on each line
  keys import                           {imported, skipped, failures: [{line, detail}]}
  doctor                                an array of {check, status, detail, fix}
  migrate                               {before, after}: schema versions";

/// Writes bytes as they are.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// Writes text that is already safe to show.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    write(text.as_bytes())
}

/// Writes a line for people.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    write(format!("{}\n", shown(text)).as_bytes())
}

/// Writes a value as indented JSON.
pub(crate) fn json(value: &Value) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    write(format!("{}\n", inert_json(text)).as_bytes())
}

/// Writes a value as one line of JSON.
pub(crate) fn json_line(value: &Value) -> Result<(), Failure> {
    write(format!("{}\n", inert_json(value.to_string())).as_bytes())
}

/// Says something to people on standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", shown(text));
}

/// Writes text that is already safe to show on standard error.
pub(crate) fn note_text(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
