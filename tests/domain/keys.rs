//! Keys: valid and invalid formats, generation, and what may be displayed.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use portunus::key::{
    Access, Alphabet, Checksum, DigestScheme, Environment, FormatError, FormatMismatch, KeyDigest,
    KeyFormat, KeyFormatBuilder, KeyHasher, KeyId, KeyKind, KeyRecord, KeyStatus, MAX_KEY_LENGTH,
    Metadata, Owner, Pepper, Revocation, TenantId, UserId,
};
use proptest::prelude::*;

const BASE62: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const RANDOM: &str = "0123456789ABCDEFGHIJabcdefghijXY";

fn environment(name: &str) -> Environment {
    Environment::new(name).unwrap()
}

/// `acme_{live|test}_{sk|user_sk}_` + 32 base62.
fn plain() -> KeyFormatBuilder {
    KeyFormat::builder("acme_")
        .environment("live", environment("live"))
        .environment("test", environment("test"))
        .kind("sk", KeyKind::App)
        .kind("user_sk", KeyKind::User)
        .random(Alphabet::BASE62, 32)
}

/// GitHub's published layout: `ghp_`, 30 base62 characters and six checksum characters.
fn github() -> KeyFormat {
    KeyFormat::builder("ghp_")
        .random(Alphabet::BASE62, 30)
        .checksum(Checksum::Crc32Base62)
        .build()
        .unwrap()
}

// ---- parsing ----

#[test]
fn environment_and_kind_are_read_from_the_key() {
    let format = plain().build().unwrap();
    for (text, env, kind) in [
        ("acme_live_sk_", "live", KeyKind::App),
        ("acme_live_user_sk_", "live", KeyKind::User),
        ("acme_test_sk_", "test", KeyKind::App),
        ("acme_test_user_sk_", "test", KeyKind::User),
    ] {
        let key = format!("{text}{RANDOM}");
        let parsed = format.parse(&key).unwrap();
        assert_eq!(
            (parsed.environment().unwrap().as_str(), parsed.kind()),
            (env, Some(kind)),
            "{key}"
        );
        assert_eq!(parsed.random_length(), 32);
    }
}

#[test]
fn a_format_without_tokens_reads_neither_environment_nor_kind() {
    let format = KeyFormat::builder("")
        .random(Alphabet::BASE62, 32)
        .build()
        .unwrap();
    let parsed = format.parse(RANDOM).unwrap();
    assert_eq!((parsed.environment(), parsed.kind()), (None, None));
}

#[test]
fn a_key_that_differs_in_one_part_has_the_wrong_format() {
    let format = plain().build().unwrap();
    for wrong in [
        "".to_owned(),
        "acme_live_sk_".to_owned(),
        RANDOM.to_owned(),
        format!("acme_live_sk_{}", &RANDOM[1..]),
        format!("acme_live_sk_{RANDOM}0"),
        format!("Acme_live_sk_{RANDOM}"),
        format!("acme-live-sk-{RANDOM}"),
        format!("acme_prod_sk_{RANDOM}"),
        format!("acme_Live_sk_{RANDOM}"),
        format!("acme_live_pk_{RANDOM}"),
        format!("acme_live_{RANDOM}"),
        format!("acme_sk_live_{RANDOM}"),
        format!(" acme_live_sk_{RANDOM}"),
        format!("acme_live_sk_{RANDOM} "),
        format!("acme_live_sk_{RANDOM}\n"),
        format!("acme_live_sk_{}_", &RANDOM[1..]),
        format!("acme_live_sk_{}\0", &RANDOM[1..]),
        format!("acme_live_sk_{}\u{e9}", &RANDOM[2..]),
        format!("acme_live_sk_{}\u{ff10}", &RANDOM[3..]),
    ] {
        assert_eq!(
            format.parse(&wrong).unwrap_err(),
            FormatMismatch::Shape,
            "{wrong:?}"
        );
    }
}

