//! Human-readable texts: characters that are trimmed, and characters that are refused.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::life::{Desk, change, field, issue, named};
use portunus::audit::Action;
use portunus::manage::{ImportedDigest, ManageError, ManagedKey, NewImport, NewKey};

/// Invisible characters.
const INVISIBLE: &[&str] = &[
    "\u{200b}",
    "\u{2060}",
    "\u{ad}",
    "\u{2800}",
    "\u{3164}",
    "\u{feff}",
    "\u{200c}",
    "\u{200d}",
    "\u{34f}",
    "\u{115f}",
    "\u{ffa0}",
    "\u{180b}",
    "\u{180e}",
    "\u{fe0f}",
    "\u{e0100}",
    "\u{2064}",
    "\u{1d173}",
    "\u{1d159}",
    "\u{13430}",
    "\u{16fe4}",
    "\u{200b}\u{3000}\u{2800}",
    " \u{feff} ",
];

/// Characters that are refused anywhere.
const HOSTILE: &[char] = &[
    '\0',
    '\u{7}',
    '\u{8}',
    '\u{1b}',
    '\u{7f}',
    '\u{80}',
    '\u{9f}',
    '\u{61c}',
    '\u{200e}',
    '\u{200f}',
    '\u{202a}',
    '\u{202b}',
    '\u{202c}',
    '\u{202d}',
    '\u{202e}',
    '\u{2066}',
    '\u{2067}',
    '\u{2068}',
    '\u{2069}',
    '\u{fff9}',
    '\u{fffa}',
    '\u{fffb}',
    '\u{e0001}',
    '\u{e0020}',
    '\u{e0041}',
    '\u{e007f}',
];

/// White space at either end, by the property White_Space.
const BLANKS: &[&str] = &[
    " ",
    "\t",
    "\n",
    "\r\n",
    "\u{b}",
    "\u{c}",
    "\u{85}",
    "\u{a0}",
    "\u{1680}",
    "\u{2003}",
    "\u{2028}",
    "\u{2029}",
    "\u{202f}",
    "\u{205f}",
    "\u{3000}",
    " \u{2003}\n",
];

/// Characters that are invisible by themselves but meaningful among visible ones.
const HIDDEN: &[&str] = &[
    "a\u{ad}b",
    "a\u{34f}b",
    "a\u{115f}b",
    "a\u{1160}b",
    "a\u{17b4}b",
    "a\u{180e}b",
    "a\u{200b}b",
    "a\u{2060}b",
    "a\u{2064}b",
    "a\u{2065}b",
    "a\u{206a}b",
    "a\u{206f}b",
    "a\u{2800}b",
    "a\u{3164}b",
    "a\u{feff}b",
    "\u{feff}a",
    "a\u{feff}",
    "a\u{ffa0}b",
    "a\u{fff0}b",
    "a\u{13430}b",
    "a\u{16fe4}b",
    "a\u{1bca0}b",
    "a\u{1d159}b",
    "a\u{1d173}b",
    "a\u{e0080}b",
    "a\u{2800}",
    "\u{2801}\u{2800}",
    // Joiners at an end, next to a space, next to another one, or next to a hidden character.
    "\u{200c}a",
    "a\u{200c}",
    "\u{200d}a",
    "a\u{200d}",
    " \u{200d}a",
    "a\u{200c} ",
    "a \u{200d}b",
    "a\u{200d} b",
    "a\u{200c}\u{200c}b",
    "a\u{200d}\u{200c}b",
    "\u{1f469}\u{200d}",
    "\u{200d}\u{1f4bb}",
    "\u{1f469}\u{200d}\u{fe0f}",
    // Variation selectors without a base.
    "\u{fe0f}a",
    "a \u{fe0f}b",
    "a\u{fe0f}\u{fe0f}b",
    "a\u{200d}\u{fe0f}b",
    "\u{e0100}a",
    "a \u{180b}b",
    "a \u{fe00}",
    // The flag of England, which uses tag characters.
    "\u{1f3f4}\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
];

