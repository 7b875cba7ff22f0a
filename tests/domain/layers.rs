//! The library's modules depend only on lower ones, and only the adapters use a framework.
//! The check reads the sources: every path that starts at the crate's root, in any form
//! (`crate::a::b`, `use crate::{a, b}`, `super::super::a`, `$crate::a`) and behind any feature.
//! Comments, documentation and strings are ignored.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use source::{Found, Token, paths, tokens};

/// Every module of `src`, from the top down: each may use those below it, and none above it.
const MODULES: &[&str] = &[
    "guide",
    "testing",
    "service",
    "adapter",
    "events",
    "manage",
    "authenticator",
    "config",
    "audit",
    "principal",
    "usage",
    "policy",
    "store",
    "entry",
    "respond",
    "actor",
    "credential",
    "verifier",
    "telemetry",
    "credit",
    "error",
    "limit",
    "rfc3339",
    "key",
    "quota",
    "network",
    "request",
    "scope",
    "json",
    "text",
    "clock",
    "pointer",
    "lock",
];

/// The only module that uses a framework's crates.
const ADAPTER: &str = "adapter";

const FRAMEWORKS: &[&str] = &[
    "actix_http",
    "actix_service",
    "actix_web",
    "axum",
    "axum_core",
    "hyper",
    "tonic",
    "tower",
    "tower_layer",
    "tower_service",
];

// ---- the sources ----