#[test]
fn only_the_accepted_lengths_parse() {
    let format = plain().accept_lengths(16..=64).build().unwrap();
    for length in 0..80 {
        let key = format!("acme_live_sk_{}", "a".repeat(length));
        assert_eq!(
            format.parse(&key).is_ok(),
            (16..=64).contains(&length),
            "{length}"
        );
    }
}

#[test]
fn a_key_longer_than_any_may_be_is_refused() {
    let format = plain().accept_lengths(16..=200).build().unwrap();
    assert!(format.longest() <= MAX_KEY_LENGTH);
    assert!(
        format
            .parse(&format!("acme_live_sk_{}", "a".repeat(1 << 20)))
            .is_err()
    );
}

#[test]
fn a_parsed_key_prints_without_its_random_part() {
    let format = plain().build().unwrap();
    let key = format!("acme_live_sk_{RANDOM}");
    let shown = format!("{:?}", format.parse(&key).unwrap());
    assert!(
        shown.contains("live") && !shown.contains(&RANDOM[..8]),
        "{shown}"
    );
}

proptest! {
    #[test]
    fn parsing_any_text_never_panics(text in any::<String>()) {
        let _ = plain().build().unwrap().parse(&text);
        let _ = github().parse(&text);
    }

    #[test]
    fn parsing_agrees_with_trying_every_way_to_write_a_key(
        text in "(acme_|acm|)(live|test|prod|)_?(sk|user_sk|user|)_?[0-9A-Za-z~é]{28,36}"
    ) {
        let format = plain().accept_lengths(30..=34).build().unwrap();
        let written = |env: &str, kind: &str| {
            text.strip_prefix(&format!("acme_{env}_{kind}_")).is_some_and(|random| {
                (30..=34).contains(&random.chars().count()) && random.chars().all(|c| BASE62.contains(c))
            })
        };
        let expected = ["live", "test"]
            .iter()
            .any(|env| ["sk", "user_sk"].iter().any(|kind| written(env, kind)));
        prop_assert_eq!(format.parse(&text).is_ok(), expected);
    }
}

// ---- the checksum ----

/// CRC-32 of IEEE 802.3, one bit at a time.
fn slow_crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        for bit in 0..8 {
            let feedback = (crc ^ u32::from(byte >> bit)) & 1;
            crc >>= 1;
            if feedback == 1 {
                crc ^= 0xEDB8_8320;
            }
        }
    }
    !crc
}

/// Six base62 digits, computed by descending powers of 62.
fn slow_base62(value: u32) -> String {
    let mut left = u64::from(value);
    let mut text = String::new();
    for power in (0..6).rev() {
        let weight = 62_u64.pow(power);
        let digit = (0..62).rev().find(|digit| digit * weight <= left).unwrap();
        text.push(BASE62.chars().nth(usize::try_from(digit).unwrap()).unwrap());
        left -= digit * weight;
    }
    text
}

#[test]
fn the_slow_model_yields_the_published_check_value() {
    assert_eq!(slow_crc32(b"123456789"), 0xCBF4_3926);
    assert_eq!(slow_base62(0), "000000");
    assert_eq!(slow_base62(61), "00000z");
    assert_eq!(slow_base62(62), "000010");
}

#[test]
fn a_generated_key_ends_in_the_checksum_of_its_random_part() {
    for _ in 0..100 {
        let key = github().generate(None, None).unwrap().reveal();
        assert_eq!(key.len(), 40);
        assert_eq!(key[34..], slow_base62(slow_crc32(&key.as_bytes()[4..34])));
    }
}

proptest! {
    #[test]
    fn a_key_parses_with_the_right_checksum_and_with_no_other(
        random in "[0-9A-Za-z]{30}", other in "[0-9A-Za-z]{6}"
    ) {
        let right = slow_base62(slow_crc32(random.as_bytes()));
        let format = github();
        let key = format!("ghp_{random}{right}");
        prop_assert!(format.parse(&key).is_ok());
        if other != right {
            let wrong = format!("ghp_{random}{other}");
            prop_assert_eq!(format.parse(&wrong).unwrap_err(), FormatMismatch::Checksum);
        }
    }

    #[test]
    fn no_single_wrong_character_gets_past_the_checksum(place in 0_usize..40, with in "[ -~]") {
        let format = github();
        let key = format.generate(None, None).unwrap().reveal();
        let mut typo = key.clone();
        typo.replace_range(place..=place, &with);
        prop_assert_eq!(format.parse(&typo).is_ok(), typo == key);
    }
}

