//! Several nodes that share a PostgreSQL database and Redis, as real processes.
//!
//! `scripts/measure nodes` runs more rounds and longer outages.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

mod bursts;
mod changes;
#[path = "../common/mod.rs"]
mod common;
mod flags;
mod limits;
mod outages;

use std::time::Duration;

use crate::common::Server;
use crate::common::nodes::node_in;
use portunus_test_support::postgres::Postgres;
use portunus_test_support::redis::Redis;

/// Four nodes and what they share.
pub(crate) struct Site<R = Redis> {
    pub(crate) nodes: Vec<Server>,
    pub(crate) redis: R,
    pub(crate) postgres: Postgres,
}

/// Where the nodes tell each other of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bus {
    Postgres,
    Redis,
}

impl Site {
    /// Starts four nodes on one server, with this mode while the limiter does not answer.
    pub(crate) fn start(bus: Bus, on_outage: &str) -> Self {
        let redis = Redis::start();
        let address = redis.address();
        Self::on(redis, &address, bus, on_outage, &[])
    }
}

impl<R> Site<R> {
    /// Starts four nodes with these environment variables, which find Redis at this address.
    pub(crate) fn on(
        redis: R,
        address: &str,
        bus: Bus,
        on_outage: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let postgres = Postgres::start();
        let store = postgres.database("keys");
        let bus = match bus {
            Bus::Postgres => &store,
            Bus::Redis => address,
        };
        let flags = [
            "--limiter",
            address,
            "--bus",
            bus,
            "--on-limiter-outage",
            on_outage,
        ];
        let node = |_| node_in(&store, &flags, variables);
        Self {
            nodes: (0..4).map(node).collect(),
            redis,
            postgres,
        }
    }
}

/// A number that `scripts/measure` sets higher.
pub(crate) fn rounds(usual: usize) -> usize {
    let set = std::env::var("NODES_ROUNDS").ok();
    set.map_or(usual, |rounds| rounds.parse().unwrap())
}

/// A number of seconds that `scripts/measure` sets higher.
pub(crate) fn seconds(variable: &str, usual: u64) -> Duration {
    let set = std::env::var(variable).ok();
    Duration::from_secs(set.map_or(usual, |seconds| seconds.parse().unwrap()))
}
