//! Rules that the rows themselves must satisfy for every adapter: a response that is wrong in the
//! same way everywhere is still wrong.

use std::collections::HashSet;

use portunus::ErrorCode;
use portunus_profiles::Profile;
use serde_json::Value;

use crate::all_rows;
use crate::row::{Adapter, Row};
use crate::wire::Answer;

/// Codes of management calls, which authentication alone never returns.
const OF_MANAGEMENT: [ErrorCode; 8] = [
    ErrorCode::CrossSite,
    ErrorCode::NotFound,
    ErrorCode::Conflict,
    ErrorCode::QuotaExceeded,
    ErrorCode::PreconditionFailed,
    ErrorCode::TooLarge,
    ErrorCode::UnsupportedMediaType,
    ErrorCode::InvalidBody,
];

fn answers(row: &Row) -> Vec<Answer> {
    Adapter::ALL
        .iter()
        .map(|&adapter| Answer::of_lines(row.answer(adapter)))
        .collect()
}

impl Answer {
    fn values(&self, name: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }
    fn value(&self, name: &str) -> Option<&str> {
        self.values(name).first().copied()
    }
    /// The status of the final response; 0 if there is none.
    fn code(&self) -> u16 {
        self.status
            .rsplit(' ')
            .next()
            .and_then(|status| status.parse().ok())
            .unwrap_or(0)
    }
    /// Whether the library produced the response: refusals by servers and routers have no body and
    /// no `Cache-Control`.
    fn is_refusal_of_ours(&self) -> bool {
        self.code() >= 400 && self.value("cache-control").is_some()
    }
    fn json(&self) -> Option<Value> {
        serde_json::from_str(&self.body).ok()
    }
}

#[test]
fn there_are_150_rows_and_more_of_every_profile_and_of_the_default() {
    let rows = all_rows();
    assert!(rows.len() >= 150, "{}", rows.len());
    for of in Profile::ALL
        .iter()
        .map(|profile| profile.name())
        .chain(["neutral"])
    {
        let count = rows.iter().filter(|row| row.fixture == of).count();
        assert!(count >= 9, "{of}: {count}");
    }
}

#[test]
fn every_row_has_a_name_of_its_own_and_differences_have_a_reason_and_a_setting() {
    let mut seen = HashSet::new();
    for row in all_rows() {
        assert!(seen.insert(row.name.clone()), "{} occurs twice", row.name);
        let differ = row.answers.iter().any(|(tag, _)| !tag.is_empty());
        for (said, what) in [
            (&row.reason, "why"),
            (&row.setting, "what makes them equal"),
        ] {
            assert_eq!(
                differ,
                !said.is_empty(),
                "{}: where servers differ, and only there, it says {what}",
                row.name
            );
        }
        let known = |tag: &String| ["", "hyper", "tower", "axum", "actix"].contains(&tag.as_str());
        assert!(
            row.answers.iter().all(|(tag, _)| known(tag)),
            "{}",
            row.name
        );
        assert!(
            answers(&row)
                .iter()
                .all(|answer| answer.code() > 0 || answer.status == "closed"),
            "{}",
            row.name
        );
    }
}

#[test]
fn every_code_that_a_request_can_meet_is_met() {
    let met: HashSet<String> = all_rows()
        .iter()
        .flat_map(answers)
        .filter_map(|answer| Some(answer.json()?.get("code")?.as_str()?.to_owned()))
        .collect();
    for code in ErrorCode::ALL {
        assert_eq!(
            met.contains(code.as_str()),
            !OF_MANAGEMENT.contains(code),
            "{code}"
        );
    }
}

#[test]
fn every_form_of_a_challenge_is_met() {
    let met: HashSet<String> = all_rows()
        .iter()
        .flat_map(answers)
        .flat_map(|answer| {
            let form = |line: &&str| {
                line.replace("acme Ltd", "api")
                    .split(", scope=\"")
                    .next()
                    .unwrap()
                    .to_owned()
            };
            answer
                .values("www-authenticate")
                .iter()
                .map(form)
                .collect::<Vec<_>>()
        })
        .collect();
    for form in [
        r#"Bearer realm="api""#,
        r#"Bearer realm="api", error="invalid_request""#,
        r#"Bearer realm="api", error="invalid_token""#,
        r#"Bearer realm="api", error="insufficient_scope""#,
        r#"Basic realm="api", charset="UTF-8""#,
        r#"ApiKey realm="api", header="x-api-key""#,
    ] {
        assert!(met.contains(form), "{form}");
    }
}

#[test]
fn every_401_challenges_and_no_other_error_invites_to_try_again_in_vain() {
    for row in all_rows() {
        for answer in answers(&row) {
            let challenges = answer.values("www-authenticate");
            assert!(
                answer.code() != 401 || !challenges.is_empty(),
                "{} (RFC 9110 §15.5.2)",
                row.name
            );
            for challenge in &challenges {
                assert!(challenge.contains(" realm=\""), "{}", row.name);
                // RFC 6750 §3.1.
                let error = match answer.code() {
                    400 => "invalid_request",
                    401 => "invalid_token",
                    403 => "insufficient_scope",
                    other => panic!("{}: {other} challenges", row.name),
                };
                let said = challenge
                    .split_once("error=\"")
                    .map(|(_, rest)| rest.split('"').next().unwrap());
                assert!(
                    said.is_none_or(|said| said == error),
                    "{}: {challenge}",
                    row.name
                );
                assert!(
                    said.is_some() || answer.code() == 401 || !challenge.starts_with("Bearer"),
                    "{}",
                    row.name
                );
                assert!(
                    !challenge.contains("scope=\"\""),
                    "{} (RFC 6750 §3)",
                    row.name
                );
            }
        }
    }
}

