//! The classes of the routes behind a layer.

use std::sync::Arc;

use crate::limit::is_method;

/// The classes of the routes behind a layer, by method; 0 if the host's rules decide, as for other
/// methods.
#[derive(Debug, Clone, Default)]
pub(super) struct RouteClasses(pub(super) Arc<[(Option<&'static str>, u8)]>);

impl RouteClasses {
    /// Returns the class of a request with this method; 0 if its route has none.
    #[inline]
    pub(super) fn class_of(&self, method: &str) -> u8 {
        match self.0.is_empty() {
            true => 0,
            false => self.class_of_some(method),
        }
    }

    fn class_of_some(&self, method: &str) -> u8 {
        // As a router chooses: `HEAD` may have its own route, and one for all methods comes last.
        let of = |answers: &dyn Fn(Option<&str>) -> bool| {
            self.0.iter().find(|(route, _)| answers(*route))
        };
        let found = of(&|route| route == Some(method))
            .or_else(|| of(&|route| route.is_some_and(|route| is_method(route, method))))
            .or_else(|| of(&|route| route.is_none()));
        found.map_or(0, |(_, class)| *class)
    }
}
