//! TLS: a server whose certificate the system trusts is used, another is not.
//!
//! The system's certificates are those in `SSL_CERT_FILE`, which a process reads once: the test runs
//! itself again with this variable.

use std::path::Path;
use std::process::Command;

use portunus_redis::{Redis, RedisError};
use portunus_test_support::postgres::free_port;
use portunus_test_support::redis::Redis as Server;

use crate::common::{PATIENT, passed, quotas};

/// What the second process is told: the server's port.
const PORT: &str = "PORTUNUS_REDIS_TLS_PORT";

fn certificate(folder: &Path) {
    let mut openssl = Command::new("openssl");
    openssl.current_dir(folder);
    openssl.args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]);
    openssl.args([
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-subj",
        "/CN=localhost",
    ]);
    openssl.args(["-addext", "subjectAltName=DNS:localhost"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    openssl.args(["-keyout", "key.pem", "-out", "cert.pem"]);
    assert!(openssl.output().unwrap().status.success());
}

#[tokio::test]
async fn a_trusted_server_is_used_over_tls_and_another_is_not() {
    if let Ok(port) = std::env::var(PORT) {
        let redis = |host: &str| Redis::single(&format!("rediss://{host}:{port}")).unwrap();
        let limiter = redis("localhost").deadline(PATIENT).limiter();
        limiter.check().await.unwrap();
        assert_eq!(passed(&limiter, "b", &quotas([(3, 60)]), 5).await, 3);
        redis("localhost").bus().check().await.unwrap();
        // The certificate is for another name.
        let error = redis("127.0.0.1").limiter().check().await.unwrap_err();
        assert!(matches!(error, RedisError::Unavailable(_)), "{error}");
        return;
    }
    let folder = portunus_test_support::redis::folder();
    certificate(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (port, cert, key) = (free_port(), path("cert.pem"), path("key.pem"));
    let options = ["--tls-port", &port.to_string(), "--tls-cert-file", &cert];
    let more = ["--tls-key-file", &key, "--tls-auth-clients", "no"];
    let _server = Server::with(&[&options[..], &more].concat());
    let untrusted = Redis::single(&format!("rediss://localhost:{port}")).unwrap();
    let error = untrusted.limiter().check().await.unwrap_err().to_string();
    assert!(
        error.contains("certificate") && !error.contains('\n'),
        "{error}"
    );
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args([
        "--exact",
        "tls::a_trusted_server_is_used_over_tls_and_another_is_not",
    ]);
    again
        .env(PORT, port.to_string())
        .env("SSL_CERT_FILE", &cert);
    let output = again.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
}
