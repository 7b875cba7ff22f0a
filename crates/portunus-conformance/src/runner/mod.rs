//! Runs the checks of a suite one after the other, prints the outcome of each when it ends, and
//! reports each root cause once.
//!
//! A check names the checks that it depends on. If one of them failed, it is not run: its failure
//! would have the same cause. The same applies to a failure that repeats an error, a panic or a
//! hanging call of an earlier check.
//!
//! Three limits end a suite within 5 minutes whatever the subject does: for each call, for each
//! check and for the whole suite. On a multi-threaded runtime a check runs on its own thread, so
//! that a subject that blocks its thread does not stop other checks.

mod calls;
mod start;
mod text;
mod watched;

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::report::{Checking, Failure, Unjudged, Violation, Violations};
use calls::{Fault, Hangs};
use start::{Ended, ended};

pub(crate) use calls::Calls;
pub(crate) use text::{compared, shown};
pub(crate) use watched::Watched;

/// The time limit of a check.
const CHECK_LIMIT: Duration = Duration::from_secs(30);
/// The time limit for creating a fresh subject.
const MAKE_LIMIT: Duration = Duration::from_secs(60);
/// The latest end of the last check, so that a suite takes less than 5 minutes.
const SUITE_LIMIT: Duration = Duration::from_secs(285);
/// After this many checks were ended by hanging calls, the remaining checks are not run.
const MOST_HANGING: u32 = 5;

/// A promise, the checks that it depends on, and how it is checked on a fresh subject.
#[derive(Debug)]
pub(crate) struct Check<T> {
    pub(crate) name: &'static str,
    pub(crate) sentence: &'static str,
    /// Names of earlier checks.
    pub(crate) depends_on: &'static [&'static str],
    pub(crate) run: fn(T) -> Checking,
}

/// Depends on every check before it.
const EVERYTHING: &str = "everything";

/// The outcome of a check.
enum Outcome {
    Kept,
    /// With what was observed, and with its symptom if others may show the same one.
    Failed(String, Option<Symptom>),
    /// With the reason.
    Unjudged(String),
}

/// A suite in progress.
pub(crate) struct Suite {
    found: Violations,
    began: Instant,
    /// The duration of the last check.
    took: Duration,
    hangs: Hangs,
    hanging: u32,
    /// Why the remaining checks are not run.
    over: Option<String>,
    /// For checks that failed or were not judged: the cause to name in checks that depend on them.
    broken: HashMap<&'static str, String>,
    /// The cause of the first check that failed or was not judged.
    first_broken: Option<String>,
    /// For errors, panics and hanging calls: the cause to name in checks with the same symptom.
    symptoms: HashMap<String, String>,
}

impl Suite {
    pub(crate) fn new(subject: &'static str) -> Self {
        Self {
            found: Violations::new(subject),
            began: Instant::now(),
            took: Duration::ZERO,
            hangs: Hangs::default(),
            hanging: 0,
            over: None,
            broken: HashMap::new(),
            first_broken: None,
            symptoms: HashMap::new(),
        }
    }

    /// Runs checks in order, each on a fresh subject that makes its calls through the given
    /// [`Calls`].
    pub(crate) async fn run<T, Fut>(
        &mut self,
        checks: &'static [Check<T>],
        make: &mut impl FnMut(Calls) -> Fut,
    ) where
        Fut: Future<Output = T>,
    {
        for check in checks {
            if let Some(why) = self.ground(check.depends_on) {
                self.ended(
                    check.name,
                    check.sentence.to_owned(),
                    Outcome::Unjudged(why),
                );
                continue;
            }
            let calls = Calls::new(&self.hangs);
            let making = make(calls.clone());
            self.check(
                check.name,
                check.sentence.to_owned(),
                calls,
                (making, check.run),
            )
            .await;
        }
    }

    /// Runs one of many similar checks with different seeds, if no check has failed so far.
    pub(crate) async fn walk<T, Fut>(
        &mut self,
        sentence: String,
        make: &mut impl FnMut(Calls) -> Fut,
        walk: impl FnOnce(T) -> Checking,
    ) where
        Fut: Future<Output = T>,
    {
        if let Some(why) = self.ground(&[EVERYTHING]) {
            self.ended("", sentence, Outcome::Unjudged(why));
            return;
        }
        let calls = Calls::new(&self.hangs);
        let making = make(calls.clone());
        self.check("", sentence, calls, (making, walk)).await;
    }

    async fn check<T>(
        &mut self,
        name: &'static str,
        sentence: String,
        calls: Calls,
        (making, run): (impl Future<Output = T>, impl FnOnce(T) -> Checking),
    ) {
        let began = Instant::now();
        let outcome = self.outcome_of(calls, making, run).await;
        self.took = began.elapsed();
        self.ended(name, sentence, outcome);
    }

    fn ended(&mut self, name: &'static str, sentence: String, outcome: Outcome) {
        self.found.checks += 1;
        let (subject, took) = (self.found.subject, self.took);
        match outcome {
            Outcome::Kept => eprintln!("[{subject}] ok, {took:.1?}: {sentence}"),
            Outcome::Failed(seen, symptom) => {
                let seen = text::abridged(&text::masked(&seen), text::MOST_OF_A_MESSAGE);
                let shown = seen.replace('\n', "\n    ");
                eprintln!("[{subject}] FAILED, {took:.1?}: {sentence}\n    {shown}");
                let ground = format!("\u{201c}{sentence}\u{201d}");
                if let Some(Symptom { id, ground: of }) = symptom {
                    self.symptoms
                        .insert(id, of.unwrap_or_else(|| ground.clone()));
                }
                self.mark_broken(name, ground);
                self.found.failed.push(Violation::new(sentence, seen));
            }
            Outcome::Unjudged(why) => {
                eprintln!("[{subject}] not judged: {sentence}: {why}");
                let ground = why.strip_prefix("depends on ").unwrap_or(&why).to_owned();
                self.mark_broken(name, ground);
                self.found.unjudged.push(Unjudged { sentence, why });
            }
        }
    }

