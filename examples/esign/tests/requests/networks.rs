//! Client addresses: trusted proxies, forwarded headers, and a key's allow-list.
//!
//! The tests connect from 127.0.0.1, which is the peer address of every request.

use crate::common::manage::assert_invalid;
use crate::common::{Answer, Call, Server, assert_refused};
use serde_json::json;

const PROFILES: [&str; 5] = ["allsign", "insigner", "yousign", "iusign", "dropbox-sign"];
const BLOCKED: &str = r#"{"detail": "Access from this IP is not allowed for this API key"}"#;
const ALLOWED: &str = "203.0.113.42";
const ATTACKER: &str = "198.51.100.66";

/// An allsign server that trusts the tests' own address as a proxy, and a key that may be used only
/// from `ALLOWED`.
fn behind_a_proxy(header: &str) -> (Server, String) {
    let flags = [
        "--trusted-proxy",
        "127.0.0.0/8",
        "--trusted-proxy",
        "10.0.0.0/8",
        "--forwarded-header",
        header,
    ];
    let server = Server::start("allsign", &flags, &[]);
    let key = server.issue(json!({ "allowed_ips": [ALLOWED] })).key;
    (server, key)
}

fn whoami(server: &Server, key: &str, lines: &[(&str, &str)]) -> Answer {
    let call = lines
        .iter()
        .fold(Call::get("/whoami"), |call, (name, value)| {
            call.field(name, value)
        });
    server.send(&server.with_key(call, key))
}

#[test]
fn without_trusted_proxies_only_the_peer_address_counts() {
    let server = Server::of("allsign");
    let from_here = server.issue(json!({ "allowed_ips": ["127.0.0.1"] })).key;
    let from_elsewhere = server.issue(json!({ "allowed_ips": [ALLOWED] })).key;
    let said = [
        ("X-Forwarded-For", ALLOWED),
        ("Forwarded", "for=203.0.113.42"),
        ("CF-Connecting-IP", ALLOWED),
    ];
    for lines in [&said[..0], &said[..1], &said[1..2], &said[..]] {
        assert_eq!(whoami(&server, &from_here, lines).status, 200, "{lines:?}");
        assert_refused(
            &whoami(&server, &from_elsewhere, lines),
            403,
            "application/json",
            BLOCKED,
            &[],
        );
    }
}

#[test]
fn headers_from_an_untrusted_peer_are_ignored() {
    let server = Server::start("allsign", &["--trusted-proxy", "10.0.0.0/8"], &[]);
    let key = server.issue(json!({ "allowed_ips": [ALLOWED] })).key;
    let answer = whoami(&server, &key, &[("X-Forwarded-For", ALLOWED)]);
    assert_refused(&answer, 403, "application/json", BLOCKED, &[]);
}

#[test]
fn behind_a_proxy_the_first_untrusted_hop_from_the_right_counts() {
    let (server, key) = behind_a_proxy("x-forwarded-for");
    for (lines, passes) in [
        (&["203.0.113.42"][..], true),
        (&["198.51.100.66, 203.0.113.42"], true),
        (&["203.0.113.42, 198.51.100.66"], false),
        (&["203.0.113.42, 10.1.2.3"], true),
        (&["203.0.113.42", "10.1.2.3, 127.0.0.9"], true),
        (&["203.0.113.42", "198.51.100.66"], false),
        (&["198.51.100.66", "203.0.113.42"], true),
        (&["::ffff:203.0.113.42"], true),
        (&["203.0.113.42:4711"], true),
        (&["garbage, 203.0.113.42"], true),
        // No usable address remains.
        (&["203.0.113.42, garbage"], false),
        // An empty element is ignored (RFC 9110 §5.6.1.2).
        (&["203.0.113.42,"], true),
        (&["203.0.113.42", ""], true),
        (&["203.0.113.42, , 10.1.2.3"], true),
        (&["203.0.113.42, unknown, 10.1.2.3"], false),
        (&["203.0.113.042"], false),
        (&["10.1.2.3, 127.0.0.1"], false),
        (&[""], false),
        (&[], false),
    ] {
        let lines: Vec<_> = lines
            .iter()
            .map(|line| ("X-Forwarded-For", *line))
            .collect();
        let answer = whoami(&server, &key, &lines);
        match passes {
            true => assert_eq!(answer.status, 200, "{lines:?}: {}", answer.text()),
            false => assert_refused(&answer, 403, "application/json", BLOCKED, &[]),
        }
    }
    // A header that is not configured is ignored.
    assert_eq!(
        whoami(&server, &key, &[("Forwarded", "for=203.0.113.42")]).status,
        403
    );
    let both = [
        ("Forwarded", "for=198.51.100.66"),
        ("X-Forwarded-For", ALLOWED),
    ];
    assert_eq!(whoami(&server, &key, &both).status, 200);
}

