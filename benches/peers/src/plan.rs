//! The parts of a run: its sizes, its lanes, and the rows that are calculated from them.

use std::collections::HashMap;
use std::sync::Arc;

use allocation_counter::measure;

use crate::contender::{Check, Contender};
use crate::rounds::{self, Lane, Size};

/// A sum of lanes, each with its sign: usually a contender without the service alone.
#[derive(Debug, Clone, Default)]
pub struct Span(pub Vec<(f64, usize)>);

impl Span {
    pub(crate) fn plus(&self, other: &Self) -> Self {
        Self([self.0.clone(), other.0.clone()].concat())
    }

    pub(crate) fn minus(&self, other: &Self) -> Self {
        let turned = other.0.iter().map(|(sign, lane)| (-sign, *lane));
        Self(self.0.iter().copied().chain(turned).collect())
    }
}

#[derive(Debug, Clone)]
pub struct Row {
    pub group: String,
    pub name: String,
    pub span: Span,
    pub against: Option<Span>,
    /// Allocations of a request, without those of the service alone.
    pub allocations: Option<i64>,
    /// Whether the chart shows the row.
    pub charted: bool,
}

/// The sizes of a run.
#[derive(Debug, Clone)]
pub struct Sizes {
    /// Keys in turn.
    pub hot: usize,
    /// Keys at random; ascending.
    pub many: Vec<usize>,
    /// Keys that two threads share, beside a single one.
    pub shared: usize,
    pub size: Size,
    pub of_threads: Size,
}

#[derive(Default)]
pub struct Plan {
    pub lanes: Vec<Lane>,
    pub rows: Vec<Row>,
    /// The contenders of the rows, for what they check.
    pub contenders: Vec<(&'static str, &'static [Check])>,
}

impl Plan {
    pub(crate) fn lane(&mut self, lane: Lane) -> Span {
        self.lanes.push(lane);
        Span(vec![(1.0, self.lanes.len() - 1)])
    }

    pub(crate) fn row(
        &mut self,
        group: &str,
        name: &str,
        span: Span,
        against: Option<Span>,
    ) -> &mut Row {
        self.rows.push(Row {
            group: group.to_owned(),
            name: name.to_owned(),
            span,
            against,
            allocations: None,
            charted: false,
        });
        self.rows.last_mut().expect("just added")
    }

    /// Adds rows of contenders in front of the same service, and returns their spans by name.
    pub(crate) fn group(
        &mut self,
        group: &str,
        alone: Contender,
        others: Vec<Contender>,
        size: Size,
        straightforward: Option<&Span>,
    ) -> HashMap<&'static str, Span> {
        let alone = Arc::new(alone);
        let (own, base) = (allocations(&alone), self.lane(rounds::lane(alone, size)));
        let mut spans = HashMap::new();
        let mut added = Vec::new();
        for contender in others {
            let (name, checks) = (contender.name, contender.checks);
            if !self.contenders.iter().any(|(known, _)| *known == name) {
                self.contenders.push((name, checks));
            }
            let contender = Arc::new(contender);
            let allocated = allocations(&contender) - own;
            let span = self.lane(rounds::lane(contender, size)).minus(&base);
            spans.insert(name, span);
            added.push((name, checks, allocated));
        }
        for (name, checks, allocated) in added {
            // With audit, the comparison is with the layer that has neither audit nor fields.
            let matching = if checks.contains(&Check::Fields) && !checks.contains(&Check::Audit) {
                "straightforward, fields"
            } else {
                "straightforward"
            };
            let against = spans.get(matching).or(straightforward).cloned();
            let row = self.row(group, name, spans[name].clone(), against);
            row.allocations = Some(allocated);
        }
        spans
    }
}

/// The allocations of one request, once everything that is allocated once exists.
fn allocations(contender: &Contender) -> i64 {
    let mut client = contender.connect();
    let good = &contender.credentials.good[0];
    for _ in 0..3 {
        client.prepare(good);
        client.send();
    }
    client.prepare(good);
    let measured = measure(|| {
        client.send();
    });
    contender.settle();
    i64::try_from(measured.count_total).unwrap_or(i64::MAX)
}
