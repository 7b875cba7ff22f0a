//! The import of many keys from a stream.

use std::error::Error;
use std::fmt;

use portunus::audit::{Action, AuditOutcome};
use portunus::manage::{KeyManager, NewImport};
use portunus::{AuthError, ErrorCode};
use serde::Deserialize;

use super::ImportRequest;
use super::csv::Header;
use super::records::{ImportRecord, ImportRecords, MOST_BYTES};
use crate::Fault;
use crate::body::{Object, parse, short};

/// The largest number of keys, and the size of their records, that are imported in one write.
const MOST_KEYS: usize = 500;
const MOST_PENDING: usize = 1 << 20;

/// The largest number of refused lines that a report names, and the length of a reason in
/// characters.
const MOST_NAMED: usize = 500;
const LONGEST_REASON: usize = 300;

/// The format of the keys in a stream, in UTF-8, with or without a byte order mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImportFormat {
    /// Lines of JSON (`application/x-ndjson`): each is an object as for the import of one key.
    JsonLines,
    /// CSV with a header (`text/csv`, RFC 4180), separated by commas. A column has the name of its
    /// member; a member of a member is named by its path, such as `digest.hex`, `owner.user_id` and
    /// `rate_limit_config.requests_per_minute`. Scopes, workspaces and addresses are separated by
    /// spaces, and `metadata` is a JSON object. An empty field counts as absent, except that
    /// `workspaces` and `allowed_ips` need `*` for no restriction, if there is such a column.
    Csv,
}

/// An import of many keys from a stream, in any number of parts, with memory for about a megabyte.
/// Lines have at most 256 KiB, and empty ones are skipped.
///
/// Each key is checked as by [`KeyManager::import`], with the rights of the manager's operator. A line
/// that is refused does not stop the others. If the import is interrupted, repeat it with the same
/// stream: keys that are there already are recognized ([`KeyManager::import_many`]).
///
/// A refused line is an audit event with its code and the field that is wrong, and no more of the
/// line. As in [`KeyManager::import_many`], at most a hundred of them are recorded in a minute.
///
/// The events of the last keys are written by the service's periodic jobs. A program without them
/// calls [`AuditTrail::flush`](portunus::audit::AuditTrail::flush) at its end.
///
/// ```
/// use portunus_admin::{ImportFormat, ImportStopped, KeyImport};
///
/// # async fn with(manager: portunus::manage::KeyManager) -> Result<(), ImportStopped> {
/// let mut import = KeyImport::new(&manager, ImportFormat::Csv);
/// import.push(b"name,owner.tenant_id,digest.scheme,digest.base64\n").await?;
/// import.push(b"nightly job,acme,sha256,47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n").await?;
/// let report = import.finish().await?;
/// assert_eq!((report.created, report.refused), (1, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the keys that were pushed last are imported by finish()"]
pub struct KeyImport {
    manager: KeyManager,
    format: ImportFormat,
    records: ImportRecords,
    header: Option<Header>,
    /// The lines of the keys that are not imported yet, and the size of their records.
    lines: Vec<u64>,
    imports: Vec<NewImport>,
    pending: usize,
    report: ImportReport,
    is_stopped: bool,
}

/// What an import did so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportReport {
    /// The number of keys that were created.
    pub created: u64,
    /// The number of keys that the same import had created before.
    pub already_there: u64,
    /// The number of lines that were refused.
    pub refused: u64,
    /// The first 500 of them.
    pub refusals: Vec<RefusedLine>,
}

/// A line that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedLine {
    /// The line on which the record begins, from 1.
    pub line: u64,
    /// The code of the error, as for the import of one key.
    pub code: ErrorCode,
    /// Why the line was refused, at most 300 characters.
    pub reason: String,
}

/// Error returned when an import cannot continue: its header is invalid, or the store, the directory
/// or the audit log does not answer.
#[derive(Debug)]
#[non_exhaustive]
pub struct ImportStopped {
    /// The line from which the import must be repeated. Every line before it is decided.
    pub line: u64,
    /// What was done before.
    pub report: ImportReport,
    /// The reason.
    pub error: AuthError,
}

impl KeyImport {
    /// Starts an import by the manager's operator.
    pub fn new(manager: &KeyManager, format: ImportFormat) -> Self {
        Self {
            manager: manager.clone(),
            records: ImportRecords::new(format),
            format,
            header: None,
            lines: Vec::new(),
            imports: Vec::new(),
            pending: 0,
            report: ImportReport::default(),
            is_stopped: false,
        }
    }

    /// Returns what was done so far.
    #[must_use]
    pub fn report(&self) -> &ImportReport {
        &self.report
    }

    /// Imports the keys of the next part of the stream, as far as they are complete.
    ///
    /// # Errors
    /// [`ImportStopped`]; from then on, also for each further call.
    pub async fn push(&mut self, mut bytes: &[u8]) -> Result<(), ImportStopped> {
        while let Some(record) = self.records.next(&mut bytes) {
            self.take(record).await?;
        }
        Ok(())
    }

    /// Imports the last keys. A last line without a line break counts.
    ///
    /// # Errors
    /// [`ImportStopped`]
    pub async fn finish(mut self) -> Result<ImportReport, ImportStopped> {
        if let Some(record) = self.records.last() {
            self.take(record).await?;
        }
        if self.format == ImportFormat::Csv && self.header.is_none() {
            let missing = Fault::malformed("header", "the first line must name the columns");
            return Err(self.stopped(1, missing));
        }
        self.import().await?;
        Ok(self.report)
    }

