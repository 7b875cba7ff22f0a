//! A tamper-evident log: events as lines of JSON that commit to each other, so that an altered or
//! removed line is detected.
//!
//! A line is `{"seq":7,"prev":"…","event":{…},"hash":"…"}`. `hash` is the SHA-256 (or HMAC-SHA256
//! with a key) of the line's own bytes before `,"hash"`. `prev` is the hash of the preceding line,
//! so that each line commits to all lines before it. The `prev` of the first line is all zeros.
//!
//! Without a key, anyone who can write the file can rewrite all lines from the altered one on; with
//! a key, only its holder can. Lines that are missing at the end are detected with a [`ChainHead`]
//! that was stored elsewhere.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::str::FromStr;

use crate::lock::Mutex;
use async_trait::async_trait;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::own_file::{self, OwnFile};
use super::{AuditError, AuditEvent, AuditSink, EventId};
use crate::key::SigningState;
use crate::text::ParseError;

type Hash = [u8; 32];

/// The secret of a keyed chain. Redacted in `Debug`.
#[derive(Clone)]
pub struct ChainKey(SigningState);

impl ChainKey {
    /// Creates a key of at least 32 bytes, or returns `None` if there are fewer.
    #[must_use]
    pub fn new(secret: &[u8]) -> Option<Self> {
        (secret.len() >= 32).then(|| Self(SigningState::of(secret)))
    }
}

impl fmt::Debug for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChainKey([redacted])")
    }
}

fn hash(key: Option<&ChainKey>, bytes: &[u8]) -> Hash {
    match key {
        None => Sha256::digest(bytes).into(),
        Some(ChainKey(keyed)) => keyed.sign(bytes),
    }
}

/// The end of a chain. Stored elsewhere, it proves that no lines are missing at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChainHead {
    /// The number of lines.
    pub lines: u64,
    /// The hash of the last line.
    pub hash: [u8; 32],
}

impl ChainHead {
    /// Creates a chain head from its stored parts.
    #[must_use]
    pub const fn new(lines: u64, hash: [u8; 32]) -> Self {
        Self { lines, hash }
    }

    /// The head of a chain without lines.
    pub const EMPTY: Self = Self {
        lines: 0,
        hash: [0; 32],
    };

    /// Verifies the next line, which `lines` starts with, and returns the head after it; `None` at the
    /// end. Verifies a long chain in steps: [`verify`] does so with all lines.
    ///
    /// # Errors
    /// As for [`verify`].
    pub fn follow(
        &self,
        lines: impl BufRead,
        key: Option<&ChainKey>,
        known: Option<&Self>,
    ) -> Result<Option<Self>, VerifyError> {
        let altered = |line, why| Err(VerifyError::Altered(Altered { line, why }));
        let number = self.lines + 1;
        let mut line = Vec::new();
        lines.take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return match known {
                Some(known) if known.lines >= number => {
                    altered(number, "this line and all after it are missing")
                }
                _ => Ok(None),
            };
        }
        let Some(content) = line.strip_suffix(b"\n") else {
            return altered(number, "the line is truncated");
        };
        let (read, hash) = match read_line(content, key) {
            Ok(read) => read,
            Err(why) => return altered(number, why),
        };
        let _ = &read.event;
        if from_hex(&read.prev) != Some(self.hash) {
            return match read.seq {
                seq if seq == number && self.lines > 0 => altered(
                    self.lines,
                    "this line or the next one was rewritten: they do not match",
                ),
                _ => altered(
                    number,
                    "lines before it are missing, or it does not belong here",
                ),
            };
        }
        if read.seq != number {
            return altered(number, "its sequence number does not match its position");
        }
        let differs = known.is_some_and(|known| known.lines == number && known.hash != hash);
        match differs {
            true => altered(number, "it differs from the known chain head"),
            false => Ok(Some(Self::new(number, hash))),
        }
    }
}

impl fmt::Display for ChainHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.lines, Hex(&self.hash))
    }
}

/// Parses the `Display` format.
impl FromStr for ChainHead {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parts = text.split_once(' ');
        let head = parts.and_then(|(lines, hash)| {
            Some(Self {
                lines: lines.parse().ok()?,
                hash: from_hex(hash)?,
            })
        });
        let why = "a chain head must be a line count, a space and 64 lower-case hexadecimal digits";
        head.ok_or_else(|| ParseError::new("chain head", why))
    }
}

