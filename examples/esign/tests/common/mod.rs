//! Starts a real `esign` process, which is stopped when the test ends, and provides the calls that
//! most tests use.
//!
//! Expectations belong to the tests: this module only starts, sends, reads and stops. All waiting
//! has a time limit.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test program uses a part of it"
)]
#![allow(
    clippy::print_stdout,
    reason = "measured figures belong to the output of a test"
)]

mod http;
pub(crate) mod manage;
pub(crate) mod nodes;
pub(crate) mod stores;

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use portunus_test_support::disk::Disk;
pub(crate) use portunus_test_support::text::hex;
pub(crate) use portunus_test_support::wait::{PATIENCE, eventually, until};

pub(crate) use http::{Answer, Call, Connection, exchange, read_answer};

/// Uses and requests are dated by the last tick of the kernel, at most 10 ms ago, in whole
/// milliseconds.
pub(crate) const TICK: jiff::SignedDuration = jiff::SignedDuration::from_millis(11);

/// A UUID of a user that does not exist.
pub(crate) const NOBODY: &str = "00000000-0000-4000-8000-000000000000";
/// Users of the tenant `tenant_abc123`.
pub(crate) const USER: &str = "550e8400-e29b-41d4-a716-446655440000";
pub(crate) const PLATFORM: &str = "9b2f0c1e-3d4a-4f5b-8c6d-7e8f90a1b2c3";
pub(crate) const MEMBER: &str = "7d444840-9dc0-11d1-b245-5ffdce74fad2";
pub(crate) const MEMBER_EMAIL: &str = "member@example.com";
/// A user of the other tenant, `tenant_xyz789`.
pub(crate) const OUTSIDER: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";

/// A running server process.
pub(crate) struct Server {
    process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) ready: Value,
    pub(crate) profile: String,
}

impl Server {
    /// Starts a server of this profile with the memory store, on its own port.
    pub(crate) fn of(profile: &str) -> Self {
        Self::start(profile, &[], &[])
    }

    /// Starts a server with additional flags and environment variables.
    pub(crate) fn start(profile: &str, flags: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_on("memory", profile, flags, variables)
    }

    /// Starts a server on this store.
    pub(crate) fn start_on(
        store: &str,
        profile: &str,
        flags: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let all = [
            &["--profile", profile, "--ready-json", "--store", store][..],
            flags,
        ]
        .concat();
        Self::ready(profile, Process::start(&all, variables))
    }

    /// Starts a server with only the profile set.
    pub(crate) fn on(store: &str, profile: &str) -> Self {
        Self::start_on(store, profile, &[], &[])
    }

    /// Waits until a process that was just started is ready.
    pub(crate) fn ready(profile: &str, process: Process) -> Self {
        let line = process
            .stdout
            .first_line()
            .unwrap_or_else(|| panic!("not ready: {}", process.stderr.text()));
        let ready: Value = serde_json::from_str(&line).unwrap();
        let address = ready["url"]
            .as_str()
            .unwrap()
            .strip_prefix("http://")
            .unwrap()
            .parse()
            .unwrap();
        Self {
            process,
            address,
            ready,
            profile: profile.to_owned(),
        }
    }

    /// Sends a call on its own connection and returns the response.
    pub(crate) fn send(&self, call: &Call) -> Answer {
        let asked = Instant::now();
        self.try_send(call).unwrap_or_else(|| {
            let (waited, log) = (asked.elapsed(), self.log());
            panic!(
                "no answer to {} {} in {waited:?}; log: {log}",
                call.method, call.target
            )
        })
    }

    /// Sends a call and returns the response, or `None` if the connection ended without one.
    pub(crate) fn try_send(&self, call: &Call) -> Option<Answer> {
        let bytes = http::exchange(self.address, &call.bytes());
        read_answer(&bytes, call.method == "HEAD").map(|(answer, rest)| {
            assert!(
                rest.is_empty(),
                "more than one answer: {}",
                String::from_utf8_lossy(rest)
            );
            answer
        })
    }

