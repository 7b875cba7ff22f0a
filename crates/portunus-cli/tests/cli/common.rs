//! Runs the program, and serves a management API to it.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use async_trait::async_trait;
use axum::Router;
use axum::http::request::Parts;
use portunus::manage::{Operator, Role};
use portunus::{AuthError, ErrorCode, Portunus};
use portunus_admin::{Admin, OperatorProof};
use portunus_sqlx::SqliteStore;
use portunus_test_support::{format, tenant, user};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The operator's token; no output may contain it.
pub(crate) const TOKEN: &str = "op_hunter2_0123456789";

/// The description of a service with the format of the tests.
pub(crate) const SERVICE: &str = r#"
own_bus = false
environments = ["live", "test"]
[format]
prefix = "acme_"
environments = { live = "live", test = "test" }
kinds = { sk = "app", user_sk = "user" }
checksum = "crc32-base62"
"#;

/// A folder with a description of the service, and where the keys are.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
    pub(crate) store: String,
    variables: Vec<(String, String)>,
}

impl Place {
    /// A SQLite file with a schema.
    pub(crate) fn sqlite() -> Self {
        let place = Self::at("");
        let path = place.folder.path().join("keys.db");
        let place = Self {
            store: format!("sqlite:{}", path.display()),
            ..place
        };
        place.done(&["migrate"]);
        place
    }

    /// An address.
    pub(crate) fn at(store: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("service.toml"), SERVICE).unwrap();
        Self {
            folder,
            store: store.to_owned(),
            variables: Vec::new(),
        }
    }

    /// A management API, with the operator's token.
    pub(crate) fn over_http(server: &Server) -> Self {
        Self::at(&server.address).with("PORTUNUS_TOKEN", TOKEN)
    }

    pub(crate) fn with(mut self, variable: &str, value: &str) -> Self {
        self.variables.push((variable.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.store.strip_prefix("sqlite:").unwrap().into()
    }

    /// A command with nothing in its environment but what is meant.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portunus"));
        command
            .env_clear()
            .env("USER", "ann")
            .env("PORTUNUS_STORE", &self.store);
        command.env("HOME", self.folder.path());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.args(arguments).current_dir(self.folder.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        Run::of(self.command(arguments).output().unwrap())
    }

    pub(crate) fn run_with(&self, arguments: &[&str], stdin: &str) -> Run {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        // It may have ended without reading.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        Run::of(child.wait_with_output().unwrap())
    }

    /// Runs a command that must succeed, and returns its output.
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let run = self.run(arguments);
        assert_eq!(run.code, 0, "{arguments:?}: {}", run.err);
        run.out
    }

    /// Runs a command that must succeed with `--json`.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--json"]].concat();
        serde_json::from_str(&self.done(&arguments)).unwrap()
    }

    /// Issues a key on a store or over HTTP, and returns the secret and the record.
    pub(crate) fn issue(&self, name: &str, more: &[&str]) -> (String, Value) {
        let usual = [
            "keys",
            "issue",
            name,
            "--tenant",
            "acme",
            "--service",
            "service.toml",
        ];
        let issued = self.json(&[&usual, more].concat());
        (text(&issued["key"]), issued["record"].clone())
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Asserts that the command failed with this code, on one line that says this.
    pub(crate) fn failed(&self, code: i32, says: &str) {
        assert_eq!(self.code, code, "{self:?}");
        let last = self.err.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("portunus: ") && last.contains(says),
            "{self:?}"
        );
    }
}

pub(crate) fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no text: {value}"))
        .to_owned()
}

/// A server of this process.
pub(crate) struct Server {
    pub(crate) address: String,
    // Stops the server when it is dropped.
    _runtime: Runtime,
}

impl Server {
    /// The management API of a SQLite file, at `/admin`, with its periodic jobs.
    pub(crate) fn on(path: &Path) -> Self {
        let runtime = Runtime::new().unwrap();
        let router = runtime.block_on(async {
            let store = SqliteStore::open(path).await.unwrap();
            let log = store.audit();
            let trail = portunus::audit::AuditTrail::new([log.clone()]);
            let keys = Portunus::builder(format())
                .store(store)
                .audit(trail)
                .build()
                .unwrap();
            tokio::spawn(keys.run(std::future::pending()));
            let admin = Admin::new(&keys, Tokens).events(log);
            Router::new().nest("/admin", admin.into_router())
        });
        Self::serve(runtime, router, "/admin")
    }

    /// Any routes.
    pub(crate) fn of(router: Router) -> Self {
        Self::serve(Runtime::new().unwrap(), router, "")
    }

    fn serve(runtime: Runtime, router: Router, path: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = format!("http://{}{path}", listener.local_addr().unwrap());
        let app = router.into_make_service_with_connect_info::<SocketAddr>();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, app).await
        });
        Self {
            address,
            _runtime: runtime,
        }
    }
}

/// Proves the operator with [`TOKEN`], and a member who may not manage keys.
#[derive(Debug)]
struct Tokens;

#[async_trait]
impl OperatorProof for Tokens {
    async fn prove(&self, request: &Parts) -> Result<Operator, AuthError> {
        let value = request.headers.get("authorization");
        let value = value.and_then(|it| it.to_str().ok()).unwrap_or_default();
        let (name, role) = match value.strip_prefix("Bearer ") {
            Some(TOKEN) => ("oona", Role::Owner),
            Some("member") => ("mia", Role::Member),
            _ => return Err(AuthError::new(ErrorCode::InvalidKey)),
        };
        let operator = Operator::new(user(name), tenant("acme"), role);
        Ok(operator
            .with_authority([portunus::scope!("*")])
            .in_organization())
    }
}

/// Ends a process when the test does.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
