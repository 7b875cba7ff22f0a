//! Path precedence and spelling as in axum's router, so that a path reaches the same handler on
//! both.

use actix_web::guard::{self, Guard};

/// How specific a segment is. More specific routes are tried first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Segment {
    Literal,
    /// A parameter with literal characters around it.
    Partly,
    /// A parameter with its own pattern.
    Constrained,
    Parameter,
    /// A parameter that matches the rest of the path.
    Tail,
}

impl Segment {
    fn of(text: &str) -> Self {
        let Some(within) = text
            .strip_prefix('{')
            .and_then(|text| text.strip_suffix('}'))
        else {
            return match text {
                tail if tail.ends_with("}*") => Self::Tail,
                partly if partly.contains('{') => Self::Partly,
                _ => Self::Literal,
            };
        };
        match within.split_once(':') {
            Some((_, pattern)) if pattern.starts_with('.') => Self::Tail,
            Some(_) => Self::Constrained,
            None => Self::Parameter,
        }
    }
}

/// Returns the sort key of a path: more specific paths sort first.
pub(super) fn rank(path: &str) -> Vec<Segment> {
    path.split('/').map(Segment::of).collect()
}

/// Whether two paths are the same to a router, whatever their parameters are named.
pub(super) fn clash(one: &str, other: &str) -> bool {
    let (one, other) = (one.split('/'), other.split('/'));
    let same = |(one, other): (&str, &str)| {
        let parameters = Segment::of(one) == Segment::Parameter;
        one == other || (parameters && Segment::of(other) == Segment::Parameter)
    };
    one.clone().count() == other.clone().count() && one.zip(other).all(same)
}

/// A guard that rejects a path that is percent-encoded where the pattern is literal. A scope's own
/// prefix is not checked.
pub(super) fn literals_match(pattern: &str, is_root: bool) -> impl Guard + use<> {
    let pattern: Vec<String> = pattern.split('/').skip(1).map(str::to_owned).collect();
    let has_tail = pattern
        .iter()
        .any(|text| Segment::of(text) == Segment::Tail);
    guard::fn_guard(move |context| {
        let path = context.head().uri.path();
        // The router has compared the decoded path, which is the same without an escape.
        if !path.contains('%') {
            return true;
        }
        let asked: Vec<&str> = path.split('/').skip(1).collect();
        let prefix = match (has_tail, is_root) {
            (_, true) => 0,
            (false, false) => asked.len().saturating_sub(pattern.len()),
            (true, false) => return true,
        };
        let same = |(asked, pattern): (&&str, &String)| {
            Segment::of(pattern) != Segment::Literal || *asked == pattern
        };
        asked.iter().skip(prefix).zip(&pattern).all(same)
    })
}
