//! What the contenders do, regardless of time.

#![allow(
    clippy::expect_used,
    missing_docs,
    reason = "a test may stop where it cannot go on"
)]

use peers::contender::Check;
use peers::garbage::Garbage;
use peers::plan::{Plan, Sizes};
use peers::rounds::{Size, run};
use peers::scenarios::contenders;
use peers::{Contender, Settings, actix_apps, axum_apps, chart, table};

const FEW: u32 = 3;

fn all(settings: Settings) -> Vec<Contender> {
    let mut all = contenders(settings);
    all.push(axum_apps::protected(settings));
    all.push(actix_apps::protected(settings));
    all.push(actix_apps::httpauth(settings));
    all
}

#[test]
fn a_good_key_is_admitted() {
    for contender in all(Settings::plenty(2)) {
        let mut client = contender.connect();
        for good in &contender.credentials.good {
            assert_eq!(client.status(good), 200, "{}", contender.name);
        }
    }
}

#[test]
fn an_unknown_key_is_refused() {
    for contender in all(Settings::plenty(2)) {
        if contender.checks.contains(&Check::Key) {
            let unknown = &contender.credentials.unknown;
            assert_eq!(
                contender.connect().status(unknown),
                401,
                "{}",
                contender.name
            );
        }
    }
}

#[test]
fn a_key_without_the_scope_is_refused() {
    for contender in all(Settings::plenty(2)) {
        if contender.checks.contains(&Check::Scope) {
            let narrow = &contender.credentials.without_scope;
            assert_eq!(
                contender.connect().status(narrow),
                403,
                "{}",
                contender.name
            );
        }
    }
}

#[test]
fn a_key_is_refused_after_its_quota_and_others_are_not() {
    let settings = Settings {
        keys: 2,
        per_minute: FEW,
        per_hour: 100,
    };
    for contender in all(settings) {
        if contender.checks.contains(&Check::Limits) {
            let mut client = contender.connect();
            let [one, other] = &*contender.credentials.good else {
                unreachable!("two keys")
            };
            let statuses: Vec<_> = (0..=FEW).map(|_| client.status(one)).collect();
            assert_eq!(statuses, [200, 200, 200, 429], "{}", contender.name);
            assert_eq!(client.status(other), 200, "{}", contender.name);
        }
    }
}

#[test]
fn garbage_is_refused_as_such_however_often() {
    for garbage in [Garbage::wrong_shape(), Garbage::wrong_checksum()] {
        assert!((0..500).all(|_| garbage.refused() == Some(401)));
    }
}

#[test]
fn table_and_chart_contain_every_contender() {
    let size = Size {
        batches: 1,
        calls: 4,
    };
    let sizes = Sizes {
        hot: 4,
        many: vec![8, 200],
        shared: 8,
        size,
        of_threads: size,
    };
    let mut plan = Plan::new(&sizes);
    let times = run(&mut plan.lanes, 3);
    assert!(times.iter().all(|times| times.len() == 3));
    let figures = table::figures(&plan.rows, &times);
    let (text, svg) = (table::written(&figures), chart::drawn(&figures));
    let checks = table::checks(&plan);
    for contender in all(Settings::plenty(1)) {
        assert!(text.contains(contender.name), "{}", contender.name);
        assert!(checks.contains(contender.name), "{}", contender.name);
    }
    for contender in contenders(Settings::plenty(1)) {
        assert!(svg.contains(contender.name), "{}", contender.name);
    }
    assert_eq!(
        text.lines().filter(|line| line.starts_with("  ")).count(),
        {
            let mut groups: Vec<_> = plan.rows.iter().map(|row| &row.group).collect();
            groups.dedup();
            plan.rows.len() + groups.len()
        }
    );
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
    assert_eq!(open_elements(&svg), Vec::<&str>::new());
}

/// The elements that are not closed, or the first one that is closed in the wrong place.
fn open_elements(svg: &str) -> Vec<&str> {
    let mut open = Vec::new();
    for tag in svg.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("each tag ends");
        let name = tag.split([' ', '/']).find(|part| !part.is_empty());
        let name = name.expect("each tag has a name");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if tag.starts_with('/') {
            if open.pop() != Some(name) {
                return vec![name];
            }
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    open
}

#[cfg(target_os = "linux")]
#[test]
fn the_apps_on_sockets_answer_each_request_of_wrk() {
    // It fails if one is not.
    for keys in [1, 1_000] {
        let costs = peers::served::measure(keys, 1, 1);
        assert_eq!(costs.len(), 3);
        for cost in costs {
            assert!(cost.requests > 100, "{cost:?}");
            assert!(cost.all.0 >= cost.user.0, "{cost:?}");
        }
    }
}
