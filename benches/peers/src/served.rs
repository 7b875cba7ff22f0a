//! The CPU time that a request takes a process that serves it on a socket, with and without Portunus.
//! `wrk` sends the requests.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use portunus::Portunus;
use tempfile::NamedTempFile;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::Settings;
use crate::axum_apps::{Served, served};
use crate::shape::PATH;

/// So many connections, on one thread.
const CONNECTIONS: &str = "32";

/// The CPU time of this process in user mode and in the kernel, in ticks of 10 ms.
fn cpu_time() -> [u64; 2] {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    // The second field, the name of the program, may contain spaces.
    let (_, fields) = stat.rsplit_once(") ").expect("fields");
    let mut fields = fields.split(' ').skip(11);
    let mut next = || fields.next().and_then(|field| field.parse().ok());
    [next().expect("a number"), next().expect("a number")]
}

/// The end of a script for `wrk`, after the functions that add requests.
const SCRIPT: &str = "
function request()
    sent = sent % #requests + 1
    return requests[sent]
end
function done(summary)
    local wrong = 0
    for _, count in pairs(summary.errors) do wrong = wrong + count end
    print('REQUESTS ' .. summary.requests .. ' WRONG ' .. wrong)
end
";

/// A script for `wrk` that sends these values of `Authorization` in turn.
fn script(authorizations: &[String]) -> String {
    let mut script = "sent, requests = 0, {}\n".to_owned();
    let mut init = "function init()\n".to_owned();
    // A function may have 65 536 constants.
    for (number, part) in authorizations.chunks(10_000).enumerate() {
        let _ = writeln!(script, "function add_{number}()");
        for value in part {
            let request = format!("wrk.format('GET', nil, {{ Authorization = '{value}' }})");
            let _ = writeln!(script, "    table.insert(requests, {request})");
        }
        let _ = writeln!(script, "end");
        let _ = writeln!(init, "    add_{number}()");
    }
    script + &init + "end\n" + SCRIPT
}

/// Sends requests for some seconds; returns how many were answered. Each answer is below 400.
fn send(address: SocketAddr, script: &Path, seconds: u32) -> u64 {
    let output = Command::new("wrk")
        .args(["--threads", "1", "--connections", CONNECTIONS])
        .args(["--duration", &format!("{seconds}s"), "--script"])
        .arg(script)
        .arg(format!("http://{address}{PATH}"))
        .output()
        .expect("wrk is missing (Debian: apt-get install wrk)");
    let [output, errors] = [output.stdout, output.stderr].map(String::from_utf8);
    let (output, errors) = (output.expect("text"), errors.expect("text"));
    let counts = output
        .lines()
        .find_map(|line| line.strip_prefix("REQUESTS "));
    let (requests, wrong) = counts
        .and_then(|counts| counts.split_once(" WRONG "))
        .unwrap_or_else(|| panic!("no counts: {output} {errors}"));
    assert_eq!(wrong, "0", "{output}");
    requests.parse().expect("a number")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What a request to an app costs.
#[derive(Debug)]
pub struct Cost {
    pub name: &'static str,
    /// The CPU time in user mode, in microseconds, and its ratio to that of the app alone: medians.
    pub user: (f64, f64),
    /// The same with that in the kernel.
    pub all: (f64, f64),
    /// The part of the time in which the server computed; 1 if it is what limits the rate.
    pub busy: f64,
    /// The number of requests that were answered.
    pub requests: u64,
}

/// The microseconds in user mode and in the kernel, the number of requests, and the ticks while they were
/// sent.
type Round = ([f64; 2], u64, u64);

/// An app that is being served.
struct Running {
    name: &'static str,
    address: SocketAddr,
    script: NamedTempFile,
    /// The service whose jobs run.
    keys: Option<Portunus>,
}

/// Waits until the jobs have written what was used, up to five seconds later: that work must not be
/// measured with the next app.
fn settle(app: &Running) {
    let begun = Instant::now();
    loop {
        thread::sleep(Duration::from_secs(1));
        let keys = app.keys.as_ref();
        if keys.is_none_or(|keys| keys.authenticator().usage().pending() == 0) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "the jobs hang");
    }
}

fn start(runtime: &Runtime, app: Served) -> Running {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = runtime.block_on(TcpListener::bind(any)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = app.router;
    runtime.spawn(async move { axum::serve(listener, router).await });
    let keys = app.jobs;
    if let Some(keys) = keys.clone() {
        runtime.spawn(async move { keys.run(std::future::pending()).await });
    }
    let mut file = NamedTempFile::new().expect("a file");
    let script = script(&app.credentials.good);
    file.write_all(script.as_bytes()).expect("written");
    Running {
        name: app.name,
        address,
        script: file,
        keys,
    }
}

/// Measures all apps with this many keys, round by round, in an order that rotates. Each round sends
/// requests to each app for some seconds; the first, which uses each key for the first time, does not count.
///
/// # Panics
/// If `wrk` is missing, or a request is refused or not answered.
pub fn measure(keys: usize, seconds: u32, rounds: usize) -> Vec<Cost> {
    // One thread for the server, one for wrk.
    let builder = &mut Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let apps = served(Settings::plenty(keys)).into_iter();
    let apps: Vec<_> = apps.map(|app| start(&runtime, app)).collect();
    let mut measured = vec![Vec::new(); apps.len()];
    for round in 0..=rounds {
        for place in 0..apps.len() {
            let number = (round + place) % apps.len();
            let app = &apps[number];
            let before = cpu_time();
            let requests = send(app.address, app.script.path(), seconds);
            let sent = cpu_time().iter().sum::<u64>() - before.iter().sum::<u64>();
            settle(app);
            let after = cpu_time();
            let micros = [0, 1].map(|of| (after[of] - before[of]) as f64 * 10_000.0);
            if round > 0 {
                measured[number].push((micros, requests, sent));
            }
        }
    }
    let apps = apps.iter().zip(&measured);
    let costs = apps.map(|(app, own)| {
        let each = |([user, kernel], requests, _): &Round, with_kernel: bool| {
            (user + if with_kernel { *kernel } else { 0.0 }) / *requests as f64
        };
        let both = |with_kernel| {
            let times = own.iter().map(|round| each(round, with_kernel));
            let alone = measured[0].iter().map(|round| each(round, with_kernel));
            let ratios = times.clone().zip(alone).map(|(time, alone)| time / alone);
            (median(times.collect()), median(ratios.collect()))
        };
        let busy = own.iter().map(|(_, _, ticks)| *ticks as f64);
        Cost {
            name: app.name,
            user: both(false),
            all: both(true),
            busy: median(busy.collect()) / (f64::from(seconds) * 100.0),
            requests: own.iter().map(|(_, requests, _)| requests).sum(),
        }
    });
    costs.collect()
}
