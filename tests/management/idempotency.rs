//! Repeated requests: executed once, answered again, and never confused with another one.

use std::sync::Arc;

use crate::life::{Desk, HOUR, issue, named};
use portunus::ErrorCode;
use portunus::manage::{Idempotency, Issued, ManageError, ManagedKey, NewKey};

fn request(key: &str, body: &str) -> Idempotency {
    Idempotency::new("acme olga", "issue", key, body.as_bytes()).unwrap()
}

fn with(request: &Idempotency) -> NewKey {
    let mut new = named("key");
    new.idempotency = Some(request.clone());
    new
}

fn done_before(outcome: Result<Issued, ManageError>) -> ManagedKey {
    match outcome {
        Err(ManageError::DoneBefore(key)) => *key,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_request_that_is_repeated_makes_one_key_and_shows_its_secret_once() {
    let desk = Desk::new();
    let manager = desk.host();
    let request = request("k1", "body");
    let first = manager.issue(with(&request)).await.unwrap();
    assert!(!first.key.reveal().is_empty());
    for _ in 0..3 {
        assert_eq!(
            done_before(manager.issue(with(&request)).await).record.id,
            first.record.id
        );
    }
    assert_eq!(desk.all().await.len(), 1);
}

#[tokio::test]
async fn the_same_idempotency_key_with_another_request_is_an_error() {
    let desk = Desk::new();
    let manager = desk.host();
    manager.issue(with(&request("k1", "body"))).await.unwrap();
    let other = manager
        .issue(with(&request("k1", "another body")))
        .await
        .unwrap_err();
    assert_eq!(other.code(), ErrorCode::InvalidBody);
    assert_eq!(desk.all().await.len(), 1);
}

#[tokio::test]
async fn requests_of_others_and_other_calls_are_unrelated() {
    let desk = Desk::new();
    let manager = desk.host();
    let of = |who: &str, call: &str, key: &str| Idempotency::new(who, call, key, b"body").unwrap();
    let all = [
        of("a", "issue", "k"),
        of("b", "issue", "k"),
        of("a", "import", "k"),
        of("a", "issue", "k2"),
        of("a i", "ssue", "k"),
    ];
    for request in &all {
        manager.issue(with(request)).await.unwrap();
    }
    assert_eq!(desk.all().await.len(), all.len());
}

#[tokio::test]
async fn of_many_at_once_one_makes_the_key() {
    let desk = Arc::new(Desk::new());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let manager = desk.host();
        tasks.spawn(async move {
            manager
                .issue(with(&request("k", "body")))
                .await
                .map(|issued| issued.record.id.clone())
        });
    }
    let (mut made, mut told) = (Vec::new(), Vec::new());
    for outcome in tasks.join_all().await {
        match outcome {
            Ok(id) => made.push(id),
            Err(ManageError::DoneBefore(key)) => told.push(key.record.id.clone()),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((made.len(), told.len()), (1, 29));
    assert!(told.iter().all(|id| *id == made[0]));
}

#[tokio::test]
async fn a_rotation_that_is_repeated_makes_one_successor() {
    let desk = Desk::new();
    let manager = desk.host();
    let (_, record) = issue(&manager, named("key")).await;
    let request = Idempotency::new("olga", "rotate", "k", b"{}").unwrap();
    let rotated = manager
        .rotate_once(&record.id, Some(HOUR), Some(request.clone()))
        .await
        .unwrap();
    assert_eq!(rotated.record.family, record.family);
    match manager
        .rotate_once(&record.id, Some(HOUR), Some(request))
        .await
    {
        Err(ManageError::DoneBefore(key)) => assert_eq!(key.record.id, rotated.record.id),
        other => panic!("{other:?}"),
    }
    assert_eq!(desk.all().await.len(), 2);
    // The successor of a successor is a different request.
    manager.rotate(&rotated.record.id, None).await.unwrap();
}

#[tokio::test]
async fn a_rotation_whose_successor_was_deleted_is_not_done_again() {
    for grace in [None, Some(HOUR)] {
        let desk = Desk::new();
        let manager = desk.host();
        let (_, record) = issue(&manager, named("key")).await;
        let request = || Some(Idempotency::new("olga", "rotate", "k", b"{}").unwrap());
        let again = async || {
            let repeated = manager.rotate_once(&record.id, grace, request()).await;
            match repeated.unwrap_err() {
                ManageError::Conflict(why) => assert!(why.contains("deleted"), "{why}"),
                other => panic!("{other:?}"),
            }
        };
        let first = manager.rotate_once(&record.id, grace, request()).await;
        manager.delete(&first.unwrap().record.id).await.unwrap();
        again().await;
        if grace.is_some() {
            // Nor once the key has another successor, which is deleted as well.
            let second = manager.rotate(&record.id, grace).await.unwrap();
            manager.delete(&second.record.id).await.unwrap();
            again().await;
        }
    }
}

#[tokio::test]
async fn a_deleted_key_is_not_recreated_by_repeating_the_request() {
    let desk = Desk::new();
    let manager = desk.host();
    let request = request("k", "body");
    let first = manager.issue(with(&request)).await.unwrap();
    manager.delete(&first.record.id).await.unwrap();
    assert_eq!(
        manager.issue(with(&request)).await.unwrap_err().code(),
        ErrorCode::Conflict
    );
}

#[test]
fn an_idempotency_key_is_short_visible_ascii() {
    for key in ["", " ", "a b", "é", "a\n", &"x".repeat(256)] {
        assert!(Idempotency::new("a", "issue", key, b"").is_err(), "{key:?}");
    }
    Idempotency::new("a", "issue", &"x".repeat(255), b"").unwrap();
}