struct Hex<'a>(&'a Hash);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn from_hex(text: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    let text = text.as_bytes();
    if text.len() != 64 || text.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(text.as_chunks::<2>().0) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(hash)
}

/// The first line that was altered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
#[non_exhaustive]
pub struct Altered {
    /// The line number, from 1.
    pub line: u64,
    /// The reason.
    pub why: &'static str,
}

/// Error returned when a chain cannot be verified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A line was altered, removed or inserted.
    #[error(transparent)]
    Altered(#[from] Altered),
    /// The lines could not be read.
    #[error("the audit lines could not be read")]
    Io(#[from] io::Error),
}

/// The beginning of every line.
const BEGIN: &[u8] = br#"{"seq":"#;

const MARK: &[u8] = br#","hash":""#;

/// The length of `MARK`, 64 digits and `"}`.
const TAIL: usize = MARK.len() + 64 + 2;

/// The maximum length of a line; events are bounded.
const LONGEST_LINE: u64 = 1 << 20;

/// The maximum length of the event within a line.
const LONGEST_EVENT: usize = (1 << 20) - 512;

#[derive(Deserialize)]
struct Line {
    seq: u64,
    prev: String,
    event: AuditEvent,
}

/// Parses one line without its line break.
fn read_line(line: &[u8], key: Option<&ChainKey>) -> Result<(Line, Hash), &'static str> {
    const SHAPE: &str = "not a line of an audit chain";
    let (content, tail) = line
        .split_at_checked(line.len().wrapping_sub(TAIL))
        .ok_or(SHAPE)?;
    let stated = tail
        .strip_prefix(MARK)
        .and_then(|tail| tail.strip_suffix(br#""}"#))
        .ok_or(SHAPE)?;
    let stated = str::from_utf8(stated)
        .ok()
        .and_then(from_hex)
        .ok_or(SHAPE)?;
    let actual = hash(key, content);
    if !bool::from(stated.ct_eq(&actual)) {
        return Err("the hash does not match the content");
    }
    let whole = [content, b"}"].concat();
    Ok((serde_json::from_slice(&whole).map_err(|_| SHAPE)?, actual))
}

/// Verifies a whole chain and returns its end.
///
/// If a line has a correct hash but does not commit to the preceding line, which also has a correct
/// hash, one of the two was rewritten. The earlier one is reported, unless lines are missing
/// between them.
///
/// # Errors
/// Returns [`VerifyError::Altered`] with the first line that does not match. If the chain ends
/// before `known`, that is the first missing line; if it has another line there, it is that line.
pub fn verify(
    lines: impl Read,
    key: Option<&ChainKey>,
    known: Option<&ChainHead>,
) -> Result<ChainHead, VerifyError> {
    let mut lines = BufReader::new(lines);
    let mut head = ChainHead::EMPTY;
    while let Some(next) = head.follow(&mut lines, key, known)? {
        head = next;
    }
    Ok(head)
}

/// An audit sink that appends events to a file as a chain. Only one process at a time can open the
/// file.
///
/// Writing blocks the flushing thread until the disk is done. Repeated events are recognized among
/// the last 4096 that were written since the file was opened. An event whose line would exceed the
/// maximum length (1 MiB) is written without its variable-length fields.
pub struct JsonLines {
    writer: Mutex<Writer>,
    key: Option<ChainKey>,
}

struct Writer {
    file: OwnFile,
    /// The total length of all complete lines, in bytes.
    length: u64,
    head: ChainHead,
    recent: Recent,
}

/// The ids of the last events that were written.
#[derive(Default)]
struct Recent {
    order: VecDeque<EventId>,
    ids: HashSet<EventId>,
}

impl Recent {
    /// The maximum number that a repeated flush can have written before.
    const MOST: usize = 4096;

    fn add(&mut self, id: EventId) {
        if self.ids.insert(id) {
            self.order.push_back(id);
        }
        if self.order.len() > Self::MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

impl JsonLines {
    /// Opens or creates a file and continues after its last line. A line that was cut off by a
    /// crash was never acknowledged and is removed.
    ///
    /// # Errors
    /// Returns an error if the file cannot be opened, if another process has it open, or if its
    /// last line was altered.
    pub fn open(path: impl AsRef<Path>, key: Option<ChainKey>) -> io::Result<Self> {
        let mut file = own_file::open(path.as_ref())?;
        let (length, last) = last_line(&mut file)?;
        let head = match last {
            None => ChainHead::EMPTY,
            Some(line) => match read_line(&line, key.as_ref()) {
                Ok((line, hash)) => ChainHead {
                    lines: line.seq,
                    hash,
                },
                Err(why) => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("invalid last line: {why}"),
                    ));
                }
            },
        };
        file.set_len(length)?;
        Ok(Self {
            writer: Mutex::new(Writer {
                file,
                length,
                head,
                recent: Recent::default(),
            }),
            key,
        })
    }

    /// Returns the end of the chain, to be stored elsewhere.
    #[must_use]
    pub fn head(&self) -> ChainHead {
        self.writer.lock().head
    }
}

/// Returns the total length of the complete lines, and the last of them without its line break.
fn last_line(file: &mut File) -> io::Result<(u64, Option<Vec<u8>>)> {
    let end = file.seek(SeekFrom::End(0))?;
    let start = end.saturating_sub(2 * LONGEST_LINE);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(end - start).read_to_end(&mut tail)?;
    let whole = tail.iter().rposition(|&byte| byte == b'\n');
    // An incomplete line that a crash left behind starts like every line, or consists of zeros.
    // Anything else was not written by this sink and must not be removed.
    let rest = &tail[whole.map_or(0, |last| last + 1)..];
    let begins =
        rest.iter().zip(BEGIN).all(|(byte, own)| byte == own) || rest.iter().all(|&byte| byte == 0);
    if !begins || (whole.is_none() && start > 0) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the file is not an audit chain",
        ));
    }
    let Some(last) = whole else {
        return Ok((0, None));
    };
    let line = tail[..last]
        .rsplit(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    Ok((start + last as u64 + 1, Some(line.to_vec())))
}

