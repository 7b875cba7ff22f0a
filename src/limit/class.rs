//! The class of a request: by its route, or by a function of the host.

use std::fmt;
use std::sync::Arc;

use super::compile::refused;
use crate::request::RequestHead;
use crate::text::{ParseError, start};

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
    ///
    /// # Errors
    /// Returns an error if no request could match.
    pub(crate) fn on_route(&mut self, class: u8, route: &str) -> Result<(), ParseError> {
        let (method, pattern) = match route.split_once(' ') {
            Some((method, pattern)) => (Some(method), pattern),
            None => (None, route),
        };
        let is_upper = |method: &str| {
            !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase())
        };
        let parts = || pattern.split('/').rev();
        let rest_is_last = !parts().skip(1).any(is_rest);
        let is_named_rest = |part: &str| part.starts_with('*') && part != "*";
        let is_pattern = pattern.starts_with('/')
            && !pattern.contains(' ')
            && rest_is_last
            && !parts().any(is_named_rest);
        if !method.is_none_or(is_upper) || !is_pattern {
            let route = start(route, 80);
            return Err(refused(format!(
                "the route {route:?} must be a path, or a method in upper case, a space and a path; \
                 {{*rest}} comes last"
            )));
        }
        let rule = Rule::Route(method.map(Into::into), Pattern::new(pattern));
        self.0.push((class, rule));
        Ok(())
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
                    Some(route) => pattern.is_same(route),
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

    /// Returns whether a route that the framework matched has this pattern, whatever the parameters
    /// are called.
    fn is_same(&self, route: &str) -> bool {
        let same = |(one, other): (&str, &str)| {
            let parameters = is_parameter(one) && is_parameter(other);
            one == other || parameters || (is_rest(one) && is_rest(other))
        };
        *route == *self.whole
            || (route.split('/').count() == self.whole.split('/').count()
                && self.whole.split('/').zip(route.split('/')).all(same))
    }

    /// Returns whether a path has the pattern, where the framework does not say which route matched:
    /// `{name}` and `:name` stand for one segment, `{*rest}` and `*` at the end for any text.
    fn matches(&self, path: &str) -> bool {
        let (literal, rest) = self.whole.split_at(self.literal);
        let Some(path) = path.strip_prefix(literal) else {
            return false;
        };
        if rest.is_empty() {
            return path.is_empty();
        }
        let mut left = Some(path);
        for part in rest.split('/') {
            let Some(path) = left else {
                return false;
            };
            if is_rest(part) {
                return !path.is_empty();
            }
            let (segment, more) = match path.split_once('/') {
                Some((segment, more)) => (segment, Some(more)),
                None => (path, None),
            };
            let same = match part.starts_with([':', '{']) {
                true => !segment.is_empty(),
                false => part == segment,
            };
            if !same {
                return false;
            }
            left = more;
        }
        left.is_none()
    }
}

/// Returns whether a part of a pattern stands for any text of one segment.
fn is_parameter(part: &str) -> bool {
    let braces = part
        .strip_prefix('{')
        .and_then(|name| name.strip_suffix('}'));
    part.starts_with(':') || braces.is_some_and(|name| !name.contains([':', '*', '{']))
}

/// Returns whether a part of a pattern stands for the rest of the path.
fn is_rest(part: &str) -> bool {
    part == "*" || part.starts_with("{*")
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
