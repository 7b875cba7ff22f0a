//! Prints the CPU time of a request over a socket, with and without Portunus (see `benches/README.md`).
//!
//! `SERVED_SECONDS` is the length of a round of one app (10), `SERVED_ROUNDS` their number (5).

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark may stop where it cannot go on"
)]

#[cfg(target_os = "linux")]
use peers::served::measure;

#[cfg(target_os = "linux")]
fn setting(name: &str, otherwise: u32) -> u32 {
    let set = std::env::var(name).ok();
    set.map_or(otherwise, |text| text.parse().expect("a number"))
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this reads the CPU time from /proc, which only Linux has");
}

#[cfg(target_os = "linux")]
fn main() {
    let (seconds, rounds) = (setting("SERVED_SECONDS", 10), setting("SERVED_ROUNDS", 5));
    for keys in [1, 100_000] {
        println!("keys: {keys}; CPU time of a request, medians of {rounds} rounds of {seconds} s");
        for cost in measure(keys, seconds, rounds as usize) {
            let of = |(time, ratio): (f64, f64)| format!("{time:6.2} µs {ratio:5.2}");
            let (user, all) = (of(cost.user), of(cost.all));
            let (name, busy) = (cost.name, cost.busy * 100.0);
            println!("  {name:<26} user {user}   user and kernel {all}   {busy:.0} % busy");
        }
    }
}
