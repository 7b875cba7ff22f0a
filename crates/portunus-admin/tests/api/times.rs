//! Times: exactly RFC 3339, with one latest time for everything that is read, written and
//! calculated.

use std::time::{Duration, SystemTime};

use portunus::key::MAX_TIME;
use portunus_admin::{parse_time, time_text};
use serde_json::json;

use crate::fixture::{Ask, Fixture};

const LATEST: &str = "9999-12-31T23:59:59.999Z";

#[test]
fn valid_rfc_3339_times_are_read_to_the_millisecond() {
    for (text, shown) in [
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
        ("2027-01-15t08:00:00z", "2027-01-15T08:00:00.000Z"),
        ("1985-04-12T23:20:50.52Z", "1985-04-12T23:20:50.520Z"),
        ("1996-12-19T16:39:57-08:00", "1996-12-20T00:39:57.000Z"),
        ("2027-01-15T08:00:00+23:59", "2027-01-14T08:01:00.000Z"),
        ("2027-01-15T08:00:00-23:59", "2027-01-16T07:59:00.000Z"),
        ("2027-01-15T08:00:00-00:00", "2027-01-15T08:00:00.000Z"),
        ("2028-02-29T00:00:00.1Z", "2028-02-29T00:00:00.100Z"),
        (
            "2027-01-15T08:00:00.1239999999Z",
            "2027-01-15T08:00:00.123Z",
        ),
        (
            "2027-01-15T08:00:00.00000000000000000001Z",
            "2027-01-15T08:00:00.000Z",
        ),
        ("1970-01-01T00:30:00+00:30", "1970-01-01T00:00:00.000Z"),
        ("1969-12-31T23:30:00-00:30", "1970-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000Z"),
        ("9999-12-31T23:59:59.999999999999Z", LATEST),
        ("9999-12-31T23:59:59.999+00:00", LATEST),
        ("9999-12-31T15:59:59-08:00", "9999-12-31T23:59:59.000Z"),
        // Leap seconds: the examples of RFC 3339 §5.8, and all other offsets.
        ("1990-12-31T23:59:60Z", "1990-12-31T23:59:59.999Z"),
        ("1990-12-31T15:59:60-08:00", "1990-12-31T23:59:59.999Z"),
        ("2015-06-30T23:59:60.5Z", "2015-06-30T23:59:59.999Z"),
        ("2015-07-01T01:59:60+02:00", "2015-06-30T23:59:59.999Z"),
        ("9999-12-31T23:59:60Z", LATEST),
    ] {
        assert_eq!(
            parse_time(text).map(time_text).as_deref(),
            Ok(shown),
            "{text}"
        );
    }
    let fraction = format!("2027-01-15T08:00:00.{}Z", "9".repeat(1 << 16));
    assert_eq!(
        parse_time(&fraction).map(time_text).as_deref(),
        Ok("2027-01-15T08:00:00.999Z")
    );
}

#[test]
fn invalid_rfc_3339_times_are_refused() {
    for text in [
        "",
        "never",
        "2027-01-15",
        "2027-01-15T08:00:00",
        "2027-01-15T08:00Z",
        "2027-01-15 08:00:00Z",
        "2027-01-15_08:00:00Z",
        "20270115T080000Z",
        "2027-015T08:00:00Z",
        "2027-W03-5T08:00:00Z",
        "+2027-01-15T08:00:00Z",
        "-2027-01-15T08:00:00Z",
        "12027-01-15T08:00:00Z",
        "10000-01-01T00:00:00Z",
        "+10000-01-01T00:00:00Z",
        "027-01-15T08:00:00Z",
        "2027-1-15T08:00:00Z",
        "2027-00-15T08:00:00Z",
        "2027-13-15T08:00:00Z",
        "2027-01-00T08:00:00Z",
        "2027-01-32T08:00:00Z",
        "2027-02-29T08:00:00Z",
        "2100-02-29T08:00:00Z",
        "2027-01-15T24:00:00Z",
        "2027-01-15T08:60:00Z",
        "2027-01-15T08:00:61Z",
        // Second 60 where a leap second cannot occur.
        "2027-01-15T08:00:60Z",
        "2027-06-30T22:59:60Z",
        "2027-06-30T23:58:60Z",
        "2027-03-31T23:59:60Z",
        "2027-06-30T23:59:60+02:00",
        "2027-06-29T23:59:60Z",
        "2027-01-15T08:00:00.Z",
        "2027-01-15T08:00:00,5Z",
        "2027-01-15T08:00:00.5",
        "2027-01-15T08:00:00.5.5Z",
        "2027-01-15T08:00:00+24:00",
        "2027-01-15T08:00:00-24:00",
        "2027-01-15T08:00:00+25:59",
        "2027-01-15T08:00:00+01:60",
        "2027-01-15T08:00:00+1:00",
        "2027-01-15T08:00:00+0100",
        "2027-01-15T08:00:00+01",
        "2027-01-15T08:00:00+01:00:00",
        "2027-01-15T08:00:00 01:00",
        "2027-01-15T08:00:00\u{2212}01:00",
        "2027-01-15T08:00:00Z[Europe/Paris]",
        "2027-01-15T08:00:00ZZ",
        " 2027-01-15T08:00:00Z",
        "2027-01-15T08:00:00Z ",
        "2027-01-15T08:00:00Z\n",
        "2027-01-1\u{661}T08:00:00Z",
        "2027-01-15T08:00:0\u{ff10}Z",
    ] {
        let refused = parse_time(text).unwrap_err();
        assert!(
            refused.contains("is not an RFC 3339 time"),
            "{text}: {refused}"
        );
        assert!(refused.contains(LATEST), "{text}: {refused}");
    }
}

