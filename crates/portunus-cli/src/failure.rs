//! Failures, and the exit code of each.

use std::fmt;
use std::io;
use std::process::ExitCode;

use portunus_sqlx::OpenError;
use serde_json::Value;

use crate::text::redacted;

/// The exit codes, for `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  success, also if the reader of the output closed it
  1  any other failure, a declined confirmation, or rows that cannot be read
  2  wrong usage, or a value that is not accepted (400, 413, 415, 422)
  3  refused: no valid token, or not permitted (401, 403)
  4  not found (404)
  5  conflict, changed meanwhile (409, 412), or a schema that needs `portunus migrate`
  6  the store or the service does not answer (5xx); a write may have been done
  7  too many requests (429)
  8  a check failed: `doctor` found a problem, `verify` says that a request would be refused,
     `events verify` found an altered line
  9  done, but the audit event could not be written";

/// The class of a failure; its number is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The reader of the output closed it: nothing is reported.
    Closed = 0,
    Other = 1,
    Usage = 2,
    Refused = 3,
    NotFound = 4,
    Conflict = 5,
    Unavailable = 6,
    TooMany = 7,
    CheckFailed = 8,
    NotRecorded = 9,
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    text: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self {
            exit,
            text: text.into(),
        }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }

    pub(crate) fn other(text: impl Into<String>) -> Self {
        Self::new(Exit::Other, text)
    }

    /// The failure of a call to the management API, from its problem document.
    pub(crate) fn of_answer(status: u16, body: &Value) -> Self {
        let exit = match status {
            400 | 413 | 415 | 422 => Exit::Usage,
            401 | 403 => Exit::Refused,
            404 => Exit::NotFound,
            409 | 412 => Exit::Conflict,
            429 => Exit::TooMany,
            500.. => Exit::Unavailable,
            _ => Exit::Other,
        };
        let member = |name: &str| body.get(name).and_then(Value::as_str);
        let text = match (member("detail").or(member("title")), member("code")) {
            (Some(detail), Some(code)) => format!("{detail} ({status} {code})"),
            (Some(detail), None) => format!("{detail} ({status})"),
            (None, _) => format!("the answer is not one of a management API (status {status})"),
        };
        Self::new(exit, text)
    }

    /// The same failure with something to add.
    pub(crate) fn and(mut self, more: &str) -> Self {
        self.text = format!("{}; {more}", self.text);
        self
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }
}

/// Shows no control characters and no credentials of addresses, wherever the text is from.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redacted(&self.text))
    }
}

impl From<Failure> for String {
    fn from(failure: Failure) -> Self {
        failure.to_string()
    }
}

/// A failure to write the output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Exit::Closed, String::new()),
            _ => Self::other(format!("cannot write the output: {error}")),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let exit = match &error {
            OpenError::Newer { .. } | OpenError::Schema { .. } => Exit::Conflict,
            OpenError::InMemory => Exit::Usage,
            _ => Exit::Unavailable,
        };
        Self::new(exit, format!("cannot use the database: {error}"))
    }
}