    /// Ends the suite.
    pub(crate) fn finish(self) -> Result<(), Violations> {
        let found = self.found;
        let (subject, took) = (found.subject, self.began.elapsed());
        let (failed, unjudged) = (found.failed.len(), found.unjudged.len());
        eprintln!(
            "[{subject}] {} checks in {took:.1?}: {failed} failed, {unjudged} not judged",
            found.checks
        );
        if found.failed.is_empty() {
            Ok(())
        } else {
            Err(found)
        }
    }

    fn mark_broken(&mut self, name: &'static str, ground: String) {
        self.first_broken.get_or_insert_with(|| ground.clone());
        self.broken.insert(name, ground);
    }

    /// Why a check is not run, if it is not.
    fn ground(&self, depends_on: &[&'static str]) -> Option<String> {
        if let Some(over) = &self.over {
            return Some(over.clone());
        }
        let broken = |name: &&'static str| match *name {
            EVERYTHING => self.first_broken.as_ref(),
            name => self.broken.get(name),
        };
        let ground = depends_on.iter().find_map(broken)?;
        Some(format!("depends on {ground}"))
    }

    async fn outcome_of<T>(
        &mut self,
        calls: Calls,
        making: impl Future<Output = T>,
        run: impl FnOnce(T) -> Checking,
    ) -> Outcome {
        let left = SUITE_LIMIT.saturating_sub(self.began.elapsed());
        if left.is_zero() {
            return Outcome::Unjudged(self.ends("the suite's 5 minutes are over"));
        }
        let made = tokio::time::timeout(MAKE_LIMIT.min(left), making).await;
        let Ok(subject) = made else {
            let subject = self.found.subject;
            self.ends(&format!("no fresh {subject} was created"));
            let limit = MAKE_LIMIT.min(left).as_secs();
            let seen = format!("no fresh {subject} was created within {limit} seconds");
            return Outcome::Failed(seen, None);
        };
        let left = SUITE_LIMIT.saturating_sub(self.began.elapsed());
        let limit = CHECK_LIMIT.min(left);
        match ended(run(subject), &calls, limit).await {
            Ended::Done(Ok(())) => Outcome::Kept,
            Ended::Done(Err(Failure { seen, error: None })) => Outcome::Failed(seen, None),
            Ended::Done(Err(Failure {
                seen,
                error: Some(error),
            })) => {
                let id = format!("error {}", without_numbers(&error));
                self.fails(seen, Symptom { id, ground: None })
            }
            Ended::Panicked(panic) => Outcome::Failed(format!("a panic: {panic}"), None),
            Ended::Fault(fault) => self.fault(&fault),
            Ended::Late => match calls.running(limit) {
                // The time limit of the call did not end it, as it blocks its thread.
                Some(call) => self.fault(&Fault::Hangs(call, limit)),
                None => {
                    let seen = format!("it did not end within {} seconds", limit.as_secs());
                    Outcome::Failed(seen, None)
                }
            },
        }
    }

    fn fault(&mut self, fault: &Fault) -> Outcome {
        let id = match fault {
            Fault::Hangs(call, _) => {
                if self.hangs.count(call) {
                    self.hanging += 1;
                }
                format!("hangs {call}")
            }
            Fault::Panics(call, message) => format!("panics {call} {}", without_numbers(message)),
        };
        let ground = Some(fault.ground());
        let failed = self.fails(fault.seen(), Symptom { id, ground });
        if self.hanging >= MOST_HANGING {
            self.ends(&format!("the {} does not answer", self.found.subject));
        }
        failed
    }

    /// Reports each failure once: another one with the same symptom depends on it.
    fn fails(&self, seen: String, symptom: Symptom) -> Outcome {
        match self.symptoms.get(&symptom.id) {
            Some(ground) => Outcome::Unjudged(format!("depends on {ground}")),
            None => Outcome::Failed(seen, Some(symptom)),
        }
    }

    /// Runs no further checks.
    fn ends(&mut self, why: &str) -> String {
        let why = format!("not run: {why}");
        self.over.get_or_insert_with(|| why.clone());
        why
    }
}

/// What identifies a repeated failure, and the cause to name in later checks, if that is not the
/// first check that showed it.
struct Symptom {
    id: String,
    ground: Option<String>,
}

/// A message without its numbers, for comparison: ids and counts differ between checks.
fn without_numbers(message: &str) -> String {
    message.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// Asserts that checks depend only on earlier ones, and that names are unique.
#[cfg(test)]
pub(crate) fn assert_grounds<T>(groups: &[&'static [Check<T>]]) {
    let mut known = Vec::new();
    for check in groups.iter().copied().flatten() {
        for ground in check.depends_on {
            assert!(known.contains(ground), "{} depends on {ground}", check.name);
        }
        assert!(
            !known.contains(&check.name),
            "duplicate check {}",
            check.name
        );
        known.push(check.name);
    }
}
