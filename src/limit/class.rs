//! The class of a request: by its route, or by a function of the host.

use std::fmt;
use std::sync::Arc;

use crate::request::RequestHead;

pub(crate) type MatchesRequest = dyn Fn(&dyn RequestHead) -> bool + Send + Sync;

/// The rules that decide the class of a request, in the order in which they are tried.
#[derive(Clone, Default)]
pub(crate) struct ClassRules(Vec<(u8, Rule)>);

#[derive(Clone)]
enum Rule {
    /// A route, and its method; without one, all methods.
    Route(Option<Box<str>>, Box<str>),
    Request(Arc<MatchesRequest>),
}

impl ClassRules {
    /// Adds a route: its pattern, after a method and a space if the class has only this method.
    pub(crate) fn on_route(&mut self, class: u8, route: &str) {
        let (method, pattern) = match route.split_once(' ') {
            Some((method, pattern)) => (Some(method.into()), pattern.trim_start()),
            None => (None, route),
        };
        self.0.push((class, Rule::Route(method, pattern.into())));
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
                    Some(route) => *route == **pattern,
                    None => matches_path(pattern, head.path()),
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

/// Returns whether a path has the pattern, where the framework does not say which route matched:
/// `{name}` and `:name` stand for one segment, `{*rest}` and `*` at the end for at least one.
fn matches_path(pattern: &str, path: &str) -> bool {
    let (mut segments, mut parts) = (path.split('/'), pattern.split('/'));
    loop {
        match (parts.next(), segments.next()) {
            (None, None) => return true,
            (Some(part), Some(segment)) => {
                if part == "*" || part.starts_with("{*") {
                    return !segment.is_empty();
                }
                let is_parameter = part.starts_with(':') || part.starts_with('{');
                let same = if is_parameter {
                    !segment.is_empty()
                } else {
                    part == segment
                };
                if !same {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

impl fmt::Debug for ClassRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.0.iter().map(|(class, rule)| match rule {
            Rule::Route(method, pattern) => {
                format!("{} {pattern}: {class}", method.as_deref().unwrap_or("*"))
            }
            Rule::Request(_) => format!("function: {class}"),
        });
        f.debug_list().entries(rules).finish()
    }
}
