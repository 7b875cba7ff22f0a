//! What a suite found: each check that failed, by its sentence, with what was seen.
//!
//! A check runs in a task of its own and has a time limit, so that one that panics or hangs is a
//! violation and stops no other.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// How long one check may take.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// No more of what was seen is shown.
const MOST_SHOWN: usize = 3_000;

/// What an implementation does otherwise than promised.
///
/// `Display` and `Debug` show the same list, so that `suite.await.unwrap()` in a test is readable.
pub struct Violations {
    subject: &'static str,
    checks: usize,
    failed: Vec<Violation>,
}

/// One check that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    check: String,
    seen: String,
}

impl Violation {
    /// The promise, as a sentence.
    #[must_use]
    pub fn check(&self) -> &str {
        &self.check
    }

    /// What was seen instead.
    #[must_use]
    pub fn seen(&self) -> &str {
        &self.seen
    }
}

impl Violations {
    /// The checks that failed, in the order in which they ran.
    pub fn iter(&self) -> impl Iterator<Item = &Violation> {
        self.failed.iter()
    }

    /// How many checks there were, failed or not.
    #[must_use]
    pub const fn checks(&self) -> usize {
        self.checks
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} checks of this {} failed:",
            self.failed.len(),
            self.checks,
            self.subject
        )?;
        for violation in &self.failed {
            write!(
                f,
                "\n- {}\n  {}",
                violation.check,
                violation.seen.replace('\n', "\n  ")
            )?;
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

/// What one check saw that should not be. Every error becomes one, with its sources.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) seen: String,
}

pub(super) type Checked = Result<(), Failure>;
pub(super) type Checking = Pin<Box<dyn Future<Output = Checked> + Send>>;

/// A promise, and how it is tried on a fresh subject.
pub(super) type Check<T> = (&'static str, fn(T) -> Checking);

impl Failure {
    pub(super) fn new(seen: impl Into<String>) -> Self {
        Self { seen: seen.into() }
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut seen = format!("an error: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            seen.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        Self { seen }
    }
}

/// Ends a check with what was seen, unless something holds.
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
            (seen, expected) => ensure!(
                *seen == *expected,
                "{}:\nexpected {expected:?}\n    seen {seen:?}",
                format_args!($($what)+)
            ),
        }
    };
}

/// The checks of a module: each a sentence and the function that tries it.
macro_rules! checks {
    ($subject:ty { $($sentence:literal => $check:expr,)+ }) => {
        pub(super) const CHECKS: &[$crate::report::Check<$subject>] =
            &[$(($sentence, |subject| Box::pin($check(subject)))),+];
    };
}

/// Runs checks one after the other and collects what failed.
pub(super) struct Suite(Violations);

impl Suite {
    pub(super) fn new(subject: &'static str) -> Self {
        Self(Violations {
            subject,
            checks: 0,
            failed: Vec::new(),
        })
    }

    pub(super) async fn check(
        &mut self,
        sentence: impl Into<String>,
        check: impl Future<Output = Checked> + Send + 'static,
    ) {
        let mut task = tokio::spawn(check);
        let seen = match tokio::time::timeout(TIME_LIMIT, &mut task).await {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(Failure { seen }))) => Some(seen),
            Ok(Err(ended)) => Some(how_it_ended(ended)),
            Err(_) => {
                task.abort();
                Some(format!(
                    "it was not done after {} seconds",
                    TIME_LIMIT.as_secs()
                ))
            }
        };
        self.0.checks += 1;
        if let Some(mut seen) = seen {
            if let Some((end, _)) = seen.char_indices().nth(MOST_SHOWN) {
                seen.truncate(end);
                seen.push('…');
            }
            self.0.failed.push(Violation {
                check: sentence.into(),
                seen,
            });
        }
    }

    pub(super) fn finish(self) -> Result<(), Violations> {
        if self.0.failed.is_empty() {
            Ok(())
        } else {
            Err(self.0)
        }
    }
}

fn how_it_ended(ended: tokio::task::JoinError) -> String {
    match ended.try_into_panic() {
        Ok(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            format!("a panic: {}", text.unwrap_or("without a message"))
        }
        Err(ended) => format!("it was cancelled: {ended}"),
    }
}

/// What the suites write themselves is valid. Were it not, the check would say so by a panic.
pub(super) fn valid<T, E: fmt::Debug>(made: Result<T, E>) -> T {
    match made {
        Ok(made) => made,
        Err(error) => unreachable!("the suite's own data is wrong: {error:?}"),
    }
}
