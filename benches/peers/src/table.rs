//! Medians and ratios, and the tables that show them.

use std::fmt::Write;

use crate::contender::Check;
use crate::plan::{Plan, Row, Span};

/// A row with its figures.
#[derive(Debug, Clone)]
pub struct Figures {
    pub row: Row,
    /// Nanoseconds.
    pub added: f64,
    pub ratio: Option<Ratio>,
}

/// How many times what the row is compared with.
#[derive(Debug, Clone, Copy)]
pub struct Ratio {
    /// The ratio of the two medians.
    pub median: f64,
    /// The quartiles of the ratios of single rounds.
    pub quartiles: (f64, f64),
}

/// Calculates the figures of all rows from the times by lane and round.
pub fn figures(rows: &[Row], times: &[Vec<f64>]) -> Vec<Figures> {
    rows.iter().map(|row| of(row, times)).collect()
}

fn of(row: &Row, times: &[Vec<f64>]) -> Figures {
    let added = in_rounds(&row.span, times);
    let ratio = row.against.as_ref().map(|against| {
        let against = in_rounds(against, times);
        let pairs = added.iter().zip(&against);
        let each: Vec<_> = pairs.map(|(added, against)| added / against).collect();
        Ratio {
            median: quantile(&added, 0.5) / quantile(&against, 0.5),
            quartiles: (quantile(&each, 0.25), quantile(&each, 0.75)),
        }
    });
    Figures {
        row: row.clone(),
        added: quantile(&added, 0.5),
        ratio,
    }
}

fn in_rounds(span: &Span, times: &[Vec<f64>]) -> Vec<f64> {
    let rounds = times.first().map_or(0, Vec::len);
    let sum = |round: usize| {
        span.0
            .iter()
            .map(|(sign, lane)| sign * times[*lane][round])
            .sum()
    };
    (0..rounds).map(sum).collect()
}

fn quantile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let place = share * values.len().saturating_sub(1) as f64;
    values
        .get(place.round() as usize)
        .copied()
        .unwrap_or(f64::NAN)
}

/// Writes the figures as a table, with a heading for each group.
pub fn written(figures: &[Figures]) -> String {
    let mut text = String::new();
    let mut group = "";
    for Figures { row, added, ratio } in figures {
        if row.group != group {
            group = &row.group;
            let _ = writeln!(
                text,
                "\n{group}\n  {:<28} {:>10} {:>8} {:>15} {:>12}",
                "", "ns", "ratio", "quartiles", "allocations"
            );
        }
        let (median, quartiles) = ratio.map_or_else(Default::default, |ratio| {
            let (low, high) = ratio.quartiles;
            (
                format!("{:.2}", ratio.median),
                format!("{low:.2} – {high:.2}"),
            )
        });
        let allocations = row
            .allocations
            .map_or_else(String::new, |count| count.to_string());
        let name = &row.name;
        let line =
            format!("  {name:<28} {added:>10.0} {median:>8} {quartiles:>15} {allocations:>12}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Writes what each contender checks.
pub fn checks(plan: &Plan) -> String {
    let mut text = format!("{:<28}", "");
    for check in Check::ALL {
        let _ = write!(text, " {}", check.name());
    }
    for (name, checks) in &plan.contenders {
        let _ = write!(text, "\n{name:<28}");
        for check in Check::ALL {
            let mark = if checks.contains(&check) { "yes" } else { "-" };
            let _ = write!(text, " {mark:<width$}", width = check.name().len());
        }
    }
    text.push('\n');
    text
}
