//! Addresses of databases: what is reported about an invalid one, and where they lead.

use std::sync::{Arc, Mutex};

use portunus_sqlx::PostgresStore;
use portunus_test_support::postgres::free_port;
use tracing_subscriber::fmt::MakeWriter;

/// The logged text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    /// Captures everything that is logged on this thread until the guard is dropped.
    fn begin(&self) -> tracing::subscriber::DefaultGuard {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(self.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

#[tokio::test]
async fn no_part_of_an_invalid_address_is_reported() {
    let log = Log::default();
    let logging = log.begin();
    for address in [
        "hunter2",
        "postgres:/user:hunter2@host/db",
        "postgresql//user:hunter2@host/db",
        "pg://user:hunter2@host/db",
        "mysql://user:hunter2@host/db",
        "postgres://user:hunter2@host:port/db",
        "postgres://user:hunter2@host:99999/db",
        "postgres://user:hunter2%ff@host/db",
        "postgres://user:hunter2/x@host/db",
        "postgres://user:hunter2#x@host/db",
        "postgres://user:hunter2@[::1/db",
        "postgres://user:12?sslmode=hunter2@host/db",
        "postgres://user@host/db?sslmode=hunter2",
        "postgres://user@host/db?port=hunter2",
        "postgres://user@host/db?hostaddr=hunter2",
        "postgres://user@host/db?statement-cache-capacity=hunter2",
        " hunter2",
        "",
    ] {
        for opened in [
            PostgresStore::connect(address).await,
            PostgresStore::behind_pooler(address).await,
        ] {
            let error = opened.unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(
                !text.contains("hunter2") && !text.contains("user:h"),
                "{address}: {text}"
            );
            assert!(
                text.contains("postgres://USER:PASSWORD@HOST"),
                "{address}: {text}"
            );
        }
    }
    // An unknown parameter, which is dropped.
    let port = free_port();
    let odd = format!("postgres://user@127.0.0.1:{port}/db?passwrod=hunter2&sslmode=disable");
    let error = PostgresStore::connect(&odd).await.unwrap_err().to_string();
    assert!(error.contains("Connection refused"), "{error}");
    drop(logging);
    assert!(log.text().contains("unknown parameters"), "{}", log.text());
    assert!(!log.text().contains("hunter2"), "{}", log.text());
}

#[tokio::test]
async fn one_warning_is_logged_before_digests_are_sent_unencrypted() {
    for (address, warnings) in [
        ("postgres://u:hunter2@db.example/x", 1),
        ("postgres://u:hunter2@db.example/x?sslmode=prefer", 1),
        ("postgres://u:hunter2@192.0.2.7/x?sslmode=disable", 1),
        ("postgres://u:hunter2@[2001:db8::7]/x?sslmode=allow", 1),
        ("postgres://u:hunter2@db.example/x?sslmode=require", 0),
        ("postgres://u:hunter2@db.example/x?sslmode=verify-full", 0),
        ("postgres://u:hunter2@localhost/x?sslmode=disable", 0),
        ("postgres://u:hunter2@127.0.0.9/x?sslmode=disable", 0),
        ("postgres://u:hunter2@[::1]/x?sslmode=disable", 0),
        (
            "postgres://u:hunter2@[::ffff:127.0.0.1]/x?sslmode=disable",
            0,
        ),
        (
            "postgres://u:hunter2@x/x?host=/var/run/postgresql&sslmode=disable",
            0,
        ),
    ] {
        let log = Log::default();
        let logging = log.begin();
        drop(PostgresStore::new(
            PostgresStore::pool_options().connect_lazy(address).unwrap(),
        ));
        drop(logging);
        let text = log.text();
        let warned = text.matches("clear text").count();
        assert_eq!(warned, warnings, "{address}: {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

/// Without TLS compiled in, an address that requires it is refused before anything is sent.
#[cfg(not(feature = "tls-rustls"))]
#[tokio::test]
async fn where_tls_is_required_and_not_compiled_in_nothing_is_sent() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = format!("postgres://u:p@127.0.0.1:{port}/x?sslmode=require");
    let error = PostgresStore::connect(&address)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("TLS"), "{error}");
}
