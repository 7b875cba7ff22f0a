//! What is reported at start: addresses, servers, permissions, eviction. No message has a password.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use portunus::limit::LimiterError;
use portunus_redis::{Redis, RedisError};
use portunus_test_support::postgres::{Postgres, free_port};
use portunus_test_support::redis::{Cluster, Redis as Server, Sentinels};

use crate::bus::passes_the_bus_suite_without_faults;
use crate::common::{ask, limiter, quotas, redis};
use crate::conformance::passes_the_limiter_suite;

const SECRET: &str = "sesame-7Zq";

/// What the check of a limiter and that of a bus say.
async fn refused(redis: &Redis) -> [RedisError; 2] {
    let errors = [
        redis.limiter().check().await.unwrap_err(),
        redis.bus().check().await.unwrap_err(),
    ];
    for error in &errors {
        let text = error.to_string();
        assert!(!text.contains(SECRET) && !text.contains('\n'), "{text}");
        assert!(!format!("{error:?}").contains(SECRET), "{error:?}");
    }
    assert!(!format!("{redis:?}").contains(SECRET), "{redis:?}");
    errors
}

#[test]
fn invalid_addresses_are_refused_in_one_line_that_has_no_part_of_them() {
    for address in [
        "",
        "localhost",
        "sesame-7Zq",
        "redis:",
        "redis://",
        "redis://:sesame-7Zq@",
        "http://user:sesame-7Zq@localhost",
        "redis+sesame-7Zq://localhost",
        "redis://localhost:sesame-7Zq",
        "redis://user:sesame-7Zq@localhost:port",
        "redis://user:sesame-7Zq@localhost:99999",
        "redis://localhost/sesame-7Zq",
        "redis://localhost/-1",
        "redis://localhost/99999999999999999999",
        // Passwords whose special characters are not encoded.
        "redis://user:12?sesame-7Zq@localhost",
        "redis://user:12#sesame-7Zq@localhost",
        "redis://user:12/sesame-7Zq@localhost",
        "redis://user:12/3@localhost",
        "redis://sesame-7Zq\\@localhost",
        "redis://localhost?password=sesame-7Zq",
        "redis://0.0.0.0",
        "redis://user:%ff@localhost",
        "redis://local host",
        "redis://[::1",
        "unix:///sesame-7Zq",
    ] {
        for error in [
            Redis::single(address).unwrap_err(),
            Redis::sentinel(address, ["redis://localhost"]).unwrap_err(),
            Redis::sentinel("redis://main", [address]).unwrap_err(),
            Redis::cluster(["redis://localhost", address]).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(
                text.contains("redis://USER:PASSWORD@HOST:PORT/DATABASE"),
                "{text}"
            );
            assert!(!text.contains(SECRET) && !text.contains('\n'), "{text}");
        }
    }
    for address in [
        "redis://localhost",
        "valkey://localhost:7000/",
        "redis://:p%40ss%2F%3F@127.0.0.1:6379/3",
        "redis://user:pass@[::1]:6379/0",
    ] {
        assert!(Redis::single(address).is_ok(), "{address}");
    }
    assert!(
        Redis::cluster([])
            .unwrap_err()
            .to_string()
            .contains("at least one node")
    );
    let why = Redis::cluster(["redis://localhost/1"])
        .unwrap_err()
        .to_string();
    assert!(why.contains("no database other than 0"), "{why}");
}