#[test]
fn times_out_of_bounds_are_refused_with_the_bounds() {
    for text in [
        "0000-01-01T00:00:00Z",
        "1969-12-31T23:59:59.999Z",
        "1970-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "9999-12-31T23:59:59.999-23:59",
    ] {
        let refused = parse_time(text).unwrap_err();
        for bound in ["1970-01-01T00:00:00.000Z", LATEST] {
            assert!(refused.contains(bound), "{text}: {refused}");
        }
    }
}

#[test]
fn every_time_is_written_as_one_that_can_be_read() {
    let epoch = SystemTime::UNIX_EPOCH;
    for (time, shown) in [
        (epoch, "1970-01-01T00:00:00.000Z"),
        (
            epoch + Duration::from_nanos(1_999_999),
            "1970-01-01T00:00:00.001Z",
        ),
        (epoch - Duration::from_secs(1), "1970-01-01T00:00:00.000Z"),
        (epoch + MAX_TIME, LATEST),
        (epoch + MAX_TIME + Duration::from_secs(1), LATEST),
        (epoch + Duration::from_secs(1 << 62), LATEST),
    ] {
        assert_eq!(time_text(time), shown);
        assert_eq!(time_text(parse_time(shown).unwrap()), shown);
    }
}

#[tokio::test]
async fn a_key_lives_to_the_latest_time_and_so_does_its_successor() {
    let fixture = Fixture::new().await;
    let issue =
        |end: &str| Ask::new("POST", "/keys").json(&json!({ "name": "n", "expires_at": end }));
    let issued = fixture.expect(201, issue(LATEST)).await.json();
    assert_eq!(issued["record"]["expires_at"], LATEST);
    let id = issued["record"]["id"].as_str().unwrap().to_owned();
    fixture.clock.advance(Duration::from_secs(60));
    let rotate = Ask::new("POST", "/keys/{id}/rotate").of(&id);
    let rotated = fixture
        .expect(201, rotate.json(&json!({ "grace_seconds": 60 })))
        .await
        .json();
    assert_eq!(rotated["record"]["expires_at"], LATEST);
    let listed = fixture.expect(200, Ask::new("GET", "/keys")).await;
    assert!(!listed.json().to_string().contains("out of range"));
    let refused = fixture
        .expect(422, issue("9999-12-31T23:59:59-01:00"))
        .await;
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.starts_with("expires_at: ") && detail.contains(LATEST),
        "{detail}"
    );
}

#[tokio::test]
async fn an_invalid_time_in_a_parameter_is_refused_with_its_name() {
    let fixture = Fixture::new().await;
    let issue = Ask::new("POST", "/keys").json(&json!({ "name": "n" }));
    let issued = fixture.expect(201, issue).await.json();
    let id = issued["record"]["id"].as_str().unwrap();
    for name in ["from", "to"] {
        for value in ["now", "2027-01-15T08:00:60Z", "1969-12-31T00:00:00Z"] {
            let ask = Ask::new("GET", "/keys/{id}/usage").of(id);
            let refused = fixture
                .expect(400, ask.query(&format!("{name}={value}")))
                .await;
            let detail = refused.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.starts_with(&format!("{name}: ")), "{detail}");
        }
        let ask = Ask::new("GET", "/keys/{id}/usage").of(id);
        fixture
            .expect(
                200,
                ask.query(&format!("to={LATEST}&from=9999-12-31T00:00:00Z")),
            )
            .await;
    }
}
