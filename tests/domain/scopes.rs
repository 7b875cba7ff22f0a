//! Coverage of grants and requirements of scopes: the rules as tables, and every implementation of
//! a set compared with a model that splits names into segments.

use std::collections::HashSet;
use std::sync::Arc;

use portunus::scope;
use portunus::scope::{
    BitModel, MAX_SCOPE_LENGTH, Scope, ScopeExplanation, ScopeModel, ScopeRequirement, ScopeSet,
    Vocabulary, WildcardModel,
};
use proptest::prelude::*;

fn s(text: &str) -> Scope {
    Scope::new(text).unwrap()
}

fn set(grants: &[&str]) -> Arc<dyn ScopeSet> {
    WildcardModel
        .compile(&grants.iter().map(|text| s(text)).collect::<Vec<_>>())
        .unwrap()
}

// ---- the rules ----

const RULES: &[(&str, &str, bool)] = &[
    // A literal covers only itself.
    ("document:read", "document:read", true),
    ("documents.read", "documents.read", true),
    ("account_access", "account_access", true),
    ("document:read", "document:write", false),
    ("document:read", "document", false),
    ("document", "document:read", false),
    ("document:read", "document:read:all", false),
    ("document:read", "document:readonly", false),
    ("document:readonly", "document:read", false),
    // The separators are different.
    ("document:read", "document.read", false),
    ("document.read", "document:read", false),
    ("document:*", "document.read", false),
    ("document.*", "document:read", false),
    // A wildcard covers every deeper name with that separator.
    ("document:*", "document:read", true),
    ("document.*", "document.read", true),
    ("document:*", "document:read:all", true),
    ("document:*", "document:read.all", true),
    ("document.*", "document.read:all", true),
    ("a:b.*", "a:b.c", true),
    ("a:b.*", "a:b.c.d:e", true),
    ("a:b.*", "a:b:c", false),
    ("a:b.*", "a:c", false),
    ("a:b:*", "a:c:b", false),
    // Neither the bare prefix nor a longer word with the same beginning.
    ("document:*", "document", false),
    ("document.*", "document", false),
    ("document:*", "documents:read", false),
    ("document:*", "documentation", false),
    ("bulk_sends.*", "bulk_sends", false),
    // A required wildcard is satisfied only by a grant that covers all of it.
    ("document:*", "document:*", true),
    ("document:read", "document:*", false),
    ("document:*", "document:read:*", true),
    ("document:read:*", "document:*", false),
    ("document:*", "document.*", false),
    ("document:*", "*", false),
    ("document.*", "*", false),
    // `*` covers everything, including itself.
    ("*", "*", true),
    ("*", "document", true),
    ("*", "document:read", true),
    ("*", "documents.read", true),
    ("*", "document:*", true),
    // Scopes are case-sensitive.
    ("document:read", "Document:Read", false),
    ("Document:*", "document:read", false),
    ("document:*", "DOCUMENT:read", false),
];

#[test]
fn a_grant_covers_names_according_to_the_rules() {
    for &(grant, required, covers) in RULES {
        assert_eq!(
            s(grant).covers(&s(required)),
            covers,
            "{grant} for {required}"
        );
    }
}

#[test]
fn a_set_of_one_grants_what_its_grant_covers() {
    for &(grant, required, covers) in RULES {
        assert_eq!(
            set(&[grant]).grants(&s(required)),
            covers,
            "{grant} for {required}"
        );
    }
}

#[test]
fn an_empty_set_grants_nothing() {
    for required in ["*", "document", "document:read", "document:*"] {
        assert!(!set(&[]).grants(&s(required)), "{required}");
    }
}

#[test]
fn literals_never_add_up_to_a_wildcard() {
    assert!(!set(&["document:read", "document:write", "document:delete"]).grants(&s("document:*")));
}

// ---- names ----