#[test]
fn a_wrong_length_is_a_wrong_format_with_any_checksum() {
    let random = &BASE62[..29];
    let key = format!("ghp_{random}{}", slow_base62(slow_crc32(random.as_bytes())));
    assert_eq!(github().parse(&key).unwrap_err(), FormatMismatch::Shape);
}

#[test]
fn a_checksum_does_not_swallow_the_random_part() {
    for text in ["ghp_", "ghp_00000", "ghp_000000"] {
        assert_eq!(
            github().parse(text).unwrap_err(),
            FormatMismatch::Shape,
            "{text}"
        );
    }
}

// ---- formats that cannot be built ----

#[test]
fn formats_that_cannot_work_are_refused_when_they_are_built() {
    let builder = || KeyFormat::builder("acme_");
    let strong = || builder().random(Alphabet::BASE62, 32);
    let cases: Vec<(&str, KeyFormatBuilder, FormatError)> = vec![
        ("no random part", builder(), FormatError::NoRandom),
        (
            "124 bits",
            builder().random(Alphabet::HEX, 31),
            FormatError::TooWeak(124),
        ),
        (
            "125 bits",
            builder().random(Alphabet::BASE62, 21),
            FormatError::TooWeak(125),
        ),
        (
            "no random character",
            builder().random(Alphabet::BASE62, 0),
            FormatError::TooWeak(0),
        ),
        (
            "generated length below the accepted",
            strong().accept_lengths(33..=64),
            FormatError::Lengths,
        ),
        (
            "generated length above the accepted",
            strong().accept_lengths(16..=31),
            FormatError::Lengths,
        ),
        (
            "an empty random part accepted",
            strong().accept_lengths(0..=64),
            FormatError::Lengths,
        ),
        (
            "longer than any key",
            strong().accept_lengths(16..=252),
            FormatError::TooLong(257),
        ),
        (
            "a space in the prefix",
            KeyFormat::builder("a b").random(Alphabet::BASE62, 32),
            FormatError::Token("a b".into()),
        ),
        (
            "a colon, which Basic splits at",
            KeyFormat::builder("a:").random(Alphabet::BASE62, 32),
            FormatError::Token("a:".into()),
        ),
        (
            "a foreign letter",
            KeyFormat::builder("\u{e9}_").random(Alphabet::BASE62, 32),
            FormatError::Token("\u{e9}_".into()),
        ),
        (
            "an empty token",
            strong().kind("", KeyKind::App),
            FormatError::Token(String::new()),
        ),
        (
            "a bad separator",
            strong().separator(":").kind("sk", KeyKind::App),
            FormatError::Token("sk".into()),
        ),
    ];
    for (what, format, error) in cases {
        assert_eq!(format.build().unwrap_err(), error, "{what}");
    }
}

#[test]
fn the_weakest_format_that_is_allowed_has_128_bits() {
    let format = KeyFormat::builder("")
        .random(Alphabet::HEX, 32)
        .build()
        .unwrap();
    assert!((format.bits() - 128.0).abs() < 1e-9);
}

#[test]
fn ambiguous_tokens_are_refused() {
    let live = || environment("live");
    let cases = [
        KeyFormat::builder("")
            .environment("live", live())
            .environment("live", environment("test")),
        KeyFormat::builder("")
            .environment("live", live())
            .environment("live_eu", environment("eu")),
        KeyFormat::builder("")
            .environment("live_eu", environment("eu"))
            .environment("live", live()),
        KeyFormat::builder("")
            .kind("sk", KeyKind::App)
            .kind("sk_user", KeyKind::User),
        KeyFormat::builder("")
            .separator("")
            .kind("sk", KeyKind::App)
            .kind("sku", KeyKind::User),
    ];
    for format in cases {
        let error = format.random(Alphabet::BASE62, 32).build().unwrap_err();
        assert!(matches!(error, FormatError::Ambiguous(..)), "{error:?}");
    }
}

