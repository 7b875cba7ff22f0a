//! A PostgreSQL server of the test's own: on a socket in a folder that nobody else uses, and gone
//! with the test, however that ends.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// Runs a server and ends with it. It ends the server at once when the pipe that it reads from
/// closes: at the latest, when the test's process ends. After a crash it does not begin with a look
/// at every file: the system did not crash.
const KEEPER: &str = concat!(
    r#"exec 3<&0
"$0" -D "$1" -k "$2" -c listen_addresses= -c max_connections=120"#,
    r#" -c recovery_init_sync_method=syncfs </dev/null >>"$2/log" 2>&1 3<&- &
server=$!
{ read -r _ <&3; kill -QUIT $server 2>/dev/null; } &
wait $server"#
);

/// A server of databases.
pub(crate) struct Postgres {
    folder: tempfile::TempDir,
    programs: PathBuf,
    keeper: Mutex<Option<Child>>,
}

impl Postgres {
    /// Makes a cluster and starts it.
    pub(crate) fn start() -> Self {
        let programs = programs().expect(
            "initdb is missing: this test runs a PostgreSQL server of its own, which Debian's \
             package postgresql brings",
        );
        let folder = tempfile::Builder::new()
            .prefix("pg")
            .tempdir_in("/tmp")
            .unwrap();
        let server = Self {
            folder,
            programs,
            keeper: Mutex::new(None),
        };
        if let Some((user, group)) = other_user() {
            chown(server.folder.path(), Some(user), Some(group)).unwrap();
        }
        let data = server.data();
        let flags = [
            "-U",
            "tester",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
            "--locale=C.UTF-8",
            "-D",
        ];
        server.run(
            "initdb",
            &[&flags[..], &[&*data.to_string_lossy()]].concat(),
        );
        server.resume();
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

    /// What one of its programs writes.
    fn run(&self, name: &str, flags: &[&str]) -> Vec<u8> {
        let output = self.program(name).args(flags).output().unwrap();
        assert!(
            output.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    fn folder(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    /// Starts the server again, and waits until it takes connections.
    pub(crate) fn resume(&self) {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let mut keeper = Command::new("/bin/sh");
            as_other_user(&mut keeper);
            keeper
                .arg("-c")
                .arg(KEEPER)
                .arg(self.programs.join("postgres"))
                .arg(self.data())
                .arg(self.folder.path());
            let mut child = keeper
                .current_dir("/")
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            // While the old server's memory is still in use, a new one ends at once: then once
            // more.
            while child.try_wait().unwrap().is_none() {
                if self.is_up() {
                    *self.keeper.lock().unwrap() = Some(child);
                    return;
                }
                assert!(
                    Instant::now() < until,
                    "the server does not answer: {}",
                    self.log()
                );
                thread::sleep(Duration::from_millis(10));
            }
            assert!(
                Instant::now() < until,
                "the server does not start: {}",
                self.log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn is_up(&self) -> bool {
        let asked = self
            .program("pg_isready")
            .args(["-q", "-h", self.folder(), "-U", "tester", "-d", "postgres"])
            .status();
        asked.unwrap().success()
    }

    /// A new database, as the flag `--store` takes it.
    pub(crate) fn database(&self, name: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        let host = self.folder().replace('/', "%2F");
        format!("postgres://tester@localhost/{name}?host={host}&sslmode=disable")
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join(".s.PGSQL.5432")
    }

    /// What a statement answers, as text.
    pub(crate) fn sql(&self, database: &str, statement: &str) -> String {
        let told = self.run(
            "psql",
            &[
                "-X",
                "-q",
                "-A",
                "-t",
                "-h",
                self.folder(),
                "-U",
                "tester",
                "-c",
                statement,
                database,
            ],
        );
        String::from_utf8(told).unwrap()
    }

    /// A backup of one of its databases, as text.
    pub(crate) fn dump(&self, database: &str) -> Vec<u8> {
        self.run("pg_dump", &["-h", self.folder(), "-U", "tester", database])
    }

    /// Ends the server in order.
    pub(crate) fn stop(&self) {
        if let Some(mut keeper) = self.keeper.lock().unwrap().take() {
            // The end of its pipe ends it.
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }

    /// Ends every process of the server in the middle of whatever it does.
    pub(crate) fn crash(&self) {
        if let Some(mut keeper) = self.keeper.lock().unwrap().take() {
            let lock = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
            let server: u32 = lock.lines().next().unwrap().trim().parse().unwrap();
            let processes = [server]
                .into_iter()
                .chain(children_of(server))
                .map(|id| id.to_string());
            // Some of its children may have ended by now.
            Command::new("kill")
                .arg("-9")
                .args(processes)
                .stderr(Stdio::null())
                .status()
                .unwrap();
            keeper.wait().unwrap();
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

fn children_of(parent: u32) -> Vec<u32> {
    let id_if_child = |entry: std::fs::DirEntry| {
        let id: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name, in parentheses, may hold anything; state and parent follow it.
        let of: u32 = stat
            .rsplit_once(')')?
            .1
            .split_whitespace()
            .nth(1)?
            .parse()
            .ok()?;
        (of == parent).then_some(id)
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(id_if_child)
        .collect()
}

/// Where the server's programs are: in the newest of Debian's folders, or wherever `initdb` is
/// found.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has_all = |folder: &Path| folder.join("initdb").is_file();
    folders
        .into_iter()
        .rev()
        .chain(std::env::split_paths(&path))
        .find(|folder| has_all(folder))
}

/// PostgreSQL refuses to run as root: then it runs as another user.
fn other_user() -> Option<(u32, u32)> {
    let ask = |arguments: &[&str]| {
        let told = Command::new("id")
            .args(arguments)
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        String::from_utf8_lossy(&told.stdout)
            .trim()
            .parse::<u32>()
            .ok()
    };
    if ask(&["-u"]) != Some(0) {
        return None;
    }
    let user = ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| Some((ask(&["-u", name])?, ask(&["-g", name])?)));
    Some(user.expect("tests as root need a user postgres or nobody"))
}

fn as_other_user(command: &mut Command) {
    if let Some((user, group)) = other_user() {
        command.uid(user).gid(group);
    }
}
