//! The result of a suite: each root cause once, with the sentence of the check that shows it.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

/// The promises that an implementation does not keep.
///
/// `Display` and `Debug` print the same list, so that `suite.await.unwrap()` in a test is readable.
pub struct Violations {
    pub(crate) subject: &'static str,
    pub(crate) checks: usize,
    pub(crate) failed: Vec<Violation>,
    pub(crate) unjudged: Vec<Unjudged>,
}

/// A failed check: a root cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    check: String,
    seen: String,
}

impl Violation {
    pub(crate) const fn new(check: String, seen: String) -> Self {
        Self { check, seen }
    }

    /// Returns the promise, as a sentence.
    #[must_use]
    pub fn check(&self) -> &str {
        &self.check
    }

    /// Returns what was observed instead: at most 1000 characters, and at most 200 of each value.
    /// Anything that may be a complete digest or secret is masked.
    #[must_use]
    pub fn seen(&self) -> &str {
        &self.seen
    }
}

/// A check that was not judged, and why.
#[derive(Debug)]
pub(crate) struct Unjudged {
    pub(crate) sentence: String,
    pub(crate) why: String,
}

impl Violations {
    pub(crate) const fn new(subject: &'static str) -> Self {
        Self {
            subject,
            checks: 0,
            failed: Vec::new(),
            unjudged: Vec::new(),
        }
    }

    /// Returns the failed checks in the order in which they ran, one for each root cause.
    pub fn iter(&self) -> impl Iterator<Item = &Violation> {
        self.failed.iter()
    }

    /// Returns the checks that were not judged, each with its reason: `depends on …` names the
    /// failed check or the call that does not answer, `not run: …` says why the suite ended early.
    pub fn not_judged(&self) -> impl Iterator<Item = (&str, &str)> {
        let unjudged = self.unjudged.iter();
        unjudged.map(|Unjudged { sentence, why }| (sentence.as_str(), why.as_str()))
    }

    /// Returns the number of checks, judged or not.
    #[must_use]
    pub const fn checks(&self) -> usize {
        self.checks
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (failed, checks, subject) = (self.failed.len(), self.checks, self.subject);
        write!(f, "{failed} of {checks} checks of this {subject} failed:")?;
        for Violation { check, seen } in &self.failed {
            write!(f, "\n- {check}\n  {}", seen.replace('\n', "\n  "))?;
        }
        let mut reasons: Vec<(&str, usize)> = Vec::new();
        for (_, why) in self.not_judged() {
            match reasons.iter_mut().find(|(known, _)| *known == why) {
                Some((_, count)) => *count += 1,
                None => reasons.push((why, 1)),
            }
        }
        if !reasons.is_empty() {
            write!(
                f,
                "\n{} further checks were not judged:",
                self.unjudged.len()
            )?;
        }
        for (why, count) in reasons {
            write!(f, "\n- {count}: {why}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for Violations {}

/// A failed observation of a check. Every error converts into one, with its sources.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) seen: String,
    /// The error text, if the failure is an error: the same error elsewhere has the same cause.
    pub(super) error: Option<String>,
}

pub(super) type Checked = Result<(), Failure>;
pub(super) type Checking = Pin<Box<dyn Future<Output = Checked> + Send>>;

impl Failure {
    pub(super) fn new(seen: impl Into<String>) -> Self {
        Self {
            seen: seen.into(),
            error: None,
        }
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        Self {
            seen: format!("an error: {text}"),
            error: Some(text),
        }
    }
}

/// Ends a check with what was observed, unless a condition holds.
macro_rules! ensure {
    ($holds:expr, $($seen:tt)+) => {
        if !$holds {
            return Err($crate::report::Failure::new(format!($($seen)+)));
        }
    };
}

/// Ends a check unless two values are equal.
macro_rules! ensure_eq {
    ($seen:expr, $expected:expr, $($what:tt)+) => {
        match (&$seen, &$expected) {
            (seen, expected) => if *seen != *expected {
                let [expected, seen] = $crate::runner::compared(expected, seen);
                return Err($crate::report::Failure::new(format!(
                    "{}:\nexpected {expected}\n    seen {seen}",
                    format_args!($($what)+)
                )));
            },
        }
    };
}

/// The checks of a module: each a sentence, the function that runs it, and the functions of earlier
/// checks that it depends on.
macro_rules! checks {
    ($checks:ident: $subject:ty {
        $($sentence:literal => $check:ident $(depends on [$($ground:ident),+])?,)+
    }) => {
        pub(super) const $checks: &[$crate::runner::Check<$subject>] = &[$($crate::runner::Check {
            name: stringify!($check),
            sentence: $sentence,
            depends_on: &[$($(stringify!($ground)),+)?],
            run: |subject| Box::pin($check(subject)),
        }),+];
    };
}

/// Unwraps the suite's own data, which is always valid.
pub(super) fn valid<T, E: fmt::Debug>(made: Result<T, E>) -> T {
    match made {
        Ok(made) => made,
        Err(error) => unreachable!("the suite's own data is invalid: {error:?}"),
    }
}
