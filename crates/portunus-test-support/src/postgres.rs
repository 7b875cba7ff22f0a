//! A PostgreSQL server of a test's own: in a folder that nobody else uses, and gone with the test,
//! however that ends.
//!
//! Every call blocks until it is done. [`Postgres::sql`] reaches whatever has no call of its own:
//! roles, settings, other databases.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use crate::wait::{PATIENCE, eventually_within};

/// Runs a server and ends with it. It ends the server at once when the pipe that it reads from
/// closes: at the latest, when the test's process ends. A server that stands still must go on to
/// end. It never waits for the disk: its processes are killed in tests, the system is not, so that
/// what was written is there.
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
/// Where a server listens that is not reached by TCP: part of the name of its socket only.
const USUAL_PORT: u16 = 5432;
/// The ports that tests give their servers.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 8_000;

/// A server of databases.
#[derive(Debug)]
pub struct Postgres {
    folder: tempfile::TempDir,
    programs: PathBuf,
    port: u16,
    /// Whether it listens on the port, too, and not only on its socket.
    on_tcp: bool,
    keeper: Mutex<Option<Child>>,
}

impl Postgres {
    /// Makes a cluster and starts it on a socket.
    pub fn start() -> Self {
        Self::start_with(USUAL_PORT, false)
    }

    /// The same on this port of 127.0.0.1, too. A free one is taken for 0.
    pub fn start_on_port(port: u16) -> Self {
        let port = if port == 0 { free_port() } else { port };
        Self::start_with(port, true)
    }

