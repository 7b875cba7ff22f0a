//! Scripts, which are sent by their digest, and in full where the server does not know them: after
//! a restart, a failover or `SCRIPT FLUSH`. No script is loaded in advance, which a cluster would
//! need on each of its nodes.

use redis::Cmd;

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
    /// the latest time of the server at which the answer is still of use, or 0.
    pub(crate) fn command(&self, in_full: bool, call: &Call<'_>, latest: i64) -> Cmd {
        let mut command = if in_full {
            redis::cmd("EVAL")
        } else {
            redis::cmd("EVALSHA")
        };
        command.arg(if in_full { &self.text } else { &self.sha1 });
        command.arg(call.keys.len()).arg(call.keys);
        command.arg(latest).arg(call.args);
        command
    }
}

/// A script with its keys and arguments. All keys are in one slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) script: &'a Script,
    pub(crate) keys: &'a [Vec<u8>],
    pub(crate) args: &'a [Vec<u8>],
}
