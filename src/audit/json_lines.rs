//! Events as lines of JSON that commit to each other: whoever alters one line, or takes one out, is found.
//!
//! A line is `{"seq":7,"prev":"…","event":{…},"hash":"…"}`. `hash` is SHA-256 (or HMAC-SHA256 with a key) of the line's own
//! bytes before `,"hash"`, and `prev` is the hash of the line before, so that each line commits to all that came before
//! it. The first one's `prev` is all zeros.
//!
//! Without a key, whoever can write the file can write all lines from the altered one on anew; with one, only who holds the
//! key can. Lines that are missing at the end are found by a [`ChainHead`] that was kept elsewhere.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use async_trait::async_trait;
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{AuditError, AuditEvent, AuditSink};

type Hash = [u8; 32];

/// The secret of a keyed chain. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct ChainKey(Hmac<Sha256>);

impl ChainKey {
    /// A key of 32 bytes or more; `None` where there are fewer.
    #[must_use]
    pub fn new(secret: &[u8]) -> Option<Self> {
        Hmac::new_from_slice(secret).ok().filter(|_| secret.len() >= 32).map(Self)
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
        Some(ChainKey(keyed)) => {
            let mut mac = keyed.clone();
            mac.update(bytes);
            mac.finalize().into_bytes().into()
        }
    }
}

/// The end of a chain: kept elsewhere, it proves that no line is missing at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChainHead {
    /// How many lines there are.
    pub lines: u64,
    /// The hash of the last one.
    pub hash: [u8; 32],
}

impl ChainHead {
    const EMPTY: Self = Self { lines: 0, hash: [0; 32] };
}

impl fmt::Display for ChainHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.lines, Hex(&self.hash))
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

/// The first line that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
#[non_exhaustive]
pub struct Altered {
    /// Its number, from 1.
    pub line: u64,
    /// What does not fit.
    pub why: &'static str,
}

/// Why a chain is not verified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A line was altered, taken out, or put in.
    #[error(transparent)]
    Altered(#[from] Altered),
    /// The lines could not be read.
    #[error("the audit lines could not be read")]
    Io(#[from] io::Error),
}

const MARK: &[u8] = br#","hash":""#;

/// `MARK`, 64 digits, and `"}`.
const TAIL: usize = MARK.len() + 64 + 2;

/// No line is longer: events are bounded.
const LONGEST_LINE: u64 = 1 << 20;

#[derive(Deserialize)]
struct Line {
    seq: u64,
    prev: String,
    event: AuditEvent,
}

/// Reads one line without its end.
fn read_line(line: &[u8], key: Option<&ChainKey>) -> Result<(Line, Hash), &'static str> {
    const SHAPE: &str = "it is no line of an audit chain";
    let (content, tail) = line.split_at_checked(line.len().wrapping_sub(TAIL)).ok_or(SHAPE)?;
    let stated = tail.strip_prefix(MARK).and_then(|tail| tail.strip_suffix(br#""}"#)).ok_or(SHAPE)?;
    let stated = str::from_utf8(stated).ok().and_then(from_hex).ok_or(SHAPE)?;
    let actual = hash(key, content);
    if !bool::from(stated.ct_eq(&actual)) {
        return Err("its content does not have its hash");
    }
    let whole = [content, b"}"].concat();
    Ok((serde_json::from_slice(&whole).map_err(|_| SHAPE)?, actual))
}

/// Reads a whole chain, and finds the first altered line.
///
/// Where a line does not commit to the one before although each has its own hash, one of the two was written anew: it is
/// the earlier one that is reported, unless lines are missing between them.
///
/// # Errors
/// [`VerifyError::Altered`] with the first line that does not fit. Where the chain ends before `known`, or has another
/// line there, that is the first missing line.
pub fn verify(lines: impl Read, key: Option<&ChainKey>, known: Option<&ChainHead>) -> Result<ChainHead, VerifyError> {
    let mut reader = BufReader::new(lines);
    let mut head = ChainHead::EMPTY;
    let altered = |line, why| Err(VerifyError::Altered(Altered { line, why }));
    loop {
        let mut line = Vec::new();
        reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            break;
        }
        let number = head.lines + 1;
        let Some(content) = line.strip_suffix(b"\n") else { return altered(number, "it is cut off") };
        let (read, hash) = match read_line(content, key) {
            Ok(read) => read,
            Err(why) => return altered(number, why),
        };
        let _ = &read.event;
        if from_hex(&read.prev) != Some(head.hash) {
            return match read.seq {
                seq if seq == number && head.lines > 0 => {
                    altered(number - 1, "it was written anew, or the line after it was: they do not fit")
                }
                _ => altered(number, "lines are missing before it, or it does not belong here"),
            };
        }
        if read.seq != number {
            return altered(number, "its number is not that of its place");
        }
        head = ChainHead { lines: number, hash };
        if let Some(known) = known
            && known.lines == number
            && known.hash != hash
        {
            return altered(number, "it is not the line that was there");
        }
    }
    match known {
        Some(known) if known.lines > head.lines => altered(head.lines + 1, "it is missing, as all after it"),
        _ => Ok(head),
    }
}

/// Appends events to a file, as a chain. One process at a time has it open.
///
/// Writing blocks the thread that flushes, for as long as the disk takes.
pub struct JsonLines {
    writer: Mutex<Writer>,
    key: Option<ChainKey>,
}

struct Writer {
    file: File,
    /// The bytes of all whole lines.
    length: u64,
    head: ChainHead,
}

impl JsonLines {
    /// Opens or makes a file, and goes on after its last line. A line that was cut off by a crash was never acknowledged and
    /// is taken away.
    ///
    /// # Errors
    /// Where the file cannot be opened, another process has it open, or its last line was altered.
    pub fn open(path: impl AsRef<Path>, key: Option<ChainKey>) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        file.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => {
                io::Error::new(io::ErrorKind::ResourceBusy, "another process has it open")
            }
            std::fs::TryLockError::Error(error) => error,
        })?;
        let (length, last) = last_line(&mut file)?;
        let head = match last {
            None => ChainHead::EMPTY,
            Some(line) => match read_line(&line, key.as_ref()) {
                Ok((line, hash)) => ChainHead { lines: line.seq, hash },
                Err(why) => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the last line: {why}"))),
            },
        };
        file.set_len(length)?;
        Ok(Self { writer: Mutex::new(Writer { file, length, head }), key })
    }

    /// The end of the chain, to be kept elsewhere.
    #[must_use]
    pub fn head(&self) -> ChainHead {
        self.writer.lock().head
    }
}

