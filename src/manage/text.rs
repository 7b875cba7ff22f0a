//! Validation of text that people read: names, descriptions, reasons.
//!
//! Text must look the same as it is stored. Characters that are invisible, or that change how
//! others are displayed, would let one name pass for another (Unicode Technical Report 36).

use super::ManageError;

/// Maximum number of characters of a name, a description or a reason, without white space at both
/// ends.
pub const MAX_TEXT_LENGTH: usize = 1000;

/// Checks a name: one line with at least one visible character. White space at both ends is
/// removed.
pub(super) fn name(text: &str) -> Result<String, ManageError> {
    match one_line("name", lines("name", text)?)? {
        name if name.is_empty() => Err(ManageError::invalid("name", "must not be empty")),
        name => Ok(name),
    }
}

/// Checks text that programs read too, such as an email address: one line, which may be empty.
/// Blanks at both ends are removed. Control characters, including line breaks, are refused even at
/// the ends, because they are not typing mistakes.
pub(super) fn line(field: &'static str, text: &str) -> Result<String, ManageError> {
    if text.contains(char::is_control) {
        return Err(ManageError::invalid(
            field,
            "control characters are not allowed",
        ));
    }
    one_line(field, lines(field, text)?)
}

fn one_line(field: &'static str, text: String) -> Result<String, ManageError> {
    if text.contains(['\n', '\u{2028}', '\u{2029}']) {
        return Err(ManageError::invalid(field, "must be a single line"));
    }
    Ok(text)
}

/// Checks text that may have several lines or be empty. White space at both ends is removed.
pub(super) fn lines(field: &'static str, text: &str) -> Result<String, ManageError> {
    // Removes the property White_Space, which includes some control characters.
    let text = text.trim();
    let refuse = |reason: String| Err(ManageError::invalid(field, reason));
    if text.chars().count() > MAX_TEXT_LENGTH {
        return refuse(format!("at most {MAX_TEXT_LENGTH} characters are allowed"));
    }
    // Checked first, because it is the most helpful error if nothing is visible.
    if !text.is_empty() && text.chars().all(|c| !is_hostile(c) && is_invisible(c)) {
        return refuse("must contain a visible character".to_owned());
    }
    if let Some((c, why)) = misplaced(text) {
        return refuse(format!("U+{:04X}: {why}", u32::from(c)));
    }
    Ok(text.to_owned())
}

/// Returns the first character that is not allowed at its position, and the reason.
fn misplaced(text: &str) -> Option<(char, &'static str)> {
    // A line break stands for both ends: white space there is already removed.
    let mut before = '\n';
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let after = characters.peek().copied().unwrap_or('\n');
        let refused = match c {
            '\n' => None,
            // A variation selector before the joiner was checked already and has a base character.
            JOINER | NON_JOINER => (is_invisible(after)
                || is_invisible(before) && !is_variation_selector(before))
            .then_some("joiners are only allowed between two visible characters"),
            _ if is_variation_selector(c) => is_invisible(before)
                .then_some("variation selectors are only allowed after a visible character"),
            '\u{2800}' => (!is_braille(before) || !is_braille(after))
                .then_some("Braille blanks are only allowed between two Braille patterns"),
            _ if is_hostile(c) => {
                Some("control, direction, annotation and tag characters are not allowed")
            }
            _ => (is_ignorable(c) || is_blank(c)).then_some("invisible characters are not allowed"),
        };
        if let Some(why) = refused {
            return Some((c, why));
        }
        before = c;
    }
    None
}

/// Joiners: needed inside words by Persian, Indic scripts and emoji (families, professions, flags).
const NON_JOINER: char = '\u{200c}';
const JOINER: char = '\u{200d}';

/// Returns whether a character is never allowed: control characters, direction controls,
/// interlinear annotations, and tags (so the flags of England, Scotland and Wales are refused too).
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200e}'..='\u{200f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Returns whether a character has no visible glyph of its own.
fn is_invisible(c: char) -> bool {
    c.is_whitespace() || c.is_control() || is_ignorable(c) || is_blank(c)
}

/// The property Variation_Selector (PropList.txt): selects a variant of the preceding character,
/// such as the coloured heart.
fn is_variation_selector(c: char) -> bool {
    matches!(
        c,
        '\u{180b}'..='\u{180d}'
            | '\u{180f}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{e0100}'..='\u{e01ef}'
    )
}

/// Returns whether a character is a Braille pattern with at least one dot.
fn is_braille(c: char) -> bool {
    matches!(c, '\u{2801}'..='\u{28ff}')
}

/// The property Default_Ignorable_Code_Point (Unicode 17.0, DerivedCoreProperties.txt), which also
/// covers code points reserved for such characters. Together with [`is_blank`] and [`is_hostile`]
/// it covers every format character (category Cf) except the visible ones: the number signs of
/// Arabic, Syriac and Kaithi (Prepended_Concatenation_Mark).
fn is_ignorable(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Characters whose glyph is blank by definition although they have neither property: U+2800
/// BRAILLE PATTERN BLANK, U+FFF9..U+FFFB, the controls and blanks of Egyptian hieroglyphs, U+16FE4
/// KHITAN SMALL SCRIPT FILLER and U+1D159 MUSICAL SYMBOL NULL NOTEHEAD (The Unicode Standard, code
/// charts).
fn is_blank(c: char) -> bool {
    matches!(
        c,
        '\u{2800}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{13441}'..='\u{13442}'
            | '\u{16fe4}'
            | '\u{1d159}'
    )
}
