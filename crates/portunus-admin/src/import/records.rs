//! Divides a stream into records: lines of JSON, or CSV (RFC 4180), whose quoted fields may contain
//! line breaks.

use std::fmt;

use super::ImportFormat;

/// The maximum length of a record in bytes: enough for every field at its own maximum.
pub(super) const MOST_BYTES: usize = 256 << 10;

const MARK: &[u8] = b"\xef\xbb\xbf";

/// A record of a stream of keys to import ([`ImportRecords`]).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportRecord {
    /// The line on which it begins, from 1.
    pub line: u64,
    /// The line on which it ends.
    pub end: u64,
    /// Its bytes, without the line break at its end; `None` if it is longer than 256 KiB.
    pub bytes: Option<Vec<u8>>,
}

/// Where in a record of CSV the next byte is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    FieldStart,
    Unquoted,
    Quoted,
    /// After a quote in a quoted field: its end, or the first half of a quote.
    Quote,
}

/// Divides a stream into records as an import does, with memory for one of them: for programs that send
/// a large file in several requests. A byte order mark at the start is dropped.
pub struct ImportRecords {
    /// Whether line breaks in quotes belong to the record.
    quotes: bool,
    place: Place,
    /// How many bytes of a byte order mark were read at the start; `None` after the start.
    mark: Option<usize>,
    /// The current line, and the one on which the record began.
    line: u64,
    first: u64,
    bytes: Vec<u8>,
    is_too_long: bool,
}

impl ImportRecords {
    /// Starts a stream of this format.
    #[must_use]
    pub fn new(format: ImportFormat) -> Self {
        Self {
            quotes: format == ImportFormat::Csv,
            place: Place::FieldStart,
            mark: Some(0),
            line: 1,
            first: 1,
            bytes: Vec::new(),
            is_too_long: false,
        }
    }

    /// Takes bytes from the next part of the stream up to the end of a record; all of them, and returns
    /// `None`, if no record ends in it.
    pub fn next(&mut self, from: &mut &[u8]) -> Option<ImportRecord> {
        while let Some((&byte, rest)) = from.split_first() {
            *from = rest;
            if self.is_mark(byte) {
                continue;
            }
            if byte == b'\n' {
                self.line += 1;
                if self.place != Place::Quoted {
                    return Some(self.ended());
                }
            }
            self.push(byte);
        }
        None
    }

    /// Returns the rest of the stream, if it does not end with a line break.
    pub fn last(&mut self) -> Option<ImportRecord> {
        let read = self.mark.take().unwrap_or(0);
        self.bytes.extend(&MARK[..read % MARK.len()]);
        let is_rest = self.is_too_long || !self.bytes.is_empty();
        is_rest.then(|| {
            self.line += 1;
            self.ended()
        })
    }

    /// Whether a byte belongs to the byte order mark with which some programs start a file.
    fn is_mark(&mut self, byte: u8) -> bool {
        let Some(read) = self.mark else { return false };
        if MARK.get(read) == Some(&byte) {
            self.mark = Some(read + 1);
            return true;
        }
        self.mark = None;
        if read < MARK.len() {
            // Not a mark after all.
            MARK[..read].iter().for_each(|byte| self.push(*byte));
        }
        false
    }

    fn push(&mut self, byte: u8) {
        if self.quotes {
            self.place = match (self.place, byte) {
                (Place::FieldStart, b'"') | (Place::Quote, b'"') => Place::Quoted,
                (Place::Quoted, b'"') => Place::Quote,
                (Place::Quoted, _) => Place::Quoted,
                (_, b',') => Place::FieldStart,
                _ => Place::Unquoted,
            };
        }
        if self.bytes.len() == MOST_BYTES {
            self.is_too_long = true;
        }
        if !self.is_too_long {
            self.bytes.push(byte);
        }
    }

