//! Mutation tests of the store suite: a correct small store passes, and each incorrect variant
//! fails the check that names its fault.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod outbox;
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
async fn a_correct_small_store_passes() {
    conformance::key_store(|| async { Small::new(Right) })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_example_store_passes() {
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
async fn usage_and_signing_have_their_own_suites() {
    let right = || async { Small::new(Right) };
    conformance::usage_store(right).await.unwrap();
    conformance::signing_store(right).await.unwrap();
    for (how, expected) in [
        (
            UsageMovesBack,
            "usage accumulates, and its time never decreases",
        ),
        (UsageWraps, "a count saturates instead of overflowing"),
        (TotalsForgotten, "old hours are deleted and totals are kept"),
    ] {
        let found = conformance::usage_store(|| async move { Small::new(how) }).await;
        let violations = found.unwrap_err();
        let failed: Vec<_> = violations.iter().map(Violation::check).collect();
        assert_eq!(failed, [expected], "{how:?}: {violations}");
    }
    let found = conformance::signing_store(|| async { Small::new(SigningOutlives) }).await;
    let violations = found.unwrap_err();
    let failed: Vec<_> = violations.iter().map(Violation::check).collect();
    assert_eq!(
        failed,
        ["a signing state is deleted with its key"],
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
async fn a_lookup_has_its_own_suite() {
    const WHOLE: &str = "a key is found by its exact digest and by no similar one";
    const SEES: &str = "every lookup sees earlier writes";
    const ENDED: &str = "a secret revoked or deleted under one digest is so under all candidates \
                         of a lookup";
    const NEWEST: &str = "the newest digest of a secret decides, whatever another tenant did to \
                          an older one";
    const OTHERS: &str = "a found key lists the other keys on which the result depends";
    const RECORD: &str = "a record is returned as it was written";
    const SHOWN: &str = "no digest appears in a lookup's results or its Debug output";
    looked_up(Right).await.unwrap();
    for (how, expected) in [
        (DigestPrefix, WHOLE),
        (StaleHit, SEES),
        (StaleMiss, SEES),
        (StaleFindNow, SEES),
        (RevokedHidden, SEES),
        (
            AnyScheme,
            "the same bytes under another scheme are a different digest",
        ),
        (
            FirstCandidate,
            "a key is found under any of a lookup's candidate digests",
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
        let failed: Vec<_> = violations.iter().map(Violation::check).collect();
        assert_eq!(failed, [expected], "{how:?}: {violations}");
    }
}

#[test]
fn the_example_store_runs() {
    own_store::main().unwrap();
}

/// Each incorrect store, and the one check that fails: all others that its fault breaks depend on
/// it.
const CAUSES: &[(&[How], &str)] = &[
    (
        &[LostUpdate],
        "an update at another version is rejected with both versions",
    ),
    (
        &[QuotaRace],
        "exactly 4 of 200 concurrent insertions under a quota of 4 succeed",
    ),
    (
        &[VersionRace],
        "exactly one of many concurrent updates of one version succeeds",
    ),
    (
        &[DigestPrefix],
        "a key is found by its exact digest and by no similar one",
    ),
    (
        &[AnyScheme],
        "the same bytes under another scheme are a different digest",
    ),
    (
        &[FirstCandidate, Panics],
        "a key is found under any of a lookup's candidate digests",
    ),
    (
        &[SecondLife, OtherLife],
        "a secret revoked or deleted under one digest is so under all candidates of a lookup",
    ),
    (
        &[ForeignEnd, ForeignRevocation, OlderHeir],
        "the newest digest of a secret decides, whatever another tenant did to an older one",
    ),
    (
        &[
            NamesNoOthers,
            NamesNoFormer,
            NamesNoEarlier,
            NamesNoPassedOver,
        ],
        "a found key lists the other keys on which the result depends",
    ),
    (
        &[StaleHit, StaleMiss, StaleFindNow],
        "every read sees the writes acknowledged before it",
    ),
    (
        &[ForgetsDigests, ForgetsFormerDigests, ForgetsIds],
        "the id and every digest of a deleted key are reserved permanently",
    ),
    (
        &[ReplacesOwner, EmailIsOwner, ReplacesFamily],
        "a key's owner and family never change, but the owner's address may",
    ),
    (
        &[HalfBatch, BurntDigests],
        "a batch whose last change fails changes nothing and reserves no id or digest",
    ),
    (
        &[QuotaBefore],
        "the number of active keys is checked after the changes",
    ),
    (
        &[ConditionsAfter],
        "versions and primary keys are checked before the changes",
    ),
    (
        &[DisabledFree],
        "revoked keys, expired keys and access tokens do not count as active, disabled keys do",
    ),
    (
        &[FamilyByKeys, FamilyIsOne],
        "two active keys of a family count as one where families are counted, and a third one counts",
    ),
    (
        &[NoPromotion],
        "the newest key becomes primary at the instant when the primary key expires",
    ),
    (
        &[OldestPromoted, PrimaryByLanguage],
        "without an explicit primary key the newest eligible one is primary, the first by id \
         among equally new ones",
    ),
    (
        &[PinIgnored],
        "a pinned successor stays primary, and an unpinned one is replaced by a newer key",
    ),
    (
        &[ForeignPrimary],
        "a key of another owner cannot be set as primary",
    ),
    (
        &[TokensPrimary],
        "access tokens and ineligible keys are never primary",
    ),
    (
        &[SigningOutlives],
        "a signing state is deleted with its key",
    ),
    (
        &[SigningShown, DigestShown],
        "no signing state or digest appears in a store's results or its Debug output",
    ),
    (
        &[NoExpiry, WholeSeconds],
        "times are returned to the millisecond",
    ),
    (
        &[EmptyIsAbsent, OnlyNoneIsOn],
        "empty lists and strings are returned as empty, and absent ones as absent",
    ),
    (
        &[ByOffset],
        "keys added or deleted between pages cause no other key to be skipped or repeated",
    ),
    (
        &[ByTimeOnly],
        "all pages together are the whole list, newest first and then by id",
    ),
    (
        &[NoLimit, EmptyAtZero],
        "a page has 1 to 500 keys, whatever limit is requested",
    ),
    (
        &[ByLanguage, CursorInMilliseconds],
        "keys of one instant are ordered by the bytes of their ids, and no nanosecond makes a \
         page skip or repeat one",
    ),
    (
        &[PrimariesByOwner, PrimariesWithoutNone, PrimariesNewest],
        "primary keys are the same whether read for one owner or for many",
    ),
    (
        &[HoursOutlive, HoursCountLater],
        "the hours of a key are deleted with it",
    ),
    (
        &[BusyHoursUnlisted],
        "hourly usage is returned oldest first, without hours of no use",
    ),
    (
        &[Wildcards],
        "a search text is matched literally, whatever characters it contains",
    ),
    (
        &[UnicodeCase],
        "a search ignores the case of ASCII letters only",
    ),
    (
        &[AnyPlan],
        "a list is filtered by owner, plan, family and kind",
    ),
    (
        &[NeverExpiresFirst],
        "a list of keys that expire before an instant omits keys that never expire",
    ),
    (
        &[NewIsUnused],
        "a list of unused keys has those that existed at the instant and were not used since",
    ),
    (
        &[ShowsDeleted],
        "a deleted key is neither found nor listed nor primary",
    ),
    (
        &[RevokedHidden],
        "a revoked key is found with its revocation",
    ),
    (
        &[UsageMovesBack],
        "usage accumulates, and its time never decreases",
    ),
    (&[UsageWraps], "a count saturates instead of overflowing"),
    (
        &[UsageStops],
        "usage of unknown keys is ignored, and that of others is recorded",
    ),
    (
        &[UsageIsAVersion],
        "usage survives updates and rehashes, and does not change versions",
    ),
    (
        &[HistoryIsAnHour, HistoryOfNobody],
        "uses that a batch adds count in the totals and in no hour, or nothing of the batch is applied",
    ),
    (
        &[TotalsForgotten],
        "old hours are deleted and totals are kept",
    ),
    (
        &[RejectedIsUnavailable],
        "a known id or digest is rejected rather than reported as an outage",
    ),
    (&[HalfRead], "no reader sees a partially applied batch"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_incorrect_store_fails_exactly_one_check() {
    let mut tasks = tokio::task::JoinSet::new();
    for &(hows, expected) in CAUSES {
        for &how in hows {
            tasks.spawn(async move { (how, expected, violations(how).await) });
        }
    }
    let mut wrong = Vec::new();
    while let Some(done) = tasks.join_next().await {
        let (how, expected, violations) = done.unwrap();
        let failed: Vec<_> = violations.iter().map(Violation::check).collect();
        if failed != [expected] {
            wrong.push(format!(
                "{how:?} had to fail by {expected:?} alone: {violations}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn violations_are_printed_with_what_was_observed() {
    let violations = violations(Panics).await;
    let shown = violations.to_string();
    let unjudged = violations.not_judged().count();
    let expected = format!(
        "1 of {} checks of this key store failed:\n\
         - a key is found under any of a lookup's candidate digests\n  \
         `find` panicked: more candidates than expected\n\
         {unjudged} further checks were not judged:\n\
         - {unjudged}: depends on \u{201c}a key is found under any of a lookup's candidate digests\u{201d}",
        violations.checks()
    );
    assert_eq!(shown, expected);
    assert_eq!(format!("{violations:?}"), shown);
}
