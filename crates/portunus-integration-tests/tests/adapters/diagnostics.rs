//! What the compiler says about mistakes that a host can make: the message names the fix.
//!
//! Programs are checked by `rustc` without generating code, as by `cargo check`, against the
//! libraries that this test was built with.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A correct program, which is accepted only with the right pair of libraries.
const RIGHT: &str = r#"
    use portunus::adapter::axum::{ProtectedRouter, get, guard};
    pub fn with(router: ProtectedRouter) -> ProtectedRouter {
        router
            .route("/a", get(|| async { "a" }).require(portunus::scope!("document:*")))
            .route("/b", guard(axum::routing::get(|| async { "b" })).public())
    }
"#;

fn check(libraries: &[(&str, &Path)], program: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("program.rs");
    std::fs::write(&source, program).unwrap();
    let deps = std::env::current_exe().unwrap();
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
    rustc
        .args([
            "--edition",
            "2024",
            "--crate-type",
            "lib",
            "--emit",
            "metadata",
        ])
        .arg("-L")
        .arg(format!("dependency={}", deps.parent().unwrap().display()))
        .arg("--out-dir")
        .arg(folder.path());
    for (name, path) in libraries {
        rustc
            .arg("--extern")
            .arg(format!("{name}={}", path.display()));
    }
    rustc.arg(source).output().unwrap()
}

/// The builds of a library beside this test, newest first.
fn builds(name: &str) -> Vec<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let files = std::fs::read_dir(test.parent().unwrap()).unwrap();
    let mut builds: Vec<_> = files
        .map(|file| file.unwrap().path())
        .filter(|path| {
            let file = path.file_name().unwrap().to_str().unwrap();
            file.starts_with(&format!("lib{name}-")) && file.ends_with(".rlib")
        })
        .collect();
    builds.sort_by_key(|path| std::cmp::Reverse(path.metadata().unwrap().modified().unwrap()));
    builds
}

#[test]
fn the_compiler_says_what_is_wrong_with_a_route_or_a_scope() {
    let (ours, theirs) = (builds("portunus"), builds("axum"));
    let pairs = ours
        .iter()
        .flat_map(|ours| theirs.iter().map(move |theirs| (ours, theirs)));
    let libraries = pairs
        .map(|(ours, theirs)| [("portunus", ours.as_path()), ("axum", theirs.as_path())])
        .find(|libraries| check(libraries, RIGHT).status.success());
    let libraries = libraries.expect("the libraries that this test was built with");
    let undeclared: &[&str] = &[
        "this route does not say what it requires",
        "call `.require(…)`, `.any_key()`, `.optional_key()` or `.public()` on the handler",
        "those of the framework itself, such as `axum::routing::get`, do not",
    ];
    let cases: &[(&str, &[&str])] = &[
        (
            r#"pub fn with(router: portunus::adapter::axum::ProtectedRouter) {
                router.route("/a", portunus::adapter::axum::get(|| async { "a" }));
            }"#,
            undeclared,
        ),
        (
            r#"pub fn with(router: portunus::adapter::axum::ProtectedRouter) {
                router.route("/a", axum::routing::get(|| async { "a" }));
            }"#,
            undeclared,
        ),
        (
            r#"pub fn with(router: portunus::adapter::actix::ProtectedRouter) {
                router.route("/a", portunus::adapter::actix::get(|| async { "a" }));
            }"#,
            undeclared,
        ),
        (
            r#"pub fn read() -> portunus::Scope { portunus::scope!("doc*") }"#,
            &["in a scope, * must be the whole last segment, as in document:*"],
        ),
        (
            r#"pub fn read() -> portunus::Scope { portunus::scope!("document::read") }"#,
            &["a segment of a scope must not be empty"],
        ),
        (
            r#"pub fn read() -> portunus::Scope { portunus::scope!("") }"#,
            &["a scope must not be empty"],
        ),
        (
            r#"pub fn read() -> portunus::Scope { portunus::scope!("read all") }"#,
            &["only the characters of a scope token (RFC 6749 §3.3)"],
        ),
    ];
    for (program, expected) in cases {
        let output = check(&libraries, program);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "it compiles: {program}");
        // Long lines of notes are wrapped.
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        for expected in *expected {
            assert!(
                words(&text).contains(expected),
                "{expected:?} is not in {text}"
            );
        }
        assert!(!text.contains("type annotations needed"), "{text}");
    }
}
