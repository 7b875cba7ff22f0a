//! The README shows the examples exactly as they are.

use std::fs;
use std::path::Path;

/// The examples in the order of the README, each with the most lines it may have.
const PROGRAMS: [(&str, usize); 2] = [
    ("examples/quickstart.rs", 20),
    ("crates/portunus-sqlx/examples/service.rs", 60),
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The code of an example, without the documentation at its beginning.
fn code(example: &str) -> String {
    let lines = example.lines().skip_while(|line| line.starts_with("//!"));
    let lines: Vec<_> = lines.skip_while(|line| line.is_empty()).collect();
    lines.join("\n")
}

/// The blocks of Rust code in a page.
fn blocks(page: &str) -> Vec<&str> {
    let starts = page.split("\n```rust").skip(1);
    starts
        .map(|block| {
            let (_, block) = block.split_once('\n').unwrap();
            block.split_once("\n```").unwrap().0
        })
        .collect()
}

#[test]
fn the_readme_shows_the_examples_exactly_and_they_are_short() {
    let readme = read("README.md");
    let shown = blocks(&readme);
    assert_eq!(shown.len(), PROGRAMS.len());
    for ((path, most), shown) in PROGRAMS.iter().zip(shown) {
        let code = code(&read(path));
        assert_eq!(shown, code, "{path} and the README differ");
        let lines = code.lines().count();
        assert!(
            lines <= *most,
            "{path} has {lines} lines, at most {most} are allowed"
        );
    }
}