#[test]
fn a_token_that_merely_contains_another_is_fine() {
    let format = plain().build().unwrap();
    let key = format
        .generate(Some(&environment("live")), Some(KeyKind::User))
        .unwrap()
        .reveal();
    assert_eq!(format.parse(&key).unwrap().kind(), Some(KeyKind::User));
}

#[test]
fn lengths_beyond_all_bounds_are_an_error_and_no_overflow() {
    let unbounded = plain().accept_lengths(16..=usize::MAX).build();
    assert!(
        matches!(unbounded, Err(FormatError::TooLong(_))),
        "{unbounded:?}"
    );
    let endless = KeyFormat::builder("acme_")
        .random(Alphabet::BASE62, usize::MAX)
        .build();
    assert!(
        matches!(endless, Err(FormatError::TooLong(_))),
        "{endless:?}"
    );
}

#[test]
fn an_alphabet_is_two_or_more_distinct_characters_that_a_field_can_carry() {
    for wrong in [
        "", "a", "aa", "abca", "ab c", "ab:", "ab=", "ab\u{e9}", "ab\0", "ab\"",
    ] {
        assert_eq!(
            Alphabet::new(wrong).unwrap_err(),
            FormatError::Alphabet,
            "{wrong:?}"
        );
    }
    for right in ["ab", "abcdefghijkmnpqrstuvwxyz23456789", "-._~+/"] {
        assert!(Alphabet::new(right).is_ok(), "{right}");
    }
}

#[test]
fn an_environment_is_1_to_32_lower_case_letters_digits_and_hyphens() {
    for right in ["live", "eu-1", "a", &"x".repeat(32)] {
        assert_eq!(environment(right).as_str(), right);
    }
    for wrong in ["", "Live", "eu_1", "eu 1", "\u{e9}u", &"x".repeat(33)] {
        assert!(Environment::new(wrong).is_err(), "{wrong}");
        assert!(
            serde_json::from_value::<Environment>(wrong.into()).is_err(),
            "{wrong}"
        );
    }
}

// ---- generating ----

#[test]
fn a_generated_key_parses_to_the_requested_parts() {
    let format = plain().checksum(Checksum::Crc32Base62).build().unwrap();
    for env in ["live", "test"] {
        for kind in [KeyKind::App, KeyKind::User] {
            let key = format
                .generate(Some(&environment(env)), Some(kind))
                .unwrap()
                .reveal();
            let parsed = format.parse(&key).unwrap();
            assert_eq!(
                (parsed.environment().unwrap().as_str(), parsed.kind()),
                (env, Some(kind))
            );
        }
    }
}

#[test]
fn a_key_without_a_token_for_the_requested_part_cannot_be_generated() {
    let format = plain().build().unwrap();
    let live = environment("live");
    assert!(format.generate(None, Some(KeyKind::App)).is_err());
    assert!(format.generate(Some(&live), None).is_err());
    assert!(
        format
            .generate(Some(&environment("staging")), Some(KeyKind::App))
            .is_err()
    );
    assert!(
        format
            .generate(Some(&live), Some(KeyKind::AccessToken))
            .is_err()
    );
}

#[test]
fn a_format_allows_exactly_what_it_can_generate() {
    let format = plain().build().unwrap();
    assert!(
        format.allows_environment(&environment("live"))
            && !format.allows_environment(&environment("staging"))
    );
    assert!(format.allows_kind(KeyKind::User) && !format.allows_kind(KeyKind::AccessToken));
    let bare = KeyFormat::builder("")
        .random(Alphabet::BASE62, 32)
        .build()
        .unwrap();
    assert!(
        bare.allows_environment(&environment("staging")) && bare.allows_kind(KeyKind::AccessToken)
    );
}

#[test]
fn no_two_generated_keys_are_equal() {
    let format = plain().build().unwrap();
    let live = environment("live");
    let keys: HashSet<_> = (0..5000)
        .map(|_| {
            format
                .generate(Some(&live), Some(KeyKind::App))
                .unwrap()
                .reveal()
        })
        .collect();
    assert_eq!(keys.len(), 5000);
}

