//! Scripts, which are sent by their digest, and in full where the server does not know them: after
//! a restart, a failover or `SCRIPT FLUSH`. No script is loaded in advance, which a cluster would
//! need on each of its nodes.

use redis::Cmd;
use tokio::time::Instant;

/// A script.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    text: String,
    sha1: String,
}

impl Script {
    pub(crate) fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            sha1: redis::Script::new(text).get_hash().to_owned(),
        }
    }

    /// Returns the command that runs the script: by its digest, or in full. Its first argument is
    /// the latest time of the server at which the answer is still of use, or 0, as a double, and what
    /// the call asks.
    #[expect(
        clippy::cast_precision_loss,
        reason = "microseconds are far below 2^53"
    )]
    pub(crate) fn command(&self, in_full: bool, call: &Call<'_>, latest: i64) -> Cmd {
        let (name, script) = if in_full {
            ("EVAL", &self.text)
        } else {
            ("EVALSHA", &self.sha1)
        };
        let first = [&(latest as f64).to_le_bytes()[..], call.asked].concat();
        let bytes: usize = call.keys.iter().map(|key| key.len()).sum();
        let mut command = Cmd::with_capacity(
            4 + call.keys.len() + call.args.len(),
            64 + script.len() + bytes + first.len(),
        );
        command.arg(name).arg(script);
        command.arg(call.keys.len()).arg(call.keys);
        command.arg(first).arg(call.args);
        command
    }
}

/// A script with its keys and arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) script: &'a Script,
    /// On a cluster, all are in one slot.
    pub(crate) keys: &'a [&'a [u8]],
    /// What follows the time in the first argument.
    pub(crate) asked: &'a [u8],
    /// The other arguments.
    pub(crate) args: &'a [&'a [u8]],
    /// Until when the answer is of use.
    pub(crate) until: Instant,
}