#[test]
fn an_invalid_scope_cannot_be_constructed() {
    let long = "a".repeat(MAX_SCOPE_LENGTH + 1);
    for wrong in [
        "",
        " ",
        "*:read",
        "doc*",
        "*doc",
        "**",
        "a:**",
        "a:*:b",
        "a:b*",
        "a:*b",
        ":a",
        "a:",
        ".a",
        "a.",
        ":",
        ".",
        "a::b",
        "a..b",
        "a:.b",
        "a.:b",
        "*.",
        "*:*",
        "a b",
        "document:read ",
        " document:read",
        "document:read\0",
        "document:read\n",
        "document:read\t",
        "a\"b",
        "a\\b",
        "d\u{e9}",
        "\u{7f}",
        "a,\u{a0}b",
        &long,
    ] {
        assert!(Scope::new(wrong).is_err(), "{wrong:?}");
        assert!(wrong.parse::<Scope>().is_err(), "{wrong:?}");
        assert!(Scope::try_from(wrong.to_owned()).is_err(), "{wrong:?}");
        assert!(
            serde_json::from_value::<Scope>(wrong.into()).is_err(),
            "{wrong:?}"
        );
    }
}

#[test]
fn names_of_128_bytes_and_all_characters_of_a_scope_token_are_scopes() {
    let longest = "a".repeat(MAX_SCOPE_LENGTH);
    for right in [
        "a",
        "*",
        "a:*",
        "a.*",
        "a:b.c",
        "!",
        "#$%&'()+,-/",
        ";<=>?@[]^_`{|}~",
        "https://x/y",
        &longest,
    ] {
        let valid = Scope::new(right).is_ok();
        // A `//` is not an empty segment: only `:` and `.` separate segments.
        assert!(valid, "{right}");
    }
}

proptest! {
    #[test]
    fn a_text_is_a_scope_if_and_only_if_its_characters_and_segments_are_right(
        text in "[ab:.* \"\\\\\u{e9}]{0,12}|[a:.*]{1,6}|[a]{125,131}"
    ) {
        let token = |c: char| matches!(c, '\x21' | '\x23'..='\x5B' | '\x5D'..='\x7E');
        let segments: Vec<&str> = text.split([':', '.']).collect();
        let (last, before) = segments.split_last().unwrap();
        let expected = text.len() <= 128
            && text.chars().all(token)
            && segments.iter().all(|segment| !segment.is_empty())
            && before.iter().all(|segment| !segment.contains('*'))
            && (*last == "*" || !last.contains('*'));
        prop_assert_eq!(Scope::new(&text).is_ok(), expected, "{:?}", text);
    }

    #[test]
    fn any_text_is_judged_without_a_panic(text in any::<String>()) {
        let _ = Scope::new(&text);
    }
}

#[test]
fn the_error_shows_the_beginning_of_the_invalid_text() {
    let error = Scope::new("doc*").unwrap_err().to_string();
    assert!(
        error.contains("doc*") && error.contains("whole last segment"),
        "{error}"
    );
    assert!(
        Scope::new(&"x".repeat(1 << 20))
            .unwrap_err()
            .to_string()
            .len()
            < 200
    );
}

#[test]
fn scopes_of_equal_text_are_equal_however_they_were_constructed() {
    let (written, read) = (scope!("document:read"), s("document:read"));
    assert_eq!(written, read);
    assert_eq!(HashSet::from([written.clone(), read.clone()]).len(), 1);
    assert_eq!(written.cmp(&read), std::cmp::Ordering::Equal);
}

