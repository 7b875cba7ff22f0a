//! Runs the checks of a suite one after the other, says what came of each when it ends, and
//! reports each root cause once.
//!
//! A check names the checks that it builds upon. If one of them failed, it is not run: its failure
//! would have the same cause. The same holds for a failure that repeats an error, a panic or a
//! hanging call of an earlier check.
//!
//! Three limits make a suite end within 5 minutes whatever the subject does: of each call, of each
//! check and of the whole. A check runs in a thread of its own where the runtime has several, so
//! that a subject that blocks its thread stops no other check either.

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

/// How long one check may take.
const CHECK_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to make a fresh subject.
const MAKE_LIMIT: Duration = Duration::from_secs(60);
/// When the last check ends at the latest, so that a suite takes less than 5 minutes.
const SUITE_LIMIT: Duration = Duration::from_secs(285);
/// After this many checks that were ended by calls that hang, no further check is run.
const MOST_HANGING: u32 = 5;

/// A promise, what it builds upon, and how it is tried on a fresh subject.
#[derive(Debug)]
pub(crate) struct Check<T> {
    pub(crate) name: &'static str,
    pub(crate) sentence: &'static str,
    /// Names of earlier checks.
    pub(crate) rests_on: &'static [&'static str],
    pub(crate) run: fn(T) -> Checking,
}

/// Rests on every check before it.
const EVERYTHING: &str = "everything";

/// What came of a check.
enum Outcome {
    Kept,
    /// With what was seen, and with the symptom, where others may show the same.
    Failed(String, Option<Symptom>),
    /// With the reason.
    Unjudged(String),
}

/// A suite that runs.
pub(crate) struct Suite {
    found: Violations,
    began: Instant,
    /// How long the last check took.
    took: Duration,
    hangs: Hangs,
    hanging: u32,
    /// Why no further check is run.
    over: Option<String>,
    /// Of checks that failed or were not judged: what others that rest on them rest on.
    broken: HashMap<&'static str, String>,
    /// The cause of the first check that was broken.
    first_broken: Option<String>,
    /// Of errors, panics and calls that hang: what others that show the same rest on.
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

    /// Runs checks in their order, each on a fresh subject that makes its calls by what it is given.
    pub(crate) async fn run<T, Fut>(
        &mut self,
        checks: &'static [Check<T>],
        make: &mut impl FnMut(Calls) -> Fut,
    ) where
        Fut: Future<Output = T>,
    {
        for check in checks {
            if let Some(why) = self.ground(check.rests_on) {
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

    /// Runs a check of which there are many, each of another seed, if nothing failed so far.
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
                let told = seen.replace('\n', "\n    ");
                eprintln!("[{subject}] FAILED, {took:.1?}: {sentence}\n    {told}");
                let ground = format!("\u{201c}{sentence}\u{201d}");
                if let Some(Symptom { id, ground: of }) = symptom {
                    self.symptoms
                        .insert(id, of.unwrap_or_else(|| ground.clone()));
                }
                self.is_broken(name, ground);
                self.found.failed.push(Violation::new(sentence, seen));
            }
            Outcome::Unjudged(why) => {
                eprintln!("[{subject}] not judged: {sentence}: {why}");
                let ground = why.strip_prefix("rests on ").unwrap_or(&why).to_owned();
                self.is_broken(name, ground);
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

    fn is_broken(&mut self, name: &'static str, ground: String) {
        self.first_broken.get_or_insert_with(|| ground.clone());
        self.broken.insert(name, ground);
    }

    /// Why a check is not run at all, if it is not.
    fn ground(&self, rests_on: &[&'static str]) -> Option<String> {
        if let Some(over) = &self.over {
            return Some(over.clone());
        }
        let broken = |name: &&'static str| match *name {
            EVERYTHING => self.first_broken.as_ref(),
            name => self.broken.get(name),
        };
        let ground = rests_on.iter().find_map(broken)?;
        Some(format!("rests on {ground}"))
    }

    async fn outcome_of<T>(
        &mut self,
        calls: Calls,
        making: impl Future<Output = T>,
        run: impl FnOnce(T) -> Checking,
    ) -> Outcome {
        let left = SUITE_LIMIT.saturating_sub(self.began.elapsed());
        if left.is_zero() {
            return Outcome::Unjudged(self.ends("the 5 minutes of a suite are over"));
        }
        let made = tokio::time::timeout(MAKE_LIMIT.min(left), making).await;
        let Ok(subject) = made else {
            let subject = self.found.subject;
            self.ends(&format!("no fresh {subject} was made"));
            let limit = MAKE_LIMIT.min(left).as_secs();
            let seen = format!("no fresh {subject} was made within {limit} seconds");
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
                // Its own limit did not end it, as it keeps its thread.
                Some(call) => self.fault(&Fault::Hangs(call, limit)),
                None => {
                    let seen = format!("it was not done after {} seconds", limit.as_secs());
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

    /// A failure is reported once: another one with the same symptom rests on it.
    fn fails(&self, seen: String, symptom: Symptom) -> Outcome {
        match self.symptoms.get(&symptom.id) {
            Some(ground) => Outcome::Unjudged(format!("rests on {ground}")),
            None => Outcome::Failed(seen, Some(symptom)),
        }
    }

    /// Runs no further check.
    fn ends(&mut self, why: &str) -> String {
        let why = format!("not run: {why}");
        self.over.get_or_insert_with(|| why.clone());
        why
    }
}

/// By what a failure is recognized when it is seen again, and what the later ones rest on, if that
/// is not the first check that showed it.
struct Symptom {
    id: String,
    ground: Option<String>,
}

/// A message as it is compared: ids and counts differ from check to check.
fn without_numbers(message: &str) -> String {
    message.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// That checks rest on earlier ones only, and that no two have one name.
#[cfg(test)]
pub(crate) fn assert_grounds<T>(groups: &[&'static [Check<T>]]) {
    let mut known = Vec::new();
    for check in groups.iter().copied().flatten() {
        for ground in check.rests_on {
            assert!(known.contains(ground), "{} rests on {ground}", check.name);
        }
        assert!(!known.contains(&check.name), "two are {}", check.name);
        known.push(check.name);
    }
}