    /// Sends raw bytes and returns everything that is received until the connection ends.
    pub(crate) fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        http::exchange(self.address, bytes)
    }

    /// Builds `GET target` with this key, presented as in the profile's API.
    pub(crate) fn get(&self, target: &str, key: &str) -> Answer {
        self.send(&self.with_key(Call::get(target), key))
    }

    /// Adds this API key to a call.
    pub(crate) fn with_key(&self, call: Call, key: &str) -> Call {
        match self.profile.as_str() {
            "dropbox-sign" => call.basic(format!("{key}:")),
            _ => call.bearer(key),
        }
    }

    /// Returns the token of `owner`, `admin`, `member` or `outsider`.
    pub(crate) fn operator(&self, name: &str) -> String {
        self.ready["operators"][name].as_str().unwrap().to_owned()
    }

    /// Sends a management call as this operator; the content is JSON unless the call sets another
    /// type.
    pub(crate) fn admin(&self, operator: &str, call: Call) -> Answer {
        let call = call.typed().under("/admin");
        self.send(&call.bearer(&self.operator(operator)))
    }

    /// Issues a key as the owner. `name` is filled in.
    pub(crate) fn issue(&self, body: Value) -> Issued {
        self.issue_as("owner", body)
    }

    /// Issues a key as this operator.
    pub(crate) fn issue_as(&self, operator: &str, mut body: Value) -> Issued {
        if body.get("name").is_none() {
            body["name"] = "a key".into();
        }
        let answer = self.admin(operator, Call::post("/keys").json(&body));
        assert_eq!(answer.status, 201, "{body}: {}", answer.text());
        let answer = answer.json();
        Issued {
            key: answer["key"].as_str().unwrap().to_owned(),
            record: answer["record"].clone(),
        }
    }

    /// Issues a key with these scopes.
    pub(crate) fn issue_scoped(&self, scopes: &[&str]) -> Issued {
        self.issue(json!({ "scopes": scopes }))
    }

    /// Revokes a key as the owner.
    pub(crate) fn revoke(&self, id: &str) -> Answer {
        self.admin("owner", Call::post(&format!("/keys/{id}/revoke")))
    }

    /// Returns one record as the owner sees it.
    pub(crate) fn record(&self, id: &str) -> Value {
        let answer = self.admin("owner", Call::get(&format!("/keys/{id}")));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Asserts that the server still responds.
    pub(crate) fn assert_alive(&self) {
        let answer = self.send(&Call::get("/healthz"));
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, r#"{"status":"ok"}"#)
        );
    }

    /// Returns the process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Sends the process a signal such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Waits for the process to exit.
    pub(crate) fn wait(self) -> Ended {
        self.process.wait()
    }

    /// Kills the process.
    pub(crate) fn kill(mut self) {
        self.process.child.kill().unwrap();
        self.process.child.wait().unwrap();
    }

    /// Returns its log so far.
    pub(crate) fn log(&self) -> String {
        self.process.stderr.text()
    }

    /// Stops the process and waits until it has exited.
    pub(crate) fn stop(self) -> Ended {
        self.process.signal("TERM");
        self.wait()
    }
}

/// A key that was just issued.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) key: String,
    pub(crate) record: Value,
}

impl Issued {
    pub(crate) fn id(&self) -> &str {
        self.record["id"].as_str().unwrap()
    }
}

/// Runs this many actions that start at the same time, each with its number, and returns their
/// results.
pub(crate) fn at_once<T: Send>(count: usize, act: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let (barrier, act) = (Barrier::new(count), &act);
    thread::scope(|scope| {
        let begin = |number| {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                act(number)
            })
        };
        let threads: Vec<_> = (0..count).map(begin).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

/// Whether the demo runs on actix-web: the same tests run with either framework, selected by
/// `ESIGN_TEST_ADAPTER=actix`.
pub(crate) fn on_actix() -> bool {
    std::env::var("ESIGN_TEST_ADAPTER").is_ok_and(|adapter| adapter == "actix")
}

/// Asserts a refusal: its status, media type, body, challenges, and `Cache-Control: no-store`.
#[track_caller]
pub(crate) fn assert_refused(
    answer: &Answer,
    status: u16,
    media: &str,
    body: &str,
    challenges: &[&str],
) {
    assert_eq!(answer.text(), body);
    assert_eq!(answer.status, status);
    assert_eq!(answer.fields("content-type"), [media]);
    assert_eq!(answer.fields("www-authenticate"), challenges);
    assert_eq!(answer.fields("cache-control"), ["no-store"]);
    assert_eq!(answer.fields("content-length"), [body.len().to_string()]);
}

/// A process of the program under test. It is killed when it is dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) stdout: Tap,
    pub(crate) stderr: Tap,
    /// Its working directory, unless the test has its own; removed with its files.
    folder: Option<tempfile::TempDir>,
}

