//! Regular expressions (ECMA-262) of texts and networks, equivalent to the checks of the server.

/// White space, which is removed at both ends.
const SPACE: &str =
    r"\u0009-\u000d\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000";
/// White space except control characters, at the ends of texts that programs also read.
const BLANK: &str = r"\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000";
/// White space within a line.
const INNER: &str = r"\u0020\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000";
/// The same, with the line breaks that multi-line text can contain.
const INNER_OR_BREAK: &str = r"\u000a\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000";
/// Everything except white space, control characters, and invisible or misleading characters.
const VISIBLE: &str = concat!(
    r"[^\u0000-\u0020\u007f-\u00a0\u00ad\u034f\u061c\u115f-\u1160\u1680\u17b4-\u17b5\u180b-\u180f",
    r"\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0",
    r"\ufff0-\ufffb",
    "\u{13430}-\u{1343f}\u{13441}-\u{13442}\u{16fe4}\u{1bca0}-\u{1bca3}\u{1d159}",
    "\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]",
);
/// A variation selector, after a visible character.
const SELECTOR: &str = concat!(
    r"[\u180b-\u180d\u180f\ufe00-\ufe0f",
    "\u{e0100}-\u{e01ef}]?"
);

/// Matches visible characters, with Braille blanks between Braille patterns, joiners between two
/// characters, and the given white space between words.
fn words(space: &str) -> String {
    let visible = format!(r"(?:{VISIBLE}|[\u2801-\u28ff](?:\u2800[\u2801-\u28ff])+)");
    let word = format!(r"{visible}{SELECTOR}(?:[\u200c\u200d]{visible}{SELECTOR})*");
    format!("{word}(?:[{space}]*{word})*")
}

/// Pattern of a name: one line with a visible character.
pub(crate) fn name() -> String {
    format!("^[{SPACE}]*{}[{SPACE}]*$", words(INNER))
}

/// Pattern of a text of one or more lines, which can be empty.
pub(crate) fn text() -> String {
    format!("^[{SPACE}]*(?:{})?[{SPACE}]*$", words(INNER_OR_BREAK))
}

/// Pattern of a line that programs also read, which can be empty.
pub(crate) fn line() -> String {
    format!("^[{BLANK}]*(?:{})?[{BLANK}]*$", words(INNER))
}

const OCTET: &str = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";

fn ipv4() -> String {
    format!(r"({OCTET}\.){{3}}{OCTET}")
}

/// Pattern of an IPv4 address or CIDR range.
pub(crate) fn ipv4_network() -> String {
    format!("^{}(/(3[0-2]|[12]?[0-9]))?$", ipv4())
}

/// Pattern of an IPv6 address (RFC 4291 §2.2) or CIDR range.
pub(crate) fn ipv6_network() -> String {
    const H: &str = "[0-9A-Fa-f]{1,4}";
    let mut forms = vec![format!("({H}:){{7}}{H}"), format!("({H}:){{1,7}}:")];
    // `::` replaces the zero groups between those before and after it.
    forms.extend((1..=6).map(|after| {
        let before = 7 - after;
        format!("({H}:){{1,{before}}}(:{H}){{1,{after}}}")
    }));
    forms.push(format!(":((:{H}){{1,7}}|:)"));
    // The last two groups as an IPv4 address.
    let last = ipv4();
    forms.push(format!("({H}:){{6}}{last}"));
    forms.push(format!("::({H}:){{0,5}}{last}"));
    forms.extend((0..=4).map(|after| {
        let before = 5 - after;
        format!("({H}:){{1,{before}}}:({H}:){{{after}}}{last}")
    }));
    format!(
        "^({})(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?$",
        forms.join("|")
    )
}
