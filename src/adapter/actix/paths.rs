//! Paths in the order and the spelling that axum's router knows them by, so that one path leads to
//! one handler in both.

use actix_web::guard::{self, Guard};

/// How particular a segment is: whoever is more so is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Segment {
    Literal,
    /// A parameter among literal characters.
    Partly,
    /// A parameter with a pattern of its own.
    Constrained,
    Parameter,
    /// A parameter that takes the rest of the path.
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

/// Where a path stands among others: sorted by this, whoever is more particular comes first.
pub(super) fn rank(path: &str) -> Vec<Segment> {
    path.split('/').map(Segment::of).collect()
}

/// Whether two paths are one to a router, however their parameters are called.
pub(super) fn clash(one: &str, other: &str) -> bool {
    let (one, other) = (one.split('/'), other.split('/'));
    let same = |(one, other): (&str, &str)| {
        let parameters = Segment::of(one) == Segment::Parameter;
        one == other || (parameters && Segment::of(other) == Segment::Parameter)
    };
    one.clone().count() == other.clone().count() && one.zip(other).all(same)
}

/// A path that is percent-encoded where the pattern is literal is another path. A scope's prefix is
/// the scope's matter.
pub(super) fn as_it_stands(pattern: &str, is_root: bool) -> impl Guard + use<> {
    let pattern: Vec<String> = pattern.split('/').skip(1).map(str::to_owned).collect();
    let has_tail = pattern
        .iter()
        .any(|text| Segment::of(text) == Segment::Tail);
    guard::fn_guard(move |context| {
        let asked: Vec<&str> = context.head().uri.path().split('/').skip(1).collect();
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