/// The chi-square statistic of many generated characters against a uniform distribution.
fn chi_square(alphabet: Alphabet, size: usize, length: usize, keys: usize) -> f64 {
    let format = KeyFormat::builder("")
        .random(alphabet, length)
        .build()
        .unwrap();
    let mut counts: HashMap<char, f64> = HashMap::new();
    for _ in 0..keys {
        for c in format.generate(None, None).unwrap().reveal().chars() {
            *counts.entry(c).or_default() += 1.0;
        }
    }
    assert_eq!(counts.len(), size, "every character occurs");
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let expected = (keys * length) as f64 / size as f64;
    counts
        .values()
        .map(|count| (count - expected).powi(2) / expected)
        .sum()
}

#[test]
fn every_character_of_base62_is_equally_likely() {
    // 61 degrees of freedom: 61 ± 11. Taking a byte modulo 62 would give about 480.
    let chi = chi_square(Alphabet::BASE62, 62, 32, 2000);
    assert!(chi < 150.0, "{chi}");
}

#[test]
fn every_character_of_an_odd_alphabet_is_equally_likely() {
    // 2 degrees of freedom. Taking two bits modulo three would give one character half of the
    // positions.
    let chi = chi_square(Alphabet::new("xyz").unwrap(), 3, 100, 600);
    assert!(chi < 40.0, "{chi}");
}

// ---- display ----

#[test]
fn a_plaintext_key_prints_redacted() {
    let key = github().generate(None, None).unwrap();
    let (shown, pretty) = (format!("{key:?}"), format!("{key:#?}"));
    let text = key.reveal();
    assert!(
        !shown.contains(&text[4..10]) && !pretty.contains(&text[4..10]),
        "{shown}"
    );
}

#[test]
fn a_key_with_one_wrong_byte_in_its_prefix_or_token_is_none() {
    let letters = "abcdefghijklmnopqrst";
    for length in 0..=letters.len() {
        // As long a prefix, and as long a token after a prefix of two.
        let prefix = KeyFormat::builder(&letters[..length]);
        let mut formats = vec![(prefix, 0)];
        if length > 0 {
            let token = KeyFormat::builder("x_");
            formats.push((token.kind(&letters[..length], KeyKind::App), 2));
        }
        for (builder, start) in formats {
            let format = builder.random(Alphabet::BASE62, 32).build().unwrap();
            let kind = (start > 0).then_some(KeyKind::App);
            let key = format.generate(None, kind).unwrap().reveal();
            assert!(format.parse(&key).is_ok(), "{key}");
            for place in start..start + length {
                for bit in 0..5 {
                    let mut other = key.clone().into_bytes();
                    other[place] ^= 1 << bit;
                    let other = String::from_utf8(other).unwrap();
                    assert!(format.parse(&other).is_err(), "{other} for {key}");
                }
                assert!(format.parse(&key[..place]).is_err(), "{key}");
            }
        }
    }
}

#[test]
fn a_mask_keeps_the_prefix_and_the_last_four_characters() {
    let format = plain().checksum(Checksum::Crc32Base62).build().unwrap();
    let key = format
        .generate(Some(&environment("live")), Some(KeyKind::User))
        .unwrap();
    let mask = format.mask(&key);
    let text = key.reveal();
    assert_eq!(
        mask,
        format!("acme_live_user_sk_…{}", &text[text.len() - 4..])
    );
}

#[test]
fn a_mask_by_another_format_shows_only_the_last_four_characters() {
    let key = github().generate(None, None).unwrap();
    let mask = plain().build().unwrap().mask(&key);
    let text = key.reveal();
    assert_eq!(mask, format!("…{}", &text[text.len() - 4..]));
}

