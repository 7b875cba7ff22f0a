//! Key records written by newer versions. They are read as far as possible, never used, and never
//! written back with less content than they had.
//!
//! A version that adds a restriction to the record raises [`KeyRecord::UNDERSTANDS`] and writes the
//! new number into every record with such a restriction. Members never change their names, and the
//! members that identify the owner and the end of a key never change their types: a member with a
//! new meaning gets a new name. Other members may have values that are unknown here, such as a
//! further access level.

use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::record::KeyRecord;

/// The member with the format number that a program must understand to use the record.
const MEMBER: &str = "understands";

/// Set for a record that a newer version wrote.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Newer(Option<Arc<Read>>);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Read {
    understands: u64,
    /// The whole record, as read.
    json: String,
}

impl<'de> Deserialize<'de> for Newer {
    /// Rejects the number of a newer version: only [`KeyRecord::from_json`] preserves its content.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            0 => Err(serde::de::Error::custom("`understands` must be at least 1")),
            1..=KeyRecord::UNDERSTANDS => Ok(Self(None)),
            newer => Err(serde::de::Error::custom(format_args!(
                "the record requires format {newer}, but this version understands only {}",
                KeyRecord::UNDERSTANDS
            ))),
        }
    }
}

/// The members of an object, in order, each with its original text.
#[derive(Default)]
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Members, A::Error> {
                let mut members = Members::default();
                while let Some(member) = map.next_entry()? {
                    members.0.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

impl KeyRecord {
    /// The format number up to which this version understands records. A record states the number
    /// that it requires in the member `understands`; 1 if absent.
    pub const UNDERSTANDS: u64 = 1;

    /// Returns the format number that a program must understand to use this record, if it is higher
    /// than [`UNDERSTANDS`](Self::UNDERSTANDS). A newer version then wrote the record, and it may
    /// restrict the key in ways that are unknown here. The key is refused (503) and cannot be
    /// changed, but it can be revoked and disabled.
    #[must_use]
    pub fn needs(&self) -> Option<u64> {
        self.newer.0.as_ref().map(|read| read.understands)
    }

    /// Serializes the record for storage, as a JSON object. Content of a newer version that is
    /// unknown here is written back byte for byte.
    ///
    /// # Errors
    /// Returns an error for a time before 1970.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let Some(read) = &self.newer.0 else {
            return serde_json::to_string(self);
        };
        let before = serde_json::to_value(read_known_part(&read.json)?)?;
        merged(&read.json, &before, &serde_json::to_value(self)?)
    }

    /// Deserializes what [`to_json`](Self::to_json) wrote in this, an older or a newer version.
    /// Plain deserialization rejects records of newer versions.
    ///
    /// # Errors
    /// Returns an error if the text is not a record. A store must not treat this as "no such key".
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Needs {
            understands: Option<u64>,
        }
        let error = match serde_json::from_str::<Self>(json) {
            Ok(record) => return Ok(record),
            Err(error) => error,
        };
        let needs = serde_json::from_str::<Needs>(json).ok();
        let newer = needs.and_then(|needs| needs.understands);
        let Some(understands) = newer.filter(|number| *number > Self::UNDERSTANDS) else {
            return Err(error);
        };
        let mut record = read_known_part(json)?;
        record.newer = Newer(Some(Arc::new(Read {
            understands,
            json: json.to_owned(),
        })));
        Ok(record)
    }
}

/// The substitute for each member that may have a value unknown here.
const STAND_INS: [(&str, &str); 10] = [
    ("kind", r#""app""#),
    ("scopes", "[]"),
    ("access", r#""read-only""#),
    ("workspaces", "null"),
    ("plan", "null"),
    ("delegation", r#""off""#),
    ("allowed_ips", "null"),
    ("quotas", "null"),
    ("metadata", "{}"),
    ("not_before", "null"),
];

/// Reads a record without its `understands` member, with substitutes for unknown values. The result
/// is shown, revoked and written back, but never used.
fn read_known_part(json: &str) -> Result<KeyRecord, serde_json::Error> {
    let Members(mut members) = serde_json::from_str(json)?;
    members.retain(|(name, _)| name != MEMBER);
    let read = |stand_ins: &[(&str, &str)]| {
        let text = written(members.iter().map(|(name, raw)| {
            let instead = stand_ins.iter().find(|(of, _)| of == name);
            let value = instead.map_or(raw.get(), |(_, instead)| *instead);
            (name.clone(), value.to_owned())
        }))?;
        serde_json::from_str(&text)
    };
    if let Ok(record) = read(&[]) {
        return Ok(record);
    }
    let mut needed = STAND_INS.to_vec();
    let mut record = read(&needed)?;
    for of in &STAND_INS {
        let fewer: Vec<_> = needed.iter().copied().filter(|one| one != of).collect();
        if let Ok(better) = read(&fewer) {
            (needed, record) = (fewer, better);
        }
    }
    Ok(record)
}

fn written(
    members: impl IntoIterator<Item = (String, String)>,
) -> Result<String, serde_json::Error> {
    let mut json = String::from("{");
    for (name, value) in members {
        if json.len() > 1 {
            json.push(',');
        }
        json.push_str(&serde_json::to_string(&name)?);
        json.push(':');
        json.push_str(&value);
    }
    json.push('}');
    Ok(json)
}

/// Applies the changes from `before` to `now` to the original text and keeps everything else in it.
fn merged(raw: &str, before: &Value, now: &Value) -> Result<String, serde_json::Error> {
    if before == now {
        return Ok(raw.to_owned());
    }
    let (Value::Object(before), Value::Object(now)) = (before, now) else {
        return serde_json::to_string(now);
    };
    let Ok(Members(members)) = serde_json::from_str(raw) else {
        return serde_json::to_string(now);
    };
    let null = Value::Null;
    let of = |map: &Map<String, Value>, name: &str| map.get(name).cloned();
    let mut all = Vec::new();
    for (name, value) in &members {
        let (was, is) = (of(before, name), of(now, name));
        let text = match (&was, &is) {
            // Unknown here.
            (None, None) => value.get().to_owned(),
            // Known, and removed.
            (Some(_), None) => continue,
            _ => merged(
                value.get(),
                was.as_ref().unwrap_or(&null),
                is.as_ref().unwrap_or(&null),
            )?,
        };
        all.push((name.clone(), text));
    }
    for (name, value) in now {
        if members.iter().all(|(known, _)| known != name) && before.get(name) != Some(value) {
            all.push((name.clone(), serde_json::to_string(value)?));
        }
    }
    written(all)
}
