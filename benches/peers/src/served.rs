//! The CPU time that a request takes a process that serves it on a socket, with and without Portunus.
//! `wrk` sends the requests.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

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
    next = next % #requests + 1
    return requests[next]
end
function done(summary)
    local errors = summary.errors
    print('REQUESTS ' .. summary.requests .. ' WRONG ' .. errors.status + errors.connect + errors.read)
end
";

/// A script for `wrk` that sends these values of `Authorization` in turn.
fn script(authorizations: &[String]) -> String {
    let mut script = "next, requests = 0, {}\n".to_owned();
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

/// Sends requests for some seconds; returns how many were answered.
fn send(address: SocketAddr, script: &Path, seconds: u32) -> u64 {
    let output = Command::new("wrk")
        .args(["--threads", "1", "--connections", CONNECTIONS])
        .args(["--duration", &format!("{seconds}s"), "--script"])
        .arg(script)
        .arg(format!("http://{address}{PATH}"))
        .output()
        .expect("wrk is missing (Debian: apt-get install wrk)");
    let output = String::from_utf8(output.stdout).expect("text");
    let counts = output
        .lines()
        .find_map(|line| line.strip_prefix("REQUESTS "));
    let (requests, wrong) = counts
        .and_then(|counts| counts.split_once(" WRONG "))
        .expect("counts");
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
    /// The number of requests that were answered.
    pub requests: u64,
}

/// An app that is being served.
struct Running {
    name: &'static str,
    address: SocketAddr,
    script: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.script);
    }
}

fn start(runtime: &Runtime, number: usize, app: Served) -> Running {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = runtime.block_on(TcpListener::bind(any)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = app.router;
    runtime.spawn(async move { axum::serve(listener, router).await });
    if let Some(jobs) = app.jobs {
        runtime.spawn(async move { jobs.run(std::future::pending()).await });
    }
    let file = format!("served-{}-{number}.lua", std::process::id());
    let path = std::env::temp_dir().join(file);
    fs::write(&path, script(&app.credentials.good)).expect("a file");
    Running {
        name: app.name,
        address,
        script: path,
    }
}

/// Measures all apps with this many keys, round by round. Each round sends requests to each app for some
/// seconds; the first, which uses each key for the first time, does not count.
///
/// # Panics
/// If `wrk` is missing, or a request is not answered with 200.
pub fn measure(keys: usize, seconds: u32, rounds: usize) -> Vec<Cost> {
    // One thread for the server, one for wrk.
    let builder = &mut Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let apps = served(Settings::plenty(keys)).into_iter().enumerate();
    let apps: Vec<_> = apps
        .map(|(number, app)| start(&runtime, number, app))
        .collect();
    let mut measured = vec![(Vec::new(), Vec::new(), 0); apps.len()];
    for round in 0..=rounds {
        let mut alone = None;
        for (app, (user, all, answered)) in apps.iter().zip(&mut measured) {
            let before = cpu_time();
            let requests = send(app.address, &app.script, seconds);
            let after = cpu_time();
            let [of_user, of_kernel] =
                [0, 1].map(|of| (after[of] - before[of]) as f64 * 10_000.0 / requests as f64);
            let of_all = of_user + of_kernel;
            let alone = alone.get_or_insert((of_user, of_all));
            if round > 0 {
                user.push((of_user, of_user / alone.0));
                all.push((of_all, of_all / alone.1));
                *answered += requests;
            }
        }
    }
    let both = |values: Vec<(f64, f64)>| {
        let (times, ratios) = values.into_iter().unzip();
        (median(times), median(ratios))
    };
    let apps = apps.iter().zip(measured);
    let costs = apps.map(|(app, (user, all, requests))| Cost {
        name: app.name,
        user: both(user),
        all: both(all),
        requests,
    });
    costs.collect()
}