#[test]
fn digests_and_peppers_print_redacted() {
    let digest = KeyHasher::sha256().digest("abc");
    assert_eq!(format!("{digest:?}"), "KeyDigest(sha256, [redacted])");
    let pepper = Pepper::new(3, b"the pepper of the house, 32 bytes").unwrap();
    let shown = format!("{:?} {:?}", pepper, KeyHasher::hmac_sha256(pepper.clone()));
    assert!(
        !shown.contains("house") && !shown.contains("116, 104"),
        "{shown}"
    );
}

// ---- digests ----

#[test]
fn the_scheme_is_part_of_a_digest() {
    let bytes = KeyHasher::sha256().digest("abc").to_bytes();
    let plain = KeyDigest::new(DigestScheme::Sha256, bytes);
    assert_ne!(
        plain,
        KeyDigest::new(DigestScheme::HmacSha256 { pepper: 1 }, bytes)
    );
    assert_ne!(
        KeyDigest::new(DigestScheme::HmacSha256 { pepper: 2 }, bytes),
        KeyDigest::new(DigestScheme::HmacSha256 { pepper: 1 }, bytes)
    );
}

#[test]
fn digests_that_differ_in_any_one_byte_are_different() {
    let bytes = KeyHasher::sha256().digest("abc").to_bytes();
    let digest = KeyDigest::new(DigestScheme::Sha256, bytes);
    for place in 0..32 {
        let mut other = bytes;
        other[place] ^= 1;
        assert_ne!(
            digest,
            KeyDigest::new(DigestScheme::Sha256, other),
            "byte {place}"
        );
    }
}

#[test]
fn a_scheme_is_read_back_from_its_name_and_nothing_else_is() {
    for scheme in [
        DigestScheme::Sha256,
        DigestScheme::HmacSha256 { pepper: 0 },
        DigestScheme::HmacSha256 { pepper: u32::MAX },
    ] {
        assert_eq!(scheme.to_string().parse::<DigestScheme>().unwrap(), scheme);
    }
    for wrong in [
        "",
        "md5",
        "SHA256",
        "sha256 ",
        "hmac-sha256",
        "hmac-sha256:",
        "hmac-sha256:-1",
        "hmac-sha256:4294967296",
    ] {
        assert!(wrong.parse::<DigestScheme>().is_err(), "{wrong:?}");
    }
}

#[test]
fn a_short_pepper_is_refused() {
    assert_eq!(
        Pepper::new(1, &[7; 31]).unwrap_err().to_string(),
        "a pepper must be at least 32 random bytes; this one has 31"
    );
    assert!(Pepper::new(1, &[7; 32]).is_ok());
}

#[test]
fn pepper_versions_are_unique_and_at_most_eight_schemes_are_allowed() {
    let pepper =
        |version: u32| Pepper::new(version, &[u8::try_from(version).unwrap(); 32]).unwrap();
    let twice = KeyHasher::hmac_sha256(pepper(1)).accept_pepper(pepper(1));
    assert_eq!(
        twice.unwrap_err().to_string(),
        "pepper version 1 is configured twice"
    );
    let mut hasher = KeyHasher::hmac_sha256(pepper(1));
    for version in 2..=8 {
        hasher = hasher.accept_pepper(pepper(version)).unwrap();
    }
    assert_eq!(
        hasher.accept_pepper(pepper(9)).unwrap_err().to_string(),
        "at most 8 schemes and peppers can be accepted at once"
    );
}

#[test]
fn another_pepper_makes_another_digest() {
    let one = KeyHasher::hmac_sha256(Pepper::new(1, &[1; 32]).unwrap()).digest("abc");
    let other = KeyHasher::hmac_sha256(Pepper::new(1, &[2; 32]).unwrap()).digest("abc");
    assert_ne!(one, other);
}

// ---- ids and records ----

#[test]
fn an_id_is_1_to_128_visible_ascii_characters() {
    for right in [
        "a",
        "key_1",
        "0b4a1c1e-7d4e-4a53-9d5e-1a0a0b6f8c11",
        &"x".repeat(128),
    ] {
        assert_eq!(KeyId::new(right).unwrap().as_str(), right);
    }
    for wrong in ["", " ", "a b", "a\n", "a\0", "\u{e9}", &"x".repeat(129)] {
        assert!(
            TenantId::new(wrong).is_err()
                && UserId::new(wrong).is_err()
                && KeyId::new(wrong).is_err(),
            "{wrong:?}"
        );
        assert!(
            serde_json::from_value::<TenantId>(wrong.into()).is_err(),
            "{wrong:?}"
        );
    }
}

