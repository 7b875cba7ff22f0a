//! Text for a terminal: names come from others, and must not control it.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a character could control a terminal, hide, or reorder what stands beside it. Joiners are
/// part of words and emoji.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
        )
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Returns a text as it can be shown to people: harmful characters as `\u{…}`.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return text.into();
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_harmful(c) {
            true => safe.extend(c.escape_unicode()),
            false => safe.push(c),
        }
    }
    safe.into()
}

/// Returns JSON text with the same value in which harmful characters are escaped. serde_json leaves
/// those that JSON allows.
pub(crate) fn inert_json(json: String) -> String {
    // Line breaks between values are the only control characters outside of strings.
    let is_left = |c: char| c != '\n' && is_harmful(c);
    if !json.contains(is_left) {
        return json;
    }
    let mut safe = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if !is_left(c) {
            safe.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(safe, "\\u{unit:04x}");
        }
    }
    safe
}

/// Returns a text for a terminal without the credentials of addresses: `postgres://…@host`.
pub(crate) fn redacted(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        safe.push_str(before);
        safe.push_str("://");
        // Credentials that are not encoded may contain anything but a space.
        let word = &after[..after.find(char::is_whitespace).unwrap_or(after.len())];
        rest = after;
        if let Some(end) = word.rfind('@') {
            safe.push('…');
            rest = &after[end..];
        }
    }
    safe.push_str(rest);
    shown(&safe).into_owned()
}

/// Aligns cells in columns. The last column is not padded: names are long, and those that are
/// written from right to left would move what follows them.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|&name| name.to_owned()).collect();
    let cells: Vec<Vec<Cow<'_, str>>> = std::iter::once(&head)
        .chain(rows)
        .map(|row| row.iter().map(|cell| shown(cell)).collect())
        .collect();
    let width = |column: usize| {
        let widths = cells.iter().filter_map(|row| row.get(column));
        widths.map(|cell| console::measure_text_width(cell)).max()
    };
    let widths: Vec<usize> = (0..head.len()).map(|at| width(at).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &cells {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let padding = width.saturating_sub(console::measure_text_width(cell));
            let _ = write!(line, "{cell}{:padding$}  ", "");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_controls_a_terminal_is_shown_as_text() {
        assert_eq!(
            shown("\u{1b}[2Jx\u{9b}31m\r\n"),
            "\\u{1b}[2Jx\\u{9b}31m\\u{d}\\u{a}"
        );
        assert_eq!(shown("a\u{202e}gpj.exe"), "a\\u{202e}gpj.exe");
        assert_eq!(
            shown("👩\u{200d}🔧 می\u{200c}خواهم"),
            "👩\u{200d}🔧 می\u{200c}خواهم"
        );
    }

    #[test]
    fn json_that_is_inert_has_the_same_value() {
        let value = serde_json::json!({"name": "\u{1b}]0;x\u{7}\u{9b}\u{7f}\u{202e}\u{e0041}ü"});
        let text = inert_json(serde_json::to_string_pretty(&value).unwrap_or_default());
        assert!(!text.contains(|c| c != '\n' && is_harmful(c)), "{text:?}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).ok(),
            Some(value)
        );
    }

    #[test]
    fn credentials_of_addresses_are_left_out() {
        let text = "cannot reach postgres://u:p@ss@host/db or redis://:hunter2@h";
        assert_eq!(
            redacted(text),
            "cannot reach postgres://…@host/db or redis://…@h"
        );
        assert_eq!(redacted("see https://host/path"), "see https://host/path");
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let rows = [
            vec!["契約".to_owned(), "x".to_owned()],
            vec!["ab".to_owned(), "y".to_owned()],
        ];
        assert_eq!(table(&["A", "B"], &rows), "A     B\n契約  x\nab    y\n");
    }
}
