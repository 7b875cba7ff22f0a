//! The record member that states which version can read it.

use std::time::{Duration, SystemTime};

use portunus::key::{KeyId, KeyKind, KeyRecord, KeyStatus, Owner, Revocation};
use portunus_test_support::{live, tenant};

fn record() -> KeyRecord {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let owner = Owner::tenant(tenant("acme"));
    let id = KeyId::new("a").unwrap();
    KeyRecord::new(id, "a", KeyKind::App, live(), owner, at)
}

/// A record with this value of the member.
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
fn a_newer_number_is_reported_and_plain_deserialization_refuses_it() {
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
fn a_value_that_is_not_a_number_is_not_a_record() {
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
    // A newer record must still have the members that every record has.
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

#[test]
fn values_that_are_not_known_are_shown_as_others_and_stay_as_they_are() {
    let values = [
        (r#""kind":"app""#, r#""kind":"service""#),
        (
            r#""access":"full-access""#,
            r#""access":{"only":["GET", "PUT"]}"#,
        ),
        (r#""scopes":[]"#, r#""scopes":[{"name":"a", "until":1.50}]"#),
        (r#""workspaces":null"#, r#""workspaces":{"but":["ws1"]}"#),
        (r#""plan":null"#, r#""plan":["a", "b"]"#),
        (r#""delegation":"off""#, r#""delegation":{"once":1}"#),
        (r#""allowed_ips":null"#, r#""allowed_ips":["country:CH"]"#),
        (r#""quotas":null"#, r#""quotas":{"shared":"x"}"#),
        (r#""metadata":{}"#, r#""metadata":[1]"#),
        (r#""not_before":null"#, r#""not_before":"weekdays""#),
    ];
    let all = values.iter().fold(that_says("2"), |json, (ours, theirs)| {
        assert!(json.contains(ours), "{ours}: {json}");
        json.replacen(ours, theirs, 1)
    });
    let each = values.map(|(ours, theirs)| that_says("2").replacen(ours, theirs, 1));
    for json in each.into_iter().chain([all]) {
        let mut read = KeyRecord::from_json(&json).unwrap();
        assert_eq!(read.needs(), Some(2), "{json}");
        assert_eq!(read.status(read.created_at), KeyStatus::Unreadable);
        assert_eq!(read.to_json().unwrap(), json, "what was not changed");
        read.version += 1;
        read.enabled = false;
        let expected = json
            .replace(r#""version":1"#, r#""version":2"#)
            .replace(r#""enabled":true"#, r#""enabled":false"#);
        assert_eq!(read.to_json().unwrap(), expected);
    }
    let known = that_says("2").replacen(r#""plan":null"#, r#""plan":"a""#, 1);
    let one = known.replacen(r#""quotas":null"#, r#""quotas":1"#, 1);
    let read = KeyRecord::from_json(&one).unwrap();
    assert_eq!(
        read.plan.as_ref().unwrap().as_str(),
        "a",
        "what is known is read"
    );
    // The owner and whether the key has ended must be readable, and the members of this version
    // must be unchanged.
    for (ours, theirs) in [
        (r#""revoked":null"#, r#""revoked":"soon""#),
        (r#""enabled":true"#, r#""enabled":"at times""#),
        (r#""tenant_id":"acme""#, r#""tenant_id":["acme"]"#),
        (r#""expires_at":null"#, r#""expires_at":"never""#),
    ] {
        KeyRecord::from_json(&that_says("2").replacen(ours, theirs, 1)).unwrap_err();
    }
    for (ours, theirs) in values {
        KeyRecord::from_json(&that_says("1").replacen(ours, theirs, 1)).unwrap_err();
    }
}
