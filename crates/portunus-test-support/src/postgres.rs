//! A PostgreSQL server for one test, in a folder of its own. It is stopped when the test ends, even
//! if the test process is killed.
//!
//! Every call blocks until it is done. Use [`Postgres::sql`] for anything that has no method:
//! roles, settings, other databases.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use crate::wait::{PATIENCE, eventually_within};

/// Runs a server and exits with it. It stops the server when the pipe that it reads from closes, at
/// the latest when the test process ends. `CONT` lets a paused server handle the signal. `fsync` is
/// off: tests kill the server's processes but not the operating system, so written data survives.
const KEEPER: &str = concat!(
    r#"exec 3<&0
"$0" -D "$1" -k "$2" -p "$3" -c listen_addresses="$4" -c max_connections=120"#,
    r#" -c fsync=off </dev/null >>"$2/log" 2>&1 3<&- &
server=$!
{ read -r _ <&3; kill -QUIT $server; kill -CONT $server; } 2>/dev/null &
wait $server"#
);

/// The role that owns everything.
const OWNER: &str = "tester";
/// The port of a server without TCP; only part of the name of its socket.
const USUAL_PORT: u16 = 5432;
/// The range of ports that tests give their servers.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 8_000;

/// A PostgreSQL server.
#[derive(Debug)]
pub struct Postgres {
    folder: tempfile::TempDir,
    programs: PathBuf,
    port: u16,
    /// Whether it listens on the TCP port in addition to its socket.
    on_tcp: bool,
    keeper: Mutex<Option<Child>>,
}

impl Postgres {
    /// Creates a cluster and starts it on a Unix socket.
    pub fn start() -> Self {
        Self::start_with(USUAL_PORT, false)
    }

    /// Creates a cluster and starts it on a Unix socket and on a port of 127.0.0.1; 0 picks a free
    /// port.
    pub fn start_on_port(port: u16) -> Self {
        let port = if port == 0 { free_port() } else { port };
        Self::start_with(port, true)
    }

    /// Starts a streaming standby of a server, which this server commits synchronously to from then
    /// on: it acknowledges a write when the standby has it on disk.
    pub fn synchronous_standby_of(primary: &Self) -> Self {
        let standby = Self::new(USUAL_PORT, false);
        let mut copy = primary.client("pg_basebackup");
        copy.arg("-D").arg(standby.data());
        // Writes the settings with which it follows.
        output(copy.args(["-R", "-X", "stream", "-c", "fast", "--no-sync"]));
        standby.start_again();
        primary.sql(
            "postgres",
            "ALTER SYSTEM SET synchronous_standby_names = '*'",
        );
        primary.sql("postgres", "SELECT pg_reload_conf()");
        let follows = || {
            let state = primary.sql("postgres", "SELECT sync_state FROM pg_stat_replication");
            (state.trim() == "sync").then_some(())
        };
        let up = eventually_within(PATIENCE, follows);
        up.unwrap_or_else(|| panic!("the standby does not follow: {}", standby.log()));
        standby
    }

    /// Makes a standby a primary server, and waits until it is.
    pub fn promote(&self) {
        let promoted = self.sql("postgres", "SELECT pg_promote()");
        assert_eq!(promoted.trim(), "t", "{}", self.log());
    }

    fn start_with(port: u16, on_tcp: bool) -> Self {
        let server = Self::new(port, on_tcp);
        let mut initdb = server.program("initdb");
        initdb.arg("-D").arg(server.data());
        initdb.args(["-U", OWNER, "-A", "trust", "-E", "UTF8", "--no-sync"]);
        // A collation that differs from byte order, as in most databases.
        initdb.args(["--locale=C.UTF-8", "--locale-provider=icu"]);
        output(initdb.arg("--icu-locale=en-US"));
        server.start_again();
        server
    }

