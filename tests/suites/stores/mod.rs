//! The suite for stores bites: a small store that is right passes, and wrong in one way it fails by
//! the name of that way.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../../../examples/own_store.rs"]
mod own_store;
mod small;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
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

#[test]
fn the_example_of_a_store_runs() {
    own_store::main().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_wrong_store_fails_by_the_name_of_its_fault() {
    let cases = [
        (
            LostUpdate,
            "of many concurrent updates of one version exactly one succeeds",
        ),
        (
            LostUpdate,
            "no concurrent update that was acknowledged is lost",
        ),
        (
            QuotaRace,
            "of 200 concurrent insertions under a quota of 4 exactly 4 succeed",
        ),
        (
            VersionRace,
            "of many concurrent updates of one version exactly one succeeds",
        ),
        (
            VersionRace,
            "no revocation that was acknowledged is lost among concurrent updates",
        ),
        (
            DigestPrefix,
            "a key is found by its whole digest and by nothing like it",
        ),
        (AnyScheme, "a digest of another scheme is another digest"),
        (
            FirstCandidate,
            "a key is found under any of the candidates of one look-up",
        ),
        (
            SecondLife,
            "a secret that was ended under one of its digests is ended under all candidates of one look-up",
        ),
        (
            OtherLife,
            "a secret that was ended under one of its digests is ended under all candidates of one look-up",
        ),
        (
            ForeignEnd,
            "the newest digest of a secret decides, and nothing that another tenant did to an older one",
        ),
        (
            ForeignRevocation,
            "the newest digest of a secret decides, and nothing that another tenant did to an older one",
        ),
        (
            OlderHeir,
            "the newest digest of a secret decides, and nothing that another tenant did to an older one",
        ),
        (
            NamesNoOthers,
            "a key that is found names the other keys on which it depends that its secret has it",
        ),
        (
            NamesNoFormer,
            "a key that is found names the other keys on which it depends that its secret has it",
        ),
        (
            NamesNoEarlier,
            "a key that is found names the other keys on which it depends that its secret has it",
        ),
        (
            NamesNoPassedOver,
            "a key that is found names the other keys on which it depends that its secret has it",
        ),
        (
            StaleHit,
            "every read sees the writes that were acknowledged before it",
        ),
        (
            StaleHit,
            "a revocation that was acknowledged holds for the next request",
        ),
        (
            StaleMiss,
            "every read sees the writes that were acknowledged before it",
        ),
        (
            StaleFindNow,
            "every read sees the writes that were acknowledged before it",
        ),
        (
            ForgetsDigests,
            "the id and every digest of a deleted key stay known for good",
        ),
        (
            ForgetsFormerDigests,
            "the id and every digest of a deleted key stay known for good",
        ),
        (
            ForgetsIds,
            "the id and every digest of a deleted key stay known for good",
        ),
        (
            EmailIsOwner,
            "owner and family of a key never change, the owner's address may",
        ),
        (
            ReplacesOwner,
            "owner and family of a key never change, the owner's address may",
        ),
        (
            ReplacesFamily,
            "owner and family of a key never change, the owner's address may",
        ),
        (
            HalfBatch,
            "a batch whose last change fails changes nothing and burns no id and no digest",
        ),
        (
            HalfBatch,
            "a batch whose last condition fails changes nothing and burns no id and no digest",
        ),
        (
            BurntDigests,
            "a batch whose last change fails changes nothing and burns no id and no digest",
        ),
        (
            QuotaBefore,
            "the number of active keys is looked at after the changes",
        ),
        (
            ConditionsAfter,
            "versions and primaries are looked at before the changes",
        ),
        (
            DisabledFree,
            "revoked and expired keys and access tokens do not count as active, disabled ones do",
        ),
        (
            NoPromotion,
            "a primary key that expires gives way to the newest at that very instant",
        ),
        (
            OldestPromoted,
            "without a key that was set the newest that can be is primary, of equally new ones \
             the first by id",
        ),
        (
            PinIgnored,
            "a pinned successor stays primary, and an unpinned one gives way to a newer key",
        ),
        (
            PinIgnored,
            "a primary key is pinned as the changes before leave it",
        ),
        (
            ForeignPrimary,
            "a key of another owner cannot be set as primary",
        ),
        (
            TokensPrimary,
            "access tokens and keys that may not be primary never are",
        ),
        (SigningOutlives, "a signing state is gone with its key"),
        (
            SigningShown,
            "neither a signing state nor a digest shows in what a store returns or in its Debug",
        ),
        (
            NoExpiry,
            "a record comes back as it was inserted, with every field at its extreme",
        ),
        (WholeSeconds, "times come back to the millisecond"),
        (
            EmptyIsAbsent,
            "an empty list or text comes back as empty and an absent one as absent",
        ),
        (
            OnlyNoneIsOn,
            "an empty list or text comes back as empty and an absent one as absent",
        ),
        (
            ByOffset,
            "keys that come and go between pages skip and repeat nobody else",
        ),
        (
            ByTimeOnly,
            "pages put together are the whole list, newest first and then by id",
        ),
        (
            Wildcards,
            "a text to be found is taken as it stands, whatever characters it has",
        ),
        (
            UnicodeCase,
            "the case of ASCII letters alone is no matter in a text",
        ),
        (
            ShowsDeleted,
            "a deleted key is neither found nor listed nor primary",
        ),
        (RevokedHidden, "a revoked key is found and says so"),
        (
            UsageMovesBack,
            "usage adds up, and its time never moves back",
        ),
        (UsageWraps, "a count that would overflow stays at its most"),
        (
            UsageStops,
            "usage of keys that are not there is skipped, and that of others kept",
        ),
        (
            UsageIsAVersion,
            "usage outlives updates and rehashes, and is no new version",
        ),
        (TotalsForgotten, "hours are forgotten and totals stay"),
        (
            RejectedIsUnavailable,
            "an update at another version is rejected and says both versions",
        ),
        (HalfRead, "no reader sees half of a batch"),
        (
            Panics,
            "a key is found under any of the candidates of one look-up",
        ),
    ];
    let mut told: HashMap<String, Vec<String>> = HashMap::new();
    let mut missed = Vec::new();
    for (how, expected) in cases {
        let told = match told.entry(format!("{how:?}")) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(
                violations(how)
                    .await
                    .iter()
                    .map(|violation| violation.check().to_owned())
                    .collect(),
            ),
        };
        if !told.iter().any(|check| check == expected) {
            missed.push(format!(
                "{how:?} had to fail by {expected:?} and failed by {told:#?}"
            ));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// The walks, which compare everything, may fail too.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_fault_of_lists_primaries_and_hours_fails_one_check_alone() {
    let (limits, hours, deleted, primaries) = (
        "a page has 1 to 500 keys, whatever limit is asked for",
        "usage is told by the hour, the oldest first, without the hours of no use",
        "the hours of a deleted key are gone with it",
        "primary keys are told alike for one owner and for many",
    );
    let instants = "keys of one instant are in the order of their ids' bytes, and no nanosecond \
                    makes a page lose or repeat one";
    let newest = "without a key that was set the newest that can be is primary, of equally new ones \
                  the first by id";
    let cases = [
        (NoLimit, limits),
        (EmptyAtZero, limits),
        (ByLanguage, instants),
        (CursorInMilliseconds, instants),
        (PrimaryByLanguage, newest),
        (PrimariesByOwner, primaries),
        (PrimariesWithoutNone, primaries),
        (PrimariesNewest, primaries),
        (HoursOutlive, deleted),
        (HoursCountLater, deleted),
        (BusyHoursUnlisted, hours),
    ];
    for (how, expected) in cases {
        let violations = violations(how).await;
        let told = violations.iter().map(Violation::check);
        let told: Vec<_> = told
            .filter(|check| !check.starts_with("random batches"))
            .collect();
        assert_eq!(told, [expected], "{how:?}: {violations}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_told_and_stops_no_other_check() {
    let violations = violations(Hangs).await;
    let told = violations
        .iter()
        .find(|violation| violation.check() == "a signing state is gone with its key")
        .unwrap();
    assert_eq!(told.seen(), "it was not done after 30 seconds");
    assert!(
        violations
            .iter()
            .all(|violation| violation.check() != "a list is filtered by tenant"),
        "{violations}"
    );
}

#[tokio::test]
async fn violations_read_as_a_list_of_promises_with_what_was_seen() {
    let violations = violations(Panics).await;
    let shown = violations.to_string();
    assert!(shown.starts_with(&format!(
        "{} of {} checks of this key store failed:\n- ",
        violations.iter().count(),
        violations.checks()
    )));
    assert!(
        shown.contains(
            "\n- a key is found under any of the candidates of one look-up\n  \
             a panic: more candidates"
        ),
        "{shown}"
    );
    assert_eq!(format!("{violations:?}"), shown);
}
