//! Tests of the PostgreSQL server that other tests use.

#![cfg(unix)]

use std::net::TcpStream;

use portunus_test_support::postgres::Postgres;

#[test]
fn a_server_is_reached_by_tcp_paused_killed_and_started_again() {
    let server = Postgres::start_on_port(0);
    let address = server.database("keys");
    let port = server.port();
    assert_eq!(
        address,
        format!("postgres://tester@127.0.0.1:{port}/keys?sslmode=disable")
    );
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
    server.sql(
        "keys",
        "CREATE ROLE reader LOGIN; CREATE TABLE one AS SELECT 1",
    );
    server.pause();
    assert!(!server.is_up());
    server.resume();
    assert!(server.is_up());
    server.crash();
    assert!(!server.is_up());
    server.start_again();
    assert_eq!(server.sql("keys", "TABLE one"), "1\n");
    server.stop();
    assert!(!server.is_up());
    server.start_again();
    server.pause();
    // It also stops if it is dropped while it is paused.
}
