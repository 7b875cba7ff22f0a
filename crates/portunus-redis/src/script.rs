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
    /// the call adds.
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
        let first = [
            &(latest as f64).to_le_bytes()[..],
            call.first[0],
            call.first[1],
        ]
        .concat();
        let mut command = Cmd::with_capacity(8, 256);
        command.arg(name).arg(script);
        command.arg(call.keys.len()).arg(call.keys);
        command.arg(first).arg(call.args);
        command
    }
}

/// A script with its keys and arguments. All keys are in one slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) script: &'a Script,
    pub(crate) keys: &'a [Vec<u8>],
    /// What follows the time in the first argument, in two parts.
    pub(crate) first: [&'a [u8]; 2],
    /// The other arguments.
    pub(crate) args: &'a [&'a [u8]],
    /// Until when the answer is of use.
    pub(crate) until: Instant,
}