#[test]
fn no_module_depends_on_one_above_it() {
    let exported = exported(&read(&src().join("lib.rs")));
    let faults: Vec<_> = sources()
        .iter()
        .flat_map(|file| upward(file, &read(&src().join(file)), &exported))
        .collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn only_the_adapters_name_a_framework() {
    let faults: Vec<_> = sources()
        .iter()
        .flat_map(|file| frameworks(file, &read(&src().join(file))))
        .collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn every_module_has_its_place_in_the_list() {
    let found: BTreeSet<_> = sources().iter().map(|file| top(file)).collect();
    let listed: BTreeSet<_> = MODULES.iter().copied().map(str::to_owned).collect();
    assert_eq!(found, listed, "the modules of src, and this test's list");
    assert_eq!(listed.len(), MODULES.len(), "a module is listed twice");
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The files of all modules, relative to `src`.
fn sources() -> Vec<String> {
    let (mut files, mut folders) = (Vec::new(), vec![src()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let parts: Vec<_> = path.strip_prefix(src()).unwrap().iter().collect();
                files.push(parts.join("/".as_ref()).into_string().unwrap());
            }
        }
    }
    files.retain(|file| file != "lib.rs");
    files.sort();
    assert!(files.len() > MODULES.len(), "{files:?}");
    files
}

// ---- the check ----

/// The module of a file, from the root.
fn module(file: &str) -> Vec<String> {
    let mut parts: Vec<_> = file.trim_end_matches(".rs").split('/').collect();
    parts.pop_if(|last| matches!(*last, "mod" | "lib"));
    parts.into_iter().map(str::to_owned).collect()
}

fn top(file: &str) -> String {
    module(file).remove(0)
}

/// The names that the root of the crate exports, with their modules.
fn exported(lib: &str) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for found in paths(lib, &[]) {
        if let [module, .., _] = found.path.as_slice() {
            names.insert(found.name, module.clone());
        }
    }
    names
}

/// The paths in a file to modules above it, or to unknown ones.
fn upward(file: &str, source: &str, exported: &BTreeMap<String, String>) -> Vec<String> {
    let own = top(file);
    let place = |module: &str| MODULES.iter().position(|listed| *listed == module);
    let fault = |found: &Found| {
        let name = found.path.first()?;
        let module = exported.get(name).unwrap_or(name);
        let line = found.line;
        match (place(&own), place(module)) {
            (Some(here), Some(there)) if there >= here => None,
            (Some(_), Some(_)) => Some(format!("src/{file}:{line}: {own} depends on {module}")),
            (_, None) => Some(format!(
                "src/{file}:{line}: {own} uses {name}, of no known module"
            )),
            (None, _) => Some(format!("src/{file}:{line}: {own} is not in the list")),
        }
    };
    let mut faults: Vec<_> = paths(source, &module(file))
        .iter()
        .filter_map(fault)
        .collect();
    faults.dedup();
    faults
}

/// Uses of a framework in a module that is not an adapter.
fn frameworks(file: &str, source: &str) -> Vec<String> {
    let own = top(file);
    let tokens = tokens(source);
    let before = |at: usize| at.checked_sub(1).map(|at| tokens[at].1);
    // The first name of a path, which may begin with two colons.
    let starts = |at: usize| match (before(at), before(at.saturating_sub(1))) {
        (Some(Token::Colons), Some(Token::Word(word))) => word == "use",
        _ => true,
    };
    let named = |(at, (line, token)): (usize, &(usize, Token<'_>))| match token {
        Token::Word(word) if FRAMEWORKS.contains(word) && own != ADAPTER => {
            starts(at).then(|| format!("src/{file}:{line}: {own} names {word}"))
        }
        _ => None,
    };
    tokens.iter().enumerate().filter_map(named).collect()
}

// ---- tests of the check ----

fn exports() -> BTreeMap<String, String> {
    exported("pub mod key;\npub use policy::{Principal, Requirement as Required};")
}

#[test]
fn an_upward_dependency_is_found_in_any_form() {
    for (file, source, line) in [
        ("error.rs", "use crate::policy::Requirement;", 1),
        (
            "error.rs",
            "\n\n    use crate :: policy\n:: Requirement;",
            4,
        ),
        (
            "error.rs",
            "use crate::{key, scope::{Scope, ScopeSet},\n  policy::{self, Plan}};",
            2,
        ),
        ("error.rs", "fn f(p: &crate::policy::Plan) {}", 1),
        (
            "error.rs",
            "fn f() {\n    let a = <crate::policy::Plan>::new();\n}",
            2,
        ),
        ("error.rs", "use super::policy;", 1),
        ("error.rs", "use super::{key, policy as other};", 1),
        ("error.rs", "use {crate::key, crate::policy};", 1),
        ("error.rs", "use self::super::policy;", 1),
        ("error.rs", "use crate::Principal;", 1),
        ("error.rs", "use crate::Required;", 1),
        (
            "error.rs",
            "mod a { mod b { use super::super::super::policy; } }",
            1,
        ),
        (
            "error.rs",
            "#[cfg(feature = \"tracing\")]\nuse crate::policy;",
            2,
        ),
        (
            "error.rs",
            "fn f<'a>(x: &'a str) { let _ = '\"'; } use crate::policy;",
            1,
        ),
        (
            "error.rs",
            "const Q: char = '\\''; use crate::policy; // '",
            1,
        ),
        (
            "error.rs",
            "const T: &str = r#\"a \"quoted\" text\"#; use crate::r#policy;",
            1,
        ),
        ("error.rs", "/* a /* b */ c */ use crate::policy;", 1),
        ("key/mod.rs", "use super::policy;", 1),
        ("key/id.rs", "use super::super::policy;", 1),
        ("key/id.rs", "use super::{super::policy, Owner};", 1),
        ("key/a/b.rs", "use super::super::super::policy;", 1),
        (
            "key/id.rs",
            "macro_rules! m { () => { $crate::policy::f() } }",
            1,
        ),
    ] {
        let faults = upward(file, source, &exports());
        let own = top(file);
        assert_eq!(
            faults,
            [format!("src/{file}:{line}: {own} depends on policy")],
            "{source}"
        );
    }
}

#[test]
fn dependencies_below_and_text_that_is_not_code_are_accepted() {
    for (file, source) in [
        (
            "policy/mod.rs",
            "use crate::error::AuthError; use crate::{key, scope};",
        ),
        (
            "policy/mod.rs",
            "use crate::policy::plan; use crate::Required; use super::error;",
        ),
        (
            "key/id.rs",
            "use super::{Owner, policy}; use super::policy::Plan;",
        ),
        (
            "key/id.rs",
            "mod tests { use super::super::policy; use super::*; }",
        ),
        (
            "key/id.rs",
            "pub(crate) fn f() {} pub(super) fn g() {} pub(in crate::key) fn h() {}",
        ),
        (
            "error.rs",
            "//! See crate::policy.\n/// [`crate::policy`]\n/* crate::policy */",
        ),
        (
            "error.rs",
            "const T: &str = \"crate::policy \\\" crate::policy\";",
        ),
        (
            "error.rs",
            "const T: &[u8] = br##\"crate::policy \"# crate::policy\"##;",
        ),
        (
            "error.rs",
            "use other::crate_like::policy; fn f() { policy::g(); other::policy::h() }",
        ),
    ] {
        assert_eq!(upward(file, source, &exports()), [""; 0], "{source}");
    }
}

#[test]
fn hidden_dependencies_are_reported() {
    for (file, source) in [
        ("error.rs", "use crate::*;"),
        ("error.rs", "use super::*;"),
        ("error.rs", "use crate as root;"),
        ("error.rs", "use crate::Unheard;"),
        ("error.rs", "use crate::{key, unheard::Of};"),
        ("unheard.rs", "use crate::key;"),
    ] {
        assert_eq!(upward(file, source, &exports()).len(), 1, "{source}");
    }
}

#[test]
fn a_framework_is_found_outside_of_the_adapters() {
    for (file, source, found) in [
        ("respond/grpc.rs", "use tonic::Status;", true),
        (
            "respond/grpc.rs",
            "fn f() -> axum::response::Response { todo!() }",
            true,
        ),
        ("policy/mod.rs", "use {std::fmt, tower::Layer};", true),
        (
            "manage/mod.rs",
            "#[cfg(feature = \"actix-web\")]\nuse ::actix_web as web;",
            true,
        ),
        (
            "manage/mod.rs",
            "// axum::Router\nconst T: &str = \"tower\";",
            false,
        ),
        ("manage/mod.rs", "use crate::adapter::tower;", false),
        ("adapter/axum/mod.rs", "use axum::Router;", false),
    ] {
        assert_eq!(!frameworks(file, source).is_empty(), found, "{source}");
    }
}
