//! The messages on the channel. A client that may publish on it can send anything: what is no message of
//! this version counts as a change of everything, and a heartbeat counts only where it was sent.

use portunus::key::{KeyId, TenantId};
use portunus::store::Invalidation;
use serde_json::Value;

/// A change with more text is sent as a change of everything.
const MOST_BYTES: usize = 64 * 1024;

/// What a heartbeat begins with.
const BEAT: &str = "beat:";

/// A message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    Changed(Invalidation),
    Beat(u64),
}

/// Returns the text of a change.
pub(super) fn change(what: &Invalidation) -> String {
    let keys: Vec<&str> = what.keys.iter().map(KeyId::as_str).collect();
    let tenants: Vec<&str> = what.tenants.iter().map(TenantId::as_str).collect();
    let lists = serde_json::json!([keys, what.known, tenants]).to_string();
    if what.everything || lists.len() > MOST_BYTES {
        "everything".to_owned()
    } else {
        lists
    }
}

/// Returns the text of a heartbeat.
pub(super) fn beat(mark: u64) -> String {
    format!("{BEAT}{mark:016x}")
}

/// Reads a message.
pub(super) fn read(text: &[u8]) -> Message {
    let text = std::str::from_utf8(text).unwrap_or_default();
    match text.strip_prefix(BEAT) {
        // What is no number was sent by nobody.
        Some(mark) => Message::Beat(u64::from_str_radix(mark, 16).unwrap_or(0)),
        None => Message::Changed(changed(text).unwrap_or_else(Invalidation::everything)),
    }
}

fn changed(text: &str) -> Option<Invalidation> {
    let [keys, known, tenants]: [Vec<Value>; 3] = serde_json::from_str(text).ok()?;
    let mut what = Invalidation::default();
    for id in &keys {
        what.keys.push(KeyId::new(id.as_str()?).ok()?);
    }
    for fingerprint in &known {
        what.known.push(fingerprint.as_u64()?);
    }
    for id in &tenants {
        what.tenants.push(TenantId::new(id.as_str()?).ok()?);
    }
    Some(what)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn keys(count: u64) -> Invalidation {
        let mut what = Invalidation::default();
        let id = |number: u64| KeyId::new(&format!("\"k\\{number}")).unwrap();
        what.keys = (0..count).map(id).collect();
        what.known = (0..count).map(|number| u64::MAX - number).collect();
        what.tenants = (0..count % 3)
            .map(|number| TenantId::new(&format!("t,{number}]")).unwrap())
            .collect();
        what
    }

    #[test]
    fn what_is_written_is_read() {
        for count in [0, 1, 2, 200] {
            let what = keys(count);
            assert_eq!(read(change(&what).as_bytes()), Message::Changed(what));
        }
        for mark in [1, u64::MAX] {
            assert_eq!(read(beat(mark).as_bytes()), Message::Beat(mark));
        }
        let everything = Message::Changed(Invalidation::everything());
        for what in [keys(5000), Invalidation::everything()] {
            assert_eq!(read(change(&what).as_bytes()), everything);
        }
    }

    #[test]
    fn anything_else_is_a_change_of_everything_or_no_heartbeat() {
        let everything = Message::Changed(Invalidation::everything());
        for other in [
            "",
            "x",
            "[]",
            "{}",
            "[[],[]]",
            "[[],[],[],[]]",
            "[[1],[],[]]",
            "[[],[-1],[]]",
            "[[],[\"1\"],[]]",
            "[[\"\"],[],[]]",
            "[[\"a b\"],[],[]]",
            "[[],[],[\"\"]]",
            "[[],[],[]] x",
            "{\"keys\":[]}",
        ] {
            assert_eq!(read(other.as_bytes()), everything, "{other}");
        }
        assert_eq!(read(b"\xff\xfe"), everything);
        for beat in ["beat:", "beat:x", "beat:-1", "beat:00000000000000000001x"] {
            assert_eq!(read(beat.as_bytes()), Message::Beat(0));
        }
    }
}