    fn ended(&mut self) -> ImportRecord {
        let bytes = std::mem::take(&mut self.bytes);
        let bytes = (!std::mem::take(&mut self.is_too_long)).then_some(bytes);
        let record = ImportRecord {
            line: self.first,
            end: self.line - 1,
            bytes,
        };
        self.place = Place::FieldStart;
        self.first = self.line;
        record
    }
}

impl fmt::Debug for ImportRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImportRecords(at line {})", self.line)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The records of a stream that arrives in parts of this size: lines and content.
    fn records(quotes: bool, stream: &[u8], size: usize) -> Vec<(u64, u64, Option<String>)> {
        let format = match quotes {
            true => ImportFormat::Csv,
            false => ImportFormat::JsonLines,
        };
        let (mut records, mut all) = (ImportRecords::new(format), Vec::new());
        for mut part in stream.chunks(size) {
            while let Some(record) = records.next(&mut part) {
                all.push(record);
            }
        }
        all.extend(records.last());
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let shown = |record: ImportRecord| (record.line, record.end, record.bytes.map(text));
        all.into_iter().map(shown).collect()
    }

    #[test]
    fn a_record_ends_at_a_line_break_outside_of_quotes() {
        let stream = b"a,\"b\nc\"\"\n\",d\r\n\"e\"x\n\nlast";
        let expected = [
            (1, 3, "a,\"b\nc\"\"\n\",d\r"),
            (4, 4, "\"e\"x"),
            (5, 5, ""),
            (6, 6, "last"),
        ];
        let expected: Vec<_> = expected
            .map(|(line, end, text)| (line, end, Some(text.to_owned())))
            .into();
        for size in 1..=stream.len() {
            assert_eq!(records(true, stream, size), expected, "{size}");
        }
    }

    #[test]
    fn a_line_of_json_ends_at_each_line_break() {
        let found = records(false, b"{\"a\":\"\n\"}\n", 3);
        let expected = [(1, 1, "{\"a\":\""), (2, 2, "\"}")];
        assert_eq!(
            found,
            expected.map(|(a, b, text)| (a, b, Some(text.into())))
        );
    }

    #[test]
    fn a_record_that_is_too_long_takes_no_memory_and_ends_where_it_ends() {
        let mut stream = vec![b'"'];
        stream.extend(std::iter::repeat_n(b"x\n", MOST_BYTES).flatten());
        stream.extend(b"\"\n\"next\"\n");
        stream.extend(std::iter::repeat_n(b'y', MOST_BYTES));
        stream.extend(b"\n");
        stream.extend(std::iter::repeat_n(b'z', MOST_BYTES + 1));
        let found = records(true, &stream, 4_096);
        let line = 1 + MOST_BYTES as u64;
        assert_eq!(found[0], (1, line, None));
        assert_eq!(found[1], (line + 1, line + 1, Some("\"next\"".into())));
        assert_eq!(found[2].2.as_ref().unwrap().len(), MOST_BYTES);
        assert_eq!(found[3], (line + 3, line + 3, None));
    }

    #[test]
    fn only_a_whole_byte_order_mark_at_the_start_is_dropped() {
        for size in 1..4 {
            let found = records(true, b"\xef\xbb\xbf\"a\n\"\n", size);
            assert_eq!(found, [(1, 2, Some("\"a\n\"".into()))], "{size}");
            for (stream, text) in [
                (&b"\xef\xbbx\n"[..], "\u{fffd}x"),
                (b"x\xef\xbb\xbf\n", "x\u{feff}"),
                (b"\xef\xbb\xbf\xef\xbb\xbf\n", "\u{feff}"),
                (b"\xef\xbb", "\u{fffd}"),
            ] {
                assert_eq!(records(true, stream, size), [(1, 1, Some(text.into()))]);
            }
        }
        assert!(records(false, b"\xef\xbb\xbf", 1).is_empty());
        assert!(records(false, b"", 1).is_empty());
    }
}