const READABLE: &[&str] = &[
    "x",
    "two words",
    "Größe 🔑",
    "\u{645}\u{6cc}\u{200c}\u{62e}\u{648}\u{627}\u{647}\u{645}", // ZWNJ, Persian
    "\u{915}\u{94d}\u{200d}\u{937}",                             // ZWJ, Devanagari
    "\u{1f469}\u{200d}\u{1f4bb}",                                // ZWJ, emoji
    "\u{2764}\u{fe0f}",
    "e\u{301}",
    "\u{5e2}\u{5d1}\u{5e8}\u{5d9}\u{5ea}",
    // A family, a couple with a heart, a profession with a skin tone, flags, a keycap.
    "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}\u{200d}\u{1f466}",
    "\u{1f469}\u{200d}\u{2764}\u{fe0f}\u{200d}\u{1f48b}\u{200d}\u{1f468}",
    "Team \u{1f469}\u{1f3fd}\u{200d}\u{1f680} \u{2014} CI",
    "\u{1f3f3}\u{fe0f}\u{200d}\u{1f308}",
    "\u{1f1e9}\u{1f1ea}",
    "\u{1f3f4}",
    "1\u{fe0f}\u{20e3} key",
    "\u{845b}\u{e0100}\u{98fe}", // an ideograph with a variation selector
    "\u{182d}\u{180d}\u{1820}",  // Mongolian
    "\u{dc1}\u{dca}\u{200d}\u{dbb}\u{dd3}", // Sinhala
    "\u{601}\u{661}\u{664}",     // a year in Arabic, with its sign
    "\u{2813}\u{2811}\u{2800}\u{283a}", // two words in Braille
];

type OperatorScope = &'static str;

/// A digest that belongs to no key yet.
fn fresh_digest() -> ImportedDigest {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&MADE.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    ImportedDigest::new("sha256", &bytes).unwrap()
}

/// Writes a text to every place that accepts one, and returns the results.
async fn written(
    desk: &Desk,
    text: &str,
) -> Vec<(OperatorScope, Result<Option<String>, ManageError>)> {
    let manager = desk.host();
    let name = |key: ManagedKey| Some(key.record.name.to_string());
    let description = |key: ManagedKey| key.record.description.clone();
    let mut all = Vec::new();

    let issued = manager.issue(named(text)).await;
    all.push((
        "name",
        issued.map(|issued| Some(issued.record.name.to_string())),
    ));
    let mut new = named("key");
    new.description = Some(text.to_owned());
    let issued = manager.issue(new.clone()).await;
    all.push((
        "description",
        issued.map(|issued| issued.record.description.clone()),
    ));
    new.description = None;
    new.owner = new.owner.with_email(text);
    let issued = manager.issue(new).await;
    all.push((
        "owner.user_email",
        issued.map(|issued| issued.record.owner.user_email.clone().map(String::from)),
    ));

    let import = |key: NewKey| NewImport::new(fresh_digest(), key);
    all.push(("name", manager.import(import(named(text))).await.map(name)));
    let mut described = named("key");
    described.description = Some(text.to_owned());
    let imported = manager.import(import(described)).await;
    all.push(("description", imported.map(description)));

    let (_, key) = issue(&manager, named("key")).await;
    let renamed = change(|change| change.name = Some(text.to_owned()));
    all.push((
        "name",
        manager.update(&key.id, renamed, None).await.map(name),
    ));
    let told = change(|change| change.description = Some(Some(text.to_owned())));
    let told = manager.update(&key.id, told, None).await;
    all.push(("description", told.map(description)));
    let revoked = manager.revoke(&key.id, Some(text)).await;
    let reason = |key: ManagedKey| key.record.revoked.as_ref()?.reason.clone();
    all.push(("reason", revoked.map(reason)));
    all
}

#[tokio::test]
async fn a_text_of_which_nothing_is_visible_is_refused_everywhere() {
    let desk = Desk::new();
    for text in INVISIBLE {
        for (place, came_of_it) in written(&desk, text).await {
            assert_eq!(field(came_of_it), place, "{}", text.escape_unicode());
        }
    }
}

#[tokio::test]
async fn a_character_that_changes_how_a_text_is_read_is_refused_everywhere() {
    let desk = Desk::new();
    for hostile in HOSTILE {
        for text in [
            format!("a{hostile}b"),
            format!("{hostile}a"),
            format!("a{hostile}"),
            hostile.to_string(),
        ] {
            for (place, came_of_it) in written(&desk, &text).await {
                assert_eq!(field(came_of_it), place, "{}", text.escape_unicode());
            }
        }
    }
}

#[tokio::test]
async fn an_invisible_character_is_also_refused_among_visible_ones() {
    let desk = Desk::new();
    for text in HIDDEN {
        for (place, came_of_it) in written(&desk, text).await {
            let error = came_of_it.expect_err(&format!("{place} {}", text.escape_unicode()));
            let told = error.to_string();
            assert!(told.contains("U+"), "{told}");
            assert!(told.is_ascii(), "{told:?}");
            assert_eq!(
                field(Err::<(), _>(error)),
                place,
                "{}",
                text.escape_unicode()
            );
        }
    }
}

