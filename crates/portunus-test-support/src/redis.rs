//! Redis for one test: a server, a primary with Sentinels, a cluster. Servers are stopped when the
//! test ends, even if the test process is killed.
//!
//! `REDIS_SERVER` names the server to use, for example Valkey's; by default `redis-server` in `PATH`.
//! `redis-cli` is always the one in `PATH`.
//!
//! Every call blocks until it is done. Use [`Redis::cli`] for anything that has no method.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use crate::postgres::free_port;
use crate::wait::{PATIENCE, eventually_within};

/// Runs a server and exits with it, in the same way as in [`postgres`](crate::postgres). What would
/// kill the server ends with it, because its number may soon be another process's.
const KEEPER: &str = r#"exec 3<&0
folder=$1; shift
"$0" "$@" </dev/null >>"$folder/log" 2>&1 3<&- &
server=$!
echo $server >"$folder/pid"
{ read -r _ <&3; kill -KILL $server; } 2>/dev/null &
killer=$!
wait $server
kill -KILL $killer"#;

const MISSING: &str =
    "redis-server is missing: this test runs its own; on Debian, apt-get install redis-server";

/// A server on a port of 127.0.0.1, without persistence.
#[derive(Debug)]
pub struct Redis {
    folder: tempfile::TempDir,
    port: u16,
    options: Vec<String>,
    keeper: Mutex<Option<Child>>,
}

impl Redis {
    /// Starts a server.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a server with additional options, as on its command line.
    pub fn with(options: &[&str]) -> Self {
        Self::at(free_port(), options)
    }

    fn at(port: u16, options: &[&str]) -> Self {
        let folder = folder();
        let server = Self {
            folder,
            port,
            options: options.iter().map(|&option| option.to_owned()).collect(),
            keeper: Mutex::new(None),
        };
        server.start_again();
        server
    }

    /// Starts a server that was stopped or killed, and waits until it answers.
    pub fn start_again(&self) {
        let path = self.folder.path();
        let mut keeper = Command::new("/bin/sh");
        keeper.arg("-c").arg(KEEPER).arg(program()).arg(path);
        if self.is_sentinel() {
            // A Sentinel writes what it knows into its file.
            keeper.arg(path.join("sentinel.conf"));
        }
        keeper.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"]);
        keeper.arg("--dir").arg(path);
        if !self.is_sentinel() {
            keeper.args(["--save", "", "--appendonly", "no"]);
        }
        keeper.args(&self.options);
        keeper.current_dir("/").stdin(Stdio::piped());
        // The shell says that the server was killed.
        keeper.stderr(Stdio::null());
        *self.keeper.lock().unwrap() = Some(keeper.spawn().unwrap());
        let up = eventually_within(PATIENCE, || self.answers().then_some(()));
        assert!(up.is_some(), "redis-server does not answer: {}", self.log());
    }

    fn is_sentinel(&self) -> bool {
        self.options.iter().any(|option| option == "--sentinel")
    }

    /// Returns the path of a file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Whether it answers, if only that a password is needed.
    pub fn answers(&self) -> bool {
        let output = self.client(self.port).arg("ping").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        text.contains("PONG") || text.contains("NOAUTH")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns its address.
    pub fn address(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn client(&self, port: u16) -> Command {
        // A suspended server accepts connections and never answers.
        let mut client = Command::new("timeout");
        client.args(["5", "redis-cli", "-h", "127.0.0.1", "-p", &port.to_string()]);
        client.stdin(Stdio::null());
        client
    }

    /// Returns the output of redis-cli for a command.
    pub fn cli(&self, command: &[&str]) -> String {
        let output = self.client(self.port).args(command).output().unwrap();
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    }

    /// Returns all keys.
    pub fn keys(&self) -> Vec<String> {
        self.cli(&["keys", "*"])
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// Kills it. What it held is lost.
    pub fn crash(&self) {
        if let Some(mut keeper) = self.keeper.lock().unwrap().take() {
            drop(keeper.stdin.take());
            keeper.wait().unwrap();
        }
    }

    /// Suspends it: connections stay open, and new ones are accepted, but nothing answers.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Resumes it.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let pid = std::fs::read_to_string(self.path("pid")).unwrap();
        let mut kill = Command::new("kill");
        kill.arg(format!("-{name}")).arg(pid.trim());
        assert!(kill.status().unwrap().success(), "kill -{name} {pid}");
    }

    /// Returns its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.crash();
    }
}

/// A primary, two replicas and three Sentinels, which replace a primary that is gone for a second.
#[derive(Debug)]
pub struct Sentinels {
    pub servers: Vec<Redis>,
    pub sentinels: Vec<Redis>,
}

impl Sentinels {
    /// The name of the primary.
    pub const NAME: &str = "main";

