//! How the pages look: at three widths and in both themes, nothing is wider than the window and all text
//! has enough contrast (WCAG 2.2, 1.4.3). Their pictures are in `screenshots` under the target folder.

use std::fs;
use std::path::{Path, PathBuf};

use portunus_test_support::browser::Browser;
use serde_json::{Value, json};

use crate::pages::{Demo, PAGES};
use crate::site::{Framework, Site};

const WIDTHS: [u32; 3] = [360, 768, 1440];
const THEMES: [&str; 2] = ["light", "dark"];

/// Returns the width of the window, and whether its theme is dark.
const WINDOW: &str = "return [innerWidth, matchMedia('(prefers-color-scheme: dark)').matches]";

/// Returns how much the page is wider than the window, also in a language that is written from right
/// to left.
const EXCESS: &str = "
    const excess = direction => {
        document.dir = direction;
        return document.scrollingElement.scrollWidth - innerWidth;
    };
    return Math.max(excess('rtl'), excess('ltr'));";

/// Returns the texts with a contrast below 4.5, and the number of all texts.
const CONTRAST: &str = r"
const channels = color => color.match(/[\d.]+/g).map(Number);
const luminance = color => {
    const part = value => value <= 10.31475 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4;
    const [red, green, blue] = channels(color).map(part);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const ground = element => {
    for (let one = element; one; one = one.parentElement) {
        const color = getComputedStyle(one).backgroundColor;
        const [, , , alpha = 1] = channels(color);
        if (alpha === 1) return color;
        if (alpha > 0) throw new Error(`translucent: ${color}`);
    }
    throw new Error('no background');
};
let count = 0;
const low = [];
const check = (element, style, text) => {
    const [one, other] = [luminance(style.color), luminance(ground(element))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    count += 1;
    if (contrast < 4.5) low.push(`${contrast.toFixed(2)}: ${text.trim().slice(0, 40)}`);
};
for (const element of document.body.querySelectorAll('*')) {
    const hidden = !element.checkVisibility() || element.closest('.visually-hidden, svg, option');
    if (hidden) continue;
    const texts = [...element.childNodes].filter(node => node.nodeType === Node.TEXT_NODE);
    const text = texts.map(node => node.data).join('').trim();
    if (text || element.matches('input, select, textarea')) {
        check(element, getComputedStyle(element), text || element.name);
    }
    if (element.placeholder) {
        check(element, getComputedStyle(element, '::placeholder'), element.placeholder);
    }
    const before = getComputedStyle(element, '::before');
    if (!['none', 'normal'].includes(before.content)) check(element, before, before.content);
}
return { count, low };";

/// Returns the violations that axe-core finds.
fn axe(browser: &Browser, source: &str) -> Value {
    let run = "
        const done = arguments[arguments.length - 1];
        const found = violation => [violation.id, violation.help, violation.nodes.map(node => node.html)];
        axe.run(document).then(
            ({ passes, violations }) => done({ passed: passes.length, found: violations.map(found) }),
            error => done(`${error}`));";
    let result = browser.call(&format!("{source};{run}"), &json!([]));
    assert!(result["passed"].as_u64() > Some(10), "{result}");
    result["found"].clone()
}

/// Looks at pages, and takes pictures of them.
struct Looks {
    folder: PathBuf,
    /// The source of axe-core; `scripts/measure axe` names it.
    checker: Option<String>,
}

impl Looks {
    fn new() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
        fs::create_dir_all(&folder).unwrap();
        let checker = std::env::var("AXE_SCRIPT").ok();
        Self {
            folder,
            checker: checker.map(|path| fs::read_to_string(path).unwrap()),
        }
    }

    fn assert_good(&self, browser: &Browser, name: &str) {
        for theme in THEMES {
            browser.theme(theme);
            for width in WIDTHS {
                browser.width(width);
                let context = format!("{name} at {width}, {theme}");
                let is_so = json!([width, theme == "dark"]);
                assert_eq!(browser.run(WINDOW, &json!([])), is_so, "{context}");
                let excess = browser.run(EXCESS, &json!([]));
                assert!(
                    excess.as_i64().unwrap() <= 0,
                    "{context}: {excess} px too wide"
                );
                let texts = browser.run(CONTRAST, &json!([]));
                assert!(texts["count"].as_u64().unwrap() > 3, "{context}: {texts}");
                assert_eq!(texts["low"], json!([]), "{context}");
                let picture = format!("{name}-{width}-{theme}.png");
                browser.screenshot(&self.folder.join(picture), true);
                if let Some(source) = &self.checker {
                    assert_eq!(axe(browser, source), json!([]), "{context}");
                }
            }
        }
    }
}

#[test]
fn the_pages_that_the_demo_lacks_fit_and_are_readable_too() {
    let (site, browser) = (Site::start(Framework::Axum, "/keys"), Browser::start());
    site.issue("first");
    let looks = Looks::new();
    site.walk(&browser, |name| looks.assert_good(&browser, name));
}

#[test]
fn every_page_fits_and_is_readable_at_three_widths_in_both_themes() {
    let (demo, looks) = (Demo::new("axum"), Looks::new());
    demo.walk(|browser, name| looks.assert_good(browser, name));
    // The pictures in the README: what a window shows.
    for (name, theme) in [("keys", "light"), ("key", "dark")] {
        demo.open(PAGES.iter().find(|page| page.0 == name).unwrap());
        demo.browser.theme(theme);
        demo.browser.width(1200);
        let file = looks.folder.join(format!("dashboard-{name}.png"));
        demo.browser.screenshot(&file, false);
    }
}
