//! A bar chart of the time that each contender adds, as SVG.

use std::fmt::Write;

use crate::table::Figures;

const BAR: usize = 18;
const STEP: usize = 26;
const LEFT: usize = 210;
const LONGEST: usize = 420;
const WIDTH: usize = LEFT + LONGEST + 90;
const TOP: usize = 44;

/// The colors follow the reader's scheme, because an image cannot inherit those of the page.
const STYLE: &str = "svg{color:#1f2328;font:13px system-ui,sans-serif}\
text{fill:currentColor}\
.other{fill:#8c959f}.own{fill:#1f6feb}\
@media (prefers-color-scheme:dark){svg{color:#e6edf3}.other{fill:#6e7681}.own{fill:#58a6ff}}";

/// Draws the rows that are meant for the chart, shortest first.
pub fn drawn(figures: &[Figures]) -> String {
    let mut shown: Vec<_> = figures
        .iter()
        .filter(|figures| figures.row.charted)
        .collect();
    shown.sort_by(|a, b| a.added.total_cmp(&b.added));
    let longest = shown
        .iter()
        .map(|figures| figures.added)
        .fold(1.0, f64::max);
    let height = TOP + shown.len() * STEP + 12;
    let title = "Nanoseconds added to a request";
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"{title}\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n\
         <text x=\"{LEFT}\" y=\"24\" font-weight=\"600\">{title}</text>\n"
    );
    for (place, figures) in shown.into_iter().enumerate() {
        let (name, added) = (escaped(&figures.row.name), figures.added);
        let top = TOP + place * STEP;
        let (line, before) = (top + 14, LEFT - 10);
        let length = (added.max(0.0) / longest * LONGEST as f64).max(1.0);
        let class = if name.contains("Portunus") {
            "own"
        } else {
            "other"
        };
        let after = LEFT as f64 + length + 8.0;
        let _ = writeln!(
            svg,
            "<text x=\"{before}\" y=\"{line}\" text-anchor=\"end\">{name}</text>\
             <rect class=\"{class}\" x=\"{LEFT}\" y=\"{top}\" width=\"{length:.1}\" \
             height=\"{BAR}\" rx=\"2\"/>\
             <text x=\"{after:.1}\" y=\"{line}\">{added:.0}</text>"
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
