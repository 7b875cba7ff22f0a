//! Values in messages: abbreviated around the first difference, and without secrets.

use std::fmt::{self, Debug, Write};

/// The largest number of characters of one value in a message.
pub(crate) const MOST_OF_A_VALUE: usize = 200;
/// The largest number of characters of a message.
pub(super) const MOST_OF_A_MESSAGE: usize = 1_000;
/// The number of common characters that are shown before the first difference.
const BEFORE_THE_DIFFERENCE: usize = 60;
/// The largest part of a value that is searched for a difference.
const MOST_COMPARED: usize = 1 << 20;
/// The length from which a sequence of letters and digits may be a digest or a key.
const SECRET_LENGTH: usize = 40;
/// The length from which a list of bytes may be a digest or a key.
const SECRET_BYTES: usize = 24;
/// The number of characters of a possible secret that are shown.
const MOST_OF_A_SECRET: usize = 8;

/// Keeps the first characters and rejects the rest, so that huge values are not formatted
/// completely.
struct Head {
    text: String,
    left: usize,
}

impl Write for Head {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        for c in piece.chars() {
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            self.text.push(c);
        }
        Ok(())
    }
}

fn head(value: &dyn Debug, most: usize) -> String {
    let mut head = Head {
        text: String::new(),
        left: most,
    };
    // An error means that the value was truncated.
    let _ = write!(head, "{value:?}");
    head.text
}

/// A value's `Debug`, abbreviated to 200 characters, with possible secrets masked.
pub(crate) fn shown(value: &dyn Debug) -> String {
    abridged(&masked(&head(value, MOST_COMPARED)), MOST_OF_A_VALUE)
}

/// The `Debug` of two values, each abbreviated to 200 characters around their first difference.
pub(crate) fn compared(expected: &dyn Debug, seen: &dyn Debug) -> [String; 2] {
    let both = [expected, seen].map(|value| masked(&head(value, MOST_COMPARED)));
    let [expected, seen] = &both;
    let common = expected.chars().zip(seen.chars());
    let common = common.take_while(|(one, other)| one == other).count();
    let start = common.saturating_sub(BEFORE_THE_DIFFERENCE);
    both.each_ref().map(|text| {
        if start == 0 || text.chars().count() <= MOST_OF_A_VALUE {
            return abridged(text, MOST_OF_A_VALUE);
        }
        let rest: String = text.chars().skip(start).collect();
        format!("…{}", abridged(&rest, MOST_OF_A_VALUE - 1))
    })
}

/// The first characters of a string, ending in an ellipsis if it was truncated.
pub(super) fn abridged(text: &str, most: usize) -> String {
    if text.chars().nth(most).is_none() {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most - 1).collect();
    short.push('…');
    short
}

/// Masks anything in a string that may be a complete digest, key or signing state, as letters or as
/// bytes.
pub(super) fn masked(text: &str) -> String {
    let is_of_a_secret = |c: char| c.is_ascii_alphanumeric() || "+/=_-".contains(c);
    let is_of_a_list = |c: char| c.is_ascii_digit() || ", \n\t".contains(c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let list = &rest[..rest.find(|c| !is_of_a_list(c)).unwrap_or(rest.len())];
        let piece = &rest[..rest.find(|c| !is_of_a_secret(c)).unwrap_or(rest.len())];
        let (end, is_secret) = if first.is_ascii_digit() && list.contains(',') {
            (list.len(), list.matches(',').count() + 1 >= SECRET_BYTES)
        } else if piece.is_empty() {
            (first.len_utf8(), false)
        } else {
            (piece.len(), piece.len() >= SECRET_LENGTH)
        };
        if is_secret {
            out.push_str(&rest[..MOST_OF_A_SECRET]);
            out.push('…');
        } else {
            out.push_str(&rest[..end]);
        }
        rest = &rest[end..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_abridged_to_200_characters_at_a_character_boundary() {
        for text in ["a b ".repeat(1_000), "\u{1f511} ä".repeat(1_000)] {
            let shown = shown(&text);
            assert_eq!(shown.chars().count(), MOST_OF_A_VALUE, "{shown}");
            assert!(shown.ends_with('…'), "{shown}");
        }
        assert_eq!(shown(&vec![1, 2]), "[1, 2]");
        let just_fits = "a b ".repeat(49) + "ab"; // and two quotes
        assert_eq!(shown(&just_fits), format!("{just_fits:?}"));
    }

    #[test]
    fn a_late_difference_is_shown() {
        let expected: Vec<_> = (0..500).map(|n| format!("key{n}")).collect();
        let mut seen = expected.clone();
        seen[400] = "another".into();
        let [expected, seen] = compared(&expected, &seen);
        for text in [&expected, &seen] {
            assert_eq!(text.chars().count(), MOST_OF_A_VALUE, "{text}");
            assert!(text.starts_with('…') && text.ends_with('…'), "{text}");
        }
        assert!(expected.contains("\"key400\"") && seen.contains("\"another\""));
        assert_eq!(compared(&1, &2), ["1", "2"]);
    }

    #[test]
    fn digests_and_secrets_are_not_shown_in_full() {
        let hex = "0123456789abcdef".repeat(4);
        let base64 = "uJv0Zb3l/1+nXn3rI8kq0Hn1cXkqv0pQ2cJ4qZk1s3E=";
        let bytes: Vec<u8> = (100..132).collect();
        for (text, secret) in [
            (format!("UNIQUE failed: digest '{hex}'"), hex.clone()),
            (format!("key acme_{hex} is known"), hex),
            (format!("no row for {base64}"), base64.to_owned()),
            (format!("Digest({bytes:?})"), "107, 108, 109, 110".into()),
            (format!("Digest({bytes:#?})"), "110".into()),
        ] {
            let masked = masked(&text);
            assert!(!masked.contains(&secret), "{masked}");
            assert!(masked.contains('…'), "{masked}");
        }
        for text in [
            "find_now compared to find: [KeyId(a), KeyId(b)]",
            "6f1c0f9e-0000-4000-8000-c0f0a11ce000, 1, 2, 3",
            "expected (5, Some(SystemTime { tv_sec: 1800005000, tv_nsec: 0 }))",
        ] {
            assert_eq!(masked(text), text);
        }
    }
}
