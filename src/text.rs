//! Text that is cut to a length.

/// The end of the longest prefix of at most this many bytes that is whole characters
/// (`str::floor_char_boundary`, which is newer than the oldest Rust that is supported).
pub(crate) fn floor_char_boundary(text: &str, longest: usize) -> usize {
    (0..=longest.min(text.len()))
        .rev()
        .find(|&end| text.is_char_boundary(end))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::floor_char_boundary;

    #[test]
    fn a_text_is_cut_between_characters_only() {
        for (longest, end) in [(0, 0), (1, 1), (2, 1), (3, 3), (4, 4), (9, 4)] {
            assert_eq!(floor_char_boundary("aßb", longest), end, "{longest}");
        }
        assert_eq!(floor_char_boundary("", 3), 0);
    }
}
