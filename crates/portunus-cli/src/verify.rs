//! `verify`: what a request with a key would get.

use serde_json::{Value, json};

use crate::api::{Api, Call};
use crate::args::{Global, Verify};
use crate::failure::{Exit, Failure};
use crate::keys::cell;
use crate::output;
use crate::secret::Source;

pub(crate) fn run(api: &Api, global: &Global, asked: &Verify) -> Result<(), Failure> {
    let stdin =
        |file: &Option<std::path::PathBuf>| file.as_deref().is_some_and(|it| it.as_os_str() == "-");
    if stdin(&asked.key_file) && (stdin(&global.token_file) || stdin(&global.store_file)) {
        return Err(Failure::usage(
            "only one secret can be read from standard input",
        ));
    }
    let key = Source {
        what: "key",
        file: asked.key_file.as_deref(),
        flag: "--key-file",
        variable: "PORTUNUS_KEY",
    };
    let key = key.read()?;
    let mut body = json!({ "key": key.as_str() });
    let parts = [
        ("ip", &asked.ip),
        ("method", &asked.method),
        ("workspace", &asked.workspace),
    ];
    for (name, value) in parts {
        if let Some(value) = value {
            body[name] = value.as_str().into();
        }
    }
    if !asked.require.is_empty() {
        body["require"] = asked.require.iter().map(String::as_str).collect();
    }
    let answer = api.call(&Call::post("/verify", &body))?;
    if global.json {
        output::json(&answer)?;
    } else {
        for line in told(&answer) {
            output::line(&line)?;
        }
    }
    match answer["allowed"].as_bool() {
        Some(true) => Ok(()),
        _ => Err(Failure::new(
            Exit::CheckFailed,
            "a request with this key would be refused",
        )),
    }
}

fn told(answer: &Value) -> Vec<String> {
    if answer["active"] != true {
        let why = "not active: unknown, revoked, expired, disabled or of another tenant";
        return vec![why.to_owned()];
    }
    let record = &answer["record"];
    let allowed = match answer["allowed"].as_bool() {
        Some(true) => "allowed",
        _ => "refused",
    };
    let (id, tenant) = (cell(&record["id"]), cell(&record["owner"]["tenant_id"]));
    vec![
        match answer["explain"].as_str().unwrap_or_default() {
            "" => allowed.to_owned(),
            why => format!("{allowed}: {why}"),
        },
        format!("key {id} of tenant {tenant}, {}", cell(&record["name"])),
    ]
}
