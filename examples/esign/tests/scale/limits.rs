//! What the nodes admit together.

use serde_json::json;

use crate::common::at_once;
use crate::common::nodes::{accepted, ask, said};
use crate::{Bus, Site, rounds};

/// How many requests a key may make in a minute.
const N: usize = 60;

/// Makes 200 requests on four nodes with a new key, this many at a time. Returns whether each got a
/// decision of Redis, in which case exactly `N` were admitted.
fn admits_exactly(site: &Site, at_a_time: usize) -> bool {
    let quotas = json!({ "requests_per_minute": N, "requests_per_hour": 1000 });
    let body = json!({ "scopes": ["documents.read"], "rate_limit_config": quotas });
    let issued = site.nodes[0].issue(body);
    let answers = at_once(at_a_time, |number| {
        let ask = |_| ask(&site.nodes[number % 4], &issued.key);
        (0..200 / at_a_time).map(ask).collect::<Vec<_>>()
    });
    let answers = answers.concat();
    let count = |expected| answers.iter().filter(|said| **said == expected).count();
    let admitted = count(accepted());
    let refused = count(said(429, "RATE_LIMITED"));
    let unanswered = count(said(503, "LIMITER_UNAVAILABLE"));
    println!(
        "{at_a_time} at a time: {admitted} of 200 requests were admitted, {unanswered} got no decision"
    );
    assert_eq!(admitted + refused + unanswered, 200, "{answers:?}");
    // On a busy machine, Redis may take longer than the deadline. Such a request does not pass, and
    // it may have been counted.
    assert!(admitted <= N, "{admitted} were admitted");
    assert!(admitted + unanswered >= N, "only {admitted} were admitted");
    unanswered == 0
}

#[test]
fn two_hundred_requests_on_four_nodes_are_admitted_exactly_sixty_times() {
    let site = Site::start(Bus::Redis, "closed");
    for at_a_time in [200, 8] {
        let rounds = rounds(4);
        let whole = (0..rounds)
            .filter(|_| admits_exactly(&site, at_a_time))
            .count();
        println!(
            "{at_a_time} at a time: exactly {N} in {whole} of {rounds} rounds, in which all got a decision"
        );
    }
    assert!(
        (0..40).any(|_| admits_exactly(&site, 4)),
        "Redis is too slow for any decision"
    );
}