impl Writer {
    fn append(&mut self, events: &[AuditEvent], key: Option<&ChainKey>) -> io::Result<()> {
        let (mut head, mut text, mut fresh) = (self.head, Vec::new(), Vec::new());
        for event in events {
            if self.recent.ids.contains(&event.id) || fresh.contains(&event.id) {
                continue;
            }
            fresh.push(event.id);
            let begin = text.len();
            write!(
                text,
                r#"{{"seq":{},"prev":"{}","event":"#,
                head.lines + 1,
                Hex(&head.hash)
            )?;
            let json = serde_json::to_vec(event)?;
            match json.len() < LONGEST_EVENT {
                true => text.extend_from_slice(&json),
                false => serde_json::to_writer(&mut text, &without_long_fields(event))?,
            }
            head = ChainHead {
                lines: head.lines + 1,
                hash: hash(key, &text[begin..]),
            };
            text.extend_from_slice(MARK);
            writeln!(text, r#"{}"}}"#, Hex(&head.hash))?;
        }
        self.file.seek(SeekFrom::Start(self.length))?;
        let written = self
            .file
            .write_all(&text)
            .and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.length += text.len() as u64;
                self.head = head;
                fresh.into_iter().for_each(|id| self.recent.add(id));
                Ok(())
            }
            Err(error) => {
                // A partial batch must not precede the next attempt.
                self.file.set_len(self.length)?;
                Err(error)
            }
        }
    }
}

/// Returns the event without its variable-length fields.
fn without_long_fields(event: &AuditEvent) -> AuditEvent {
    let mut short = AuditEvent::new(event.id, event.at, event.action, event.outcome);
    short.tenant_id.clone_from(&event.tenant_id);
    short.key_id.clone_from(&event.key_id);
    short.client_ip = event.client_ip;
    short.status = event.status;
    short.count = event.count;
    short.detail = Some("the event was too long to be stored in full".into());
    short
}

#[async_trait]
impl AuditSink for JsonLines {
    async fn record(&self, events: &[AuditEvent]) -> Result<(), AuditError> {
        self.writer
            .lock()
            .append(events, self.key.as_ref())
            .map_err(AuditError::unavailable)
    }
}

impl fmt::Debug for JsonLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonLines")
            .field("lines", &self.writer.lock().head.lines)
            .finish_non_exhaustive()
    }
}