/// How long the whole lines of a file are, and the last of them without its end.
fn last_line(file: &mut File) -> io::Result<(u64, Option<Vec<u8>>)> {
    let end = file.seek(SeekFrom::End(0))?;
    let start = end.saturating_sub(2 * LONGEST_LINE);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(end - start).read_to_end(&mut tail)?;
    let Some(last) = tail.iter().rposition(|&byte| byte == b'\n') else {
        return match start {
            0 => Ok((0, None)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the last line is too long for an audit chain")),
        };
    };
    let line = tail[..last].rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    Ok((start + last as u64 + 1, Some(line.to_vec())))
}

impl Writer {
    fn append(&mut self, events: &[AuditEvent], key: Option<&ChainKey>) -> io::Result<()> {
        let (mut head, mut text) = (self.head, Vec::new());
        for event in events {
            let begin = text.len();
            write!(text, r#"{{"seq":{},"prev":"{}","event":"#, head.lines + 1, Hex(&head.hash))?;
            serde_json::to_writer(&mut text, event)?;
            head = ChainHead { lines: head.lines + 1, hash: hash(key, &text[begin..]) };
            text.extend_from_slice(MARK);
            writeln!(text, r#"{}"}}"#, Hex(&head.hash))?;
        }
        self.file.seek(SeekFrom::Start(self.length))?;
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.length += text.len() as u64;
                self.head = head;
                Ok(())
            }
            Err(error) => {
                // Half a batch must not stay in front of the next try.
                self.file.set_len(self.length)?;
                Err(error)
            }
        }
    }
}

#[async_trait]
impl AuditSink for JsonLines {
    async fn record(&self, events: &[AuditEvent]) -> Result<(), AuditError> {
        self.writer.lock().append(events, self.key.as_ref()).map_err(AuditError::unavailable)
    }
}

impl fmt::Debug for JsonLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonLines").field("lines", &self.writer.lock().head.lines).finish_non_exhaustive()
    }
}