    async fn take(&mut self, record: ImportRecord) -> Result<(), ImportStopped> {
        let line = record.line;
        if self.is_stopped {
            let why = "the import has stopped before";
            let error = AuthError::with_detail(ErrorCode::StoreUnavailable, why);
            return Err(self.stopped(line, error.into()));
        }
        let Some(bytes) = record.bytes else {
            let why = format!("longer than {MOST_BYTES} bytes, up to line {}", record.end);
            self.refuse_unsent(line, &Fault::new(ErrorCode::TooLarge, why));
            return Ok(());
        };
        if bytes.trim_ascii().is_empty() {
            return Ok(());
        }
        let import = match (self.format, &self.header) {
            (ImportFormat::JsonLines, _) => parse(&bytes),
            (ImportFormat::Csv, Some(header)) => of_row(header, &bytes),
            (ImportFormat::Csv, None) => {
                let needs_tenant = self.manager.operator().tenant().is_none();
                match Header::read(&bytes, needs_tenant) {
                    Ok(header) => self.header = Some(header),
                    Err(why) => return Err(self.stopped(line, Fault::malformed("header", why))),
                }
                return Ok(());
            }
        };
        let import: Result<ImportRequest, Fault> = import;
        let import = match import {
            Ok(import) => import.into_import(&self.manager).await,
            Err(fault) => Err(fault),
        };
        match import {
            Ok(import) => {
                self.lines.push(line);
                self.imports.push(import);
                self.pending += bytes.len();
            }
            Err(fault) if fault.error().status() >= 500 => {
                self.import().await?;
                return Err(self.stopped(line, fault));
            }
            Err(fault) => self.refuse_unsent(line, &fault),
        }
        if self.imports.len() == MOST_KEYS || self.pending >= MOST_PENDING {
            self.import().await?;
        }
        Ok(())
    }

    /// Imports the keys that wait.
    async fn import(&mut self) -> Result<(), ImportStopped> {
        let (lines, imports) = (
            std::mem::take(&mut self.lines),
            std::mem::take(&mut self.imports),
        );
        self.pending = 0;
        let Some(first) = lines.first() else {
            return Ok(());
        };
        let outcomes = match self.manager.import_many(imports).await {
            Ok(outcomes) => outcomes,
            Err(error) => return Err(self.stopped(*first, error.into())),
        };
        let mut stopped = None;
        for (line, outcome) in lines.into_iter().zip(outcomes) {
            match outcome.map_err(Fault::from) {
                Ok(Some(_)) => self.report.created += 1,
                Ok(None) => self.report.already_there += 1,
                Err(fault) if fault.error().status() >= 500 => {
                    stopped.get_or_insert((line, fault));
                }
                Err(fault) => self.refuse(line, &fault),
            }
        }
        match stopped {
            Some((line, fault)) => Err(self.stopped(line, fault)),
            None => Ok(()),
        }
    }

    /// Refuses a line that does not reach the manager, and records it like the lines that the
    /// manager refuses. Nothing else does: the response to the whole import is not a refusal.
    fn refuse_unsent(&mut self, line: u64, fault: &Fault) {
        let error = fault.error();
        let outcome = AuditOutcome::Refused(error.code());
        // Without the reason: it may quote the line, and so a secret in the wrong place.
        self.manager.note_call(Action::KeyImport, outcome, |event| {
            event.detail = error.field().map(str::to_owned);
        });
        self.refuse(line, fault);
    }

    fn refuse(&mut self, line: u64, fault: &Fault) {
        let report = &mut self.report;
        report.refused += 1;
        // Lines that cannot be read are refused before those that are being collected.
        let refusals = &mut report.refusals;
        let place = refusals.partition_point(|refusal| refusal.line < line);
        if place < MOST_NAMED {
            let error = fault.error();
            let refusal = RefusedLine {
                line,
                code: error.code(),
                reason: error.detail().chars().take(LONGEST_REASON).collect(),
            };
            refusals.insert(place, refusal);
            refusals.truncate(MOST_NAMED);
        }
    }

    fn stopped(&mut self, line: u64, fault: Fault) -> ImportStopped {
        self.is_stopped = true;
        ImportStopped {
            line,
            report: self.report.clone(),
            error: fault.into(),
        }
    }
}

/// Reads a row of CSV.
fn of_row(header: &Header, bytes: &[u8]) -> Result<ImportRequest, Fault> {
    let row = header
        .row(bytes)
        .map_err(|why| Fault::malformed("line", why))?;
    let read = Object::<ImportRequest>::deserialize(row);
    read.map(|Object(import)| import)
        .map_err(|error| Fault::malformed("line", short(&error)))
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Header")
    }
}

impl fmt::Display for ImportStopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, report, .. } = self;
        write!(
            f,
            "the import stopped at line {line} ({} created, {} already there, {} refused): {}",
            report.created,
            report.already_there,
            report.refused,
            self.error.detail()
        )
    }
}

impl Error for ImportStopped {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

impl From<ImportStopped> for Fault {
    fn from(stopped: ImportStopped) -> Self {
        let code = stopped.error.code();
        let why = stopped.to_string();
        AuthError::with_detail(code, format!("T{}", &why[1..]))
            .caused_by(stopped)
            .into()
    }
}
