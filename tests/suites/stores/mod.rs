//! The suite for stores bites: a small store that is right passes, and wrong in one way it fails by
//! the name of that way.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../../../examples/own_store.rs"]
mod own_store;
mod small;

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use portunus_conformance::{self as conformance, Violation, Violations};
use small::How::{self, *};
use small::Small;

async fn violations(how: How) -> Violations {
    let found = conformance::key_store(|| async move { Small::new(how) }).await;
    found.expect_err(&format!("a store that is wrong by {how:?} passes"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_small_store_that_is_right_passes() {
    conformance::key_store(|| async { Small::new(Right) })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_of_the_example_keeps_what_a_store_promises() {
    let folder = tempfile::tempdir().unwrap();
    let number = AtomicUsize::new(0);
    let fresh = || {
        let number = number.fetch_add(1, Ordering::Relaxed);
        let opened = own_store::FileStore::open(&folder.path().join(format!("{number}.json")));
        std::future::ready(opened.unwrap())
    };
    conformance::key_store(fresh).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_stands_beside_keys_has_suites_of_its_own() {
    let right = || async { Small::new(Right) };
    conformance::usage_store(right).await.unwrap();
    conformance::signing_store(right).await.unwrap();
    for (how, expected) in [
        (
            UsageMovesBack,
            "usage adds up, and its time never moves back",
        ),
        (UsageWraps, "a count that would overflow stays at its most"),
        (TotalsForgotten, "hours are forgotten and totals stay"),
    ] {
        let found = conformance::usage_store(|| async move { Small::new(how) }).await;
        let violations = found.unwrap_err();
        let told: Vec<_> = violations.iter().map(Violation::check).collect();
        assert_eq!(told, [expected], "{how:?}: {violations}");
    }
    let found = conformance::signing_store(|| async { Small::new(SigningOutlives) }).await;
    let violations = found.unwrap_err();
    let told: Vec<_> = violations.iter().map(Violation::check).collect();
    assert_eq!(
        told,
        ["a signing state is gone with its key"],
        "{violations}"
    );
}

async fn looked_up(how: How) -> Result<(), Violations> {
    let put = |small: Arc<Small>, digest, record| {
        small.put(digest, record);
        ready(())
    };
    conformance::key_lookup(|| async move { Small::new(how) }, put).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_look_up_alone_has_a_suite_of_its_own() {
    const WHOLE: &str = "a key is found by its whole digest and by nothing like it";
    const SEES: &str = "every look-up sees what was written before it";
    const ENDED: &str = "a secret that was ended under one of its digests is ended under all \
                         candidates of one look-up";
    const NEWEST: &str = "the newest digest of a secret decides, and nothing that another tenant \
                          did to an older one";
    const OTHERS: &str =
        "a key that is found names the other keys on which it depends that its secret has it";
    const RECORD: &str = "a record comes back as it was written";
    const SHOWN: &str = "no digest shows in what a look-up returns or in its Debug";
    looked_up(Right).await.unwrap();
    for (how, expected) in [
        (DigestPrefix, WHOLE),
        (StaleHit, SEES),
        (StaleMiss, SEES),
        (StaleFindNow, SEES),
        (RevokedHidden, SEES),
        (AnyScheme, "a digest of another scheme is another digest"),
        (
            FirstCandidate,
            "a key is found under any of the candidates of one look-up",
        ),
        (OtherLife, ENDED),
        (ForeignRevocation, NEWEST),
        (NamesNoOthers, OTHERS),
        (NoExpiry, RECORD),
        (WholeSeconds, RECORD),
        (EmptyIsAbsent, RECORD),
        (DigestShown, SHOWN),
    ] {
        let violations = looked_up(how).await.unwrap_err();
        let told: Vec<_> = violations.iter().map(Violation::check).collect();
        assert_eq!(told, [expected], "{how:?}: {violations}");
    }
}

#[test]
fn the_example_of_a_store_runs() {
    own_store::main().unwrap();
}

/// Each wrong store, and the one check that tells of it: whatever else its fault breaks rests on
/// that one.
const CAUSES: &[(&[How], &str)] = &[
    (
        &[LostUpdate],
        "an update at another version is rejected and says both versions",
    ),
    (
        &[QuotaRace],
        "of 200 concurrent insertions under a quota of 4 exactly 4 succeed",
    ),
    (
        &[VersionRace],
        "of many concurrent updates of one version exactly one succeeds",
    ),
    (
        &[DigestPrefix],
        "a key is found by its whole digest and by nothing like it",
    ),
    (&[AnyScheme], "a digest of another scheme is another digest"),
    (
        &[FirstCandidate, Panics],
        "a key is found under any of the candidates of one look-up",
    ),
    (
        &[SecondLife, OtherLife],
        "a secret that was ended under one of its digests is ended under all candidates of \
             one look-up",
    ),
    (
        &[ForeignEnd, ForeignRevocation, OlderHeir],
        "the newest digest of a secret decides, and nothing that another tenant did to an \
             older one",
    ),
    (
        &[
            NamesNoOthers,
            NamesNoFormer,
            NamesNoEarlier,
            NamesNoPassedOver,
        ],
        "a key that is found names the other keys on which it depends that its secret has it",
    ),
    (
        &[StaleHit, StaleMiss, StaleFindNow],
        "every read sees the writes that were acknowledged before it",
    ),
    (
        &[ForgetsDigests, ForgetsFormerDigests, ForgetsIds],
        "the id and every digest of a deleted key stay known for good",
    ),
    (
        &[ReplacesOwner, EmailIsOwner, ReplacesFamily],
        "owner and family of a key never change, the owner's address may",
    ),
    (
        &[HalfBatch, BurntDigests],
        "a batch whose last change fails changes nothing and burns no id and no digest",
    ),
    (
        &[QuotaBefore],
        "the number of active keys is looked at after the changes",
    ),
    (
        &[ConditionsAfter],
        "versions and primaries are looked at before the changes",
    ),
    (
        &[DisabledFree],
        "revoked and expired keys and access tokens do not count as active, disabled ones do",
    ),
    (
        &[NoPromotion],
        "a primary key that expires gives way to the newest at that very instant",
    ),
    (
        &[OldestPromoted, PrimaryByLanguage],
        "without a key that was set the newest that can be is primary, of equally new ones \
             the first by id",
    ),
    (
        &[PinIgnored],
        "a pinned successor stays primary, and an unpinned one gives way to a newer key",
    ),
    (
        &[ForeignPrimary],
        "a key of another owner cannot be set as primary",
    ),
    (
        &[TokensPrimary],
        "access tokens and keys that may not be primary never are",
    ),
    (&[SigningOutlives], "a signing state is gone with its key"),
    (
        &[SigningShown, DigestShown],
        "neither a signing state nor a digest shows in what a store returns or in its Debug",
    ),
    (
        &[NoExpiry, WholeSeconds],
        "times come back to the millisecond",
    ),
    (
        &[EmptyIsAbsent, OnlyNoneIsOn],
        "an empty list or text comes back as empty and an absent one as absent",
    ),
    (
        &[ByOffset],
        "keys that come and go between pages skip and repeat nobody else",
    ),
    (
        &[ByTimeOnly],
        "pages put together are the whole list, newest first and then by id",
    ),
    (
        &[NoLimit, EmptyAtZero],
        "a page has 1 to 500 keys, whatever limit is asked for",
    ),
    (
        &[ByLanguage, CursorInMilliseconds],
        "keys of one instant are in the order of their ids' bytes, and no nanosecond makes a \
             page lose or repeat one",
    ),
    (
        &[PrimariesByOwner, PrimariesWithoutNone, PrimariesNewest],
        "primary keys are told alike for one owner and for many",
    ),
    (
        &[HoursOutlive, HoursCountLater],
        "the hours of a deleted key are gone with it",
    ),
    (
        &[BusyHoursUnlisted],
        "usage is told by the hour, the oldest first, without the hours of no use",
    ),
    (
        &[Wildcards],
        "a text to be found is taken as it stands, whatever characters it has",
    ),
    (
        &[UnicodeCase],
        "the case of ASCII letters alone is no matter in a text",
    ),
    (
        &[ShowsDeleted],
        "a deleted key is neither found nor listed nor primary",
    ),
    (&[RevokedHidden], "a revoked key is found and says so"),
    (
        &[UsageMovesBack],
        "usage adds up, and its time never moves back",
    ),
    (
        &[UsageWraps],
        "a count that would overflow stays at its most",
    ),
    (
        &[UsageStops],
        "usage of keys that are not there is skipped, and that of others kept",
    ),
    (
        &[UsageIsAVersion],
        "usage outlives updates and rehashes, and is no new version",
    ),
    (&[TotalsForgotten], "hours are forgotten and totals stay"),
    (
        &[RejectedIsUnavailable],
        "an id or a digest that is taken is rejected, and not told as an outage",
    ),
    (&[HalfRead], "no reader sees half of a batch"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_wrong_store_fails_by_one_root_cause_alone() {
    let mut tasks = tokio::task::JoinSet::new();
    for &(hows, expected) in CAUSES {
        for &how in hows {
            tasks.spawn(async move { (how, expected, violations(how).await) });
        }
    }
    let mut wrong = Vec::new();
    while let Some(done) = tasks.join_next().await {
        let (how, expected, violations) = done.unwrap();
        let told: Vec<_> = violations.iter().map(Violation::check).collect();
        if told != [expected] {
            wrong.push(format!(
                "{how:?} had to fail by {expected:?} alone: {violations}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn violations_read_as_a_list_of_promises_with_what_was_seen() {
    let violations = violations(Panics).await;
    let shown = violations.to_string();
    let unjudged = violations.not_judged().count();
    let expected = format!(
        "1 of {} checks of this key store failed:\n\
         - a key is found under any of the candidates of one look-up\n  \
         `find` panicked: more candidates than expected\n\
         {unjudged} further checks were not judged:\n\
         - {unjudged}: rests on \u{201c}a key is found under any of the candidates of one look-up\u{201d}",
        violations.checks()
    );
    assert_eq!(shown, expected);
    assert_eq!(format!("{violations:?}"), shown);
}
