//! A PgBouncer for one test, in front of a PostgreSQL server, in transaction mode and otherwise
//! with its defaults: each transaction may use a different server connection.

use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::postgres::{Postgres, as_other_user, chown_to_other_user, free_port};
use crate::wait::{PATIENCE, eventually_within};

/// Runs the pooler and exits with it, in the same way as in [`postgres`](crate::postgres).
const KEEPER: &str = r#"exec 3<&0
"$0" -q "$1/ini" </dev/null >/dev/null 2>>"$1/log" 3<&- &
pooler=$!
{ read -r _ <&3; kill -TERM $pooler; } 2>/dev/null &
wait $pooler"#;

/// The usual locations, which may not be on the `PATH`.
const PROGRAMS: [&str; 3] = [
    "/usr/sbin/pgbouncer",
    "/usr/local/sbin/pgbouncer",
    "/usr/bin/pgbouncer",
];

/// A connection pooler.
#[derive(Debug)]
pub struct PgBouncer {
    folder: tempfile::TempDir,
    port: u16,
    keeper: Child,
}

impl PgBouncer {
    /// Starts a pooler on a free port in front of a server, for all of its databases and roles.
    pub fn before(server: &Postgres) -> Self {
        Self::with(server, "")
    }

    /// The same with additional lines in its configuration.
    pub fn with(server: &Postgres, more: &str) -> Self {
        let program = PROGRAMS
            .into_iter()
            .find(|program| std::path::Path::new(program).is_file());
        let program = program.expect(
            "pgbouncer is missing: this test runs its own; on Debian, apt-get install pgbouncer",
        );
        let folder = tempfile::Builder::new()
            .prefix("bouncer")
            .tempdir_in("/tmp")
            .unwrap();
        let port = free_port();
        let socket = server.socket();
        let (host, server_port) = (socket.parent().unwrap().display(), server.port());
        // The server trusts local connections, so any role may be used.
        let roles = server.sql("postgres", "SELECT rolname FROM pg_roles");
        let roles: String = roles
            .lines()
            .map(|role| format!("\"{role}\" \"\"\n"))
            .collect();
        let path = folder.path().display();
        let ini = format!(
            "[databases]\n* = host={host} port={server_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir = {path}\nauth_type = trust\nauth_file = {path}/roles\n\
             pool_mode = transaction\n{more}\n"
        );
        for (name, text) in [("ini", ini), ("roles", roles), ("log", String::new())] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            chown_to_other_user(&path);
        }
        chown_to_other_user(folder.path());
        let mut keeper = Command::new("/bin/sh");
        as_other_user(&mut keeper);
        keeper.arg("-c").arg(KEEPER).arg(program).arg(folder.path());
        let keeper = keeper
            .current_dir("/")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let pooler = Self {
            folder,
            port,
            keeper,
        };
        // The port alone might belong to another pooler; the socket in this folder cannot.
        let up = eventually_within(PATIENCE, || {
            UnixStream::connect(pooler.socket()).ok()?;
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        assert!(up.is_some(), "pgbouncer does not answer: {}", pooler.log());
        pooler
    }

    /// Returns the URL of a database through the pooler, for the owner.
    pub fn address(&self, database: &str) -> String {
        self.address_for("tester", database)
    }

    /// Returns the URL of a database through the pooler, for another role.
    pub fn address_for(&self, role: &str, database: &str) -> String {
        let port = self.port;
        format!("postgres://{role}@127.0.0.1:{port}/{database}?sslmode=disable")
    }

    /// Returns the path of its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join(format!(".s.PGSQL.{}", self.port))
    }

    /// Returns its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // Closing the pipe stops it.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