#[test]
fn a_scope_survives_a_round_trip_and_shows_its_text() {
    let scope = s("document:*");
    assert_eq!(serde_json::to_string(&scope).unwrap(), r#""document:*""#);
    assert_eq!(
        serde_json::from_str::<Scope>(r#""document:*""#).unwrap(),
        scope
    );
    assert!(
        serde_json::from_str::<Scope>(r#""document:*""#)
            .unwrap()
            .is_wildcard()
    );
    assert_eq!(
        (scope.to_string(), format!("{scope:?}")),
        ("document:*".into(), "Scope(document:*)".into())
    );
    assert_eq!(String::from(scope), "document:*");
}

#[test]
fn the_wildcard_above_a_name_is_one_segment_shorter() {
    for (name, above) in [
        ("document", None),
        ("*", None),
        ("document:*", None),
        ("document:read", Some("document:*")),
        ("documents.read", Some("documents.*")),
        ("a:b.c", Some("a:b.*")),
        ("a.b:c", Some("a.b:*")),
        ("a:b:*", Some("a:*")),
        ("a:b.*", Some("a:*")),
    ] {
        assert_eq!(s(name).parent_wildcard(), above.map(s), "{name}");
    }
}

// ---- the sets against a slow model ----

/// The rules, implemented literally: names as segments and separators.
fn slow_covers(grant: &str, required: &str) -> bool {
    fn apart(name: &str) -> (Vec<&str>, Vec<char>) {
        (
            name.split([':', '.']).collect(),
            name.chars().filter(|c| matches!(c, ':' | '.')).collect(),
        )
    }
    if grant == "*" {
        return true;
    }
    let (granted, between_granted) = apart(grant);
    let (asked, between_asked) = apart(required);
    match granted.split_last() {
        Some((&"*", fixed)) => {
            asked.len() > fixed.len()
                && (0..fixed.len())
                    .all(|at| asked[at] == fixed[at] && between_asked[at] == between_granted[at])
        }
        _ => grant == required,
    }
}

#[test]
fn the_slow_model_agrees_with_the_table() {
    for &(grant, required, covers) in RULES {
        assert_eq!(
            slow_covers(grant, required),
            covers,
            "{grant} for {required}"
        );
    }
}

/// Names that are often related: few segments of few words, with either separator.
fn name() -> impl Strategy<Value = Scope> {
    let segment = prop::sample::select(vec!["a", "b", "ab", "A"]);
    let more = prop::collection::vec(
        (prop::sample::select(vec![":", "."]), segment.clone()),
        0..4,
    );
    (segment, more, any::<bool>(), 0_u8..20).prop_map(|(first, more, wildcard, everything)| {
        if everything == 0 {
            return s("*");
        }
        let mut text = first.to_owned();
        let last = more.len().wrapping_sub(1);
        for (at, (separator, word)) in more.into_iter().enumerate() {
            text.push_str(separator);
            text.push_str(if wildcard && at == last { "*" } else { word });
        }
        s(&text)
    })
}

fn slow_grants(grants: &[Scope], required: &Scope) -> bool {
    grants
        .iter()
        .any(|grant| slow_covers(grant.as_str(), required.as_str()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn covering_agrees_with_the_slow_model(grant in name(), required in name()) {
        prop_assert_eq!(grant.covers(&required), slow_covers(grant.as_str(), required.as_str()));
    }

    #[test]
    fn covering_is_transitive(a in name(), b in name(), c in name()) {
        if a.covers(&b) && b.covers(&c) {
            prop_assert!(a.covers(&c), "{a} {b} {c}");
        }
    }

    #[test]
    fn a_set_of_any_size_grants_what_one_of_its_grants_covers(
        grants in prop::collection::vec(name(), 0..40), required in name()
    ) {
        let compiled = WildcardModel.compile(&grants).unwrap();
        prop_assert_eq!(compiled.grants(&required), slow_grants(&grants, &required));
    }

    #[test]
    fn many_literals_are_searched_as_well_as_walked(
        grants in prop::collection::vec("[ab]{1,3}:[ab]{1,2}".prop_map(|text| s(&text)), 13..60),
        required in "[ab]{1,3}:[ab]{1,2}".prop_map(|text| s(&text)),
    ) {
        let compiled = WildcardModel.compile(&grants).unwrap();
        prop_assert_eq!(compiled.grants(&required), grants.contains(&required));
    }

    #[test]
    fn more_grants_never_take_anything_away(
        grants in prop::collection::vec(name(), 0..20),
        more in prop::collection::vec(name(), 0..20),
        required in name(),
    ) {
        let few = WildcardModel.compile(&grants).unwrap();
        let many = WildcardModel.compile(&[grants, more].concat()).unwrap();
        prop_assert!(!few.grants(&required) || many.grants(&required));
    }

    #[test]
    fn bits_agree_with_wildcards_on_the_whole_vocabulary(
        vocabulary in prop::collection::vec(name(), 0..12),
        grants in prop::collection::vec(name(), 0..8),
    ) {
        let declared: Vocabulary = vocabulary.iter().cloned().collect();
        let bits = BitModel::new(&declared).unwrap().compile(&grants).unwrap();
        let wildcards = WildcardModel.compile(&grants).unwrap();
        let mut closure: Vec<Scope> = vec![s("*")];
        for name in &vocabulary {
            closure.push(name.clone());
            closure.extend(std::iter::successors(name.parent_wildcard(), Scope::parent_wildcard));
        }
        for required in &closure {
            prop_assert_eq!(bits.grants(required), wildcards.grants(required), "{}", required);
        }
        prop_assert_eq!(bits.names(), wildcards.names());
    }

    #[test]
    fn bits_never_grant_what_wildcards_would_not(
        vocabulary in prop::collection::vec(name(), 0..12),
        grants in prop::collection::vec(name(), 0..8),
        required in name(),
    ) {
        let declared: Vocabulary = vocabulary.into_iter().collect();
        let bits = BitModel::new(&declared).unwrap().compile(&grants).unwrap();
        prop_assert!(!bits.grants(&required) || slow_grants(&grants, &required));
    }
}

#[test]
fn outside_of_the_vocabulary_bits_are_granted_by_nothing_but_everything() {
    let vocabulary: Vocabulary = [s("document:read")].into_iter().collect();
    let model = BitModel::new(&vocabulary).unwrap();
    for grant in ["template:read", "template:*"] {
        assert!(
            !model
                .compile(&[s(grant)])
                .unwrap()
                .grants(&s("template:read")),
            "{grant}"
        );
    }
    assert!(
        model
            .compile(&[s("*")])
            .unwrap()
            .grants(&s("template:read"))
    );
}

#[test]
fn bits_beyond_the_first_word_are_distinguished() {
    let names: Vec<Scope> = (0..250)
        .map(|number| s(&format!("scope{number}")))
        .collect();
    let model = BitModel::new(&names.iter().cloned().collect()).unwrap();
    for (at, name) in names.iter().enumerate() {
        let compiled = model.compile(std::slice::from_ref(name)).unwrap();
        let granted: Vec<usize> = (0..names.len())
            .filter(|&other| compiled.grants(&names[other]))
            .collect();
        assert_eq!(granted, [at]);
    }
}

#[test]
fn a_vocabulary_of_256_names_and_wildcards_fits_and_of_257_does_not() {
    let of = |count: usize| {
        (0..count)
            .map(|number| s(&format!("scope{number}")))
            .collect::<Vocabulary>()
    };
    assert!(BitModel::new(&of(255)).is_ok()); // including `*`
    let error = BitModel::new(&of(256)).unwrap_err();
    assert!(error.to_string().contains("257"), "{error}");
}

#[test]
fn a_set_shows_its_grants_in_the_order_in_which_they_were_given() {
    let names = ["template:read", "document:*", "a", "document:read"];
    assert_eq!(set(&names).names(), names);
    let many: Vec<String> = (0..20)
        .rev()
        .map(|number| format!("scope{number}"))
        .collect();
    let texts: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(set(&texts).names(), many);
    // Keys with the same scopes share a set; the same scopes in another order are another one.
    for order in [["a", "b:*"], ["b:*", "a"], ["a", "b:*"]] {
        let compiled = WildcardModel.compile(&order.map(s)).unwrap();
        assert_eq!(compiled.names(), order);
    }
}

#[test]
fn pointers_to_a_set_are_the_set() {
    let arc: Arc<dyn ScopeSet> = set(&["document:*"]);
    let boxed: Box<dyn ScopeSet> = Box::new(Arc::clone(&arc));
    for set in [&arc as &dyn ScopeSet, &boxed] {
        assert!(set.grants(&s("document:read")) && !set.grants(&s("template:read")));
        assert_eq!(set.names(), ["document:*"]);
        assert_eq!(
            set.granted_by(&s("document:read")).as_deref(),
            Some("document:*")
        );
        assert_eq!(set.granted_by(&s("template:read")), None);
    }
}

// ---- requirements ----

fn one_of(names: &[&str]) -> ScopeRequirement {
    ScopeRequirement::any_of(names.iter().map(|text| s(text)))
}

fn each_of(names: &[&str]) -> ScopeRequirement {
    ScopeRequirement::all_of_list(names.iter().map(|text| s(text))).unwrap()
}

fn and_c(other: ScopeRequirement) -> ScopeRequirement {
    ScopeRequirement::all_of([other, s("c").into()])
}

fn or_c(other: ScopeRequirement) -> ScopeRequirement {
    ScopeRequirement::any_of([other, s("c").into()])
}

#[test]
fn requirements_combine_as_any_and_all() {
    assert_eq!(ScopeRequirement::all_of_list(Vec::<Scope>::new()), None);
    for (requirement, grants, met) in [
        (ScopeRequirement::none(), vec![], true),
        (one_of(&[]), vec!["*"], false),
        (one_of(&["a", "b"]), vec!["b"], true),
        (one_of(&["a", "b"]), vec!["c"], false),
        (each_of(&["a", "b"]), vec!["b"], false),
        (each_of(&["a", "b"]), vec!["a", "b"], true),
        (each_of(&["a", "b"]), vec!["*"], true),
        (one_of(&["a:write", "a:*"]), vec!["a:write"], true),
        (one_of(&["a:write", "a:*"]), vec!["a:read"], false),
        (and_c(one_of(&["a", "b"])), vec!["a", "c"], true),
        (and_c(one_of(&["a", "b"])), vec!["a", "b"], false),
        (or_c(each_of(&["a", "b"])), vec!["c"], true),
        (or_c(each_of(&["a", "b"])), vec!["a"], false),
        (
            ScopeRequirement::all_of([one_of(&["a"]), one_of(&[])]),
            vec!["*"],
            false,
        ),
        (
            ScopeRequirement::any_of([one_of(&[]), one_of(&["a"])]),
            vec!["a"],
            true,
        ),
        (ScopeRequirement::from(s("a:*")), vec!["a:b"], false),
    ] {
        assert_eq!(
            requirement.is_met_by(&*set(&grants)),
            met,
            "{requirement} by {grants:?}"
        );
    }
}

#[test]
fn a_requirement_reads_as_a_sentence() {
    for (requirement, text) in [
        (ScopeRequirement::none(), "nothing"),
        (one_of(&[]), "a scope that cannot be granted"),
        (ScopeRequirement::scope(s("a")), "a"),
        (one_of(&["a"]), "a"),
        (each_of(&["a"]), "a"),
        (one_of(&["a", "b"]), "any of a, b"),
        (each_of(&["a", "b"]), "a and b"),
        (and_c(one_of(&["a", "b"])), "(any of a, b) and c"),
        (or_c(each_of(&["a", "b"])), "any of (a and b), c"),
        (
            ScopeRequirement::all_of([each_of(&["a", "b"]), each_of(&["c", "d"])]),
            "(a and b) and (c and d)",
        ),
    ] {
        assert_eq!(requirement.to_string(), text);
    }
}

#[test]
fn an_explanation_names_the_satisfying_grant_or_what_is_missing() {
    for (requirement, grants, text) in [
        (ScopeRequirement::none(), vec![], "nothing was required"),
        (
            ScopeRequirement::scope(s("a:b")),
            vec!["c", "a:*"],
            "a:b granted by a:*",
        ),
        (
            each_of(&["a:b", "c"]),
            vec!["c", "a:*"],
            "a:b granted by a:*, c granted by c",
        ),
        (one_of(&["x", "c"]), vec!["c"], "c granted by c"),
        (ScopeRequirement::scope(s("a")), vec![], "missing a"),
        (each_of(&["a", "b"]), vec!["a"], "missing b"),
        (each_of(&["a", "b", "c"]), vec!["b"], "missing a and c"),
        (and_c(one_of(&["a", "b"])), vec!["c"], "missing any of a, b"),
        (
            one_of(&[]),
            vec!["*"],
            "missing a scope that cannot be granted",
        ),
    ] {
        assert_eq!(requirement.explain(&*set(&grants)).to_string(), text);
    }
}

#[test]
fn an_explanation_is_of_the_kind_that_the_decision_was() {
    let requirement = and_c(one_of(&["a", "b"]));
    assert!(
        matches!(requirement.explain(&*set(&["a", "c"])), ScopeExplanation::Met(by) if by.len() == 2)
    );
    assert!(
        matches!(requirement.explain(&*set(&["a"])), ScopeExplanation::Missing(what) if what == s("c").into())
    );
}

#[test]
fn the_first_alternative_is_used_in_the_challenge() {
    let names = |requirement: &ScopeRequirement| -> Vec<String> {
        requirement
            .first_alternative()
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    assert_eq!(names(&one_of(&["a", "b"])), ["a"]);
    assert_eq!(names(&each_of(&["a", "b"])), ["a", "b"]);
    assert_eq!(names(&and_c(one_of(&["a", "b"]))), ["a", "c"]);
    assert_eq!(names(&or_c(each_of(&["a", "b"]))), ["a", "b"]);
    assert!(names(&one_of(&[])).is_empty());
}

#[test]
fn a_requirement_lists_its_scopes_and_says_whether_it_is_one_or_a_choice() {
    let nested = and_c(one_of(&["a", "b"]));
    assert_eq!(nested.scopes(), [&s("a"), &s("b"), &s("c")]);
    assert_eq!((nested.single(), nested.alternatives()), (None, None));
    assert_eq!(one_of(&["a"]).single(), Some(&s("a")));
    assert_eq!(
        one_of(&["a", "b"]).alternatives(),
        Some(vec![&s("a"), &s("b")])
    );
    assert_eq!(each_of(&["a", "b"]).alternatives(), None);
}

// ---- vocabulary ----

#[test]
fn a_vocabulary_contains_declared_names_wildcards_over_them_and_the_star() {
    let vocabulary: Vocabulary = [s("document:read"), s("document:write"), s("webhooks.*")]
        .into_iter()
        .collect();
    for (scope, known) in [
        ("document:read", true),
        ("document:*", true),
        ("webhooks.*", true),
        ("*", true),
        ("document:reed", false),
        ("document", false),
        ("document.*", false),
        ("documents:*", false),
        ("document:read:*", false),
        ("Document:Read", false),
        ("webhooks.read", false),
    ] {
        assert_eq!(vocabulary.knows(&s(scope)), known, "{scope}");
    }
}

#[test]
fn the_first_unknown_scope_is_named() {
    let vocabulary: Vocabulary = [s("a"), s("b")].into_iter().collect();
    let unknown = vocabulary.check(&[s("a"), s("x"), s("y")]).unwrap_err();
    assert_eq!(unknown.to_string(), "unknown scope \"x\"");
    assert_eq!(vocabulary.check(&[s("b"), s("*")]), Ok(()));
    assert_eq!(vocabulary.check(&[]), Ok(()));
}
