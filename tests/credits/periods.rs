//! Calendar periods, against dates that are written out and against their definition.

use std::num::NonZeroU16;
use std::time::{Duration, SystemTime};

use portunus::credit::Period;
use proptest::prelude::*;

fn at(text: &str) -> SystemTime {
    SystemTime::from(text.parse::<jiff::Timestamp>().unwrap())
}

/// Asserts that the periods begin at these instants, the first of which need not be the anchor.
fn starts(period: &Period, starts: &[&str]) {
    for pair in starts.windows(2) {
        let (start, end) = (at(pair[0]), at(pair[1]));
        let just_before = end - Duration::from_millis(1);
        assert_eq!(period.around(start), Some((start, end)), "{}", pair[0]);
        assert_eq!(
            period.around(just_before),
            Some((start, end)),
            "{}",
            pair[0]
        );
    }
}

#[test]
fn months_begin_on_the_first_weeks_on_monday_and_days_at_midnight() {
    let months = [
        "2026-12-01T00:00:00Z",
        "2027-01-01T00:00:00Z",
        "2027-02-01T00:00:00Z",
    ];
    starts(&Period::monthly(), &months);
    starts(
        &Period::weekly(),
        &["2026-12-28T00:00:00Z", "2027-01-04T00:00:00Z"],
    );
    starts(
        &Period::daily(),
        &["2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z"],
    );
    let year = Period::monthly().every(NonZeroU16::new(12).unwrap());
    starts(&year, &["2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"]);
}

#[test]
fn an_anniversary_on_the_31st_is_clamped_and_comes_back_to_the_31st() {
    let period = Period::monthly().anchored(at("2027-01-31T10:30:00Z"));
    starts(
        &period,
        &[
            "2026-12-31T10:30:00Z",
            "2027-01-31T10:30:00Z",
            "2027-02-28T10:30:00Z",
            "2027-03-31T10:30:00Z",
            "2027-04-30T10:30:00Z",
            "2027-05-31T10:30:00Z",
        ],
    );
    let leap = Period::monthly().anchored(at("2024-02-29T00:00:00Z"));
    let leap = leap.every(NonZeroU16::new(12).unwrap());
    starts(
        &leap,
        &[
            "2027-02-28T00:00:00Z",
            "2028-02-29T00:00:00Z",
            "2029-02-28T00:00:00Z",
        ],
    );
}

#[test]
fn a_month_begins_at_local_midnight_on_both_sides_of_a_change_of_the_clock() {
    let paris = Period::monthly().in_zone("Europe/Paris").unwrap();
    starts(
        &paris,
        &[
            "2027-02-28T23:00:00Z",
            "2027-03-31T22:00:00Z",
            "2027-04-30T22:00:00Z",
        ],
    );
    // A day of 23 hours and one of 25.
    let day = Period::daily().in_zone("Europe/Paris").unwrap();
    starts(
        &day,
        &[
            "2027-03-27T23:00:00Z",
            "2027-03-28T22:00:00Z",
            "2027-03-29T22:00:00Z",
        ],
    );
    starts(&day, &["2027-10-30T22:00:00Z", "2027-10-31T23:00:00Z"]);
}

#[test]
fn a_skipped_local_time_is_moved_later_and_of_a_repeated_one_the_first_is_meant() {
    // 02:30 in Berlin does not exist on 28 March 2027, and occurs twice on 31 October.
    let day = Period::daily().anchored(at("2027-03-27T01:30:00Z"));
    let day = day.in_zone("Europe/Berlin").unwrap();
    starts(
        &day,
        &[
            "2027-03-27T01:30:00Z",
            "2027-03-28T01:30:00Z",
            "2027-03-29T00:30:00Z",
        ],
    );
    starts(
        &day,
        &[
            "2027-10-30T00:30:00Z",
            "2027-10-31T00:30:00Z",
            "2027-11-01T01:30:00Z",
        ],
    );
}

#[test]
fn an_unknown_time_zone_is_refused() {
    for name in ["Europe/Atlantis", "", "../../etc/passwd", &"x".repeat(1000)] {
        let error = Period::daily().in_zone(name).unwrap_err().to_string();
        assert!(error.contains("unknown time zone"), "{error}");
        assert!(error.len() < 150, "{error}");
    }
}

#[test]
fn instants_at_the_ends_of_time_have_a_period_or_none_but_do_not_panic() {
    let far = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX) * 100);
    for zone in ["UTC", "Pacific/Apia", "America/New_York"] {
        let period = Period::monthly().in_zone(zone).unwrap();
        assert!(period.around(SystemTime::UNIX_EPOCH).is_some());
        assert_eq!(period.around(far), None);
        assert_eq!(period.anchored(far).around(SystemTime::UNIX_EPOCH), None);
    }
}

#[test]
fn a_period_starts_at_an_anchor_whose_local_time_occurs_twice() {
    let time = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    // In Paris, 02:00 occurred at 0:00 and at 1:00 UTC on 30 October 2011.
    for anchor in [1_319_932_800, 1_319_936_400] {
        for period in [Period::monthly(), Period::weekly(), Period::daily()] {
            let period = period.in_zone("Europe/Paris").unwrap();
            let period = period.anchored(time(anchor));
            let (start, end) = period.around(time(anchor)).unwrap();
            assert_eq!(start, time(anchor));
            let before = start - Duration::from_millis(1);
            assert_eq!(period.around(before).unwrap().1, start);
            // At the same local time.
            assert_eq!(period.around(end).unwrap().0, end);
            let local = end.duration_since(SystemTime::UNIX_EPOCH).unwrap();
            assert_eq!(local.as_secs() % 86_400, 3_600);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Periods cover the time without gaps or overlaps, so a refill is neither lost nor doubled.
    #[test]
    fn each_instant_is_in_exactly_one_period(
        at in 1_000_000_000_u64..4_000_000_000,
        anchor in proptest::option::of(900_000_000_u64..4_000_000_000),
        count in 1_u16..40,
        unit in 0..3,
        zone in 0..6_usize,
    ) {
        let zones = [
            "UTC", "Europe/Paris", "America/St_Johns", "Asia/Kolkata", "Pacific/Apia",
            "Australia/Lord_Howe",
        ];
        let period = [Period::monthly(), Period::weekly(), Period::daily()][unit as usize].clone();
        let period = period.every(NonZeroU16::new(count).unwrap()).in_zone(zones[zone]).unwrap();
        let time = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let period = match anchor {
            Some(anchor) => period.anchored(time(anchor)),
            None => period,
        };
        let (start, end) = period.around(time(at)).unwrap();
        prop_assert!(start <= time(at) && time(at) < end);
        let before = start - Duration::from_millis(1);
        prop_assert_eq!(period.around(before).unwrap().1, start);
        prop_assert_eq!(period.around(end).unwrap().0, end);
        if let Some(anchor) = anchor {
            prop_assert_eq!(period.around(time(anchor)).unwrap().0, time(anchor));
        }
    }
}
