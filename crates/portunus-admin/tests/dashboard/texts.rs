//! The table of texts: complete, replaceable, escaped.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use portunus_admin::Texts;

use crate::fixture::Fixture;

/// Returns all literals in the sources of the pages that could be names of texts.
fn literals() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dashboard");
    let mut found = BTreeSet::new();
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let is_table = ["wording.rs", "wording_many.rs"]
            .iter()
            .any(|name| path.ends_with(name));
        if path.extension().is_none_or(|it| it != "rs") || is_table {
            continue;
        }
        let source = fs::read_to_string(path).unwrap();
        let named = |text: &&str| {
            let known = |c: char| c.is_ascii_lowercase() || c == '_' || c == '.';
            !text.is_empty() && text.chars().all(known)
        };
        found.extend(source.split('"').filter(named).map(str::to_owned));
    }
    found
}

#[test]
fn every_text_that_a_page_uses_exists_and_every_text_is_used() {
    let names: BTreeSet<&str> = Texts::names().map(|(name, _)| name).collect();
    let used = literals();
    let unused: Vec<_> = names.iter().filter(|name| !used.contains(**name)).collect();
    assert!(unused.is_empty(), "no page uses {unused:?}");
    let groups: BTreeSet<_> = names
        .iter()
        .filter_map(|name| Some(name.split_once('.')?.0))
        .collect();
    // Members of the API, which are names of fields.
    let fields = ["owner.user_id", "owner.user_email", "owner.tenant_id"];
    let is_name = |text: &&String| {
        let group = text.split_once('.').map(|(group, _)| group);
        group.is_some_and(|group| groups.contains(group)) && !fields.contains(&text.as_str())
    };
    let unknown: Vec<_> = used
        .iter()
        .filter(is_name)
        .filter(|text| !names.contains(text.as_str()))
        .collect();
    assert!(unknown.is_empty(), "not in the table: {unknown:?}");
    assert_eq!(names.len(), Texts::names().count(), "a name twice");
}

#[tokio::test]
async fn the_host_replaces_texts_and_they_are_escaped() {
    let fixture = Fixture::new();
    fixture.issue("key").await;
    let texts = Texts::new()
        .with("lang", "he")
        .and_then(|texts| texts.with("dir", "rtl"))
        .and_then(|texts| texts.with("list.title", "<b>Keys</b> & \"more\""))
        // One placeholder is left out, one does not exist.
        .and_then(|texts| texts.with("edit.title", "{other} Rename <i>"))
        .unwrap();
    let browser = fixture.at("/keys", fixture.admin().dashboard().texts(texts));
    let list = browser.get("/keys").await.expect(200);
    assert!(list.has("<html lang=\"he\" dir=\"rtl\">"));
    assert!(
        list.has("<h1>&lt;b&gt;Keys&lt;/b&gt; &amp; &quot;more&quot;</h1>"),
        "{}",
        list.body
    );
    let key = browser.open(&list, &list.link("key")).await;
    let edit = browser.open(&key, &key.link("Edit")).await;
    assert!(
        edit.has("<h1>{other} Rename &lt;i&gt;</h1>"),
        "{}",
        edit.body
    );
    let unknown = Texts::new().with("list.titel", "x").unwrap_err();
    assert!(unknown.to_string().contains("list.titel"));
}