fn record() -> KeyRecord {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    let owner = Owner::tenant(TenantId::new("acme").unwrap());
    KeyRecord::new(
        KeyId::new("key_1").unwrap(),
        "name",
        KeyKind::App,
        environment("live"),
        owner,
        start,
    )
}

#[test]
fn the_status_reports_final_states_first() {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    type Change = fn(&mut KeyRecord);
    let cases: [(&str, Change, KeyStatus); 9] = [
        ("nothing", |_| {}, KeyStatus::Active),
        (
            "expires now",
            |r| r.expires_at = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(2_000)),
            KeyStatus::Expired,
        ),
        (
            "expires in a nanosecond",
            |r| r.expires_at = Some(SystemTime::UNIX_EPOCH + Duration::new(2_000, 1)),
            KeyStatus::Active,
        ),
        (
            "starts now",
            |r| r.not_before = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(2_000)),
            KeyStatus::Active,
        ),
        (
            "starts in a nanosecond",
            |r| r.not_before = Some(SystemTime::UNIX_EPOCH + Duration::new(2_000, 1)),
            KeyStatus::NotYetValid,
        ),
        ("disabled", |r| r.enabled = false, KeyStatus::Disabled),
        (
            "disabled and not yet valid",
            |r| {
                r.enabled = false;
                r.not_before = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(9_000));
            },
            KeyStatus::Disabled,
        ),
        (
            "expired and disabled",
            |r| {
                r.enabled = false;
                r.expires_at = Some(SystemTime::UNIX_EPOCH);
            },
            KeyStatus::Expired,
        ),
        (
            "revoked in the future, expired and disabled",
            |r| {
                r.enabled = false;
                r.expires_at = Some(SystemTime::UNIX_EPOCH);
                r.revoked = Some(Revocation::new(
                    SystemTime::UNIX_EPOCH + Duration::from_secs(9_000),
                    None,
                ));
            },
            KeyStatus::Revoked,
        ),
    ];
    for (what, change, status) in cases {
        let mut record = record();
        change(&mut record);
        assert_eq!(record.status(at(2_000)), status, "{what}");
        let counts = !matches!(status, KeyStatus::Revoked | KeyStatus::Expired);
        assert_eq!(record.counts_as_active(at(2_000)), counts, "{what}");
    }
}

#[test]
fn access_tokens_never_count_against_a_quota() {
    let mut record = record();
    record.kind = KeyKind::AccessToken;
    assert!(!record.counts_as_active(record.created_at));
}

#[test]
fn a_record_survives_a_round_trip_through_json() {
    let mut record = record();
    record.owner = Owner::user(TenantId::new("acme").unwrap(), UserId::new("u1").unwrap())
        .with_email("a@b.example");
    record.scopes = vec![portunus::scope!("document:*")];
    record.access = Access::ReadOnly;
    record.metadata = Metadata::from_json(r#"{"a":{"b":[1,null]}}"#).unwrap();
    record.expires_at = Some(SystemTime::UNIX_EPOCH + Duration::new(5_000, 7));
    record.revoked = Some(Revocation::new(SystemTime::UNIX_EPOCH, Some("lost".into())));
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<KeyRecord>(&text).unwrap(), record);
}

#[test]
fn corrupt_data_never_becomes_a_record() {
    let whole = serde_json::to_value(record()).unwrap();
    for (field, garbage) in [
        ("expires_at", serde_json::json!("tomorrow")),
        ("expires_at", serde_json::json!(-1)),
        ("not_before", serde_json::json!({"secs_since_epoch": "x"})),
        ("enabled", serde_json::json!(null)),
        ("enabled", serde_json::json!("true")),
        ("revoked", serde_json::json!(true)),
        ("scopes", serde_json::json!(["doc*"])),
        ("scopes", serde_json::json!(["document:read "])),
        ("scopes", serde_json::json!(null)),
        ("access", serde_json::json!("root")),
        ("kind", serde_json::json!("admin")),
        ("environment", serde_json::json!("Live")),
        ("metadata", serde_json::json!([])),
    ] {
        let mut record = whole.clone();
        record[field] = garbage.clone();
        assert!(
            serde_json::from_value::<KeyRecord>(record).is_err(),
            "{field}: {garbage}"
        );
    }
}

