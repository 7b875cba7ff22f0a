//! What a text that people read may be, whoever writes it: a name, a description, a reason.
//!
//! A text must read as it is stored. Characters that nobody sees, or that change how the others are
//! shown, let one name pass for another (Unicode Technical Report 36).

use super::ManageError;

/// The most characters of a name, a description or a reason, without white space at both ends.
pub const MAX_TEXT_LENGTH: usize = 1000;

/// A name: one line with something to see in it, without white space at both ends.
pub(super) fn name(text: &str) -> Result<String, ManageError> {
    match one_line("name", lines("name", text)?)? {
        name if name.is_empty() => Err(ManageError::invalid("name", "a key needs a name")),
        name => Ok(name),
    }
}

/// What a program reads too, such as an e-mail address: one line, which may be empty, without blanks
/// at both ends. A line break or another control character is refused even there: it is no slip of
/// whoever typed it.
pub(super) fn line(field: &'static str, text: &str) -> Result<String, ManageError> {
    if text.contains(char::is_control) {
        return Err(ManageError::invalid(field, "no control characters"));
    }
    one_line(field, lines(field, text)?)
}

fn one_line(field: &'static str, text: String) -> Result<String, ManageError> {
    if text.contains(['\n', '\u{2028}', '\u{2029}']) {
        return Err(ManageError::invalid(field, "one line, without line breaks"));
    }
    Ok(text)
}

/// A text of several lines, which may be empty, without white space at both ends.
pub(super) fn lines(field: &'static str, text: &str) -> Result<String, ManageError> {
    // The property White_Space, also in characters that are controls.
    let text = text.trim();
    let refuse = |reason: String| Err(ManageError::invalid(field, reason));
    if text.chars().count() > MAX_TEXT_LENGTH {
        return refuse(format!("at most {MAX_TEXT_LENGTH} characters"));
    }
    // First: where nothing is visible, that is what is wrong with it.
    if !text.is_empty() && text.chars().all(|c| !is_hostile(c) && is_invisible(c)) {
        return refuse("it has no visible character".to_owned());
    }
    if let Some((c, why)) = misplaced(text) {
        return refuse(format!("U+{:04X}: {why}", u32::from(c)));
    }
    Ok(text.to_owned())
}

/// The first character that may not stand where it stands, and why not.
fn misplaced(text: &str) -> Option<(char, &'static str)> {
    // White space at both ends is gone, so this stands for them.
    let mut before = '\n';
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let after = characters.peek().copied().unwrap_or('\n');
        let refused = match c {
            '\n' => None,
            // A variation selector that is reached has a base.
            JOINER | NON_JOINER => (is_invisible(after)
                || is_invisible(before) && !is_variation_selector(before))
            .then_some("a joiner stands between two visible characters"),
            _ if is_variation_selector(c) => is_invisible(before)
                .then_some("a variation selector stands after a visible character"),
            '\u{2800}' => (!is_braille(before) || !is_braille(after))
                .then_some("a blank of Braille stands between two of its characters"),
            _ if is_hostile(c) => Some("no control, direction, annotation or tag characters"),
            _ => (is_ignorable(c) || is_blank(c)).then_some("no invisible characters"),
        };
        if let Some(why) = refused {
            return Some((c, why));
        }
        before = c;
    }
    None
}

/// Persian, Indic scripts and emoji (families, professions, flags) need them inside of a word.
const NON_JOINER: char = '\u{200c}';
const JOINER: char = '\u{200d}';

/// A character that is never part of a text: a control character, one that turns the direction of
/// what follows, an interlinear annotation, a tag (so the flags of England, Scotland and Wales are
/// refused too).
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

/// A character that shows nothing of its own.
fn is_invisible(c: char) -> bool {
    c.is_whitespace() || c.is_control() || is_ignorable(c) || is_blank(c)
}

/// The property Variation_Selector (PropList.txt): it chooses among the forms of what it follows,
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

/// A pattern of Braille with a dot in it.
fn is_braille(c: char) -> bool {
    matches!(c, '\u{2801}'..='\u{28ff}')
}

/// The property Default_Ignorable_Code_Point (Unicode 17.0, DerivedCoreProperties.txt), which also
/// covers code points that are reserved for such characters. With [`is_blank`] and [`is_hostile`] it
/// has every format character (category Cf) but those that are visible: the number signs of Arabic,
/// Syriac and Kaithi (Prepended_Concatenation_Mark).
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

/// A character whose glyph is blank by its definition although it has neither property: U+2800
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