#[test]
fn no_error_is_kept_by_a_cache_and_no_answer_is_public() {
    for row in all_rows() {
        for answer in answers(&row) {
            match answer.value("cache-control") {
                Some(value) => assert!(value == "no-store" && answer.code() >= 400, "{}", row.name),
                // Our responses have a body; those of servers and routers do not.
                None => assert!(
                    answer.code() < 400 || answer.body.is_empty(),
                    "{}",
                    row.name
                ),
            }
        }
    }
}

#[test]
fn outages_and_limits_say_when_to_come_back_and_limits_not_too_early() {
    for row in all_rows() {
        for answer in answers(&row)
            .iter()
            .filter(|answer| answer.is_refusal_of_ours())
        {
            let wait = answer
                .value("retry-after")
                .map(|seconds| seconds.parse::<u64>().unwrap());
            // Credits come back only where a period refills them: then their field has a `t`.
            let never = answer.body.contains("CREDITS_EXHAUSTED")
                && answer.value("ratelimit") == Some("\"credits\";r=0");
            assert_eq!(
                wait.is_some(),
                matches!(answer.code(), 402 | 429 | 503) && !never,
                "{}",
                row.name
            );
            // Every exhausted window has capacity again by then.
            let windows = answer
                .value("ratelimit")
                .filter(|_| matches!(answer.code(), 402 | 429))
                .unwrap_or_default()
                .split(", ");
            for empty in windows.filter(|window| window.contains(";r=0;")) {
                let (_, seconds) = empty.split_once(";t=").unwrap();
                assert!(wait >= seconds.parse().ok(), "{}: {empty}", row.name);
            }
        }
    }
}

#[test]
fn fields_of_limits_come_together_and_name_the_same_windows() {
    let names = |value: &str| {
        value
            .split(", ")
            .map(|item| item.split(';').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    for row in all_rows() {
        for answer in answers(&row) {
            let (state, policy) = (answer.value("ratelimit"), answer.value("ratelimit-policy"));
            assert_eq!(state.map(names), policy.map(names), "{}", row.name);
        }
    }
}

#[test]
fn problems_have_their_status_and_one_title_per_type() {
    let mut titles = std::collections::HashMap::new();
    for row in all_rows() {
        for answer in answers(&row)
            .iter()
            .filter(|answer| !answer.body.is_empty())
        {
            let Some(problem) = answer.json() else {
                assert!(answer.code() < 400, "{}", row.name);
                continue;
            };
            if answer.value("content-type") != Some("application/problem+json") {
                assert_eq!(
                    answer.value("content-type"),
                    Some("application/json"),
                    "{}",
                    row.name
                );
                continue;
            }
            assert_eq!(
                problem["status"],
                answer.code(),
                "{} (RFC 9457 §3.1.2)",
                row.name
            );
            let code: ErrorCode = problem["code"].as_str().unwrap().parse().unwrap();
            // A host may choose 402 for requests that cannot be paid.
            let is_usual = code.status() == answer.code();
            let is_chosen = (code, answer.code()) == (ErrorCode::CreditsExhausted, 402);
            assert!(is_usual || is_chosen, "{}", row.name);
            // RFC 9457 §3.1.3 and §4.2.1: for about:blank, the title is the status phrase.
            let kind = (problem["type"].clone(), answer.code());
            let title = titles
                .entry(kind)
                .or_insert_with(|| problem["title"].clone());
            assert_eq!(*title, problem["title"], "{}", row.name);
        }
    }
}

#[test]
fn a_caller_without_the_secret_learns_nothing() {
    let rows = all_rows();
    let lines = |name: &str| {
        let row = rows
            .iter()
            .find(|row| row.name == name)
            .unwrap_or_else(|| panic!("no row {name:?}"));
        row.answer(Adapter::Tower).to_vec()
    };
    for (one, other) in [
        (
            "a well-formed key that does not exist",
            "the checksum is wrong",
        ),
        (
            "a well-formed key that does not exist",
            "an unknown key over plain HTTP",
        ),
        (
            "a well-formed key that does not exist",
            "an unknown key that names a user",
        ),
        (
            "a well-formed key that does not exist",
            "the limiter is down, and the key is unknown",
        ),
        (
            "an unknown user",
            "a user of another tenant: the same bytes",
        ),
        (
            "an unknown user",
            "a user of another tenant, by email: the same bytes",
        ),
        ("an unknown user", "a suspended user: the same bytes"),
        ("an unknown user", "a key that must not act for users"),
        (
            "AllSign: an unknown user: the same bytes",
            "AllSign: a user of another tenant",
        ),
        (
            "AllSign: an unknown user: the same bytes",
            "AllSign: an unknown email: the same bytes",
        ),
        (
            "AllSign: an unknown key with 64 random characters",
            "AllSign: a wrong last character: the same bytes as an unknown key",
        ),
        (
            "inSigner: a key that is not found",
            "inSigner: a wrong last character",
        ),
        (
            "the store is down: never 401",
            "the store is down: an unknown key gets the same answer",
        ),
    ] {
        assert_eq!(lines(one), lines(other), "{one} / {other}");
    }
}