#[cfg(not(feature = "tls"))]
#[test]
fn an_address_with_tls_names_the_feature_that_it_needs() {
    let why = Redis::single("rediss://localhost").unwrap_err().to_string();
    assert!(why.contains("feature `tls`"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_another_kind_are_reported_as_such() {
    // Nobody.
    let nobody = Redis::single(&format!("redis://u:{SECRET}@127.0.0.1:{}", free_port())).unwrap();
    for error in refused(&nobody).await {
        assert!(matches!(error, RedisError::Unavailable(_)), "{error}");
        assert!(error.to_string().contains("127.0.0.1:"), "{error}");
    }
    // A web server, one that hangs up, and one that is another database.
    for answer in ["HTTP/1.1 400 Bad Request\r\n\r\n", ""] {
        let port = speaks(answer.to_owned());
        let other = Redis::single(&format!("redis://127.0.0.1:{port}")).unwrap();
        for error in refused(&other).await {
            println!("{error}");
        }
    }
    let port = speaks("-ERR unknown command 'HELLO'\r\n".to_owned());
    let old = Redis::single(&format!("redis://127.0.0.1:{port}")).unwrap();
    let [error, _] = refused(&old).await;
    assert!(
        error
            .to_string()
            .contains("no Redis of version 6.2 or newer"),
        "{error}"
    );
    let hello = "*8\r\n+server\r\n+redis\r\n+version\r\n+6.0.9\r\n+mode\r\n+standalone\r\n+role\r\n\
                 +master\r\n";
    let port = speaks(hello.to_owned());
    let old = Redis::single(&format!("redis://127.0.0.1:{port}")).unwrap();
    let [error, _] = refused(&old).await;
    assert!(
        error
            .to_string()
            .contains("is redis 6.0.9, and 6.2 or newer"),
        "{error}"
    );
    let database = Postgres::start_on_port(0);
    let other = Redis::single(&format!("redis://127.0.0.1:{}", database.port())).unwrap();
    let [error, _] = refused(&other).await;
    assert!(
        matches!(error, RedisError::Server(_) | RedisError::Unavailable(_)),
        "{error}"
    );
}

/// A server that gives the same answer to whatever it is sent.
fn speaks(answer: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut buffer = [0; 4096];
            while let Ok(1..) = stream.read(&mut buffer) {
                if answer.is_empty() || stream.write_all(answer.as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    port
}

/// The permissions that the documentation states.
const ACL: &str = "on resetkeys resetchannels -@all ~portunus:* ~bus* &portunus:* &bus* +evalsha \
                   +eval +time +get +set +pttl +publish +subscribe +info +select";

fn with_user(rules: &str) -> Server {
    let server = Server::start();
    set_user(&server, rules);
    server
}

fn set_user(server: &Server, rules: &str) {
    let mut command = vec!["acl", "setuser", "limits"];
    let password = format!(">{SECRET}");
    command.push(&password);
    command.extend(rules.split_whitespace());
    assert_eq!(server.cli(&command), "OK", "{rules}");
}

fn as_user(server: &Server) -> Redis {
    let port = server.port();
    Redis::single(&format!("redis://limits:{SECRET}@127.0.0.1:{port}")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_the_documented_permissions_passes_on_a_single_server() {
    let server = with_user(ACL);
    let redis = as_user(&server);
    passes_the_limiter_suite(&redis).await;
    passes_the_bus_suite_without_faults(&redis, &redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_the_documented_permissions_passes_on_a_cluster() {
    let cluster = Cluster::start();
    for node in &cluster.nodes {
        set_user(node, &format!("{ACL} +cluster|slots +cluster|info +asking"));
    }
    let port = cluster.nodes[0].port();
    let address = format!("redis://limits:{SECRET}@127.0.0.1:{port}");
    let redis = Redis::cluster([address.as_str()]).unwrap();
    passes_the_limiter_suite(&redis).await;
    passes_the_bus_suite_without_faults(&redis, &redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_the_documented_permissions_passes_behind_sentinels() {
    let all = Sentinels::start();
    for server in &all.servers {
        set_user(server, ACL);
    }
    for sentinel in &all.sentinels {
        set_user(sentinel, "on -@all +sentinel|get-master-addr-by-name");
    }
    let port = all.sentinels[0].port();
    let sentinel = format!("redis://limits:{SECRET}@127.0.0.1:{port}");
    let primary = format!("redis://limits:{SECRET}@{}", Sentinels::NAME);
    let redis = Redis::sentinel(&primary, [sentinel.as_str()]).unwrap();
    passes_the_limiter_suite(&redis).await;
    passes_the_bus_suite_without_faults(&redis, &redis).await;
}

#[test]
fn the_documentation_states_these_permissions() {
    let documented = include_str!("../../src/lib.rs");
    for word in ACL.split_whitespace().filter(|word| !word.contains("bus")) {
        assert!(documented.contains(word), "{word} is not documented");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_permission_that_is_missing_is_named() {
    for missing in ["evalsha", "eval", "time", "get", "set", "pttl"] {
        let server = with_user(&format!("{ACL} -{missing}"));
        let error = as_user(&server).limiter().check().await.unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, RedisError::Permission(_)),
            "{missing}: {text}"
        );
        assert!(text.contains(&format!("'{missing}'")), "{missing}: {text}");
        assert!(!text.contains(SECRET), "{text}");
    }
    for missing in ["set", "publish", "subscribe"] {
        let server = with_user(&format!("{ACL} -{missing}"));
        let error = as_user(&server).bus().check().await.unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, RedisError::Permission(_)),
            "{missing}: {text}"
        );
        assert!(text.contains(&format!("'{missing}'")), "{missing}: {text}");
    }
    for [rules, what] in [["resetkeys ~other:*", "key"], ["resetchannels", "channel"]] {
        let server = with_user(&format!("{ACL} {rules}"));
        let error = match what {
            "key" => as_user(&server).limiter().check().await.unwrap_err(),
            _ => as_user(&server).bus().check().await.unwrap_err(),
        };
        let text = error.to_string();
        assert!(matches!(error, RedisError::Permission(_)), "{what}: {text}");
        assert!(text.contains(what), "{what}: {text}");
    }
}

#[tokio::test]
async fn wrong_and_missing_passwords_are_reported_without_them() {
    let server = with_user(ACL);
    let port = server.port();
    let wrong = Redis::single(&format!("redis://limits:{SECRET}x@127.0.0.1:{port}")).unwrap();
    for error in refused(&wrong).await {
        let text = error.to_string();
        assert!(text.contains("refuses the user and the password"), "{text}");
    }
    server.cli(&["config", "set", "requirepass", SECRET]);
    for error in refused(&redis(&server)).await {
        let text = error.to_string();
        assert!(text.contains("wants a user and a password"), "{text}");
    }
    let right = Redis::single(&format!("redis://:{SECRET}@127.0.0.1:{port}")).unwrap();
    right.limiter().check().await.unwrap();
    // Requests do not say it either.
    let error = ask(&wrong.limiter(), "b", &quotas([(5, 60)]))
        .await
        .unwrap_err();
    assert!(matches!(error, LimiterError::Unavailable(_)));
    let all = format!("{error:?} {error}");
    assert!(!all.contains(SECRET), "{all}");
}

/// Collects what is logged.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Logs of this thread.
pub(crate) fn logged() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    (log, tracing::subscriber::set_default(subscriber))
}

impl Log {
    pub(crate) fn lines(&self, text: &str) -> usize {
        let log = self.text();
        log.lines().filter(|line| line.contains(text)).count()
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[tokio::test]
async fn an_eviction_policy_that_may_evict_live_limits_is_reported_and_logged() {
    let (log, _guard) = logged();
    for policy in [
        "allkeys-lru",
        "volatile-ttl",
        "volatile-lru",
        "allkeys-random",
    ] {
        let server = Server::with(&["--maxmemory-policy", policy, "--maxmemory", "50mb"]);
        let warnings = limiter(&server).check().await.unwrap();
        let [warning] = &warnings[..] else {
            panic!("{warnings:?}");
        };
        assert!(
            warning.contains(policy) && warning.contains("use noeviction"),
            "{warning}"
        );
        assert_eq!(
            log.lines(&format!("maxmemory-policy {policy} and may evict")),
            1
        );
    }
    let server = Server::start();
    assert!(limiter(&server).check().await.unwrap().is_empty());
}

#[tokio::test]
async fn that_a_server_does_not_answer_is_logged_once_and_so_is_its_return() {
    let (log, _guard) = logged();
    let server = with_user(ACL);
    let limiter = as_user(&server).limiter();
    limiter.check().await.unwrap();
    for turn in 1..=2 {
        server.crash();
        for _ in 0..40 {
            let _ = ask(&limiter, "b", &quotas([(5, 60)])).await;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(log.lines("Redis does not answer"), turn, "{}", log.text());
        server.start_again();
        // The user is gone with the server's memory, which is no answer either.
        set_user(&server, ACL);
        crate::common::recovers(&limiter).await;
        assert_eq!(log.lines("Redis answers again"), turn, "{}", log.text());
    }
    assert!(!log.text().contains(SECRET), "{}", log.text());
}
