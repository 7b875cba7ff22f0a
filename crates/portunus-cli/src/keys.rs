//! Commands on keys.

use std::time::{Duration, SystemTime};

use portunus_admin::time_text;
use serde_json::{Map, Value, json};

use crate::api::{Api, Call, encoded, unless_complete};
use crate::args::{Filters, Global, Issue, Keys, List, Revoke, Rotate};
use crate::failure::{Exit, Failure};
use crate::secret::confirm;
use crate::{export, import, output, text};

/// Returns the name of a command that needs the description of the service on a store.
pub(crate) fn described(command: &Keys) -> Option<&'static str> {
    match command {
        Keys::Issue(_) => Some("keys issue"),
        Keys::Rotate(_) => Some("keys rotate"),
        Keys::Primary { .. } => Some("keys primary"),
        Keys::Import { .. } => Some("keys import"),
        _ => None,
    }
}

pub(crate) fn run(api: &Api, global: &Global, command: &Keys) -> Result<(), Failure> {
    let is_new = matches!(command, Keys::Issue(_) | Keys::Import { .. });
    if matches!(api, Api::Http(_)) && global.tenant.is_some() && !is_new {
        return Err(Failure::usage(
            "over HTTP, the tenant is that of the operator's token: --tenant is for new keys",
        ));
    }
    match command {
        Keys::Issue(asked) => issue(api, global, asked),
        Keys::List(asked) => list(api, global, asked),
        Keys::Show { id } => shown(global, &api.call(&Call::get(path(id, "")))?),
        Keys::Rename { id, name } => {
            let change = json!({ "name": name });
            let call = Call {
                method: "PATCH",
                ..Call::post(path(id, ""), &change)
            };
            shown(global, &api.call(&call)?)
        }
        Keys::Revoke(asked) => revoke(api, global, asked),
        Keys::Rotate(asked) => rotate(api, global, asked),
        Keys::Primary { id } => {
            let call = Call {
                method: "POST",
                ..Call::get(path(id, "/primary"))
            };
            shown(global, &api.call(&call)?)
        }
        Keys::Import { file, format } => import::run(api, global, file, *format),
        Keys::Export(asked) => export::run(api, asked),
    }
}

/// The path of a key.
fn path(id: &str, act: &str) -> String {
    format!("/keys/{}{act}", encoded(id))
}

