//! A PostgreSQL server of the tests' own: started on a socket in a folder that nobody else uses,
//! and gone with the test, however that ends.

use std::io::Write;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};

/// Runs a server and ends with it. It ends the server at once when the pipe that it reads from
/// closes: at the latest, when the test's process ends.
const KEEPER: &str = r#"exec 3<&0
"$0" -D "$1" -k "$2" -c listen_addresses= -c max_connections=120 </dev/null >>"$2/log" 2>&1 3<&- &
server=$!
{ read -r _ <&3; kill -QUIT $server 2>/dev/null; } &
wait $server"#;

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    folder: tempfile::TempDir,
    programs: Option<PathBuf>,
    keeper: Mutex<Option<Child>>,
}

impl Server {
    /// Makes a cluster and starts it.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("pg")
            .tempdir_in("/tmp")
            .unwrap();
        let server = Self {
            folder,
            programs: programs(),
            keeper: Mutex::new(None),
        };
        if let Some((user, group)) = other_user() {
            chown(server.folder.path(), Some(user), Some(group)).unwrap();
        }
        // Another order of letters than that of bytes, as most databases have.
        let made = server
            .program("initdb")
            .arg("-D")
            .arg(server.data())
            .args(["-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync"])
            .args([
                "--locale=C.UTF-8",
                "--locale-provider=icu",
                "--icu-locale=en-US",
            ])
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        server.run().await;
        server
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let folder = self.programs.as_ref().unwrap_or_else(|| {
            panic!(
                "{name} is missing: these tests run a PostgreSQL server of their own, which \
                 Debian's package postgresql brings"
            )
        });
        let mut command = Command::new(folder.join(name));
        as_other_user(&mut command);
        command.current_dir("/");
        command
    }

    /// Starts the server, and waits until it answers.
    pub(crate) async fn run(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let postgres = self.programs.as_ref().unwrap().join("postgres");
        loop {
            let mut keeper = Command::new("/bin/sh");
            as_other_user(&mut keeper);
            keeper
                .arg("-c")
                .arg(KEEPER)
                .arg(&postgres)
                .arg(self.data())
                .arg(self.folder.path())
                .current_dir("/");
            let mut child = keeper.stdin(Stdio::piped()).spawn().unwrap();
            // While the old server's memory is still in use, a new one ends at once: then once
            // more.
            while child.try_wait().unwrap().is_none() {
                if self.is_up().await {
                    *self.keeper.lock().unwrap() = Some(child);
                    return;
                }
                assert!(
                    Instant::now() < deadline,
                    "the server does not answer: {}",
                    self.log()
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(
                Instant::now() < deadline,
                "the server does not start: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    async fn is_up(&self) -> bool {
        PgConnection::connect(&self.address("postgres"))
            .await
            .is_ok()
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join(".s.PGSQL.5432")
    }

    /// The address of one of its databases.
    pub(crate) fn address(&self, database: &str) -> String {
        let host = self.folder.path().display().to_string().replace('/', "%2F");
        format!("postgres://tester@localhost/{database}?host={host}&sslmode=disable")
    }

    pub(crate) async fn connection(&self, database: &str) -> PgConnection {
        PgConnection::connect(&self.address(database))
            .await
            .unwrap()
    }

    /// A backup of one of its databases, as text.
    pub(crate) fn dump(&self, database: &str) -> Vec<u8> {
        let dumped = self
            .program("pg_dump")
            .arg("-h")
            .arg(self.folder.path())
            .args(["-U", "tester", database])
            .output()
            .unwrap();
        assert!(
            dumped.status.success(),
            "pg_dump: {}",
            String::from_utf8_lossy(&dumped.stderr)
        );
        dumped.stdout
    }

    /// Ends the server in order.
    pub(crate) fn stop(&self) {
        if let Some(mut keeper) = self.keeper.lock().unwrap().take() {
            // A line, or the end of the pipe: both end it.
            let _ = keeper.stdin.take().map(|mut pipe| pipe.write_all(b"\n"));
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

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
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
    folders
        .into_iter()
        .rev()
        .chain(std::env::split_paths(&path))
        .find(|folder| folder.join("initdb").is_file())
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