#[tokio::test]
async fn white_space_at_both_ends_is_left_out_and_the_rest_is_kept_as_it_is() {
    let desk = Desk::new();
    for blank in BLANKS {
        let text = format!("{blank}a  b{blank}");
        for (place, came_of_it) in written(&desk, &text).await {
            if place == "owner.user_email" && blank.contains(char::is_control) {
                assert_eq!(field(came_of_it), place);
                continue;
            }
            let kept = came_of_it.unwrap();
            assert_eq!(
                kept.as_deref(),
                Some("a  b"),
                "{place} {}",
                text.escape_unicode()
            );
        }
    }
    for text in READABLE {
        for (place, came_of_it) in written(&desk, text).await {
            let kept = came_of_it.unwrap();
            assert_eq!(kept.as_deref(), Some(*text), "{place}");
        }
    }
}

#[tokio::test]
async fn a_blank_name_is_none_and_other_blank_texts_are_empty() {
    let desk = Desk::new();
    for blank in BLANKS.iter().chain(&[""]) {
        for (place, came_of_it) in written(&desk, blank).await {
            match place {
                "name" => assert_eq!(field(came_of_it), "name"),
                "owner.user_email" if blank.contains(char::is_control) => {
                    assert_eq!(field(came_of_it), place);
                }
                _ => assert_eq!(came_of_it.unwrap().as_deref(), Some(""), "{place}"),
            }
        }
    }
}

#[tokio::test]
async fn a_name_is_one_line_and_a_description_may_be_several() {
    let desk = Desk::new();
    for (text, lines) in [("a\nb", 2), ("a\u{2028}b", 1), ("a\u{2029}b", 1)] {
        for (place, came_of_it) in written(&desk, text).await {
            match place {
                "name" | "owner.user_email" => assert_eq!(field(came_of_it), place),
                _ => assert_eq!(came_of_it.unwrap().unwrap().lines().count(), lines),
            }
        }
    }
}

#[tokio::test]
async fn characters_are_counted_without_the_white_space_around_them() {
    let desk = Desk::new();
    let most = "é".repeat(1000);
    for (_, came_of_it) in written(&desk, &format!("  {most}\u{3000}")).await {
        assert_eq!(came_of_it.unwrap().as_deref(), Some(&*most));
    }
    for (place, came_of_it) in written(&desk, &format!("{most}é")).await {
        assert_eq!(field(came_of_it), place);
    }
}

#[tokio::test]
async fn a_refused_character_is_named_by_its_code_point_and_never_shown() {
    let desk = Desk::new();
    let refused = desk.host().issue(named("a\u{202e}b")).await.unwrap_err();
    let text = refused.to_string();
    assert!(
        text.contains("U+202E") && !text.contains('\u{202e}'),
        "{text}"
    );
}

#[tokio::test]
async fn a_name_that_differs_only_in_outer_white_space_is_not_a_change() {
    let desk = Desk::new();
    let (_, key) = issue(&desk.host(), named("key")).await;
    let same = change(|change| change.name = Some("\tkey ".into()));
    let kept = desk.host().update(&key.id, same, None).await.unwrap();
    assert_eq!(kept.record.version, 1);
}

#[tokio::test]
async fn the_displayed_part_of_a_secret_is_also_visible() {
    let desk = Desk::new();
    for (last_four, masked) in [
        (" 9f3a ", Some("…9f3a")),
        ("\u{200b}", None),
        ("a\n", None),
        ("a\u{202e}b", None),
        ("12345", None),
    ] {
        let mut import = NewImport::new(fresh_digest(), named("key"));
        import.last_four = Some(last_four.into());
        let imported = desk.host().import(import).await;
        match masked {
            Some(masked) => assert_eq!(imported.unwrap().record.masked, masked),
            None => assert_eq!(field(imported), "last_four"),
        }
    }
}

#[tokio::test]
async fn the_audit_records_a_reason_as_stored() {
    let desk = Desk::new();
    let (_, key) = issue(&desk.host(), named("key")).await;
    desk.host().revoke(&key.id, Some(" lost\n")).await.unwrap();
    let told = desk.events().await;
    let revoked = told.iter().find(|event| event.action == Action::KeyRevoke);
    assert_eq!(revoked.unwrap().detail.as_deref(), Some("lost"));
}
