//! The OpenAPI document is exact: every documented response occurs, and every response that occurs
//! is documented.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod bounds;
mod bulk;
mod calls;
mod conditional;
mod content;
mod credits;
mod cross_site;
mod document;
mod everywhere;
mod failures;
mod fixture;
mod hostile;
mod importing;
mod json;
mod lists;
mod noted;
mod own_keys;
mod partial;
mod reads;
mod secrets;
mod security;
mod structure;
mod times;
mod verifying;

use fixture::Fixture;

#[tokio::test]
async fn every_documented_answer_is_given_and_every_answer_is_documented() {
    let fixture = Fixture::new().await;
    everywhere::each_call_is_refused_for_want_of_proof_standing_quota_or_storage(&fixture).await;
    calls::keys_are_made_taken_over_and_listed(&fixture).await;
    calls::keys_are_shown_changed_and_ended(&fixture).await;
    calls::keys_are_rotated_and_made_primary(&fixture).await;
    bulk::many_keys_are_changed(&fixture).await;
    credits::credits_are_granted_shown_and_ended(&fixture).await;
    importing::many_keys_are_imported(&fixture).await;
    calls::secrets_are_verified(&fixture).await;
    calls::what_happened_is_told(&fixture).await;
    let (documented, seen) = (fixture.document.documented(), fixture.document.seen());
    let never: Vec<_> = documented.difference(&seen).collect();
    assert!(never.is_empty(), "documented, but never seen: {never:#?}");
    // An undocumented response is never recorded as seen, because check() panics first.
    assert_eq!(documented, seen);
    assert!(seen.len() > 100, "{}", seen.len());
}
