//! Several nodes that share a PostgreSQL database and a Redis server, as real processes.
//!
//! `scripts/measure nodes` runs more rounds and longer outages.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs
)]

mod changes;
#[path = "../common/mod.rs"]
mod common;
mod flags;
mod limits;
mod outages;

use crate::common::Server;
use crate::common::nodes::node_with;
use portunus_test_support::postgres::Postgres;
use portunus_test_support::redis::Redis;

/// Four nodes and what they share.
pub(crate) struct Site {
    pub(crate) nodes: Vec<Server>,
    pub(crate) redis: Redis,
    pub(crate) postgres: Postgres,
}

/// Where the nodes tell each other of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bus {
    Postgres,
    Redis,
}

impl Site {
    /// Starts four nodes, with this mode while the limiter does not answer.
    pub(crate) fn start(bus: Bus, on_outage: &str) -> Self {
        let (postgres, redis) = (Postgres::start(), Redis::start());
        let store = postgres.database("keys");
        let address = redis.address();
        let bus = match bus {
            Bus::Postgres => &store,
            Bus::Redis => &address,
        };
        let flags = [
            "--limiter",
            &address,
            "--bus",
            bus,
            "--on-limiter-outage",
            on_outage,
        ];
        let nodes = (0..4).map(|_| node_with(&store, &flags)).collect();
        Self {
            nodes,
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