#[test]
fn the_forwarded_header_is_read_as_its_standard_says() {
    let (server, key) = behind_a_proxy("forwarded");
    for (value, passes) in [
        ("for=203.0.113.42", true),
        ("FOR=\"203.0.113.42:4711\";proto=https;by=10.0.0.1", true),
        ("for=198.51.100.66, for=203.0.113.42", true),
        ("for=203.0.113.42, for=198.51.100.66", false),
        ("for=203.0.113.42, for=10.0.0.1;by=\"a, b\"", true),
        ("for=\"[::ffff:203.0.113.42]\"", true),
        ("for=\"_x\"", false),
        ("for=unknown", false),
        ("for=192.0.2.999", false),
        ("for=\"203.0.113.42", false),
        ("for=203.0.113.42;for=203.0.113.42", false),
        ("by=203.0.113.42", false),
        ("", false),
    ] {
        let answer = whoami(&server, &key, &[("Forwarded", value)]);
        match passes {
            true => assert_eq!(answer.status, 200, "{value}: {}", answer.text()),
            false => assert_refused(&answer, 403, "application/json", BLOCKED, &[]),
        }
    }
    assert_eq!(
        whoami(&server, &key, &[("X-Forwarded-For", ALLOWED)]).status,
        403
    );
}

#[test]
fn an_allow_list_is_shown_as_it_was_set_and_works_on_every_profile() {
    for profile in PROFILES {
        let server = Server::start(profile, &["--trusted-proxy", "127.0.0.1"], &[]);
        // IUSign supports IP restrictions only on its highest plan.
        let mut body =
            json!({ "allowed_ips": ["203.0.113.42", "198.51.100.0/26", "2001:db8::/32"] });
        if profile == "iusign" {
            body["plan"] = "enterprise".into();
        }
        let issued = server.issue(body.clone());
        assert_eq!(
            issued.record["allowed_ips"], body["allowed_ips"],
            "{profile}"
        );
        for (client, status) in [
            (ALLOWED, 200),
            ("198.51.100.1", 200),
            ("2001:db8::1", 200),
            (ATTACKER, 403),
            ("2001:db9::1", 403),
        ] {
            let answer = whoami(&server, &issued.key, &[("X-Forwarded-For", client)]);
            assert_eq!(
                answer.status,
                status,
                "{profile} {client}: {}",
                answer.text()
            );
        }
    }
}

#[test]
fn a_bad_allow_list_is_an_error_where_it_is_set() {
    let server = Server::of("allsign");
    for bad in [
        json!([]),
        json!(["010.0.0.0/8"]),
        json!(["10.0.0.0/33"]),
        json!(["10.0.0.0/08"]),
        json!(["2001:db8::/129"]),
        json!(["fe80::1%eth0"]),
        json!(["10.0.0"]),
        json!([" 10.0.0.1"]),
        json!(["10.0.0.1", ""]),
        json!(["*"]),
        json!(["localhost"]),
    ] {
        assert_invalid(
            &server,
            &json!({ "name": "n", "allowed_ips": bad }),
            "allowed_ips",
        );
    }
    assert_invalid(
        &server,
        &json!({ "name": "n", "allowed_ips": "10.0.0.1" }),
        "body",
    );
}

#[test]
fn a_bad_proxy_is_one_line_and_exit_code_2() {
    for flags in [
        ["--trusted-proxy", "10.0.0.0/33"],
        ["--trusted-proxy", "proxy"],
        ["--forwarded-header", "via"],
    ] {
        let ended = crate::common::Process::start(&flags, &[]).wait();
        assert_eq!(
            (
                ended.code,
                ended.stdout.as_str(),
                ended.stderr.lines().count()
            ),
            (Some(2), "", 1),
            "{ended:?}"
        );
    }
}