    fn start_with(port: u16, on_tcp: bool) -> Self {
        let programs = programs().expect(
            "initdb is missing: this test runs a PostgreSQL server of its own, which Debian's \
             package postgresql brings",
        );
        let folder = tempfile::Builder::new()
            .prefix("pg")
            .tempdir_in(home())
            .unwrap();
        chown_to_other_user(folder.path());
        let server = Self {
            folder,
            programs,
            port,
            on_tcp,
            keeper: Mutex::new(None),
        };
        let mut initdb = server.program("initdb");
        initdb.arg("-D").arg(server.data());
        initdb.args(["-U", OWNER, "-A", "trust", "-E", "UTF8", "--no-sync"]);
        // Another order of letters than that of bytes, as most databases have.
        initdb.args(["--locale=C.UTF-8", "--locale-provider=icu"]);
        output(initdb.arg("--icu-locale=en-US"));
        server.start_again();
        server
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

    /// One of its clients, as the owner.
    fn client(&self, name: &str) -> Command {
        let mut client = self.program(name);
        client.arg("-h").arg(self.folder.path());
        client.args(["-p", &self.port.to_string(), "-U", OWNER]);
        client
    }

    /// Starts a server that was stopped or has crashed, and waits until it takes connections.
    pub fn start_again(&self) {
        let mut child: Option<Child> = None;
        let up = eventually_within(PATIENCE * 3, || {
            let ended = |child: &mut Child| child.try_wait().unwrap().is_some();
            // While the old server's memory is still in use, a new one ends at once: then once
            // more.
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

    /// Whether it takes connections.
    pub fn is_up(&self) -> bool {
        let mut asked = self.client("pg_isready");
        let asked = asked.args(["-q", "-t", "1", "-d", "postgres"]).status();
        asked.unwrap().success()
    }

    /// The port, which it listens on if it was started on one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        let name = format!(".s.PGSQL.{}", self.port);
        self.folder.path().join(name)
    }

    /// The address of one of its databases, for the owner.
    pub fn address(&self, database: &str) -> String {
        self.address_for(OWNER, database)
    }

    /// The same for another role.
    pub fn address_for(&self, role: &str, database: &str) -> String {
        if self.on_tcp {
            let port = self.port;
            return format!("postgres://{role}@127.0.0.1:{port}/{database}?sslmode=disable");
        }
        let host = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgres://{role}@localhost/{database}?host={host}&sslmode=disable")
    }

    /// A new database: its address.
    pub fn database(&self, name: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.address(name)
    }

    /// What a statement of the owner answers, as text.
    pub fn sql(&self, database: &str, statement: &str) -> String {
        let mut psql = self.client("psql");
        psql.args(["-X", "-q", "-A", "-t", "-c", statement, database]);
        String::from_utf8(output(&mut psql)).unwrap()
    }

    /// A backup of one of its databases, as text.
    pub fn dump(&self, database: &str) -> Vec<u8> {
        output(self.client("pg_dump").arg(database))
    }

    /// Serves TLS, too, to clients that connect from now on, as `localhost`; says where its
    /// certificate is, which it has signed itself.
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
        eventually_within(PATIENCE, on).expect("the server serves no TLS");
        certificate
    }

    /// Ends the server by an immediate shutdown: its clients are told.
    pub fn stop(&self) {
        if let Some(mut keeper) = self.keeper.lock().unwrap().take() {
            // The end of its pipe ends it.
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }

    /// Starts it again as the replica of no server: it may be read.
    pub fn become_a_replica(&self) {
        self.sql("postgres", "CHECKPOINT");
        self.stop();
        let signal = self.data().join("standby.signal");
        std::fs::write(&signal, "").unwrap();
        chown_to_other_user(&signal);
        self.start_again();
    }

    /// Ends every process of the server in the middle of whatever it does, by `kill -9`.
    pub fn crash(&self) {
        if let Some(mut keeper) = self.keeper.lock().unwrap().take() {
            // Stopped, it begins no other process that would be left, and keep its memory.
            self.signal("STOP");
            self.signal("KILL");
            keeper.wait().unwrap();
        }
    }

    /// Stops every process where it is, as a host does that is suspended: connections stay, and
    /// nothing answers.
    pub fn pause(&self) {
        self.signal("STOP");
        // Whatever was begun between looking for its processes and stopping them.
        self.signal("STOP");
    }

    /// What was paused goes on.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Sends every process of the server a signal.
    fn signal(&self, name: &str) {
        let lock = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let server: u32 = lock.lines().next().unwrap().trim().parse().unwrap();
        let processes = [server].into_iter().chain(children_of(server));
        let mut kill = Command::new("kill");
        kill.arg(format!("-{name}"));
        kill.args(processes.map(|id| id.to_string()));
        // Some of its children may have ended by now.
        kill.stderr(Stdio::null()).status().unwrap();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Where servers keep their files: in memory where that has room for many of them, as making and
/// removing a database is to copy and to remove some 300 files.
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

/// What a program writes that succeeds.
fn output(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// A port of 127.0.0.1 for a server of this process alone: no other test is given it, and no
/// outgoing connection, since it is below the range that Linux takes those from.
///
/// The UDP socket of the same number, kept for the life of the process, marks it as taken.
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
        // The name, in parentheses, may hold anything; state and parent follow it.
        let after_the_name = stat.rsplit_once(')')?.1;
        let of: u32 = after_the_name.split_whitespace().nth(1)?.parse().ok()?;
        (of == parent).then_some(id)
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(id_if_child).collect()
}

/// Where the server's programs are: in the newest of Debian's folders, or wherever `initdb` is
/// found.
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

/// PostgreSQL refuses to run as root: then it runs as another user.
fn other_user() -> Option<(u32, u32)> {
    static OTHER: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *OTHER.get_or_init(|| {
        if id(&["-u"]) != Some(0) {
            return None;
        }
        let ids = |name| Some((id(&["-u", name])?, id(&["-g", name])?));
        let user = ["postgres", "nobody"].into_iter().find_map(ids);
        Some(user.expect("tests as root need a user postgres or nobody"))
    })
}

/// What the program `id` says.
fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.trim().parse().ok()
}

/// Gives a file or folder to whoever the server runs as.
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
