//! TLS 1.3 only, as seen by the `openssl` command; and how a server starts, or fails to start, with
//! certificates.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Answer, Call, Ended, PATIENCE, Process, Server, exchange, read_answer};
use serde_json::{Value, json};

// ---- certificates ----

/// A folder that is removed when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        fs::write(self.file(name), text).unwrap();
        self.file(name)
    }

    /// A certificate for `localhost` and its key, as `NAME.crt` and `NAME.key`.
    fn certificate(&self, name: &str) -> (String, String) {
        let (certificate, key) = (
            self.file(&format!("{name}.crt")),
            self.file(&format!("{name}.key")),
        );
        let made = openssl()
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
            ])
            .args([
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost,IP:127.0.0.1",
            ])
            .args(["-keyout", &key, "-out", &certificate])
            .output();
        let made = made.unwrap_or_else(|error| without_openssl(&error));
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        (certificate, key)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn openssl() -> Command {
    Command::new("openssl")
}

fn without_openssl(error: &std::io::Error) -> ! {
    panic!(
        "the openssl command is needed ({error}): `apt-get install openssl`, or `scripts/test`, \
         which installs it"
    )
}

// ---- a client ----

/// The output and the result of a client.
#[derive(Debug)]
struct Spoken {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: String,
}

/// Runs `openssl s_client` with these options, and writes these bytes after it has started.
fn s_client(address: SocketAddr, options: &[&str], bytes: &[u8]) -> Spoken {
    let mut client = openssl()
        .args([
            "s_client",
            "-connect",
            &address.to_string(),
            "-servername",
            "localhost",
        ])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| without_openssl(&error));
    let mut stdin = client.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    // A client whose handshake fails reads no more input.
    thread::spawn(move || stdin.write_all(&bytes));
    let (done, both) = mpsc::channel();
    let mut pipes: [Box<dyn Read + Send>; 2] = [
        Box::new(client.stdout.take().unwrap()),
        Box::new(client.stderr.take().unwrap()),
    ];
    thread::spawn(move || {
        let [out, err] = &mut pipes;
        let read = |pipe: &mut dyn Read| {
            let mut bytes = Vec::new();
            let _ = pipe.read_to_end(&mut bytes);
            bytes
        };
        let (out, err) = thread::scope(|scope| {
            let err = scope.spawn(|| read(err));
            (read(out), err.join().unwrap())
        });
        let _ = done.send((out, err));
    });
    let came = both.recv_timeout(PATIENCE);
    let _ = client.kill();
    let status = client.wait().unwrap();
    let (stdout, stderr) = came.expect("openssl ends when the connection does");
    Spoken {
        status,
        stdout,
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// A server with TLS.
struct Secure {
    process: Process,
    ready: Value,
    address: SocketAddr,
    folder: Folder,
}

impl Secure {
    fn of(profile: &str, test: &str) -> Self {
        let folder = Folder::new(test);
        let (certificate, key) = folder.certificate("server");
        let flags = [
            "--profile",
            profile,
            "--store",
            "memory",
            "--ready-json",
            "--tls-cert",
            &certificate,
            "--tls-key",
            &key,
        ];
        let process = Process::start(&flags, &[]);
        assert!(
            process.stdout.wait_for(|text| text.contains('\n')),
            "not ready: {}",
            process.stderr.text()
        );
        let ready: Value = serde_json::from_str(&process.stdout.text()).unwrap();
        let address = ready["url"]
            .as_str()
            .unwrap()
            .strip_prefix("https://")
            .unwrap()
            .parse()
            .unwrap();
        Self {
            process,
            ready,
            address,
            folder,
        }
    }

    /// Sends a call over TLS 1.3 to a server whose certificate is verified, and returns the
    /// response.
    fn send(&self, call: &Call) -> Answer {
        let authority = self.folder.file("server.crt");
        let options = [
            "-tls1_3",
            "-quiet",
            "-verify_return_error",
            "-CAfile",
            &authority,
        ];
        let spoken = s_client(self.address, &options, &call.bytes());
        let (answer, rest) = read_answer(&spoken.stdout, false)
            .unwrap_or_else(|| panic!("no answer to {}: {spoken:?}", call.target));
        assert!(rest.is_empty() && spoken.status.success(), "{spoken:?}");
        answer
    }

    fn issue(&self, mut body: Value) -> String {
        body["name"] = "a key".into();
        let token = self.ready["operators"]["owner"].as_str().unwrap();
        let answer = self.send(&Call::post("/admin/keys").bearer(token).json(&body));
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["key"].as_str().unwrap().to_owned()
    }
}

// ---- serving ----

#[test]
fn the_ready_line_says_https() {
    let server = Secure::of("iusign", "ready");
    let url = format!("https://{}", server.address);
    assert_eq!(server.ready["url"], url);
    assert_eq!(server.ready["admin_url"], format!("{url}/admin"));
    assert_eq!(server.ready["dashboard_url"], format!("{url}/dashboard"));
}

#[test]
fn the_api_that_requires_tls_1_3_serves_over_it() {
    let server = Secure::of("iusign", "serves");
    let key = server.issue(json!({}));
    let who = server.send(&Call::get("/whoami").bearer(&key));
    assert_eq!((who.status, &who.json()["mode"]), (200, &json!("app")));
    assert_eq!(
        server
            .send(
                &Call::post("/v1/envelopes")
                    .bearer(&key)
                    .json(&json!({ "subject": "s" }))
            )
            .status,
        201
    );
    assert_eq!(
        server.send(&Call::get("/v1/envelopes").bearer(&key)).json()["envelopes"][0]["subject"],
        "s"
    );
    assert_eq!(
        server.send(&Call::get("/whoami")).json()["code"],
        "MISSING_KEY"
    );
    assert_eq!(server.send(&Call::get("/healthz")).status, 200);
}

#[test]
fn the_clients_address_is_known_over_tls() {
    let server = Secure::of("iusign", "address");
    for (allowed, status) in [("127.0.0.1", 200), ("192.0.2.1", 403)] {
        let key = server.issue(json!({ "plan": "enterprise", "allowed_ips": [allowed] }));
        assert_eq!(
            server.send(&Call::get("/whoami").bearer(&key)).status,
            status,
            "{allowed}"
        );
    }
}

#[test]
fn any_profile_can_serve_tls() {
    let server = Secure::of("allsign", "any-profile");
    let key = server.issue(json!({ "scopes": ["document:read"] }));
    assert_eq!(
        server.send(&Call::get("/v2/documents").bearer(&key)).status,
        200
    );
}

#[test]
fn an_older_version_of_tls_gets_no_handshake() {
    let server = Secure::of("iusign", "older");
    let key = server.issue(json!({}));
    let call = Call::get("/whoami").bearer(&key).bytes();
    for options in [
        &["-tls1_2", "-quiet"][..],
        &["-max_protocol", "TLSv1.2", "-quiet"],
    ] {
        let spoken = s_client(server.address, options, &call);
        assert!(!spoken.status.success(), "{options:?}: {spoken:?}");
        assert_eq!(spoken.stdout, b"", "{options:?}");
        assert!(
            spoken.stderr.contains("protocol version"),
            "{options:?}: {}",
            spoken.stderr
        );
    }
    // The same call over TLS 1.3 succeeds.
    assert_eq!(server.send(&Call::get("/whoami").bearer(&key)).status, 200);
}

#[test]
fn http_2_is_offered_and_not_forced() {
    let server = Secure::of("iusign", "alpn");
    for (offered, agreed) in [
        ("h2,http/1.1", "ALPN protocol: h2"),
        ("http/1.1", "ALPN protocol: http/1.1"),
    ] {
        let spoken = s_client(server.address, &["-tls1_3", "-alpn", offered], b"Q\n");
        let told = String::from_utf8_lossy(&spoken.stdout);
        assert!(told.contains(agreed), "{offered}: {told}");
        assert!(told.contains("TLSv1.3"), "{told}");
    }
}

#[test]
fn plain_http_gets_no_answer_from_a_port_for_tls() {
    let server = Secure::of("iusign", "plain");
    let key = server.issue(json!({}));
    for bytes in [
        Call::get("/whoami").bearer(&key).bytes(),
        Call::get("/healthz").bytes(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"\x00".repeat(1000),
    ] {
        let came = exchange(server.address, &bytes);
        let text = String::from_utf8_lossy(&came);
        // At most an alert (RFC 8446 §6).
        assert!(came.is_empty() || came[0] == 21, "{text}");
        assert!(came.len() <= 7, "{text}");
    }
    assert_eq!(
        server.send(&Call::get("/whoami").bearer(&key)).status,
        200,
        "and it still serves"
    );
}

#[test]
fn unfinished_handshakes_do_not_delay_other_clients() {
    let server = Secure::of("iusign", "slow");
    let key = server.issue(json!({}));
    // If the machine is so busy that the handshakes time out before the response, the test proves
    // nothing, and is repeated.
    let served_meanwhile = (0..5).any(|_| {
        let waiting = unfinished(server.address);
        assert_eq!(server.send(&Call::get("/whoami").bearer(&key)).status, 200);
        waiting.iter().all(is_open)
    });
    assert!(
        served_meanwhile,
        "the answer came after the handshakes were given up"
    );
}

#[test]
fn a_handshake_that_is_not_finished_is_given_up_after_three_seconds() {
    let server = Secure::of("iusign", "given-up");
    let begun = Instant::now();
    let waiting = unfinished(server.address);
    crate::common::until("all are closed", || !waiting.iter().any(is_open));
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_millis(2900), "{waited:?}");
    assert!(waited < Duration::from_secs(8), "{waited:?}");
}

/// Clients that begin a handshake and send nothing more.
fn unfinished(address: SocketAddr) -> Vec<TcpStream> {
    let begun = [
        &b""[..],
        b"\x16",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ];
    let begin = |at: usize| {
        let mut stream = TcpStream::connect(address).unwrap();
        // Nothing, the beginning of a record, or a record that is shorter than announced.
        stream.write_all(begun[at % 3]).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    };
    (0..150).map(begin).collect()
}

fn is_open(stream: &TcpStream) -> bool {
    let nothing = stream.peek(&mut [0]).map_err(|error| error.kind());
    nothing == Err(std::io::ErrorKind::WouldBlock)
}

#[test]
fn told_to_stop_it_ends_with_0_although_clients_are_in_the_middle_of_a_handshake() {
    let server = Secure::of("iusign", "stop");
    let key = server.issue(json!({}));
    let mut slow = TcpStream::connect(server.address).unwrap();
    slow.write_all(b"\x16\x03").unwrap();
    assert_eq!(server.send(&Call::get("/whoami").bearer(&key)).status, 200);
    server.process.signal("TERM");
    let begun = Instant::now();
    let ready = server.ready.to_string();
    let ended = server.process.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // actix-web limits handshakes to three seconds.
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    let line: Value = serde_json::from_str(ended.stdout.strip_suffix('\n').unwrap()).unwrap();
    assert_eq!(
        line.to_string(),
        ready,
        "stdout has the ready line and nothing else"
    );
    assert!(!ended.stderr.contains(&key), "{}", ended.stderr);
}

// ---- starting without certificates, or with invalid ones ----

#[test]
fn without_certificates_the_requirement_is_off_and_a_warning_says_so() {
    let server = Server::start("iusign", &[], &[("RUST_LOG", "warn")]);
    let issued = server.issue(json!({}));
    assert_eq!(server.get("/v1/envelopes", &issued.key).status, 200);
    let ended = server.stop();
    assert!(
        ended.stderr.contains("TLS 1.3") && ended.stderr.contains("--tls-cert"),
        "{}",
        ended.stderr
    );
}

#[test]
fn the_banner_says_whether_tls_is_required() {
    let folder = Folder::new("banner");
    let (certificate, key) = folder.certificate("server");
    let banner = |flags: &[&str]| {
        let process = Process::start(flags, &[]);
        assert!(
            process.stdout.wait_for(|text| text.contains("Ctrl-C")),
            "{}",
            process.stderr.text()
        );
        process.stdout.text()
    };
    let without = banner(&["--profile", "iusign"]);
    assert!(
        without.contains("http://127.0.0.1:") && without.contains("mandates TLS 1.3"),
        "{without}"
    );
    let with = banner(&[
        "--profile",
        "iusign",
        "--tls-cert",
        &certificate,
        "--tls-key",
        &key,
    ]);
    assert!(
        with.contains("https://127.0.0.1:") && !with.contains("mandates TLS 1.3"),
        "{with}"
    );
    assert!(!with.contains("http://"), "{with}");
}

/// Asserts one line on stderr that contains this text, nothing on stdout, and exit code 2.
#[track_caller]
fn assert_refused_to_start(flags: &[&str], named: &str) {
    let mut all = vec!["--profile", "iusign", "--ready-json"];
    all.extend(flags);
    let ended: Ended = Process::start(&all, &[]).wait();
    assert_eq!(ended.code, Some(2), "{flags:?}: {ended:?}");
    assert_eq!(ended.stdout, "", "{flags:?}");
    let line = ended
        .stderr
        .strip_suffix('\n')
        .unwrap_or_else(|| panic!("{flags:?}: no whole line: {ended:?}"));
    assert!(
        !line.contains('\n') && line.contains(named),
        "{flags:?}: {line:?} does not say {named:?}"
    );
    assert!(
        !line.contains("hunter2"),
        "{flags:?}: {line:?} shows the content of a file"
    );
}

#[test]
fn one_of_the_two_flags_is_not_enough() {
    let folder = Folder::new("one-flag");
    let (certificate, key) = folder.certificate("server");
    assert_refused_to_start(&["--tls-cert", &certificate], "required: --tls-key");
    assert_refused_to_start(&["--tls-key", &key], "required: --tls-cert");
    assert_refused_to_start(&["--tls-cert"], "--tls-cert");
}

#[test]
fn invalid_certificate_or_key_files_give_one_line_and_exit_code_2() {
    let folder = Folder::new("files");
    let (certificate, key) = folder.certificate("server");
    let (other_certificate, other_key) = folder.certificate("other");
    let pem = |label: &str, body: &str| {
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    };
    let empty = folder.write("empty.pem", "");
    let garbage = folder.write("garbage.pem", "hunter2\n");
    let bytes = folder.write("bytes.pem", (0..=255).collect::<Vec<u8>>());
    let broken = folder.write("broken.pem", pem("CERTIFICATE", "hunter2!"));
    let no_certificate = folder.write("no-certificate.pem", pem("CERTIFICATE", "aHVudGVyMg=="));
    let no_key = folder.write("no-key.pem", pem("PRIVATE KEY", "aHVudGVyMg=="));
    let cut = folder.write("cut.pem", &fs::read_to_string(&key).unwrap()[..60]);
    let missing = folder.file("missing.pem");
    let directory = folder.0.to_str().unwrap().to_owned();
    for bad in [
        &missing, &directory, &empty, &garbage, &bytes, &broken, &key,
    ] {
        assert_refused_to_start(&["--tls-cert", bad, "--tls-key", &key], bad);
    }
    for bad in [
        &missing,
        &directory,
        &empty,
        &garbage,
        &bytes,
        &cut,
        &certificate,
    ] {
        assert_refused_to_start(&["--tls-cert", &certificate, "--tls-key", bad], bad);
    }
    for (certificate, key) in [
        (&no_certificate, &key),
        (&certificate, &no_key),
        (&certificate, &other_key),
        (&other_certificate, &key),
    ] {
        assert_refused_to_start(
            &["--tls-cert", certificate, "--tls-key", key],
            "cannot use the certificate and key",
        );
    }
}
