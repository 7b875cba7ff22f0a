//! Divides a file into records: lines, or rows of CSV (RFC 4180), whose quoted fields may contain line
//! breaks.

use std::io::{BufRead, Error, Read};
use std::ops::RangeInclusive;

use crate::failure::Failure;

/// The longest record in bytes, as the service reads it.
const LONGEST: usize = 256 << 10;

/// A record, with its line break.
pub(crate) struct Record {
    pub(crate) bytes: Vec<u8>,
    /// The lines of the file on which it is, from 1.
    pub(crate) lines: RangeInclusive<u64>,
}

pub(crate) struct Records<R> {
    file: R,
    is_csv: bool,
    /// The next line.
    line: u64,
}

/// Why a file cannot be divided.
pub(crate) enum Unread {
    File(Error),
    /// The record that begins at this line is too long.
    TooLong(u64),
}

impl Unread {
    pub(crate) fn of_file(self, cannot: impl Fn(&Error) -> Failure) -> Failure {
        match self {
            Self::File(error) => cannot(&error),
            Self::TooLong(line) => Failure::usage(format!(
                "the record at line {line} is longer than {LONGEST} bytes"
            )),
        }
    }
}

/// Where in a row the next byte is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    FieldStart,
    Unquoted,
    Quoted,
    /// After a quote in a quoted field: its end, or the first half of a quote.
    Quote,
}

impl Place {
    fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::FieldStart | Self::Quote, b'"') => Self::Quoted,
            (Self::Quoted, b'"') => Self::Quote,
            (Self::Quoted, _) => Self::Quoted,
            (_, b',') => Self::FieldStart,
            _ => Self::Unquoted,
        }
    }
}

impl<R: BufRead> Records<R> {
    pub(crate) fn of(file: R, is_csv: bool) -> Self {
        Self {
            file,
            is_csv,
            line: 1,
        }
    }

    /// Returns the next record; `None` at the end of the file.
    pub(crate) fn next(&mut self) -> Result<Option<Record>, Unread> {
        let (first, mut bytes, mut place) = (self.line, Vec::new(), Place::FieldStart);
        loop {
            let begin = bytes.len();
            let left = (LONGEST + 1).saturating_sub(begin) as u64;
            let line = (&mut self.file).take(left).read_until(b'\n', &mut bytes);
            line.map_err(Unread::File)?;
            if bytes.len() > LONGEST {
                return Err(Unread::TooLong(first));
            }
            if bytes.len() == begin {
                // The end of the file; a quoted field may be open.
                let lines = first..=self.line.saturating_sub(1);
                return Ok((begin > 0).then_some(Record { bytes, lines }));
            }
            self.line += 1;
            let mark = if self.line == 2 { MARK } else { b"" };
            let read = &bytes[begin..];
            let read = read.strip_prefix(mark).unwrap_or(read);
            place = read.iter().fold(place, |place, byte| place.after(*byte));
            if !self.is_csv || place != Place::Quoted {
                let lines = first..=self.line - 1;
                return Ok(Some(Record { bytes, lines }));
            }
        }
    }
}

/// The byte order mark with which some programs start a file.
pub(crate) const MARK: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn records(is_csv: bool, file: &[u8]) -> Vec<(RangeInclusive<u64>, String)> {
        let (mut records, mut all) = (Records::of(file, is_csv), Vec::new());
        while let Some(record) = records.next().ok().unwrap() {
            all.push((record.lines, String::from_utf8(record.bytes).unwrap()));
        }
        all
    }

    #[test]
    fn a_row_ends_at_a_line_break_outside_of_quotes() {
        let file = b"\xef\xbb\xbf\"a\nb\",c\r\n5\" disk,d\n\"e\"\"\n\",f\n\n\"open\nend";
        let expected = [
            (1..=2, "\u{feff}\"a\nb\",c\r\n"),
            (3..=3, "5\" disk,d\n"),
            (4..=5, "\"e\"\"\n\",f\n"),
            (6..=6, "\n"),
            (7..=8, "\"open\nend"),
        ];
        assert_eq!(
            records(true, file),
            expected.map(|(at, text)| (at, text.to_owned()))
        );
        let lines: Vec<_> = records(false, b"{\"\n}")
            .into_iter()
            .map(|it| it.0)
            .collect();
        assert_eq!(lines, [1..=1, 2..=2]);
    }

    #[test]
    fn a_record_that_is_too_long_is_not_read_to_its_end() {
        let mut file = b"first\n\"".to_vec();
        file.extend(std::iter::repeat_n(b"x\n", LONGEST).flatten());
        let mut records = Records::of(&file[..], true);
        assert!(records.next().is_ok());
        assert!(matches!(records.next(), Err(Unread::TooLong(2))));
    }
}