    pub fn start() -> Self {
        let primary = Redis::start();
        let port = primary.port().to_string();
        let replica = || {
            let more = ["--repl-diskless-sync-delay", "0"];
            Redis::with(&[&["--replicaof", "127.0.0.1", &port][..], &more].concat())
        };
        primary.cli(&["config", "set", "repl-diskless-sync-delay", "0"]);
        let servers = vec![replica(), replica()];
        let replicates = |server: &Redis| server.cli(&["info"]).contains("master_link_status:up");
        for server in &servers {
            let up = eventually_within(PATIENCE, || replicates(server).then_some(()));
            assert!(up.is_some(), "no replication: {}", server.log());
        }
        let config = format!(
            "sentinel monitor {name} 127.0.0.1 {port} 2\n\
             sentinel down-after-milliseconds {name} 1000\n\
             sentinel failover-timeout {name} 3000\n",
            name = Self::NAME
        );
        let sentinel = |_| {
            let folder = folder();
            std::fs::write(folder.path().join("sentinel.conf"), &config).unwrap();
            let sentinel = Redis {
                folder,
                port: free_port(),
                options: vec!["--sentinel".to_owned()],
                keeper: Mutex::new(None),
            };
            sentinel.start_again();
            sentinel
        };
        let servers = std::iter::once(primary).chain(servers).collect();
        let all = Self {
            servers,
            sentinels: (0..3).map(sentinel).collect(),
        };
        // They find each other, and the replicas, through the primary.
        let knows = |sentinel: &Redis| {
            let about = sentinel.cli(&["sentinel", "master", Self::NAME]);
            let fields: Vec<&str> = about.lines().collect();
            let has = |name: &str, value: &str| {
                let mut pairs = fields.chunks(2);
                pairs.any(|pair| pair == [name, value])
            };
            has("num-other-sentinels", "2") && has("num-slaves", "2")
        };
        for sentinel in &all.sentinels {
            let up = eventually_within(PATIENCE, || knows(sentinel).then_some(()));
            assert!(up.is_some(), "a Sentinel alone: {}", sentinel.log());
        }
        all
    }

    /// Returns the primary that the first Sentinel names.
    pub fn primary(&self) -> &Redis {
        let asked = ["sentinel", "get-master-addr-by-name", Self::NAME];
        let named = self.sentinels[0].cli(&asked);
        let port: u16 = named.lines().last().unwrap().parse().unwrap();
        let mut servers = self.servers.iter();
        servers.find(|server| server.port() == port).unwrap()
    }

    /// Returns the addresses of the Sentinels.
    pub fn addresses(&self) -> Vec<String> {
        self.sentinels.iter().map(Redis::address).collect()
    }
}

/// A cluster of three primaries, or of three with a replica each.
#[derive(Debug)]
pub struct Cluster {
    pub nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts three primaries.
    pub fn start() -> Self {
        Self::with_replicas(0)
    }

    /// Starts three primaries and this number of replicas of each.
    pub fn with_replicas(replicas: usize) -> Self {
        let node = |_| {
            let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
            let more = ["--repl-diskless-sync-delay", "0"];
            if is_older_than_7() {
                // Its bus is 10 000 above its port, and below the ports of outgoing connections.
                let mut ports = std::iter::repeat_with(free_port);
                let port = ports.find(|&port| port < 22_768).unwrap();
                return Redis::at(port, &[&options[..], &more].concat());
            }
            let bus = free_port().to_string();
            Redis::with(&[&options[..], &more, &["--cluster-port", &bus]].concat())
        };
        let cluster = Self {
            nodes: (0..3 * (1 + replicas)).map(node).collect(),
        };
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]);
        create.args(
            cluster
                .nodes
                .iter()
                .map(|node| format!("127.0.0.1:{}", node.port())),
        );
        create.args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"]);
        let output = create.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "redis-cli --cluster create: {said}"
        );
        cluster.until_ok();
        cluster
    }

    /// Waits until all nodes say that the cluster is complete.
    pub fn until_ok(&self) {
        for node in &self.nodes {
            let is_ok = || node.cli(&["cluster", "info"]).contains("cluster_state:ok");
            let up = eventually_within(PATIENCE, || is_ok().then_some(()));
            assert!(up.is_some(), "the cluster is not complete: {}", node.log());
        }
    }

    /// Returns the addresses of the nodes.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::address).collect()
    }
}

/// Returns a new folder, which is removed when this is dropped.
pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("redis").tempdir().unwrap()
}

fn is_older_than_7() -> bool {
    let version = Command::new(program()).arg("--version").output().unwrap();
    String::from_utf8_lossy(&version.stdout).contains("v=6.")
}

/// Returns the path of the program: that of `REDIS_SERVER`, or of `redis-server` in `PATH`.
fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("REDIS_SERVER") {
        let program = PathBuf::from(program);
        let is_there = program.is_file();
        assert!(is_there, "REDIS_SERVER: {} is not there", program.display());
        return program;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path);
    let found = folders.find(|folder| folder.join("redis-server").is_file());
    found.expect(MISSING).join("redis-server")
}
