//! The messages on PostgreSQL's channel and in SQLite's table of recent changes. Any client that
//! can connect to the database can send anything there: an unknown message, such as one from a
//! newer version, counts as a change of everything, and a heartbeat counts only on the node that
//! sent it.

use portunus::key::{KeyId, TenantId};
use portunus::store::Invalidation;

/// The name of the channel.
pub(crate) const CHANNEL: &str = "portunus_changes";
/// PostgreSQL accepts payloads of less than 8000 bytes.
const MOST_BYTES: usize = 7_900;

const BEAT: &str = "beat ";
const CHANGED: &str = "changed ";

/// A decoded message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Changed(Invalidation),
    /// A heartbeat of a node: the id of the node, and a mark that distinguishes this heartbeat from
    /// others.
    Beat(u64, u64),
    /// A malformed heartbeat.
    NoBeat,
}

/// The payload of a change: ids of keys and fingerprints, and of tenants if there are any, or
/// everything if these are too many. A version that does not know of tenants takes a payload with
/// them for everything.
pub(crate) fn changed(what: &Invalidation) -> String {
    let keys: Vec<&str> = what.keys.iter().map(KeyId::as_str).collect();
    let mut all = serde_json::json!({ "keys": keys, "known": what.known });
    if !what.tenants.is_empty() {
        all["tenants"] = what.tenants.iter().map(TenantId::as_str).collect();
    }
    let payload = format!("{CHANGED}{all}");
    if what.everything || payload.len() > MOST_BYTES {
        format!("{CHANGED}{{\"everything\":true}}")
    } else {
        payload
    }
}

/// The payload of a heartbeat.
pub(super) fn beat(node: u64, mark: u64) -> String {
    format!("{BEAT}{node:016x} {mark:016x}")
}

/// Decodes a payload.
pub(crate) fn read(payload: &str) -> Message {
    if let Some(beat) = payload.strip_prefix(BEAT) {
        return read_beat(beat).unwrap_or(Message::NoBeat);
    }
    let what = payload.strip_prefix(CHANGED).and_then(read_changed);
    Message::Changed(what.unwrap_or_else(Invalidation::everything))
}

fn read_beat(text: &str) -> Option<Message> {
    let number = |text: &str| {
        u64::from_str_radix(text, 16)
            .ok()
            .filter(|_| text.len() == 16)
    };
    let (node, mark) = text.split_once(' ')?;
    Some(Message::Beat(number(node)?, number(mark)?))
}

/// Decodes exactly the two lists, or the three.
fn read_changed(json: &str) -> Option<Invalidation> {
    let all: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).ok()?;
    let list = |name: &str| all.get(name)?.as_array();
    let tenants = all.get("tenants").map(serde_json::Value::as_array);
    if all.len() != 2 + usize::from(tenants.is_some()) {
        return None;
    }
    let mut what = Invalidation::default();
    what.keys = list("keys")?
        .iter()
        .map(|id| KeyId::new(id.as_str()?).ok())
        .collect::<Option<_>>()?;
    what.known = list("known")?
        .iter()
        .map(serde_json::Value::as_u64)
        .collect::<Option<_>>()?;
    if let Some(tenants) = tenants {
        what.tenants = tenants?
            .iter()
            .map(|id| TenantId::new(id.as_str()?).ok())
            .collect::<Option<_>>()?;
    }
    Some(what)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn keys(count: u32) -> Invalidation {
        let mut what = Invalidation::default();
        what.keys = (0..count)
            .map(|number| KeyId::new(&format!("\"key\\{number}")).unwrap())
            .collect();
        what.known = (0..u64::from(count))
            .map(|number| u64::MAX - number)
            .collect();
        what
    }

    #[test]
    fn a_change_is_read_as_it_was_written() {
        for count in [0, 1, 2, 100] {
            assert_eq!(read(&changed(&keys(count))), Message::Changed(keys(count)));
        }
        let mut tenants = keys(1);
        tenants.tenants = ["t1", "\"t\\2"].map(|id| TenantId::new(id).unwrap()).into();
        assert_eq!(read(&changed(&tenants)), Message::Changed(tenants));
        let everything = Message::Changed(Invalidation::everything());
        assert_eq!(read(&changed(&Invalidation::everything())), everything);
        assert_eq!(
            read(&changed(&keys(400))),
            everything,
            "too much for one message"
        );
        assert!((1..400).all(|count| changed(&keys(count)).len() <= MOST_BYTES));
        assert_eq!(read(&beat(7, u64::MAX)), Message::Beat(7, u64::MAX));
    }

    #[test]
    fn unknown_messages_change_everything_and_are_not_heartbeats() {
        let whole = changed(&keys(2));
        let cut = (0..whole.len()).map(|end| whole[..end].to_owned());
        let odd = [
            "",
            " ",
            "Beat 1 2",
            "changed",
            "changed {}",
            "changed []",
            "changed {\"keys\":[],\"known\":[-1]}",
        ];
        let more = [
            "changed {\"keys\":[\"\"],\"known\":[]}",
            "changed {\"keys\":[],\"known\":[],\"new\":1}",
            "changed {\"keys\":[],\"known\":[],\"tenants\":1}",
            "changed {\"keys\":[],\"known\":[],\"tenants\":[\"\"]}",
            "changed {\"keys\":[],\"known\":[],\"tenants\":[],\"new\":1}",
            "é\u{1f511}",
        ];
        for payload in cut
            .chain(odd.map(str::to_owned))
            .chain(more.map(str::to_owned))
        {
            assert_eq!(
                read(&payload),
                Message::Changed(Invalidation::everything()),
                "{payload}"
            );
        }
        for payload in [
            "beat ",
            "beat 1 2",
            "beat é",
            &format!("{}0", beat(1, 2)),
            &beat(1, 2)[..37].replace('0', "+"),
        ] {
            assert_eq!(read(payload), Message::NoBeat, "{payload}");
        }
    }
}