/// How a process ended, and its complete output.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Process {
    /// Starts a process with these flags. By default, it listens on a free port.
    pub(crate) fn start(flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Self::start_in(folder.path(), flags, variables);
        process.folder = Some(folder);
        process
    }

    /// Starts a process in this folder.
    pub(crate) fn start_in(folder: &Path, flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let command = Command::new(env!("CARGO_BIN_EXE_esign"));
        Self::spawn(command, folder, flags, variables)
    }

    /// Starts a process whose files are limited to this many bytes, as if the disk were full.
    pub(crate) fn start_in_a_full(folder: &Path, bytes: u64, flags: &[&str]) -> Self {
        let mut command = Command::new("sh");
        let blocks = bytes.div_ceil(512);
        let script = format!(r#"trap "" XFSZ; ulimit -f {blocks}; exec "$0" "$@""#);
        command.args(["-c", &script, env!("CARGO_BIN_EXE_esign")]);
        Self::spawn(command, folder, flags, &[])
    }

    /// Starts a process on a disk that can be filled.
    pub(crate) fn start_on_disk(disk: &Disk, flags: &[&str]) -> Self {
        let command = disk.command(env!("CARGO_BIN_EXE_esign"));
        Self::spawn(command, disk.path(), flags, &[])
    }

    fn spawn(
        mut command: Command,
        folder: &Path,
        flags: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        for inherited in ["RUST_LOG", "OWNER", "ADMIN", "MEMBER", "OUTSIDER"] {
            let name = if inherited == "RUST_LOG" {
                inherited.into()
            } else {
                format!("ESIGN_OPERATOR_{inherited}")
            };
            command.env_remove(name);
        }
        if !flags.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        if on_actix() && !flags.contains(&"--adapter") {
            command.args(["--adapter", "actix"]);
        }
        command
            .current_dir(folder)
            .args(flags)
            .envs(variables.iter().copied());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = Tap::of(child.stdout.take().unwrap());
        let stderr = Tap::of(child.stderr.take().unwrap());
        Self {
            child,
            stdout,
            stderr,
            folder: None,
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status()
            .unwrap();
        assert!(sent.success(), "kill -{name} {pid}");
    }

    /// Waits until the process has exited by itself.
    pub(crate) fn wait(mut self) -> Ended {
        let status = eventually(|| self.child.try_wait().unwrap())
            .unwrap_or_else(|| panic!("the process does not exit; stderr: {}", self.stderr.text()));
        Ended {
            code: status.code(),
            stdout: self.stdout.whole(),
            stderr: self.stderr.whole(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The output of a pipe so far. A thread reads it, so that the process never blocks on us.
#[derive(Clone, Default)]
pub(crate) struct Tap {
    shared: Arc<(Mutex<Brought>, Condvar)>,
}

#[derive(Default)]
struct Brought {
    bytes: Vec<u8>,
    ended: bool,
}

impl Tap {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let tap = Self::default();
        let shared = Arc::clone(&tap.shared);
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            loop {
                let read = pipe.read(&mut buffer).unwrap_or(0);
                let mut brought = shared.0.lock().unwrap();
                brought.bytes.extend_from_slice(&buffer[..read]);
                brought.ended = read == 0;
                shared.1.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        tap
    }

    /// Waits until `enough` holds for the output, or the pipe is closed, and returns which.
    pub(crate) fn wait_for(&self, enough: impl Fn(&str) -> bool) -> bool {
        let there = |brought: &Brought| enough(&String::from_utf8_lossy(&brought.bytes));
        let lock = self.shared.0.lock().unwrap();
        let waited = self
            .shared
            .1
            .wait_timeout_while(lock, PATIENCE, |brought| !there(brought) && !brought.ended);
        there(&waited.unwrap().0)
    }

    fn first_line(&self) -> Option<String> {
        self.wait_for(|text| text.contains('\n'))
            .then(|| self.text().lines().next().unwrap().to_owned())
    }

    /// Returns the output so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.shared.0.lock().unwrap().bytes).into_owned()
    }

    fn whole(&self) -> String {
        self.wait_for(|_| false);
        self.text()
    }
}