/// The parameters of a list.
pub(crate) fn filters(of: &Filters) -> [(&'static str, Option<&str>); 9] {
    [
        ("status", of.status.as_deref()),
        ("environment", of.environment.as_deref()),
        ("owner", of.owner.as_deref()),
        ("plan", of.plan.as_deref()),
        ("family", of.family.as_deref()),
        ("kind", of.kind.as_deref()),
        ("expires_before", of.expires_before.as_deref()),
        ("unused_since", of.unused_since.as_deref()),
        ("query", of.query.as_deref()),
    ]
}

fn issue(api: &Api, global: &Global, asked: &Issue) -> Result<(), Failure> {
    let expires_at = match &asked.expires_in {
        Some(span) => Some(after(SystemTime::now(), "--expires-in", span)?),
        None => asked.expires_at.clone(),
    };
    let mut owner = Map::new();
    add(&mut owner, "tenant_id", global.tenant.as_ref());
    add(&mut owner, "user_id", asked.user.as_ref());
    add(&mut owner, "user_email", asked.email.as_ref());
    if matches!(api, Api::Local(_)) && global.tenant.is_none() {
        return Err(Failure::usage("`keys issue` on a store needs --tenant"));
    }
    let mut new = Map::new();
    add(&mut new, "name", Some(&asked.name));
    add(&mut new, "description", asked.description.as_ref());
    add(&mut new, "kind", asked.kind.as_ref());
    add(&mut new, "environment", asked.environment.as_ref());
    add(&mut new, "owner", (!owner.is_empty()).then_some(&owner));
    add(&mut new, "scopes", Some(&asked.scopes));
    add(&mut new, "access", asked.read_only.then_some("read-only"));
    add(&mut new, "workspaces", some(&asked.workspaces));
    add(&mut new, "allowed_ips", some(&asked.allowed_ips));
    add(&mut new, "plan", asked.plan.as_ref());
    add(&mut new, "expires_at", expires_at.as_ref());
    let new = Value::Object(new);
    let call = Call {
        idempotency_key: asked.idempotency_key.as_deref(),
        ..Call::post("/keys", &new)
    };
    secret_shown(global, &api.call(&call)?)
}

fn add<V: serde::Serialize>(to: &mut Map<String, Value>, name: &str, value: Option<V>) {
    if let Some(value) = value.and_then(|value| serde_json::to_value(value).ok()) {
        to.insert(name.to_owned(), value);
    }
}

fn some(list: &Vec<String>) -> Option<&Vec<String>> {
    (!list.is_empty()).then_some(list)
}

fn list(api: &Api, global: &Global, asked: &List) -> Result<(), Failure> {
    let mut records = Vec::new();
    let corrupt = api.each(
        "/keys",
        &filters(&asked.filters),
        asked.limit,
        &mut |record| {
            records.push(record);
            Ok(())
        },
    )?;
    if global.json {
        output::json(&Value::Array(records))?;
    } else {
        let head = [
            "ID",
            "STATUS",
            "SECRET",
            "ENVIRONMENT",
            "TENANT",
            "USER",
            "LAST USED",
            "NAME",
        ];
        let rows: Vec<Vec<String>> = records.iter().map(row).collect();
        output::text(&text::table(&head, &rows))?;
    }
    unless_complete(&corrupt)
}

fn row(record: &Value) -> Vec<String> {
    let status = match record["primary"].as_bool() {
        Some(true) => format!("{} primary", cell(&record["status"])),
        _ => cell(&record["status"]),
    };
    vec![
        cell(&record["id"]),
        status,
        cell(&record["masked"]),
        cell(&record["environment"]),
        cell(&record["owner"]["tenant_id"]),
        cell(&record["owner"]["user_id"]),
        cell(&record["last_used_at"]),
        cell(&record["name"]),
    ]
}

/// Returns a value as people read it.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(" "),
        Value::Object(members) => {
            let members = members.iter().filter(|(_, value)| !value.is_null());
            let members = members.map(|(name, value)| format!("{name}={}", cell(value)));
            members.collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

/// Returns the members of a record, one a line.
fn lines(record: &Value) -> String {
    let members = record.as_object().into_iter().flatten();
    let rows: Vec<Vec<String>> = members
        .map(|(name, value)| vec![name.replace('_', " "), cell(value)])
        .collect();
    text::table(&["", ""], &rows)
        .trim_start_matches('\n')
        .to_owned()
}

fn shown(global: &Global, record: &Value) -> Result<(), Failure> {
    match global.json {
        true => output::json(record),
        false => output::text(&lines(record)),
    }
}

/// Prints a new secret: alone on standard output, so that a script can take it, with the record on
/// standard error.
fn secret_shown(global: &Global, answer: &Value) -> Result<(), Failure> {
    let id = cell(&answer["record"]["id"]);
    let printed = match (global.json, answer["key"].as_str()) {
        (true, _) => output::json(answer),
        (false, Some(secret)) => {
            output::note("The secret is shown only now:");
            output::line(secret)
        }
        (false, None) => {
            output::note("This was done before; the secret was shown then.");
            Ok(())
        }
    };
    if let Err(failure) = printed {
        // Even if the reader closed the output: the secret is lost.
        let why = match failure.exit {
            Exit::Closed => "the output was closed".to_owned(),
            _ => failure.to_string(),
        };
        let text = format!("key {id} exists, but its secret could not be shown: {why}");
        return Err(Failure::other(text).and("rotate or revoke it"));
    }
    if !global.json {
        output::note_text(&lines(&answer["record"]));
        if let Some(old) = answer["rotated"].as_object() {
            let until = old.get("works_until").map_or("-".to_owned(), cell);
            output::note(&format!("The old key works until {until}."));
        }
    }
    Ok(())
}

fn revoke(api: &Api, global: &Global, asked: &Revoke) -> Result<(), Failure> {
    if !asked.yes {
        let key = api.call(&Call::get(path(&asked.id, "")))?;
        confirm(
            false,
            &format!("Revoke {}? It cannot be undone.", about(&key)),
        )?;
    }
    let body = match &asked.reason {
        Some(reason) => json!({ "reason": reason }),
        None => json!({}),
    };
    let revoked = api.call(&Call::post(path(&asked.id, "/revoke"), &body))?;
    shown(global, &revoked)
}

/// Describes a key in a question.
fn about(key: &Value) -> String {
    format!(
        "{} of tenant {}, {}, named {}",
        cell(&key["id"]),
        cell(&key["owner"]["tenant_id"]),
        cell(&key["masked"]),
        cell(&key["name"])
    )
}

fn rotate(api: &Api, global: &Global, asked: &Rotate) -> Result<(), Failure> {
    let grace = asked.grace.as_deref().map(|text| span("--grace", text));
    let grace = grace.transpose()?.unwrap_or_default();
    if grace.is_zero() && !asked.yes {
        let key = api.call(&Call::get(path(&asked.id, "")))?;
        let question = format!("Rotate {}? Without --grace, it ends at once.", about(&key));
        confirm(false, &question)?;
    }
    let body = match grace.as_secs() {
        0 => json!({}),
        seconds => json!({ "grace_seconds": seconds }),
    };
    let call = Call {
        idempotency_key: asked.idempotency_key.as_deref(),
        ..Call::post(path(&asked.id, "/rotate"), &body)
    };
    secret_shown(global, &api.call(&call)?)
}

/// Parses a span of time: a number and `s`, `m`, `h` or `d`.
fn span(flag: &str, text: &str) -> Result<Duration, Failure> {
    let wrong = || {
        Failure::usage(format!(
            "{flag}: expected a number and s, m, h or d, such as 90d"
        ))
    };
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 60 * 60,
        Some('d') => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let number = &text[..text.len() - 1];
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = number.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
    number
        .checked_mul(unit)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

fn after(now: SystemTime, flag: &str, text: &str) -> Result<String, Failure> {
    let at = now.checked_add(span(flag, text)?);
    let at = at.filter(|at| {
        at.duration_since(SystemTime::UNIX_EPOCH)
            .is_ok_and(|since| since <= portunus::key::MAX_TIME)
    });
    let at =
        at.ok_or_else(|| Failure::usage(format!("{flag}: the time is after the year 9999")))?;
    Ok(time_text(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_a_number_and_a_unit() {
        let seconds = |text| span("--grace", text).ok().map(|span| span.as_secs());
        assert_eq!(seconds("90d"), Some(7_776_000));
        assert_eq!(seconds("12h"), Some(43_200));
        for wrong in [
            "",
            "d",
            "+1d",
            "-1d",
            "1.5h",
            "1",
            "1y",
            "1 d",
            "99999999999999999999d",
            "1é",
        ] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