    /// A server without files.
    fn new(port: u16, on_tcp: bool) -> Self {
        let programs = programs().expect(
            "initdb is missing: this test runs its own PostgreSQL server; on Debian, apt-get \
             install postgresql",
        );
        let folder = tempfile::Builder::new()
            .prefix("pg")
            .tempdir_in(home())
            .unwrap();
        chown_to_other_user(folder.path());
        Self {
            folder,
            programs,
            port,
            on_tcp,
            keeper: Mutex::new(None),
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        as_other_user(&mut command);
        command.current_dir("/");
        command
    }

    /// Returns a command for one of PostgreSQL's client programs, connecting as the owner.
    fn client(&self, name: &str) -> Command {
        let mut client = self.program(name);
        client.arg("-h").arg(self.folder.path());
        client.args(["-p", &self.port.to_string(), "-U", OWNER]);
        client
    }

    /// Starts a server that was stopped or has crashed, and waits until it accepts connections.
    pub fn start_again(&self) {
        let mut child: Option<Child> = None;
        let up = eventually_within(PATIENCE * 3, || {
            let ended = |child: &mut Child| child.try_wait().unwrap().is_some();
            // A new server exits at once while the old one's shared memory is still in use; retry.
            if child.as_mut().is_none_or(ended) {
                child = Some(self.keep());
            }
            self.is_up().then_some(())
        });
        up.unwrap_or_else(|| panic!("the server does not answer: {}", self.log()));
        *self.keeper.lock().unwrap() = child;
    }

    fn keep(&self) -> Child {
        let mut keeper = Command::new("/bin/sh");
        as_other_user(&mut keeper);
        keeper.arg("-c").arg(KEEPER);
        keeper.arg(self.programs.join("postgres")).arg(self.data());
        keeper.arg(self.folder.path()).arg(self.port.to_string());
        keeper.arg(if self.on_tcp { "127.0.0.1" } else { "" });
        let keeper = keeper.current_dir("/").stdin(Stdio::piped());
        keeper.spawn().unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Whether it accepts connections.
    pub fn is_up(&self) -> bool {
        let mut asked = self.client("pg_isready");
        let asked = asked.args(["-q", "-t", "1", "-d", "postgres"]).status();
        asked.unwrap().success()
    }

    /// Returns the port. The server listens on it only if it was started with
    /// [`start_on_port`](Self::start_on_port).
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the path of its Unix socket.
    pub fn socket(&self) -> PathBuf {
        let name = format!(".s.PGSQL.{}", self.port);
        self.folder.path().join(name)
    }

    /// Returns the URL of a database, for the owner.
    pub fn address(&self, database: &str) -> String {
        self.address_for(OWNER, database)
    }

    /// Returns the URL of a database, for another role.
    pub fn address_for(&self, role: &str, database: &str) -> String {
        if self.on_tcp {
            let port = self.port;
            return format!("postgres://{role}@127.0.0.1:{port}/{database}?sslmode=disable");
        }
        let host = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgres://{role}@localhost/{database}?host={host}&sslmode=disable")
    }

    /// Creates a database and returns its URL.
    pub fn database(&self, name: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.address(name)
    }

    /// Executes a statement as the owner and returns the output of psql.
    pub fn sql(&self, database: &str, statement: &str) -> String {
        let mut psql = self.client("psql");
        psql.args(["-X", "-q", "-A", "-t", "-c", statement, database]);
        String::from_utf8(output(&mut psql)).unwrap()
    }

    /// Returns the dump of a database as SQL text.
    pub fn dump(&self, database: &str) -> Vec<u8> {
        output(self.client("pg_dump").arg(database))
    }

    /// Enables TLS for new connections, for the name `localhost`. Returns the path of the
    /// self-signed certificate.
    pub fn use_tls(&self) -> PathBuf {
        let certificate = self.folder.path().join("server.crt");
        let key = self.folder.path().join("server.key");
        let mut openssl = Command::new("openssl");
        as_other_user(&mut openssl);
        openssl.args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]);
        openssl.args([
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-subj",
            "/CN=localhost",
        ]);
        openssl.args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        openssl
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate);
        output(openssl.current_dir("/"));
        for (setting, path) in [("ssl_cert_file", &certificate), ("ssl_key_file", &key)] {
            let path = path.display();
            self.sql(
                "postgres",
                &format!("ALTER SYSTEM SET {setting} = '{path}'"),
            );
        }
        self.sql("postgres", "ALTER SYSTEM SET ssl = on");
        self.sql("postgres", "SELECT pg_reload_conf()");
        let on = || (self.sql("postgres", "SHOW ssl").trim() == "on").then_some(());
        eventually_within(PATIENCE, on).expect("the server does not enable TLS");
        certificate
    }

    /// Stops the server by an immediate shutdown, which notifies its clients.
    pub fn stop(&self) {
        if let Some(mut keeper) = self.keeper.lock().unwrap().take() {
            // Closing the pipe stops it.
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }

    /// Restarts it in standby mode, without a primary: it is read-only.
    pub fn become_a_replica(&self) {
        self.sql("postgres", "CHECKPOINT");
        self.stop();
        let signal = self.data().join("standby.signal");
        std::fs::write(&signal, "").unwrap();
        chown_to_other_user(&signal);
        self.start_again();
    }

    /// Kills every process of the server with `SIGKILL`.
    pub fn crash(&self) {
        if let Some(mut keeper) = self.keeper.lock().unwrap().take() {
            // Stopped first, so that it cannot start another process that would survive and keep
            // the shared memory in use.
            self.signal("STOP");
            self.signal("KILL");
            keeper.wait().unwrap();
        }
    }

    /// Suspends every process of the server: connections stay open, but nothing answers.
    pub fn pause(&self) {
        self.signal("STOP");
        // Again, for processes that started between listing and stopping.
        self.signal("STOP");
    }

    /// Resumes a paused server.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Sends a signal to every process of the server.
    fn signal(&self, name: &str) {
        let lock = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let server: u32 = lock.lines().next().unwrap().trim().parse().unwrap();
        let processes = [server].into_iter().chain(children_of(server));
        let mut kill = Command::new("kill");
        kill.arg(format!("-{name}"));
        kill.args(processes.map(|id| id.to_string()));
        // Some of its children may have exited by now.
        kill.stderr(Stdio::null()).status().unwrap();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Returns the folder for the servers' files: in memory if there is enough space, because creating
/// or removing a database copies or removes about 300 files.
fn home() -> &'static str {
    let mut df = Command::new("df");
    let df = df.args(["--output=avail", "-B1G", "/dev/shm"]).output();
    let text = df.map(|df| String::from_utf8_lossy(&df.stdout).into_owned());
    let free = text
        .ok()
        .and_then(|text| text.lines().last()?.trim().parse().ok());
    if free.is_some_and(|free: u32| free >= 8) {
        "/dev/shm"
    } else {
        "/tmp"
    }
}

/// Runs a command, asserts that it succeeds, and returns its stdout.
fn output(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Returns a port of 127.0.0.1 for a server of this process. No other test receives it, and no
/// outgoing connection, because it is below Linux's range of ephemeral ports.
///
/// A UDP socket on the same port, open for the lifetime of the process, marks it as taken.
pub fn free_port() -> u16 {
    static TAKEN: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    let first = RandomState::new().hash_one(std::process::id());
    for step in 0..u64::from(PORTS) {
        let port = FIRST_PORT + ((first % u64::from(PORTS) + step) % u64::from(PORTS)) as u16;
        let Ok(mark) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) else {
            continue;
        };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            TAKEN.lock().unwrap().push(mark);
            return port;
        }
    }
    panic!(
        "no port from {FIRST_PORT} to {} is free",
        FIRST_PORT + PORTS - 1
    );
}

