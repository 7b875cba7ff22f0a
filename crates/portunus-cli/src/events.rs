//! Commands on audit events.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use portunus::audit::{ChainHead, ChainKey, VerifyError, verify as verify_chain};
use serde_json::Value;

use crate::api::{Api, unless_complete};
use crate::args::{EventList, Global};
use crate::failure::{Exit, Failure};
use crate::keys::cell;
use crate::secret::Source;
use crate::{output, text};

/// How often new events are looked for.
const POLL: Duration = Duration::from_secs(1);
/// The longest pause while the service does not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How many events are read at a time, and how many at most between two looks.
const STEP: usize = 100;
const MOST_AT_ONCE: usize = 5000;

fn filters(of: &EventList) -> [(&'static str, Option<&str>); 4] {
    [
        ("key_id", of.key.as_deref()),
        ("actor", of.actor.as_deref()),
        ("outcome", of.outcome.as_deref()),
        ("action", of.action.as_deref()),
    ]
}

fn refuse_tenant(api: &Api, global: &Global) -> Result<(), Failure> {
    match (api, &global.tenant) {
        (Api::Http(_), Some(_)) => Err(Failure::usage(
            "over HTTP, the tenant is that of the operator's token",
        )),
        _ => Ok(()),
    }
}

pub(crate) fn list(api: &Api, global: &Global, asked: &EventList) -> Result<(), Failure> {
    refuse_tenant(api, global)?;
    let mut events = Vec::new();
    let corrupt = api.each("/events", &filters(asked), asked.limit, &mut |event| {
        events.push(event);
        Ok(())
    })?;
    if global.json {
        output::json(&Value::Array(events))?;
    } else {
        let head = [
            "TIME", "ACTION", "OUTCOME", "TENANT", "KEY", "ACTOR", "ADDRESS", "DETAIL",
        ];
        let rows: Vec<_> = events.iter().map(row).collect();
        output::text(&text::table(&head, &rows))?;
    }
    unless_complete(&corrupt)
}

fn row(event: &Value) -> Vec<String> {
    let detail = [&event["method"], &event["route"], &event["detail"]];
    let detail: Vec<String> = detail
        .iter()
        .filter(|it| !it.is_null())
        .map(|it| cell(it))
        .collect();
    let party = [&event["actor"], &event["subject"]];
    let party = party.into_iter().find(|it| !it.is_null());
    let names = ["user_id", "name", "user_email"];
    let name = party.and_then(|it| names.iter().find_map(|name| it.get(name)));
    vec![
        cell(&event["at"]),
        cell(&event["action"]),
        cell(&event["outcome"]),
        cell(&event["tenant_id"]),
        cell(&event["key_id"]),
        cell(name.unwrap_or(&Value::Null)),
        cell(&event["client_ip"]),
        match detail.is_empty() {
            true => "-".to_owned(),
            false => detail.join(" "),
        },
    ]
}

/// Events that were printed. Their order is that in which the store got them: one that was written
/// by a slower transaction can appear behind others.
#[derive(Default)]
struct Seen {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    /// Notes an event; returns whether it is new.
    fn note(&mut self, event: &Value) -> bool {
        let id = cell(&event["id"]);
        if !self.ids.insert(id.clone()) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > 2 * MOST_AT_ONCE
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

pub(crate) fn tail(api: &Api, global: &Global, asked: &EventList) -> Result<(), Failure> {
    refuse_tenant(api, global)?;
    let mut seen = Seen::default();
    // Those before the first look are old, except the last few.
    let mut first = Vec::new();
    let _ = api.each(
        "/events",
        &filters(asked),
        asked.limit.max(STEP),
        &mut |event| {
            first.push(event);
            Ok(())
        },
    )?;
    for event in first.iter().skip(asked.limit) {
        seen.note(event);
    }
    first.truncate(asked.limit);
    print(global, &mut seen, first)?;
    let mut pause = POLL;
    loop {
        sleep(pause);
        match fresh(api, asked, &seen) {
            Ok(events) => {
                pause = POLL;
                print(global, &mut seen, events)?;
            }
            Err(failure) if matches!(failure.exit, Exit::Unavailable | Exit::TooMany) => {
                output::note(&format!("portunus: {failure}; trying again"));
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Reads from the newest event back to those that were seen.
fn fresh(api: &Api, asked: &EventList, seen: &Seen) -> Result<Vec<Value>, Failure> {
    let mut events = Vec::new();
    for most in [STEP, MOST_AT_ONCE] {
        events.clear();
        let _ = api.each("/events", &filters(asked), most, &mut |event| {
            events.push(event);
            Ok(())
        })?;
        let reaches = events.iter().any(|it| seen.ids.contains(&cell(&it["id"])));
        if reaches || events.len() < most {
            return Ok(events);
        }
    }
    if !seen.ids.is_empty() {
        output::note(&format!(
            "portunus: more than {MOST_AT_ONCE} events at once; some were left out"
        ));
    }
    Ok(events)
}

/// Prints the events that are new, oldest first.
fn print(global: &Global, seen: &mut Seen, newest_first: Vec<Value>) -> Result<(), Failure> {
    for event in newest_first.into_iter().rev() {
        if !seen.note(&event) {
            continue;
        }
        match global.json {
            true => output::json_line(&event)?,
            false => output::line(&row(&event).join("  "))?,
        }
    }
    Ok(())
}

/// Verifies a chain in a file.
pub(crate) fn verify(
    path: &Path,
    head: Option<&str>,
    key_file: Option<&Path>,
) -> Result<(), Failure> {
    let head = head.map(str::parse::<ChainHead>).transpose();
    let head = head.map_err(|error| Failure::usage(format!("--head: {error}")))?;
    let key = Source {
        what: "secret of the chain",
        file: key_file,
        flag: "--key-file",
        variable: "PORTUNUS_CHAIN_KEY",
    };
    let key = key.given()?.map(|secret| {
        let key = ChainKey::new(secret.as_bytes());
        key.ok_or_else(|| Failure::usage("the secret of the chain must have at least 32 bytes"))
    });
    let key = key.transpose()?;
    let cannot = |error: &dyn std::fmt::Display| {
        Failure::usage(format!("cannot read {}: {error}", path.display()))
    };
    let file = File::open(path).map_err(|error| cannot(&error))?;
    match verify_chain(file, key.as_ref(), head.as_ref()) {
        Ok(end) => output::line(&format!("the chain is intact; its end is: {end}")),
        Err(VerifyError::Altered(altered)) => {
            Err(Failure::new(Exit::CheckFailed, altered.to_string()))
        }
        Err(error) => Err(cannot(&error)),
    }
}
