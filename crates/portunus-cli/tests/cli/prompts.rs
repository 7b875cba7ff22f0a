//! Questions to a person at a terminal.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use portunus_test_support::wait::{eventually, until};

use crate::common::{Place, Running, text};

/// The program in a terminal, which `script` of util-linux provides.
struct Terminal {
    running: Running,
    folder: PathBuf,
}

impl Terminal {
    fn run(place: &Place, arguments: &str) -> Self {
        let program = env!("CARGO_BIN_EXE_portunus");
        let mut script = Command::new("script");
        script.args(["-qefc", &format!("{program} {arguments}"), "/dev/null"]);
        script
            .env("PORTUNUS_STORE", &place.store)
            .env("USER", "ann");
        script.env_remove("PORTUNUS_KEY").env("TERM", "xterm");
        script.current_dir(place.folder.path());
        script.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = script
            .spawn()
            .expect("script is missing: on Debian, apt-get install bsdutils");
        let folder = std::fs::canonicalize(place.folder.path()).unwrap();
        Self {
            running: Running(child),
            folder,
        }
    }

    /// The terminal of the program, once it runs.
    fn device(&self) -> Option<PathBuf> {
        let runs_here = |process: &Path| {
            let is_it = |name, what: &Path| {
                std::fs::read_link(process.join(name)).is_ok_and(|it| it == what)
            };
            is_it("exe", Path::new(env!("CARGO_BIN_EXE_portunus"))) && is_it("cwd", &self.folder)
        };
        let processes = std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .map(|it| it.path());
        let program = processes.into_iter().find(|it| runs_here(it))?;
        std::fs::read_link(program.join("fd/0")).ok()
    }

    fn echoes(&self) -> Option<bool> {
        let stty = Command::new("stty")
            .arg("-aF")
            .arg(self.device()?)
            .output()
            .unwrap();
        let settings = String::from_utf8_lossy(&stty.stdout).into_owned();
        let mut words = settings.split_whitespace();
        words.find_map(|word| match word {
            "echo" => Some(true),
            "-echo" => Some(false),
            _ => None,
        })
    }

    /// Reads until the program asks this.
    fn asks(&mut self, question: &str) -> String {
        let out = self.running.0.stdout.as_mut().unwrap();
        let (mut shown, mut byte) = (Vec::new(), [0]);
        while !String::from_utf8_lossy(&shown).contains(question) {
            let shown_so_far = String::from_utf8_lossy(&shown).into_owned();
            assert_eq!(out.read(&mut byte).unwrap(), 1, "not asked: {shown_so_far}");
            shown.push(byte[0]);
        }
        String::from_utf8(shown).unwrap()
    }

    /// Types a line, and returns the exit code and the rest of what is shown.
    fn answer(mut self, line: &str) -> (Option<i32>, String) {
        let mut keyboard = self.running.0.stdin.take().unwrap();
        writeln!(keyboard, "{line}").unwrap();
        let mut shown = String::new();
        self.running
            .0
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut shown)
            .unwrap();
        drop(keyboard);
        (self.running.0.wait().unwrap().code(), shown)
    }
}

#[test]
fn a_key_that_is_typed_is_not_shown() {
    let place = Place::sqlite();
    let (secret, _) = place.issue("first", &[]);
    let mut terminal = Terminal::run(&place, "verify --service service.toml");
    terminal.asks("key: ");
    until("echo is off", || terminal.echoes() == Some(false));
    let (code, shown) = terminal.answer(&secret);
    assert_eq!(code, Some(0), "{shown}");
    assert!(
        shown.contains("allowed") && !shown.contains(&secret),
        "{shown}"
    );
}

#[test]
fn a_revocation_is_confirmed() {
    let place = Place::sqlite();
    let (_, record) = place.issue("important", &[]);
    let id = text(&record["id"]);
    for (answer, code, status) in [("", 1, "active"), ("n", 1, "active"), ("y", 0, "revoked")] {
        let mut terminal = Terminal::run(&place, &format!("keys revoke {id}"));
        let asked = terminal.asks("[y/N] ");
        assert!(
            asked.contains("important") && asked.contains("tenant acme"),
            "{asked}"
        );
        let (ended, shown) = terminal.answer(answer);
        assert_eq!(ended, Some(code), "{shown}");
        assert_eq!(place.json(&["keys", "show", &id])["status"], status);
    }
}

#[test]
fn an_import_shows_its_progress_in_a_terminal() {
    let place = Place::sqlite();
    let line = |number: u16| {
        let digest = format!("{number:04x}").repeat(16);
        format!(r#"{{"name":"k","digest":{{"scheme":"sha256","hex":"{digest}"}}}}"#)
    };
    let lines: Vec<String> = (0..200).map(line).collect();
    std::fs::write(place.path("keys.jsonl"), lines.join("\n")).unwrap();
    let import = "keys import keys.jsonl --service service.toml --tenant acme";
    let mut terminal = Terminal::run(&place, import);
    let shown = terminal.asks("200 imported, 0 already there, 0 refused");
    assert!(shown.contains('%'), "{shown}");
    let ended = eventually(|| terminal.running.0.try_wait().unwrap());
    assert_eq!(ended.unwrap().code(), Some(0));
}

#[test]
fn an_import_shows_its_progress_only_where_standard_output_is_a_terminal_too() {
    let place = Place::sqlite();
    let line = |number: u8| {
        let digest = format!("{number:02x}").repeat(32);
        format!("{{\"name\":\"k\",\"digest\":{{\"scheme\":\"sha256\",\"hex\":\"{digest}\"}}}}\n")
    };
    let lines: String = (0..20).map(line).collect();
    std::fs::write(place.path("keys.jsonl"), lines).unwrap();
    let import = "keys import keys.jsonl --tenant acme --service service.toml";
    let shown = |arguments: &str| {
        let mut all = String::new();
        let mut terminal = Terminal::run(&place, arguments);
        let out = terminal.running.0.stdout.as_mut().unwrap();
        out.read_to_string(&mut all).unwrap();
        all
    };
    let all = shown(import);
    assert!(all.contains('%') && all.contains("20 imported"), "{all:?}");
    // Standard error is still the terminal.
    std::fs::write(place.path("keys.jsonl"), "{}").unwrap();
    let all = shown(&format!("{import} > report.txt"));
    assert!(
        !all.contains('%') && all.contains("a line was refused"),
        "{all:?}"
    );
    let report = std::fs::read_to_string(place.path("report.txt")).unwrap();
    assert!(report.contains("1 refused"), "{report}");
}
