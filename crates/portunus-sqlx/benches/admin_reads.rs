//! Look-ups of keys that are not cached, 20 a second, while sixteen clients repeat filtered reads of
//! management on 2 million events and 100 000 keys.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::admin_reads::{Size, fill, measure};
use common::{Home, PostgresHome, SqliteHome};
use portunus_test_support::postgres::Postgres;

const SIZE: Size = Size {
    events: 2_000_000,
    keys: 100_000,
    look_ups: 1_000,
    every: Duration::from_millis(50),
    readers: 16,
};

async fn run<H: Home>(what: &str, home: &H) {
    let started = Instant::now();
    let store = home.open().await;
    fill(home, &store, SIZE).await;
    println!("{what}: filled in {:?}", started.elapsed());
    let figures = measure::<H>(&store, SIZE).await;
    let look_ups = &figures.look_ups;
    println!(
        "{what}: look-ups: slowest {:?}, tenth slowest {:?}, median {:?}; {} reads, slowest {:?}",
        look_ups[0],
        look_ups[9],
        look_ups[look_ups.len() / 2],
        figures.reads,
        figures.slowest_read,
    );
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        run("SQLite", &SqliteHome::new()).await;
        run(
            "PostgreSQL",
            &PostgresHome::new(&Arc::new(Postgres::start())),
        )
        .await;
    });
}
