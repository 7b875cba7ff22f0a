//! The member of a record that says which version understands it.

use std::time::{Duration, SystemTime};

use portunus::key::{KeyId, KeyKind, KeyRecord, KeyStatus, Owner, Revocation};
use portunus_test_support::{live, tenant};

fn record() -> KeyRecord {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let owner = Owner::tenant(tenant("acme"));
    let id = KeyId::new("a").unwrap();
    KeyRecord::new(id, "a", KeyKind::App, live(), owner, at)
}

/// A record that says this of itself.
fn that_says(understands: &str) -> String {
    let json = record().to_json().unwrap();
    json.replacen('{', &format!(r#"{{"understands":{understands},"#), 1)
}

#[test]
fn a_record_without_a_number_and_one_with_ours_are_read() {
    let own = record().to_json().unwrap();
    assert!(!own.contains("understands"));
    for json in [own, that_says("1")] {
        let read = KeyRecord::from_json(&json).unwrap();
        assert_eq!((read.needs(), &read), (None, &record()));
        assert_eq!(serde_json::from_str::<KeyRecord>(&json).unwrap(), record());
    }
}

#[test]
fn a_newer_number_is_told_and_plain_deserialization_refuses_it() {
    for number in [2, 3, u64::from(u32::MAX) + 1, u64::MAX] {
        let json = that_says(&number.to_string());
        let read = KeyRecord::from_json(&json).unwrap();
        assert_eq!(read.needs(), Some(number));
        assert_eq!(read.status(read.created_at), KeyStatus::Unreadable);
        assert_ne!(read, record());
        assert_eq!(read.to_json().unwrap(), json, "what was not changed");
        let error = serde_json::from_str::<KeyRecord>(&json).unwrap_err();
        assert!(error.to_string().contains(&number.to_string()), "{error}");
    }
}

#[test]
fn what_is_no_number_is_no_record() {
    for wrong in [
        "0",
        "-1",
        "1.5",
        "2.0",
        r#""2""#,
        "null",
        "[2]",
        "true",
        "18446744073709551616",
    ] {
        KeyRecord::from_json(&that_says(wrong)).unwrap_err();
    }
    let twice = that_says("2").replacen('{', r#"{"understands":1,"#, 1);
    KeyRecord::from_json(&twice).unwrap_err();
    // A newer record must still have what every record has.
    let without = that_says("2").replace(r#""revoked":null,"#, "");
    KeyRecord::from_json(&without).unwrap_err();
}

#[test]
fn members_that_are_not_known_stay_in_their_place_and_spelling() {
    let unknown = r#""z":1.50, "a" : [ 1e3 ,{"id":"no", "id":2}],"#;
    let json = that_says("2").replacen(r#""name":"#, &format!(r#"{unknown}"name":"#), 1);
    let mut read = KeyRecord::from_json(&json).unwrap();
    read.version += 1;
    read.enabled = false;
    read.revoked = Some(Revocation::new(read.created_at, None));
    let written = read.to_json().unwrap();
    assert!(
        written.contains(r#""z":1.50,"a":[ 1e3 ,{"id":"no", "id":2}],"name":"#),
        "{written}"
    );
    let again = KeyRecord::from_json(&written).unwrap();
    assert_eq!(
        (again.version, again.enabled, again.needs()),
        (2, false, Some(2))
    );
    assert_eq!(again.status(again.created_at), KeyStatus::Revoked);
    assert_eq!(again.revoked, read.revoked);
}