fn children_of(parent: u32) -> Vec<u32> {
    let id_if_child = |entry: std::fs::DirEntry| {
        let id: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name in parentheses may contain any characters; the state and the parent follow it.
        let after_the_name = stat.rsplit_once(')')?.1;
        let of: u32 = after_the_name.split_whitespace().nth(1)?.parse().ok()?;
        (of == parent).then_some(id)
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(id_if_child).collect()
}

/// Returns the folder of the server's programs: the newest of Debian's folders, or the one on the
/// `PATH` that contains `initdb`.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    let versions = versions.into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = folders
        .into_iter()
        .rev()
        .chain(std::env::split_paths(&path));
    folders.find(|folder| folder.join("initdb").is_file())
}

/// Returns the user to run the server as if the test runs as root, which PostgreSQL refuses.
fn other_user() -> Option<(u32, u32)> {
    static OTHER: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *OTHER.get_or_init(|| {
        if id(&["-u"]) != Some(0) {
            return None;
        }
        let ids = |name| Some((id(&["-u", name])?, id(&["-g", name])?));
        let user = ["postgres", "nobody"].into_iter().find_map(ids);
        Some(user.expect("tests that run as root need a user named postgres or nobody"))
    })
}

/// Returns the output of the program `id`.
fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.trim().parse().ok()
}

/// Changes the owner of a file or folder to the user that the server runs as.
pub(crate) fn chown_to_other_user(path: &Path) {
    if let Some((user, group)) = other_user() {
        chown(path, Some(user), Some(group)).unwrap();
    }
}

pub(crate) fn as_other_user(command: &mut Command) {
    if let Some((user, group)) = other_user() {
        command.uid(user).gid(group);
    }
}