#[test]
fn metadata_is_an_object_of_at_most_16_kib() {
    let fits = format!(r#"{{"a":"{}"}}"#, "x".repeat(Metadata::MAX_LENGTH - 8));
    assert_eq!(fits.len(), Metadata::MAX_LENGTH);
    assert_eq!(
        Metadata::from_json(&fits).unwrap().as_json().len(),
        Metadata::MAX_LENGTH
    );
    let over = format!(r#"{{"a":"{}"}}"#, "x".repeat(Metadata::MAX_LENGTH - 7));
    for wrong in [
        over.as_str(),
        "",
        "null",
        "[]",
        "1",
        r#"{"a":}"#,
        r#"{"a":1} x"#,
    ] {
        assert!(Metadata::from_json(wrong).is_err(), "{wrong:.40}");
    }
}

#[test]
fn metadata_that_would_not_be_kept_as_it_is_is_refused_and_the_error_says_why() {
    for (text, why) in [
        (r#"{"a":1,"a":1}"#, "duplicate field `a`"),
        (r#"{"a":1,"\u0061":2}"#, "duplicate field `a`"),
        (
            r#"{"a":[[{"b":{"c":1,"d":2,"c":3}}]]}"#,
            "duplicate field `c`",
        ),
        (r#"{"":1,"":2}"#, "duplicate field ``"),
        (r#"{"n":18446744073709551616}"#, "more than 64 bits"),
        (r#"{"n":[-9223372036854775809]}"#, "more than 64 bits"),
        (r#"{"n":1e400}"#, "number out of range"),
        (r#"{"n":{"x":1}"#, "not JSON"),
        ("\u{feff}{}", "byte order mark"),
        (r#""{}""#, "must be a JSON object"),
    ] {
        let error = Metadata::from_json(text).unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
    // Equal names in different objects are different members.
    let fine = r#"{"a":{"a":[{"a":1},{"a":2}]},"b":1}"#;
    assert_eq!(Metadata::from_json(fine).unwrap().as_json(), fine);
}

#[test]
fn numbers_in_metadata_are_kept() {
    for number in [
        "18446744073709551615",
        "-9223372036854775808",
        "9007199254740993",
        "31.245270191439438",
        "0.1",
        "5e-324",
        "60.0",
    ] {
        let text = format!(r#"{{"n":{number}}}"#);
        let kept = Metadata::from_json(&text).unwrap();
        assert_eq!(kept.as_json(), text);
        assert_eq!(serde_json::to_string(&kept).unwrap(), text);
    }
    // A number is an integer or a double, and never a string: `arbitrary_precision` of serde_json
    // would change it for the host's whole program.
    assert_eq!(
        Metadata::from_json(r#"{"n":1e2}"#).unwrap().as_json(),
        r#"{"n":100.0}"#
    );
}

#[test]
fn a_record_with_duplicate_metadata_members_is_rejected() {
    let now = SystemTime::UNIX_EPOCH;
    let id = KeyId::new("key_1").unwrap();
    let owner = Owner::tenant(TenantId::new("acme").unwrap());
    let environment = Environment::new("live").unwrap();
    let mut record = KeyRecord::new(id, "n", KeyKind::App, environment, owner, now);
    record.metadata = Metadata::from_json(r#"{"a":1,"b":2}"#).unwrap();
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<KeyRecord>(&text).unwrap(), record);
    let twice = text.replace(r#""b":2"#, r#""a":2"#);
    assert_ne!(twice, text);
    let error = serde_json::from_str::<KeyRecord>(&twice).unwrap_err();
    assert!(error.to_string().contains("duplicate field `a`"), "{error}");
}
