//! The class of a request: by its route, or by a function of the host.

use std::fmt;
use std::sync::Arc;

use crate::request::RequestHead;

pub(crate) type MatchesRequest = dyn Fn(&dyn RequestHead) -> bool + Send + Sync;

/// The pattern of a route.
#[derive(Clone)]
struct Pattern {
    whole: Box<str>,
    /// The length of the part before the first parameter, which a path must begin with.
    literal: usize,
}

/// The rules that decide the class of a request, in the order in which they are tried.
#[derive(Clone, Default)]
pub(crate) struct ClassRules(Vec<(u8, Rule)>);

#[derive(Clone)]
enum Rule {
    /// A route, and its method; without one, all methods.
    Route(Option<Box<str>>, Pattern),
    Request(Arc<MatchesRequest>),
}

impl ClassRules {
    /// Adds a route: its pattern, after a method and a space if the class has only this method.
    pub(crate) fn on_route(&mut self, class: u8, route: &str) {
        let (method, pattern) = match route.split_once(' ') {
            Some((method, pattern)) => (Some(method.into()), pattern.trim_start()),
            None => (None, route),
        };
        let pattern = Pattern::new(pattern);
        self.0.push((class, Rule::Route(method, pattern)));
    }

    pub(crate) fn on_request(&mut self, class: u8, matches: Arc<MatchesRequest>) {
        self.0.push((class, Rule::Request(matches)));
    }

    /// Returns the class of a request: that of the first rule that matches; 0 if none does.
    pub(crate) fn class_of(&self, head: &dyn RequestHead) -> u8 {
        if self.0.is_empty() {
            return 0;
        }
        let route = head.route();
        let matches = |rule: &Rule| match rule {
            Rule::Route(method, pattern) => {
                let same = match route {
                    Some(route) => *route == *pattern.whole,
                    None => pattern.matches(head.path()),
                };
                same && method
                    .as_ref()
                    .is_none_or(|method| is_method(method, head.method()))
            }
            Rule::Request(matches) => matches(head),
        };
        let found = self.0.iter().find(|(_, rule)| matches(rule));
        found.map_or(0, |(class, _)| *class)
    }
}

/// Returns whether a route of this method answers a request: routes of `GET` also answer `HEAD`.
pub(crate) fn is_method(route: &str, request: &str) -> bool {
    route == request || (route == "GET" && request == "HEAD")
}

impl Pattern {
    fn new(whole: &str) -> Self {
        let parameter = ["/{", "/:", "/*"]
            .iter()
            .filter_map(|start| whole.find(start))
            .min();
        Self {
            literal: parameter.map_or(whole.len(), |slash| slash + 1),
            whole: whole.into(),
        }
    }

    /// Returns whether a path has the pattern, where the framework does not say which route matched:
    /// `{name}` and `:name` stand for one segment, `{*rest}` and `*` at the end for at least one.
    fn matches(&self, path: &str) -> bool {
        let (literal, rest) = self.whole.split_at(self.literal);
        let Some(path) = path.strip_prefix(literal) else {
            return false;
        };
        if rest.is_empty() {
            return path.is_empty();
        }
        let (mut parts, mut segments) = (rest.split('/'), path.split('/'));
        loop {
            match (parts.next(), segments.next()) {
                (None, None) => return true,
                (Some(part), Some(segment)) => {
                    if part == "*" || part.starts_with("{*") {
                        return !segment.is_empty();
                    }
                    let same = match part.starts_with([':', '{']) {
                        true => !segment.is_empty(),
                        false => part == segment,
                    };
                    if !same {
                        return false;
                    }
                }
                _ => return false,
            }
        }
    }
}

impl fmt::Debug for ClassRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.0.iter().map(|(class, rule)| match rule {
            Rule::Route(method, pattern) => {
                format!(
                    "{} {}: {class}",
                    method.as_deref().unwrap_or("*"),
                    pattern.whole
                )
            }
            Rule::Request(_) => format!("function: {class}"),
        });
        f.debug_list().entries(rules).finish()
    }
}
