//! The contrast of the stylesheet's colors, in both themes (WCAG 2.2, 1.4.3 and 1.4.11).

use std::collections::HashMap;

const STYLE: &str = include_str!("../../src/dashboard/dashboard.css");

/// Text on its background: 4.5 to 1.
const TEXTS: [(&str, &str); 18] = [
    ("text", "bg"),
    ("text", "surface"),
    ("text", "sunken"),
    ("faint", "bg"),
    ("faint", "surface"),
    ("faint", "sunken"),
    ("accent", "bg"),
    ("accent", "surface"),
    ("accent", "sunken"),
    ("danger", "bg"),
    ("danger", "surface"),
    ("danger", "sunken"),
    ("on-accent", "accent"),
    ("on-danger", "danger"),
    ("good", "good-bg"),
    ("warn", "warn-bg"),
    ("bad", "bad-bg"),
    ("info", "info-bg"),
];

/// The borders of controls, the bars of charts and the focus: 3 to 1.
const SHAPES: [(&str, &str); 7] = [
    ("control-line", "surface"),
    ("control-line", "bg"),
    ("accent", "sunken"),
    ("accent", "bg"),
    ("danger", "surface"),
    ("danger", "sunken"),
    ("warn", "sunken"),
];

/// Returns the colors of a rule, by the name of their variable.
fn colors(rule: &str) -> HashMap<&str, u32> {
    let lines = rule.split('}').next().unwrap().lines();
    let pairs = lines.filter_map(|line| {
        let (name, value) = line.trim().strip_prefix("--portunus-")?.split_once(": #")?;
        let digits = value.strip_suffix(';')?;
        Some((name, u32::from_str_radix(digits, 16).unwrap()))
    });
    pairs.collect()
}

/// The relative luminance of a color.
fn luminance(color: u32) -> f64 {
    let part = |shift: u32| {
        let value = f64::from((color >> shift) & 0xff) / 255.0;
        match value <= 0.04045 {
            true => value / 12.92,
            false => ((value + 0.055) / 1.055).powf(2.4),
        }
    };
    0.2126 * part(16) + 0.7152 * part(8) + 0.0722 * part(0)
}

fn contrast(one: u32, other: u32) -> f64 {
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

#[test]
fn colors_have_enough_contrast_in_both_themes() {
    let (light, dark) = STYLE
        .split_once("@media (prefers-color-scheme: dark)")
        .unwrap();
    let themes = [colors(light), colors(dark)];
    for theme in &themes {
        assert_eq!(theme.len(), themes[0].len(), "each theme has each color");
        let pairs = TEXTS.iter().map(|pair| (pair, 4.5));
        for ((one, other), least) in pairs.chain(SHAPES.iter().map(|pair| (pair, 3.0))) {
            let contrast = contrast(theme[one], theme[other]);
            assert!(contrast >= least, "{one} on {other}: {contrast:.2}");
        }
    }
}

#[test]
fn the_stylesheet_loads_nothing() {
    for forbidden in ["url(", "@import", "http:", "https:"] {
        assert!(!STYLE.contains(forbidden), "{forbidden}");
    }
}
